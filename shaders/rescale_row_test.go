// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestRescaleRow(t *testing.T) {
	var cases []shaders.Case
	for _, N := range []uint32{1, 2, 255, 256, 257, 2003} {
		cases = append(cases, shaders.RescaleRowCase(shaders.RescaleRowParams{N: N, Norm: 0.7}), shaders.RescaleRowCase(shaders.RescaleRowParams{First: 5, N: N, Norm: 30}))
	}
	kerneltest.Run(t, cases)
}

func TestRescaleRowTwin(t *testing.T) {
	twin(t, shaders.RescaleRow(gpu.Info{}, shaders.RescaleRowParams{First: 1, N: 2, Norm: 10}), 0, []float32{9, 6, -8, 9}, words(9, 3, -4, 9))
	twin(t, shaders.RescaleRow(gpu.Info{}, shaders.RescaleRowParams{N: 2, Norm: 10}), 0, []float32{0, 0}, words(0, 0))
}
