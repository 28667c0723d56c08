// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// Sum adds values up: x (N) f32 → y f32, to whose place At the sum is added. It is meant for some thousands of values.
func Sum(_ gpu.Info, p SumParams) Dispatch {
	return Dispatch{kernel(variant{file: "sum"}, sumKernel(sumTwin)), p.encode(), [3]int{1, 1, 1}}
}

func sumTwin(p SumParams, b sumBuffers) {
	sum := float64(b.Y[p.At])
	for _, v := range b.X[:p.N] {
		sum += float64(v)
	}
	b.Y[p.At] = float32(sum)
}

func sumCases() []Case {
	return []Case{SumCase(SumParams{N: 300, At: 1})}
}

// SumCase makes a case of Sum with random contents.
func SumCase(p SumParams) Case {
	return Case{
		Name:     "sum",
		Dispatch: func(info gpu.Info) Dispatch { return Sum(info, p) },
		Buffers:  [][]uint32{Random(1, int(p.N)), Random(2, int(p.At)+2)},
		Abs:      1e-5, Rel: 1e-5,
	}
}
