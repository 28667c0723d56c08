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
				shaders.StoreRowsCase(shaders.StoreRowsParams{T: T, Width: width, SourceStride: width, TargetStride: width}),
				shaders.StoreRowsCase(shaders.StoreRowsParams{T: T, Width: width, SourceStride: 3*width + 1, SourceOffset: width, TargetStride: 2*width + 3, TargetOffset: width + 1}))
		}
	}
	kerneltest.Run(t, cases)
}

func TestStoreRowsTwin(t *testing.T) {
	d := shaders.StoreRows(gpu.Info{}, shaders.StoreRowsParams{T: 2, Width: 2, SourceStride: 3, SourceOffset: 1, TargetStride: 3})
	tokens := []uint32{8, 1, 1, 2, 9, 0, 0, 1}
	twin(t, d, 2, []float32{5, 6, 0, 0, 0, 0, 2, 3, 0}, words(1, 2, 3, 4, 5, 6), tokens, make([]uint32, 9))
}
