// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestNLL(t *testing.T) {
	var cases []shaders.Case
	for _, R := range []uint32{1, 9} {
		for _, V := range []uint32{1, 2, 13, 255, 256, 257, 5003} {
			cases = append(cases, shaders.NLLCase(shaders.NLLParams{R: R, V: V}))
		}
	}
	kerneltest.Run(t, cases)
}

func TestNLLTwin(t *testing.T) {
	const ln2, ln5 = 0.6931472, 1.6094379
	d := shaders.NLL(gpu.Info{}, shaders.NLLParams{R: 6, V: 3})
	logits := words(
		0, ln2, ln2,
		0, ln2, ln2,
		1000, 1000, 1001,
		-1e30, 7, -1e30,
		1, 2, 3,
		1, 2, 3)
	want := []float32{
		ln5 - ln2, 0, // the first of two best
		ln5 - ln2, 1, // the second
		1.5514447, 1, // ln(2 + e)
		0, 0,
		0, 0,
		0, 0,
	}
	twin(t, d, 2, want, logits, []uint32{1, 2, 0, 1, shaders.IgnoreLabel, 3}, words(make([]float32, 12)...))
}
