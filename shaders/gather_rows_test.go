// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestGatherRows(t *testing.T) {
	var cases []shaders.Case
	for _, R := range []uint32{1, 2, 13} {
		for _, D := range []uint32{1, 5, 63, 64, 65, 127} {
			cases = append(cases, shaders.GatherRowsCase(shaders.GatherRowsParams{R: R, D: D}, 1), shaders.GatherRowsCase(shaders.GatherRowsParams{R: R, D: D}, 11))
		}
	}
	kerneltest.Run(t, cases)
}

func TestGatherRowsTwin(t *testing.T) {
	d := shaders.GatherRows(gpu.Info{}, shaders.GatherRowsParams{R: 2, D: 2})
	twin(t, d, 2, []float32{5, 6, 1, 2}, words(1, 2, 3, 4, 5, 6), []uint32{2, 0}, make([]uint32, 4))
}
