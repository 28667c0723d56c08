// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// EmbedBack adds the gradient of Rows rows of an embedding table, from row First on: tokens (T,4) u32, dx (T,K) f32 → dtable (Rows,K) f32,
// to whose row the gradients of all tokens with that row's number are added. It is meant for a few rows.
func EmbedBack(_ gpu.Info, p EmbedBackParams) Dispatch {
	groups := int(p.Rows) * ceil(int(p.K), embedBackCOLUMNS)
	return Dispatch{kernel(variant{file: "embed_back"}, embedBackKernel(embedBackTwin)), p.encode(), grid(groups)}
}

func embedBackTwin(p EmbedBackParams, b embedBackBuffers) {
	K := int(p.K)
	sums := make([]float64, int(p.Rows)*K)
	for t := range int(p.T) {
		row := b.Tokens[4*t+int(p.Column)] - p.First
		if row >= p.Rows {
			continue
		}
		for k, v := range b.Dx[t*K : (t+1)*K] {
			sums[int(row)*K+k] += float64(v)
		}
	}
	for i, v := range sums {
		b.Dtable[i] = float32(float64(b.Dtable[i]) + v)
	}
}

func embedBackCases() []Case {
	return []Case{EmbedBackCase(EmbedBackParams{T: 23, K: 65, Rows: 2, First: 7})}
}

// EmbedBackCase makes a case of EmbedBack with random contents; token numbers run from 0 to 8.
func EmbedBackCase(p EmbedBackParams) Case {
	tokens := make([]uint32, 4*p.T)
	for i := range tokens {
		tokens[i] = uint32(i*5+i/4) % 9
	}
	return Case{
		Name:     "embed_back",
		Dispatch: func(info gpu.Info) Dispatch { return EmbedBack(info, p) },
		Buffers:  [][]uint32{tokens, Random(1, int(p.T*p.K)), Random(2, int(p.Rows*p.K))},
		Abs:      1e-5, Rel: 1e-5,
	}
}
