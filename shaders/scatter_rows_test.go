// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestScatterRows(t *testing.T) {
	var cases []shaders.Case
	for _, n := range [][2]uint32{{1, 1}, {2, 1}, {7, 7}, {13, 5}, {300, 131}, {5, 0}} {
		for _, D := range []uint32{1, 63, 64, 65, 127} {
			cases = append(cases, shaders.ScatterRowsCase(shaders.ScatterRowsParams{T: n[0], R: n[1], D: D}))
		}
	}
	kerneltest.Run(t, cases)
}

func TestScatterRowsTwin(t *testing.T) {
	d := shaders.ScatterRows(gpu.Info{}, shaders.ScatterRowsParams{T: 4, R: 2, D: 2})
	twin(t, d, 2, []float32{0, 0, 1, 2, 0, 0, 3, 4}, words(1, 2, 3, 4), []uint32{1, 3}, words(9, 9, 9, 9, 9, 9, 9, 9))
}
