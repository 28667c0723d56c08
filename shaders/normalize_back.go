// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"

	"fromage/gpu"
)

// NormalizeBack is Normalize's gradient: x (T,D), dy (T,D) → dx (T,D), all f32. A row of zeros gets zeros.
func NormalizeBack(_ gpu.Info, p NormalizeBackParams) Dispatch {
	return Dispatch{kernel(variant{file: "normalize_back"}, normalizeBackKernel(normalizeBackTwin)), p.encode(), grid(int(p.T))}
}

func normalizeBackTwin(p NormalizeBackParams, b normalizeBackBuffers) {
	D := int(p.D)
	for t := range int(p.T) {
		x, dy, dx := b.X[t*D:(t+1)*D], b.Dy[t*D:(t+1)*D], b.Dx[t*D:(t+1)*D]
		squares, product := 0.0, 0.0
		for d, v := range x {
			squares += float64(v) * float64(v)
			product += float64(v) * float64(dy[d])
		}
		if squares == 0 {
			clear(dx)
			continue
		}
		for d, v := range x {
			dx[d] = float32((float64(dy[d]) - product/squares*float64(v)) / math.Sqrt(squares))
		}
	}
}

func normalizeBackCases() []Case {
	return []Case{NormalizeBackCase(NormalizeBackParams{T: 3, D: 65})}
}

// NormalizeBackCase makes a case of NormalizeBack with random contents and zeros in the last row of several.
func NormalizeBackCase(p NormalizeBackParams) Case {
	T, D := int(p.T), int(p.D)
	x := Random(1, T*D)
	if T > 1 {
		clear(x[(T-1)*D:])
	}
	return Case{
		Name:     "normalize_back",
		Dispatch: func(info gpu.Info) Dispatch { return NormalizeBack(info, p) },
		Buffers:  [][]uint32{x, Random(2, T*D), Random(3, T*D)},
		Abs:      1e-5, Rel: 1e-5,
	}
}
