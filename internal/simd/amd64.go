// SPDX-License-Identifier: Apache-2.0

//go:build amd64

package simd

import "golang.org/x/sys/cpu"

func init() {
	for _, use := range levels() {
		use()
	}
}

// levels are the sets of instructions that this machine has, the best last.
func levels() []func() {
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasF16C {
		return []func(){useGo, useAVX2}
	}
	return []func(){useGo}
}

func useAVX2() {
	name, tileRows = "AVX2", 6
	tile = func(c []float32, ldc int, a []float32, rowStride, depthStride int, b []float32, depth int) {
		tileAVX2(&c[0], ldc, &a[0], rowStride, depthStride, &b[0], depth)
	}
	turn = func(dst, src []float32, stride, depth int) {
		whole := depth &^ 7
		if whole > 0 {
			turnAVX2(&dst[0], &src[0], stride, whole)
		}
		turnGo(dst[Columns*whole:], src[whole:], stride, depth-whole)
	}
	dots = func(dst, x, rows []float32, stride int) {
		whole := len(x) &^ 7
		if whole == 0 {
			dotsGo(dst, x, rows, stride)
			return
		}
		dotsAVX2(&dst[0], &x[0], &rows[0], stride, whole, len(dst))
		for r := 0; whole < len(x) && r < len(dst); r++ {
			dst[r] += dotGo(x[whole:], rows[r*stride+whole:])
		}
	}
	mix = func(y, w, rows []float32, stride int) {
		whole := len(y) &^ 7
		if whole > 0 {
			mixAVX2(&y[0], &w[0], &rows[0], stride, whole, len(w))
		}
		if whole < len(y) {
			mixGo(y[whole:], w, rows[whole:], stride)
		}
	}
	exp = func(dst, x []float32, factor, shift float32) float32 {
		whole, sum := len(x)&^7, float32(0)
		if whole > 0 {
			sum = expAVX2(&dst[0], &x[0], factor, shift, whole)
		}
		return sum + expGo(dst[whole:], x[whole:], factor, shift)
	}
	decodeF16 = func(dst []float32, src []byte) int {
		n := len(dst) &^ 7
		if n > 0 {
			f16AVX2(&dst[0], &src[0], n)
		}
		return n
	}
	encodeF16 = func(dst []byte, src []float32) int {
		n := len(src) &^ 7
		if n > 0 {
			toF16AVX2(&dst[0], &src[0], &f16Limits[0], n)
		}
		return n
	}
	decodeQ8 = func(dst []float32, values, scales []byte) int {
		n := len(dst) / 32
		if n > 0 {
			q8AVX2(&dst[0], &values[0], &scales[0], n)
		}
		return 32 * n
	}
	decodeQ4 = func(dst []float32, values, scales []byte) int {
		n := len(dst) / 32
		if n > 0 {
			q4AVX2(&dst[0], &values[0], &scales[0], n)
		}
		return 32 * n
	}
}

// f16Limits are the least and the greatest finite half.
var f16Limits = [2]float32{-65504, 65504}
