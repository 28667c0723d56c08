// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestLinearNorm(t *testing.T) {
	var cases []shaders.Case
	for f, K := range [...]uint32{shaders.F32: 384, shaders.F16: 384, shaders.Q8: 448, shaders.Q4: 384} {
		for _, F := range []uint32{1, 33, 2049, 9000} {
			cases = append(cases, shaders.LinearNormCase(shaders.Format(f), shaders.LinearNormParams{K: K, F: F, F0: 5, Act: F % 4, Bias: 1, Eps: 1e-5}))
		}
	}
	kerneltest.Run(t, cases)
}
