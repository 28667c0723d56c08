// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"math"
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

// TestNextToken runs the kernel over logits with NaN, infinities, equal values and [RET] in every state.
func TestNextToken(t *testing.T) {
	nan, inf := math.Float32bits(float32(math.NaN())), math.Float32bits(float32(math.Inf(1)))
	one, two, half := math.Float32bits(1), math.Float32bits(2), math.Float32bits(0.5)
	var cases []shaders.Case
	for _, c := range []struct {
		logits  []uint32
		control []uint32
		want    uint32
	}{
		{[]uint32{one, two, two, one}, shaders.NextTokenControl(0, -1, 1), 1},
		{[]uint32{nan, one, half, nan}, shaders.NextTokenControl(0, -1, 1), 1},
		{[]uint32{nan, nan, nan, nan}, shaders.NextTokenControl(0, -1, 1), 0},
		{[]uint32{one, half, inf, inf}, shaders.NextTokenControl(0, -1, 1), 2},
		{[]uint32{inf | 1<<31, inf | 1<<31, inf | 1<<31, inf | 1<<31}, shaders.NextTokenControl(0, 0, 1), 0},
		{[]uint32{one, two, half, one}, shaders.NextTokenControl(1, 1, 1), 0},
		{[]uint32{one, two, half, one}, shaders.NextTokenControl(0, 1, 0.25), 0},
		{[]uint32{one, two, one, one}, shaders.NextTokenControl(0, 3, 3), 3},
		{[]uint32{1 << 31, 0, 1 << 31, 0}, shaders.NextTokenControl(0, -1, 1), 0},
	} {
		k := shaders.NextTokenCase(shaders.NextTokenParams{V: 4}, 1, c.control)
		k.Buffers[0] = c.logits
		cases = append(cases, k)
		control := append([]uint32(nil), k.Buffers[1]...)
		d := k.Dispatch(gpu.Info{})
		d.Kernel.Twin(gpu.Call{Groups: [3]uint32{1, 1, 1}, Params: d.Params, Buffers: [][]uint32{c.logits, control, append([]uint32(nil), k.Buffers[2]...), {0}}})
		if control[0] != 1 || control[shaders.NextTokenHead] != c.want {
			t.Errorf("the token after %v with %v = %d, want %d", c.logits, c.control, control[shaders.NextTokenHead], c.want)
		}
	}
	full := shaders.NextTokenCase(shaders.NextTokenParams{V: 9000, Row: 4}, 5, shaders.NextTokenControl(0, 7, 2))
	full.Buffers[1][0] = 3 // no room for another
	kerneltest.Run(t, append(cases, full, shaders.NextTokenCase(shaders.NextTokenParams{V: 50273}, 1, shaders.NextTokenControl(9, 11, 1e9))))
}
