// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"fmt"
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestLinearWeightBack(t *testing.T) {
	var cases []shaders.Case
	add := func(T, K, F, F0, stride uint32) {
		cases = append(cases, shaders.LinearWeightBackCase(shaders.LinearWeightBackParams{T: T, K: K, F: F, F0: F0, Stride: stride, Bias: uint32(len(cases)+1) % 2}))
	}
	for _, T := range []uint32{1, 2, 31, 33, 67} {
		for _, K := range []uint32{1, 7, 4, 60, 132} {
			for _, F := range []uint32{1, 2, 3, 16, 17, 65} {
				add(T, K, F, F%5, F+7)
			}
		}
	}
	add(1021, 388, 2, 1009, 1021) // two columns of a softmax
	add(19, 3068, 131, 1, 133)    // large tiles
	add(519, 261, 245, 1, 250)    // several blocks of the CPU's product in every direction
	add(2, 65537*32+1, 1, 0, 1)   // more workgroups than one dimension may have
	kerneltest.Run(t, cases)
}

func TestLinearWeightBackVariants(t *testing.T) {
	software, hardware := gpu.Info{Software: true}, gpu.Info{}
	for _, c := range []struct {
		info gpu.Info
		K, F uint32
		want string
		n    int
	}{
		{software, 7, 30, "linear_weight_back", 4},
		{hardware, 7, 30, "linear_weight_back", 4},
		{software, 384, 2, "linear_weight_back_block", 2},
		{hardware, 384, 2, "linear_weight_back_few", 12},
		{hardware, 384, 17, "linear_weight_back_tile64", 6},
		{hardware, 768, 256, "linear_weight_back_tile64", 48},
		{hardware, 768, 4096, "linear_weight_back_tile", 192},
	} {
		d := shaders.LinearWeightBack(c.info, shaders.LinearWeightBackParams{T: 180, K: c.K, F: c.F, Stride: c.F})
		if d.Kernel.Name != c.want || d.Groups != [3]int{c.n, 1, 1} {
			t.Errorf("LinearWeightBack(K %d, F %d) = %s in %v groups, want %s in %d", c.K, c.F, d.Kernel.Name, d.Groups, c.want, c.n)
		}
	}
}

// BenchmarkLinearWeightBack runs a map from a vision tower to a language model, and two columns of a softmax; GB/s counts the bytes of dy and x that count.
func BenchmarkLinearWeightBack(b *testing.B) {
	for _, p := range []shaders.LinearWeightBackParams{
		{T: 180, K: 768, F: 1024, Stride: 1024, Bias: 1},
		{T: 2500, K: 384, F: 2, F0: 8192, Stride: 8194},
	} {
		flops := 2 * float64(p.T) * float64(p.K) * float64(p.F)
		kerneltest.Bench(b, fmt.Sprintf("F%d", p.F), shaders.LinearWeightBackCase(p), flops, 4*float64(p.T)*float64(p.K+p.F))
	}
}
