// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"math"
	"testing"

	"fromage/gpu"
	"fromage/shaders"
)

// words makes words of f32 values.
func words(values ...float32) []uint32 {
	w := make([]uint32, len(values))
	for i, v := range values {
		w[i] = math.Float32bits(v)
	}
	return w
}

// twin runs a dispatch's twin on buffers and compares what it leaves in the one at binding out with want, to 1e-6.
func twin(t *testing.T, d shaders.Dispatch, out int, want []float32, buffers ...[]uint32) {
	t.Helper()
	d.Kernel.Twin(gpu.Call{Groups: [3]uint32{uint32(d.Groups[0]), uint32(d.Groups[1]), uint32(d.Groups[2])}, Params: d.Params, Buffers: buffers})
	if len(buffers[out]) != len(want) {
		t.Fatalf("%s: have %d values, want %d", d.Kernel.Name, len(buffers[out]), len(want))
	}
	for i, w := range buffers[out] {
		if got := math.Float32frombits(w); got != want[i] && !(math.Abs(float64(got-want[i])) <= 1e-6) {
			t.Errorf("%s: %s[%d] = %v, want %v", d.Kernel.Name, d.Kernel.Labels[out], i, got, want[i])
		}
	}
}
