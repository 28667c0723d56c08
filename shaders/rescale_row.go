// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"

	"fromage/gpu"
)

// RescaleRow gives the N values of w, f32, from place First on the Euclidean norm Norm, in place. Zeros stay zero. It is meant for one row of a
// table.
func RescaleRow(_ gpu.Info, p RescaleRowParams) Dispatch {
	return Dispatch{kernel(variant{file: "rescale_row"}, rescaleRowKernel(rescaleRowTwin)), p.encode(), [3]int{1, 1, 1}}
}

func rescaleRowTwin(p RescaleRowParams, b rescaleRowBuffers) {
	row := b.W[p.First : p.First+p.N]
	squares := 0.0
	for _, v := range row {
		squares += float64(v) * float64(v)
	}
	if squares == 0 {
		return
	}
	for i, v := range row {
		row[i] = float32(float64(v) * float64(p.Norm) / math.Sqrt(squares))
	}
}

func rescaleRowCases() []Case {
	return []Case{RescaleRowCase(RescaleRowParams{First: 65, N: 300, Norm: 2})}
}

// RescaleRowCase makes a case of RescaleRow with random contents.
func RescaleRowCase(p RescaleRowParams) Case {
	return Case{
		Name:     "rescale_row",
		Dispatch: func(info gpu.Info) Dispatch { return RescaleRow(info, p) },
		Buffers:  [][]uint32{Random(1, int(p.First+p.N)+3)},
		Abs:      1e-6, Rel: 1e-6,
	}
}
