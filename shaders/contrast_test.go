// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestContrast(t *testing.T) {
	var cases []shaders.Case
	for _, B := range []uint32{1, 2, 3, 63, 64, 65, 180} {
		cases = append(cases, shaders.ContrastCase(shaders.ContrastParams{B: B}))
	}
	kerneltest.Run(t, cases)
}

func TestContrastTwin(t *testing.T) {
	const ln2, ln3, ln4, ln5 = 0.6931472, 1.0986123, 1.3862944, 1.6094379
	d := shaders.Contrast(gpu.Info{}, shaders.ContrastParams{B: 2})
	twin(t, d, 1, []float32{
		ln4, ln4, 1, 0, // row (0, ln 3)
		ln3, ln3 - ln2, 0, 0, // row (0, ln 2)
		ln2, ln2, 0, 0, // column (0, 0)
		ln5, ln5 - ln2, 1, 0, // column (ln 3, ln 2)
	}, words(0, ln3, 0, ln2), make([]uint32, 16))
}
