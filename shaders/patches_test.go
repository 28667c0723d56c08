// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestPatches(t *testing.T) {
	var cases []shaders.Case
	for _, size := range [][3]uint32{{1, 1, 1}, {1, 7, 7}, {3, 6, 2}, {2, 42, 14}, {1, 64, 32}, {5, 13, 1}} {
		cases = append(cases, shaders.PatchesCase(shaders.PatchesParams{B: size[0], S: size[1], P: size[2]}))
	}
	kerneltest.Run(t, cases)
}

func TestPatchesTwin(t *testing.T) {
	d := shaders.Patches(gpu.Info{}, shaders.PatchesParams{B: 1, S: 4, P: 2})
	var x, want []float32
	for i := range 48 {
		x = append(x, float32(i))
	}
	// The top left pixels of the patches are 0, 2, 8 and 10; a row of pixels is 4 values, a channel 16.
	for _, corner := range []float32{0, 2, 8, 10} {
		for _, channel := range []float32{0, 16, 32} {
			c := corner + channel
			want = append(want, c, c+1, c+4, c+5)
		}
	}
	twin(t, d, 1, want, words(x...), make([]uint32, 48))
}
