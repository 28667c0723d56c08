// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestLayerNormBack(t *testing.T) {
	var cases []shaders.Case
	for _, D := range []uint32{1, 2, 63, 64, 65, 60, 384, 1021} {
		for _, T := range []uint32{1, 7} {
			cases = append(cases, shaders.LayerNormBackCase(shaders.LayerNormBackParams{T: T, D: D, Eps: 1e-5, Add: uint32(len(cases)) % 2}))
		}
	}
	kerneltest.Run(t, cases)
}
