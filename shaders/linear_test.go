// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"testing"

	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestLinear(t *testing.T) {
	var cases []shaders.Case
	add := func(f shaders.Format, T, K, F, F0, stride uint32) {
		n := uint32(len(cases))
		cases = append(cases, shaders.LinearCase(f, shaders.LinearParams{T: T, K: K, F: F, F0: F0, Stride: stride, Act: n % 4, Bias: n / 4 % 2, Residual: n % 3 % 2}))
	}
	for _, size := range []struct {
		f                shaders.Format
		K, F, F0, stride uint32
	}{
		{shaders.F32, 1, 1, 0, 1}, {shaders.F32, 7, 3, 2, 6}, {shaders.F32, 4, 1, 0, 1}, {shaders.F32, 132, 67, 1, 70},
		{shaders.F16, 8, 5, 0, 8}, {shaders.F16, 264, 63, 1, 64},
		{shaders.Q8, 64, 64, 0, 64}, {shaders.Q8, 576, 65, 3, 70},
		{shaders.Q4, 32, 31, 0, 31}, {shaders.Q4, 1056, 66, 7, 73},
	} {
		for _, T := range []uint32{1, 2, 5, 9, 17, 64, 65, 131} {
			add(size.f, T, size.K, size.F, size.F0, size.stride)
		}
	}
	// Several features a workgroup, and large tiles.
	for f, K := range [...]uint32{shaders.F32: 36, shaders.F16: 40, shaders.Q8: 64, shaders.Q4: 96} {
		add(shaders.Format(f), 1, K, 2049, 0, 2049)
		add(shaders.Format(f), 3, K, 8195, 1, 8200)
		add(shaders.Format(f), 11, K, 8194, 0, 8194)
		add(shaders.Format(f), 130, K, 3071, 2, 3073)
	}
	// Several blocks of the CPU's product in every direction.
	add(shaders.F32, 245, 516, 261, 1, 263)
	add(shaders.Q8, 481, 320, 70, 0, 70)
	// More workgroups than one dimension may have.
	add(shaders.F32, 1, 4, 65537*4+1, 0, 65537*4+1)
	add(shaders.F32, 2, 1, 65537*32+1, 0, 65537*32+1)
	kerneltest.Run(t, cases)
}

// TestLinearByHand holds the twin, which all devices are compared with, to values worked out by hand.
func TestLinearByHand(t *testing.T) {
	word := math.Float32bits
	for _, c := range []struct {
		act            uint32
		bias, residual uint32
		want           [6]float32 // rows of 3, of which columns 1 and 2 are written
	}{
		{shaders.ActNone, 0, 0, [6]float32{9, 4, -1, 9, 10, -1}},
		{shaders.ActReLU, 0, 0, [6]float32{9, 4, 0, 9, 10, 0}},
		{shaders.ActNone, 1, 0, [6]float32{9, 4.5, 1, 9, 10.5, 1}},
		{shaders.ActReLU, 0, 1, [6]float32{9, 104, 200, 9, 410, 500}},
		{shaders.ActQuickGELU, 0, 0, [6]float32{9, 3.9955852, -0.15420423, 9, 10, -0.15420423}},
		{shaders.ActGELU, 0, 0, [6]float32{9, 3.9998733, -0.15865526, 9, 10, -0.15865526}},
	} {
		p := shaders.LinearParams{T: 2, K: 2, F: 2, F0: 1, Stride: 3, Act: c.act, Bias: c.bias, Residual: c.residual}
		y := []uint32{word(9), 0, 0, word(9), 0, 0}
		buffers := [][]uint32{
			{word(1), word(2), word(3), word(4)},  // x
			{word(2), word(1), word(1), word(-1)}, // w
			{0},
			{word(7), word(0.5), word(2)},
			{0, word(100), word(200), 0, word(400), word(500)},
			y,
		}
		d := shaders.Linear(gpu.Info{Software: true}, shaders.F32, p)
		d.Kernel.Twin(gpu.Call{Params: d.Params, Buffers: buffers})
		for i, want := range c.want {
			if got := math.Float32frombits(y[i]); math.Abs(float64(got-want)) > 1e-6 {
				t.Errorf("Linear(%+v)[%d] = %g, want %g", p, i, got, want)
			}
		}
	}
}

// TestLinearShort gives the CPU a weight matrix that is too small: the device must answer with an error.
func TestLinearShort(t *testing.T) {
	for _, dev := range []gpu.Device{cpu.New(), cpu.Twins()} {
		for _, T := range []uint32{1, 9} {
			c := shaders.LinearCase(shaders.F16, shaders.LinearParams{T: T, K: 512, F: 64, Stride: 64})
			c.Buffers[1] = c.Buffers[1][:len(c.Buffers[1])/2]
			if _, err := c.Run(dev, dev.Info()); !errors.Is(err, gpu.ErrInvalid) {
				t.Errorf("%s: Linear of %d tokens with half a matrix gave %v, want an error that is gpu.ErrInvalid", dev.Info().Host, T, err)
			}
		}
		dev.Close()
	}
}

// TestFastOrder runs the fast forms on one core and on several: sums must not depend on how work is shared out.
func TestFastOrder(t *testing.T) {
	for _, c := range []shaders.Case{
		shaders.LinearCase(shaders.Q8, shaders.LinearParams{T: 67, K: 576, F: 1030, Stride: 1030, Act: shaders.ActQuickGELU}),
		shaders.LinearCase(shaders.Q4, shaders.LinearParams{T: 3, K: 576, F: 1030, Stride: 1030}),
		shaders.LinearBackCase(shaders.F16, shaders.LinearBackParams{T: 67, K: 1032, F: 600, Stride: 600}),
		shaders.LinearWeightBackCase(shaders.LinearWeightBackParams{T: 600, K: 1032, F: 67, Stride: 70, Bias: 1}),
	} {
		d := c.Dispatch(gpu.Info{Software: true})
		run := func(cores int) [][]uint32 {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(cores))
			buffers := make([][]uint32, len(c.Buffers))
			for i, b := range c.Buffers {
				buffers[i] = append([]uint32(nil), b...)
			}
			d.Kernel.Fast(gpu.Call{Params: d.Params, Buffers: buffers})
			return buffers
		}
		if one, seven := run(1), run(7); !reflect.DeepEqual(one, seven) {
			t.Errorf("%s gives other bits on 7 cores than on 1", d.Kernel.Name)
		}
	}
}

func TestLinearVariants(t *testing.T) {
	software, hardware, fixed, varying := gpu.Info{Software: true}, gpu.Info{}, gpu.Info{}, gpu.Info{}
	lanes := software
	lanes.Features = gpu.Features{Subgroups: true, SubgroupMin: 4, SubgroupMax: 4}
	fixed.Features = gpu.Features{Subgroups: true, SubgroupMin: 32, SubgroupMax: 32}
	varying.Features = gpu.Features{Subgroups: true, SubgroupMin: 8, SubgroupMax: 32}
	for _, c := range []struct {
		info    gpu.Info
		f       shaders.Format
		T, K, F uint32
		want    string
		groups  [3]int
	}{
		{software, shaders.F32, 3, 7, 100, "linear.f32", [3]int{5, 1, 1}},
		{hardware, shaders.F32, 3, 7, 100, "linear.f32", [3]int{5, 1, 1}},
		{software, shaders.Q8, 1, 64, 1000, "linear_block.q8.alone.TOKENS1", [3]int{32, 1, 1}},
		{software, shaders.Q4, 9, 64, 1000, "linear_block.q4.alone.TOKENS8", [3]int{64, 1, 1}},
		{lanes, shaders.Q8, 3, 64, 1000, "linear_block.q8.subgroup.FOURS1.TOKENS4", [3]int{32, 1, 1}},
		{lanes, shaders.Q4, 3, 64, 1000, "linear_block.q4.subgroup.FOURS1.TOKENS4", [3]int{32, 1, 1}},
		{software, shaders.F32, 3, 48, 1000, "linear_block.f32.alone.TOKENS4", [3]int{32, 1, 1}},
		{lanes, shaders.F32, 3, 36, 1000, "linear.f32", [3]int{47, 1, 1}},
		{hardware, shaders.F16, 1, 64, 768, "linear_row.f16.group.ROWS1.TOKENS1", [3]int{768, 1, 1}},
		{varying, shaders.F16, 3, 64, 3072, "linear_row.f16.subgroups.ROWS2.TOKENS4", [3]int{1536, 1, 1}},
		{fixed, shaders.Q4, 1, 64, 50272, "linear_row.q4.subgroup.ROWS4.TOKENS1.WG32", [3]int{12568, 1, 1}},
		{fixed, shaders.Q4, 9, 64, 65536, "linear_row.q4.subgroup.ROWS4.TOKENS8.WG32", [3]int{32768, 1, 1}},
		{fixed, shaders.Q4, 17, 64, 65536, "linear_tile64.q4", [3]int{1024, 1, 1}},
		{fixed, shaders.Q4, 65, 64, 65536, "linear_tile.q4", [3]int{512, 1, 1}},
		{fixed, shaders.Q4, 256, 64, 768, "linear_tile64.q4", [3]int{48, 1, 1}},
	} {
		d := shaders.Linear(c.info, c.f, shaders.LinearParams{T: c.T, K: c.K, F: c.F, Stride: c.F})
		if d.Kernel.Name != c.want || d.Groups != c.groups {
			t.Errorf("Linear(T %d, K %d, F %d) = %s in %v groups, want %s in %v", c.T, c.K, c.F, d.Kernel.Name, d.Groups, c.want, c.groups)
		}
	}
}

// BenchmarkLinear runs OPT-125m's first feed-forward matrix; GB/s counts the bytes of the weights.
func BenchmarkLinear(b *testing.B) {
	const K, F = 768, 3072
	for _, T := range []uint32{1, 64} {
		for _, f := range []shaders.Format{shaders.F32, shaders.F16, shaders.Q8, shaders.Q4} {
			c := shaders.LinearCase(f, shaders.LinearParams{T: T, K: K, F: F, Stride: F, Bias: 1, Act: shaders.ActReLU})
			kerneltest.Bench(b, fmt.Sprintf("T%d", T), c, 2*K*F*float64(T), F*float64(f.RowBytes(K)+f.ScaleBytes(K)))
		}
	}
}
