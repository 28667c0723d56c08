// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestSum(t *testing.T) {
	var cases []shaders.Case
	for _, N := range []uint32{1, 2, 255, 256, 257, 2003} {
		cases = append(cases, shaders.SumCase(shaders.SumParams{N: N}), shaders.SumCase(shaders.SumParams{N: N, At: 5}))
	}
	kerneltest.Run(t, cases)
}

func TestSumTwin(t *testing.T) {
	twin(t, shaders.Sum(gpu.Info{}, shaders.SumParams{N: 2, At: 1}), 1, []float32{10, 23}, words(1, 2, 4), words(10, 20))
}
