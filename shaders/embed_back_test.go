// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestEmbedBack(t *testing.T) {
	var cases []shaders.Case
	for _, T := range []uint32{1, 7, 8, 9, 259} {
		for _, K := range []uint32{1, 31, 32, 33, 127} {
			cases = append(cases,
				shaders.EmbedBackCase(shaders.EmbedBackParams{T: T, K: K, Rows: 1, First: 8}),
				shaders.EmbedBackCase(shaders.EmbedBackParams{T: T, K: K, Rows: 3, First: 2, Column: 1}))
		}
	}
	kerneltest.Run(t, cases)
}

func TestEmbedBackTwin(t *testing.T) {
	d := shaders.EmbedBack(gpu.Info{}, shaders.EmbedBackParams{T: 3, K: 2, Rows: 2, First: 5})
	tokens := []uint32{6, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0}
	twin(t, d, 2, []float32{10, 20, 36, 48}, tokens, words(1, 2, 3, 4, 5, 6), words(10, 20, 30, 40))
}
