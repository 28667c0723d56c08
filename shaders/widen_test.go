// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestWiden(t *testing.T) {
	var cases []shaders.Case
	for _, n := range []uint32{4, 252, 256, 1028} {
		cases = append(cases, shaders.WidenCase(shaders.WidenParams{N: n}))
	}
	kerneltest.Run(t, cases)
}

func TestWidenTwin(t *testing.T) {
	d := shaders.Widen(gpu.Info{}, shaders.WidenParams{N: 4})
	twin(t, d, 1, []float32{1, -2, 65504, 0.5}, []uint32{0xc0003c00, 0x38007bff}, make([]uint32, 4))
}
