// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestSquareSums(t *testing.T) {
	const block = 131072
	var cases []shaders.Case
	for _, N := range []uint32{1, 2, 255, 256, 257, 1023, 1024, 1025, block - 1, block, block + 1, 3*block + 7} {
		cases = append(cases, shaders.SquareSumsCase(shaders.SquareSumsParams{N: N}), shaders.SquareSumsCase(shaders.SquareSumsParams{First: 77, N: N, At: 5}))
	}
	kerneltest.Run(t, cases)
}

func TestSquareSumsTwin(t *testing.T) {
	twin(t, shaders.SquareSums(gpu.Info{}, shaders.SquareSumsParams{First: 1, N: 2, At: 1}), 1, []float32{9, 25, 9}, words(1, 3, 4, 5), words(9, 9, 9))
}
