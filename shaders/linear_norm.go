// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// linearNormMost is the longest token whose moments each workgroup takes anew more cheaply than a dispatch of layer_norm takes them once.
const linearNormMost = 2048

// LinearNorms says whether LinearNorm is worth its while on a device: for one token of K values, where a dispatch costs more than what workgroups
// compute repeatedly. Where a CPU does the work they compute too much.
func LinearNorms(info gpu.Info, T, K int) bool {
	return !info.Software && T == 1 && K%4 == 0 && K <= linearNormMost
}

// LinearNorm is LayerNorm and Linear in one, for one token: x, gain and shift (K) f32, w (F,K) in format, bias f32 → values F0 to F0+F of y f32,
//
//	y[F0+f] = act(Σ_k n[k]·w[f,k] + bias[F0+f]), n = (x − mean) / sqrt(variance + Eps) · gain + shift.
//
// The format must fit K, a multiple of 4. Bias is read only where p.Bias is 1.
func LinearNorm(info gpu.Info, format Format, p LinearNormParams) Dispatch {
	v, rows := linearLanes(info, format, int(p.F), "linear_norm", "")
	k := linearNormInterface()
	if withReach {
		k.Reach = func(b []byte) []uint64 { return decodeLinearNormParams(b).reachIn(format) }
	}
	if withTwins {
		k.Twin, k.Fast = linearNormCall(linearNormBy(format, linearTwin)), linearNormCall(linearNormBy(format, linearFast))
	}
	return Dispatch{kernel(v, k), p.encode(), grid(ceil(int(p.F), rows))}
}

// linearNormBy is LayerNorm, then a linear layer.
func linearNormBy(format Format, linear func(Format, LinearParams, linearBuffers)) func(LinearNormParams, linearNormBuffers) {
	return func(p LinearNormParams, b linearNormBuffers) {
		K := int(p.K)
		x := make([]float32, K)
		layerNormRows(LayerNormParams{T: 1, D: p.K, Eps: p.Eps}, layerNormBuffers{X: b.X[:K], Weight: b.Gain[:K], Bias: b.Shift[:K], Y: x}, 0, 1)
		linear(format, LinearParams{T: 1, K: p.K, F: p.F, F0: p.F0, Stride: p.F0 + p.F, Act: p.Act, Bias: p.Bias}, linearBuffers{X: x, W: b.W, S: b.S, Bias: b.Bias, Y: b.Y})
	}
}

func (p LinearNormParams) reachIn(f Format) []uint64 {
	if !f.Fits(int(p.K)) || p.K%4 != 0 {
		return nil
	}
	K, end := uint64(p.K), uint64(p.F0)+uint64(p.F)
	w, s := f.words(p.F, p.K)
	return []uint64{K, K, K, w, s, where(p.Bias, end), end}
}

func linearNormCases() []Case {
	var cases []Case
	for f, K := range [...]uint32{F32: 52, F16: 104, Q8: 128, Q4: 96} {
		for i, F := range []uint32{7, 2050, 8195} {
			cases = append(cases, LinearNormCase(Format(f), LinearNormParams{K: K, F: F, F0: 3, Act: uint32(f+i) % 4, Bias: uint32(i+1) % 2, Eps: 1e-5}))
		}
	}
	return cases
}

// LinearNormCase makes a case of LinearNorm with random contents; x is off centre, and the gain is scaled so that sums are about 1.
func LinearNormCase(f Format, p LinearNormParams) Case {
	c := LinearCase(f, LinearParams{T: 1, K: p.K, F: p.F, F0: p.F0, Stride: p.F0 + p.F, Bias: p.Bias})
	x := floats(Random(6, int(p.K)))
	for i := range x {
		x[i] = 3*x[i] + 1
	}
	return Case{
		Name:     "linear_norm",
		Dispatch: func(info gpu.Info) Dispatch { return LinearNorm(info, f, p) },
		Buffers:  [][]uint32{wordsOf(x), c.Buffers[0], c.Buffers[0], c.Buffers[1], c.Buffers[2], c.Buffers[3], c.Buffers[5]},
		Abs:      2e-5, Rel: 2e-5,
	}
}
