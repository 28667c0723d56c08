// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"fmt"
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestLinearBack(t *testing.T) {
	var cases []shaders.Case
	add := func(f shaders.Format, T, K, F, F0, stride uint32) {
		cases = append(cases, shaders.LinearBackCase(f, shaders.LinearBackParams{T: T, K: K, F: F, F0: F0, Stride: stride, Add: uint32(len(cases)) % 3}))
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
		for _, T := range []uint32{1, 2, 5, 16, 17, 64, 65, 131} {
			add(size.f, T, size.K, size.F, size.F0, size.stride)
		}
	}
	// Large tiles.
	for f, K := range [...]uint32{shaders.F32: 3068, shaders.F16: 3064, shaders.Q8: 3136, shaders.Q4: 3104} {
		add(shaders.Format(f), 130, K, 35, 2, 40)
	}
	// Several blocks of the CPU's product in every direction.
	add(shaders.F32, 245, 260, 519, 1, 530)
	add(shaders.Q4, 481, 288, 70, 0, 70)
	// More workgroups than one dimension may have.
	add(shaders.F32, 2, 65537*32+1, 1, 0, 1)
	kerneltest.Run(t, cases)
}

func TestLinearBackVariants(t *testing.T) {
	software, hardware := gpu.Info{Software: true}, gpu.Info{}
	for _, c := range []struct {
		info gpu.Info
		f    shaders.Format
		T, K uint32
		want string
		n    int
	}{
		{software, shaders.F32, 3, 7, "linear_back", 1},
		{hardware, shaders.F32, 30, 7, "linear_back", 4},
		{software, shaders.Q8, 1, 1024, "linear_back_block.q8.TOKENS1", 4},
		{software, shaders.Q4, 9, 1024, "linear_back_block.q4.TOKENS4", 12},
		{hardware, shaders.F16, 1, 768, "linear_back_few.f16", 24},
		{hardware, shaders.F16, 16, 800, "linear_back_few.f16", 100},
		{hardware, shaders.F32, 17, 768, "linear_back_tile64.f32", 12},
		{hardware, shaders.Q4, 65, 8192, "linear_back_tile.q4", 64},
		{hardware, shaders.Q4, 256, 768, "linear_back_tile64.q4", 48},
	} {
		d := shaders.LinearBack(c.info, c.f, shaders.LinearBackParams{T: c.T, K: c.K, F: 100, Stride: 100})
		if d.Kernel.Name != c.want || d.Groups != [3]int{c.n, 1, 1} {
			t.Errorf("LinearBack(T %d, K %d) = %s in %v groups, want %s in %d", c.T, c.K, d.Kernel.Name, d.Groups, c.want, c.n)
		}
	}
}

// BenchmarkLinearBack runs OPT-125m's first feed-forward matrix; GB/s counts the bytes of the weights.
func BenchmarkLinearBack(b *testing.B) {
	const K, F = 768, 3072
	for _, T := range []uint32{1, 64, 256} {
		for _, f := range []shaders.Format{shaders.F32, shaders.F16, shaders.Q8, shaders.Q4} {
			c := shaders.LinearBackCase(f, shaders.LinearBackParams{T: T, K: K, F: F, Stride: F})
			kerneltest.Bench(b, fmt.Sprintf("T%d", T), c, 2*K*F*float64(T), F*float64(f.RowBytes(K)+f.ScaleBytes(K)))
		}
	}
}
