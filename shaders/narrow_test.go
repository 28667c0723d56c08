// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestNarrow(t *testing.T) {
	var cases []shaders.Case
	for _, n := range []uint32{4, 252, 256, 1028} {
		cases = append(cases, shaders.NarrowCase(shaders.NarrowParams{N: n}))
	}
	kerneltest.Run(t, cases)
}

func TestNarrowTwin(t *testing.T) {
	d := shaders.Narrow(gpu.Info{}, shaders.NarrowParams{N: 4})
	y := []uint32{0, 0}
	d.Kernel.Twin(gpu.Call{Params: d.Params, Buffers: [][]uint32{words(1, -2, 1e6, 0.5), y}})
	if y[0] != 0xc0003c00 || y[1] != 0x38007bff {
		t.Errorf("narrow = %08x, want 1, -2 and 65504, 0.5", y)
	}
}
