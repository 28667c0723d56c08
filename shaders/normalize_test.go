// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestNormalize(t *testing.T) {
	var cases []shaders.Case
	for _, T := range []uint32{1, 2, 7} {
		for _, D := range []uint32{1, 2, 63, 64, 65, 256, 1021} {
			cases = append(cases, shaders.NormalizeCase(shaders.NormalizeParams{T: T, D: D}))
		}
	}
	kerneltest.Run(t, cases)
}

func TestNormalizeTwin(t *testing.T) {
	d := shaders.Normalize(gpu.Info{}, shaders.NormalizeParams{T: 2, D: 2})
	twin(t, d, 1, []float32{0.6, -0.8, 0, 0}, words(3, -4, 0, 0), words(9, 9, 9, 9))
}
