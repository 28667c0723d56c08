// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// CopyRows copies N values: x f32 from place p.From on → y f32 from place p.To on. Everything else in y stays as it is.
func CopyRows(_ gpu.Info, p CopyRowsParams) Dispatch {
	return Dispatch{kernel(variant{file: "copy_rows"}, copyRowsKernel(copyRowsTwin)), p.encode(), grid(ceil(int(p.N), copyRowsWG))}
}

func copyRowsTwin(p CopyRowsParams, b copyRowsBuffers) {
	copy(b.Y[p.To:p.To+p.N], b.X[p.From:])
}

func copyRowsCases() []Case {
	return []Case{CopyRowsCase(CopyRowsParams{N: 65, From: 3, To: 2})}
}

// CopyRowsCase makes a case of CopyRows with random contents and values around those copied.
func CopyRowsCase(p CopyRowsParams) Case {
	return Case{
		Name:     "copy_rows",
		Dispatch: func(info gpu.Info) Dispatch { return CopyRows(info, p) },
		Buffers:  [][]uint32{Random(1, int(p.From+p.N+5)), Random(2, int(p.To+p.N+5))},
	}
}
