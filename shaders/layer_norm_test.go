// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestLayerNorm(t *testing.T) {
	var cases []shaders.Case
	for _, D := range []uint32{1, 2, 63, 64, 65, 60, 384, 1021} {
		for _, T := range []uint32{1, 7} {
			cases = append(cases, shaders.LayerNormCase(shaders.LayerNormParams{T: T, D: D, Eps: 1e-5}))
		}
	}
	kerneltest.Run(t, cases)
}
