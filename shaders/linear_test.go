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
	for _, size := range []struct {
		f                shaders.Format
		K, F, F0, Stride uint32
	}{
		{shaders.F32, 1, 1, 0, 1}, {shaders.F32, 7, 3, 2, 6}, {shaders.F32, 4, 1, 0, 1}, {shaders.F32, 132, 67, 1, 70}, {shaders.F32, 68, 2049, 0, 2049},
		{shaders.F16, 8, 5, 0, 8}, {shaders.F16, 264, 63, 1, 64}, {shaders.F16, 24, 8193, 0, 8193},
		{shaders.Q8, 64, 64, 0, 64}, {shaders.Q8, 576, 65, 3, 70}, {shaders.Q8, 64, 2051, 0, 2051},
		{shaders.Q4, 32, 31, 0, 31}, {shaders.Q4, 1056, 66, 7, 73}, {shaders.Q4, 96, 3000, 0, 3000},
	} {
		for i, T := range []uint32{1, 2, 5, 9, 17, 64, 65, 131} {
			if T*size.F > 1<<18 && size.F > 1<<12 {
				continue
			}
			n := uint32(i)
			cases = append(cases, shaders.LinearCase(size.f, shaders.LinearParams{T: T, K: size.K, F: size.F, F0: size.F0, Stride: size.Stride, Act: n % 4, Bias: n % 2, Residual: (n + 1) / 2 % 2}))
		}
	}
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
