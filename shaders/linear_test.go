// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"fmt"
	"testing"

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
	// More workgroups than one dimension may have.
	add(shaders.F32, 1, 4, 65537*4+1, 0, 65537*4+1)
	add(shaders.F32, 2, 1, 65537*32+1, 0, 65537*32+1)
	kerneltest.Run(t, cases)
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
