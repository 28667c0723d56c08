// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestVisionEmbed(t *testing.T) {
	var cases []shaders.Case
	for _, size := range [][3]uint32{{1, 1, 1}, {1, 2, 63}, {3, 5, 64}, {2, 10, 65}, {2, 50, 17}} {
		cases = append(cases, shaders.VisionEmbedCase(shaders.VisionEmbedParams{B: size[0], N: size[1], D: size[2]}))
	}
	kerneltest.Run(t, cases)
}

func TestVisionEmbedTwin(t *testing.T) {
	d := shaders.VisionEmbed(gpu.Info{}, shaders.VisionEmbedParams{B: 2, N: 3, D: 1})
	twin(t, d, 3, []float32{110, 201, 302, 110, 203, 304}, words(1, 2, 3, 4), words(10), words(100, 200, 300), make([]uint32, 6))
}
