// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"math"
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestCrossEntropy(t *testing.T) {
	var cases []shaders.Case
	for _, V := range []uint32{1, 2, 13, 255, 256, 257, 5003} {
		cases = append(cases,
			shaders.CrossEntropyCase(shaders.CrossEntropyParams{R: 1, V: V}),
			shaders.CrossEntropyCase(shaders.CrossEntropyParams{R: 9, V: V, R0: 5}))
	}
	kerneltest.Run(t, cases)
}

func TestCrossEntropyTwin(t *testing.T) {
	const R, V, R0 = 4, 5, 1
	logits, weights := shaders.Random(1, R*V), shaders.Random(2, R0+R)
	labels := []uint32{0, 3, 0, shaders.IgnoreLabel, 4}
	y := make([]uint32, 2*(R0+R))
	x := values(logits)
	run(shaders.CrossEntropy(gpu.Info{}, shaders.CrossEntropyParams{R: R, V: V, R0: R0}), labels, weights, logits, y)
	loss := func(r int, x []float64) float64 {
		label := labels[R0+r]
		if label >= V {
			return 0
		}
		sum := 0.0
		for _, v := range x[r*V : (r+1)*V] {
			sum += math.Exp(v)
		}
		return math.Log(sum) - x[r*V+int(label)]
	}
	derivative(t, "logits", logits, x, func(x []float64) float64 {
		sum := 0.0
		for r := range R {
			sum += values(weights)[R0+r] * loss(r, x)
		}
		return sum
	})
	for r := range R {
		if got, want := values(y)[2*(R0+r)], loss(r, x); math.Abs(got-want) > 1e-6 {
			t.Errorf("y[%d] = %v, want %v", R0+r, got, want)
		}
	}
}
