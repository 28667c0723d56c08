// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// GatherRows picks rows: x (T,D) f32, rows (R) u32 → y (R,D) f32. Each row number must be below T.
func GatherRows(_ gpu.Info, p GatherRowsParams) Dispatch {
	return Dispatch{kernel(variant{file: "gather_rows"}, gatherRowsKernel(gatherRowsTwin)), p.encode(), grid(ceil(int(p.R)*int(p.D), gatherRowsWG))}
}

func gatherRowsTwin(p GatherRowsParams, b gatherRowsBuffers) {
	D := int(p.D)
	for r := range int(p.R) {
		copy(b.Y[r*D:(r+1)*D], b.X[int(b.Rows[r])*D:])
	}
}

func (p GatherRowsParams) reach() []uint64 {
	return []uint64{uint64(p.D), words(uint64(p.R)), words(uint64(p.R), uint64(p.D))}
}

func gatherRowsCases() []Case {
	return []Case{GatherRowsCase(GatherRowsParams{R: 3, D: 65}, 7)}
}

// GatherRowsCase makes a case of GatherRows from T random rows.
func GatherRowsCase(p GatherRowsParams, T int) Case {
	rows := make([]uint32, p.R)
	for r := range rows {
		rows[r] = uint32(T-1+5*r) % uint32(T)
	}
	return Case{
		Name:     "gather_rows",
		Dispatch: func(info gpu.Info) Dispatch { return GatherRows(info, p) },
		Buffers:  [][]uint32{Random(1, T*int(p.D)), rows, make([]uint32, p.R*p.D)},
	}
}
