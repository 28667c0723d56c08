// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// ScatterRows puts rows back where GatherRows took them: x (R,D) f32, index (R) u32, strictly ascending and below T → y (T,D) f32, of which
// row index[r] is x[r] and every other row zero. It is GatherRows' gradient where no row was picked twice.
func ScatterRows(_ gpu.Info, p ScatterRowsParams) Dispatch {
	return Dispatch{kernel(variant{file: "scatter_rows"}, scatterRowsKernel(scatterRowsTwin)), p.encode(), grid(int(p.T))}
}

func scatterRowsTwin(p ScatterRowsParams, b scatterRowsBuffers) {
	D := int(p.D)
	clear(b.Y[:int(p.T)*D])
	for r := range int(p.R) {
		copy(b.Y[int(b.Index[r])*D:][:D], b.X[r*D:])
	}
}

func scatterRowsCases() []Case {
	return []Case{ScatterRowsCase(ScatterRowsParams{T: 9, R: 4, D: 65})}
}

// ScatterRowsCase makes a case of ScatterRows with random contents: the rows are spread evenly, the last of them at the end.
func ScatterRowsCase(p ScatterRowsParams) Case {
	index := make([]uint32, p.R)
	for r := range index {
		index[r] = (uint32(r)+1)*p.T/p.R - 1
	}
	return Case{
		Name:     "scatter_rows",
		Dispatch: func(info gpu.Info) Dispatch { return ScatterRows(info, p) },
		Buffers:  [][]uint32{Random(1, int(p.R*p.D)), index, Random(2, int(p.T*p.D))},
	}
}
