// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"

	"fromage/gpu"
)

// Normalize divides rows by their Euclidean norm: x (T,D) f32 → y (T,D) f32, torch's x / x.norm(dim=-1, keepdim=True). There is no epsilon;
// a row of zeros, NaN in torch, stays zero. Squares are summed in f32, so norms must lie between about 1e-18 and 1e19.
func Normalize(_ gpu.Info, p NormalizeParams) Dispatch {
	return Dispatch{kernel(variant{file: "normalize"}, normalizeKernel(normalizeTwin)), p.encode(), grid(int(p.T))}
}

func normalizeTwin(p NormalizeParams, b normalizeBuffers) {
	D := int(p.D)
	for t := range int(p.T) {
		squares := 0.0
		for _, v := range b.X[t*D : (t+1)*D] {
			squares += float64(v) * float64(v)
		}
		scale := 0.0
		if squares > 0 {
			scale = 1 / math.Sqrt(squares)
		}
		for d, v := range b.X[t*D : (t+1)*D] {
			b.Y[t*D+d] = float32(float64(v) * scale)
		}
	}
}

func (p NormalizeParams) reach() []uint64 {
	n := words(uint64(p.T), uint64(p.D))
	return []uint64{n, n}
}

func normalizeCases() []Case {
	return []Case{NormalizeCase(NormalizeParams{T: 3, D: 65})}
}

// NormalizeCase makes a case of Normalize with random contents and zeros in the last row.
func NormalizeCase(p NormalizeParams) Case {
	T, D := int(p.T), int(p.D)
	x := Random(1, T*D)
	clear(x[(T-1)*D:])
	return Case{
		Name:     "normalize",
		Dispatch: func(info gpu.Info) Dispatch { return Normalize(info, p) },
		Buffers:  [][]uint32{x, Random(2, T*D)},
		Abs:      1e-6, Rel: 1e-6,
	}
}
