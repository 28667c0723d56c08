// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"math"
	"testing"

	"fromage/gpu"
	"fromage/shaders"
)

// run runs a dispatch's twin on buffers.
func run(d shaders.Dispatch, buffers ...[]uint32) {
	d.Kernel.Twin(gpu.Call{Groups: [3]uint32{uint32(d.Groups[0]), uint32(d.Groups[1]), uint32(d.Groups[2])}, Params: d.Params, Buffers: buffers})
}

// values is the contents of a buffer of f32 in float64.
func values(words []uint32) []float64 {
	x := make([]float64, len(words))
	for i, w := range words {
		x[i] = float64(math.Float32frombits(w))
	}
	return x
}

// derivative compares got, the gradient of f at x that a twin computed, with central differences.
func derivative(t *testing.T, name string, got []uint32, x []float64, f func(x []float64) float64) {
	t.Helper()
	const h = 1e-5
	if len(got) != len(x) {
		t.Fatalf("%s: have %d derivatives, want %d", name, len(got), len(x))
	}
	for i, g := range values(got) {
		at := x[i]
		x[i] = at + h
		up := f(x)
		x[i] = at - h
		want := (up - f(x)) / (2 * h)
		x[i] = at
		if !(math.Abs(g-want) <= 1e-6+1e-6*math.Abs(want)) {
			t.Errorf("%s[%d] = %v, want %v", name, i, g, want)
		}
	}
}

// dot is the scalar product.
func dot(a, b []float64) float64 {
	sum := 0.0
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}
