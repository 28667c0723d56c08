// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// Embed looks rows of a table in format f up: tokens (T,4) u32, table (Rows,K) → y (T,K) f32, plus x (T,K) f32 where p.Add is 1.
// It is torch's nn.Embedding over one shard of the table; rows of y whose number is not in the shard are left alone.
func Embed(_ gpu.Info, f Format, p EmbedParams) Dispatch {
	k := embedInterface()
	if withReach {
		k.Reach = func(b []byte) []uint64 { return decodeEmbedParams(b).reachIn(f) }
	}
	if withTwins {
		k.Twin = embedCall(func(p EmbedParams, b embedBuffers) { embedTwin(f, p, b) })
	}
	return Dispatch{kernel(variant{file: "embed", imports: f.imports()}, k), p.encode(), grid(ceil(int(p.T)*int(p.K), embedWG))}
}

func embedTwin(f Format, p EmbedParams, b embedBuffers) {
	K := int(p.K)
	row := make([]float32, K)
	for t := range int(p.T) {
		r := b.Tokens[4*t+int(p.Column)] + p.Offset - p.First
		if r >= p.Rows {
			continue
		}
		f.decodeRow(b.W, b.S, int(r), row)
		y := b.Y[t*K : (t+1)*K]
		copy(y, row)
		if p.Add == 1 {
			for k, v := range b.X[t*K : (t+1)*K] {
				y[k] += v
			}
		}
	}
}

func (p EmbedParams) reachIn(f Format) []uint64 {
	if !f.Fits(int(p.K)) || p.Column > 3 {
		return nil
	}
	T, n := uint64(p.T), words(uint64(p.T), uint64(p.K))
	w, s := f.words(p.Rows, p.K)
	return []uint64{words(T, 4), w, s, where(p.Add, n), n}
}

func embedCases() []Case {
	var cases []Case
	for f, K := range map[Format]int{F32: 5, F16: 24, Q8: 64, Q4: 96} {
		cases = append(cases, EmbedCase(f, EmbedParams{T: 7, K: uint32(K), Rows: 5, First: 2, Column: 0}), EmbedCase(f, EmbedParams{T: 7, K: uint32(K), Rows: 9, Offset: 2, Column: 1, Add: 1}))
	}
	return cases
}

// EmbedCase makes a case of Embed with random contents; token numbers run from 0 to 8, so that some lie outside a smaller shard.
func EmbedCase(f Format, p EmbedParams) Case {
	T, K := int(p.T), int(p.K)
	tokens := make([]uint32, 4*T)
	for i := range tokens {
		tokens[i] = uint32(i*5) % 9
	}
	w, s := RandomWeight(1, f, int(p.Rows), K)
	return Case{
		Name:     "embed",
		Dispatch: func(info gpu.Info) Dispatch { return Embed(info, f, p) },
		Buffers:  [][]uint32{tokens, w, s, Random(2, T*K), Random(3, T*K)},
		Abs:      1e-6, Rel: 1e-6,
	}
}
