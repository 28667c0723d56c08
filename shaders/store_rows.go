// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// StoreRows copies Width columns of each token's row to the token's place in its sequence: x (T,SourceStride) f32, tokens (T,4) u32
// → row first+position of y (rows,TargetStride) in format kept. Everything else in y stays as it is.
func StoreRows(_ gpu.Info, kept Format, p StoreRowsParams) Dispatch {
	sizes := []uint32{p.Width, p.SourceStride, p.SourceOffset, p.TargetStride, p.TargetOffset}
	v, values := variant{file: "store_rows"}, int(p.T)*int(p.Width)
	if fours(sizes...) {
		v.file, v.text = "store_rows_four", storeRowsFourText
		values /= 4
	}
	k := storeRowsInterface()
	if withTwins {
		k.Twin = storeRowsCall(func(p StoreRowsParams, b storeRowsBuffers) { storeRowsTwin(kept, p, b) })
	}
	return Dispatch{kernel(v.keeping(kept, sizes...), keptIn(kept, 2, k)), p.encode(), grid(ceil(values, storeRowsWG))}
}

func storeRowsTwin(kept Format, p StoreRowsParams, b storeRowsBuffers) {
	for t := range int(p.T) {
		row := int(b.Tokens[4*t+2] + b.Tokens[4*t+1])
		kept.keep(b.Y, row*int(p.TargetStride)+int(p.TargetOffset), b.X[t*int(p.SourceStride)+int(p.SourceOffset):][:p.Width])
	}
}

func (p StoreRowsParams) reach() []uint64 {
	T, width := uint64(p.T), uint64(p.Width)
	return []uint64{words(T, max(uint64(p.SourceStride), uint64(p.SourceOffset)+width)), words(T, 4), uint64(p.TargetOffset) + width}
}

func storeRowsCases() []Case {
	return []Case{
		StoreRowsCase(F32, StoreRowsParams{T: 5, Width: 13, SourceStride: 39, SourceOffset: 26, TargetStride: 26, TargetOffset: 13}),
		StoreRowsCase(F32, StoreRowsParams{T: 5, Width: 12, SourceStride: 36, SourceOffset: 24, TargetStride: 24, TargetOffset: 12}),
		StoreRowsCase(F16, StoreRowsParams{T: 5, Width: 12, SourceStride: 36, SourceOffset: 24, TargetStride: 24, TargetOffset: 12}),
	}
}

// StoreRowsCase makes a case of StoreRows with random contents; the tokens belong to two sequences and come in reverse.
func StoreRowsCase(kept Format, p StoreRowsParams) Case {
	T := int(p.T)
	tokens := make([]uint32, 0, 4*T)
	for t := range uint32(T) {
		row := p.T - t // rows T … 1, of which the first half is the first sequence
		first := uint32(1)
		if row > p.T/2 {
			first = p.T/2 + 1
		}
		tokens = append(tokens, t, row-first, first, row-first+1)
	}
	c := Case{
		Name:     "store_rows",
		Dispatch: func(info gpu.Info) Dispatch { return StoreRows(info, kept, p) },
		Buffers:  [][]uint32{Random(1, T*int(p.SourceStride)), tokens, kept.random(2, (T+2)*int(p.TargetStride))},
	}
	if kept == F16 { // a device may round to either neighbour
		c.F16, c.Abs, c.Rel = 2, 6e-8, 1e-3
	}
	return c
}
