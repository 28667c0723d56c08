// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestCopyRows(t *testing.T) {
	var cases []shaders.Case
	for _, N := range []uint32{1, 63, 64, 65, 1021} {
		for _, place := range [][2]uint32{{0, 0}, {7, 0}, {0, 5}, {66, 67}} {
			cases = append(cases, shaders.CopyRowsCase(shaders.CopyRowsParams{N: N, From: place[0], To: place[1]}))
		}
	}
	kerneltest.Run(t, cases)
}

func TestCopyRowsTwin(t *testing.T) {
	d := shaders.CopyRows(gpu.Info{}, shaders.CopyRowsParams{N: 2, From: 1, To: 2})
	twin(t, d, 1, []float32{9, 9, 2, 3, 9}, words(1, 2, 3, 4), words(9, 9, 9, 9, 9))
}
