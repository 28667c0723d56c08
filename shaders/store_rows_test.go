// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestStoreRows(t *testing.T) {
	var cases []shaders.Case
	for _, T := range []uint32{1, 2, 13} {
		for _, width := range []uint32{1, 5, 63, 64, 65, 127} {
			cases = append(cases,
				shaders.StoreRowsCase(shaders.F32, shaders.StoreRowsParams{T: T, Width: width, SourceStride: width, TargetStride: width}),
				shaders.StoreRowsCase(shaders.F32, shaders.StoreRowsParams{T: T, Width: width, SourceStride: 3*width + 1, SourceOffset: width, TargetStride: 2*width + 3, TargetOffset: width + 1}))
		}
	}
	for _, kept := range []shaders.Format{shaders.F32, shaders.F16} {
		for _, width := range []uint32{4, 60, 128, 260} {
			cases = append(cases,
				shaders.StoreRowsCase(kept, shaders.StoreRowsParams{T: 13, Width: width, SourceStride: width, TargetStride: width}),
				shaders.StoreRowsCase(kept, shaders.StoreRowsParams{T: 2, Width: width, SourceStride: 3 * width, SourceOffset: width, TargetStride: 2*width + 4, TargetOffset: width + 4}))
		}
		// What f16 cannot hold, and what it holds in fewer digits.
		wild := shaders.StoreRowsCase(kept, shaders.StoreRowsParams{T: 1, Width: 8, SourceStride: 8, TargetStride: 8})
		copy(wild.Buffers[0], words(1e9, -7e4, 65504, 3e-7, -1e-9, 0, 2049, 1/3.0))
		cases = append(cases, wild)
	}
	kerneltest.Run(t, cases)
}

func TestStoreRowsTwin(t *testing.T) {
	d := shaders.StoreRows(gpu.Info{}, shaders.F32, shaders.StoreRowsParams{T: 2, Width: 2, SourceStride: 3, SourceOffset: 1, TargetStride: 3})
	tokens := []uint32{8, 1, 1, 2, 9, 0, 0, 1}
	twin(t, d, 2, []float32{5, 6, 0, 0, 0, 0, 2, 3, 0}, words(1, 2, 3, 4, 5, 6), tokens, make([]uint32, 9))
}
