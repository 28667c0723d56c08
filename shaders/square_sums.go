// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// SquareSums sums squares: g f32, of which the N values from place First on → y f32, of which the p.Sums() values from place At on get the sums
// over blocks. Together they are the square of the values' norm; AdamW adds them up.
func SquareSums(_ gpu.Info, p SquareSumsParams) Dispatch {
	return Dispatch{kernel(variant{file: "square_sums"}, squareSumsKernel(squareSumsTwin)), p.encode(), grid(p.Sums())}
}

// Sums returns how many values SquareSums writes: more than one only where one workgroup would take long.
func (p SquareSumsParams) Sums() int { return ceil(int(p.N), squareSumsBLOCK) }

func squareSumsTwin(p SquareSumsParams, b squareSumsBuffers) {
	g := b.G[p.First : p.First+p.N]
	for n := range p.Sums() {
		sum := 0.0
		for _, v := range g[n*squareSumsBLOCK : min(len(g), (n+1)*squareSumsBLOCK)] {
			sum += float64(v) * float64(v)
		}
		b.Y[int(p.At)+n] = float32(sum)
	}
}

func squareSumsCases() []Case {
	return []Case{SquareSumsCase(SquareSumsParams{First: 3, N: squareSumsBLOCK + 1021, At: 1})}
}

// SquareSumsCase makes a case of SquareSums with random contents.
func SquareSumsCase(p SquareSumsParams) Case {
	return Case{
		Name:     "square_sums",
		Dispatch: func(info gpu.Info) Dispatch { return SquareSums(info, p) },
		Buffers:  [][]uint32{Random(1, int(p.First+p.N)+3), Random(2, int(p.At)+p.Sums()+2)},
		Abs:      1e-6, Rel: 1e-5,
	}
}
