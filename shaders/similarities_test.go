// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestSimilarities(t *testing.T) {
	var cases []shaders.Case
	for _, B := range []uint32{1, 2, 3, 4, 5, 31, 32, 33, 67} {
		for _, S := range []uint32{1, 3, 64, 257} {
			cases = append(cases, shaders.SimilaritiesCase(shaders.SimilaritiesParams{B: B, S: S}))
		}
	}
	kerneltest.Run(t, cases)
}

func TestSimilaritiesTwin(t *testing.T) {
	const ln2 = 0.6931472
	d := shaders.Similarities(gpu.Info{}, shaders.SimilaritiesParams{B: 2, S: 2})
	twin(t, d, 3, []float32{2, 4, 6, 14}, words(1, 0, 1, 2), words(1, 1, 2, 2.5), words(ln2), words(9, 9, 9, 9))
}
