// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestEmbed(t *testing.T) {
	var cases []shaders.Case
	for _, size := range []struct {
		f    shaders.Format
		T, K uint32
	}{{shaders.F32, 1, 1}, {shaders.F32, 13, 117}, {shaders.F16, 3, 8}, {shaders.F16, 64, 120}, {shaders.Q8, 65, 192}, {shaders.Q4, 5, 32}, {shaders.Q4, 63, 160}} {
		cases = append(cases,
			shaders.EmbedCase(size.f, shaders.EmbedParams{T: size.T, K: size.K, Rows: 4, First: 3}),
			shaders.EmbedCase(size.f, shaders.EmbedParams{T: size.T, K: size.K, Rows: 11, Offset: 2, Column: 1, Add: 1}))
	}
	kerneltest.Run(t, cases)
}
