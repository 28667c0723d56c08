// SPDX-License-Identifier: Apache-2.0

// Package simd holds the loops on float32 that decide how fast a CPU computes and that Go's compiler leaves scalar: the inner tile of a product of
// matrices, products of rows, exponentials, the decoding of weights. On amd64 with AVX2, FMA and F16C they are assembly, elsewhere plain Go.
//
// What enters are slices, whose lengths are checked; what leaves is numbers. The package refuses to know goroutines, shapes and kernels.
//
// Sums in assembly are taken in another order and rounded less often than in plain Go, so that last digits differ between kinds of machines.
// Decoding is exact on all.
package simd

import "math"

//go:generate go run ./asm -out simd_amd64.s -stubs stubs_amd64.go -pkg simd

// Columns is how many columns of a product a tile has.
const Columns = 16

// What this machine runs.
var (
	name               string
	tileRows           int
	tile               func(c []float32, ldc int, a []float32, rowStride, depthStride int, b []float32, depth int)
	turn               func(dst, src []float32, stride, depth int)
	dots               func(dst, x, rows []float32, stride int)
	mix                func(y, w, rows []float32, stride int)
	exp                func(dst, x []float32, factor, shift float32) float32
	decodeF16          func(dst []float32, src []byte) int
	encodeF16          func(dst []byte, src []float32) int
	decodeQ8, decodeQ4 func(dst []float32, values, scales []byte) int
)

func useGo() {
	name, tileRows = "plain Go", 4
	tile, turn, dots, mix, exp = tileGo, turnGo, dotsGo, mixGo, expGo
	decodeF16 = func([]float32, []byte) int { return 0 }
	encodeF16 = func([]byte, []float32) int { return 0 }
	decodeQ8 = func(_ []float32, _, _ []byte) int { return 0 }
	decodeQ4 = decodeQ8
}

// Name says which instructions this machine runs: "AVX2" or "plain Go".
func Name() string { return name }

// TileRows returns how many rows of a product a tile has on this machine.
func TileRows() int { return tileRows }

// Tile adds Σ_k a[r·rowStride + k·depthStride]·b[Columns·k + j], over k < depth, to c[r·ldc + j] for r < TileRows and j < Columns.
func Tile(c []float32, ldc int, a []float32, rowStride, depthStride int, b []float32, depth int) {
	if depth == 0 {
		return
	}
	_, _, _ = c[(tileRows-1)*ldc+Columns-1], a[(tileRows-1)*rowStride+(depth-1)*depthStride], b[Columns*depth-1]
	tile(c, ldc, a, rowStride, depthStride, b, depth)
}

// tileGo takes two rows and four columns at a time, in sums that stay in registers.
func tileGo(c []float32, ldc int, a []float32, rowStride, depthStride int, b []float32, depth int) {
	for r := 0; r < 4; r += 2 {
		for j := 0; j < Columns; j += 4 {
			var s00, s01, s02, s03, s10, s11, s12, s13 float32
			a0, a1 := a[r*rowStride:], a[(r+1)*rowStride:]
			for k := range depth {
				v, w, u := (*[4]float32)(b[Columns*k+j:]), a0[k*depthStride], a1[k*depthStride]
				s00 += w * v[0]
				s01 += w * v[1]
				s02 += w * v[2]
				s03 += w * v[3]
				s10 += u * v[0]
				s11 += u * v[1]
				s12 += u * v[2]
				s13 += u * v[3]
			}
			c0, c1 := (*[4]float32)(c[r*ldc+j:]), (*[4]float32)(c[(r+1)*ldc+j:])
			c0[0] += s00
			c0[1] += s01
			c0[2] += s02
			c0[3] += s03
			c1[0] += s10
			c1[1] += s11
			c1[2] += s12
			c1[3] += s13
		}
	}
}

// Turn makes what Tile reads as b of Columns rows of src, stride apart: dst[Columns·k + j] = src[j·stride + k] for k < depth.
func Turn(dst, src []float32, stride, depth int) {
	if depth == 0 {
		return
	}
	_, _ = dst[Columns*depth-1], src[(Columns-1)*stride+depth-1]
	turn(dst, src, stride, depth)
}

func turnGo(dst, src []float32, stride, depth int) {
	for j := range Columns {
		row := src[j*stride:][:depth]
		for k, v := range row {
			dst[Columns*k+j] = v
		}
	}
}

// Dots sets dst[r] = Σ x[i]·rows[r·stride + i] over the values of x, for every r of dst.
func Dots(dst, x, rows []float32, stride int) {
	if len(dst) == 0 || len(x) == 0 {
		clear(dst)
		return
	}
	_ = rows[(len(dst)-1)*stride+len(x)-1]
	dots(dst, x, rows, stride)
}

func dotsGo(dst, x, rows []float32, stride int) {
	for r := range dst {
		dst[r] = dotGo(x, rows[r*stride:])
	}
}

func dotGo(x, w []float32) float32 {
	var s0, s1, s2, s3 float32
	for len(x) >= 4 {
		v, u := (*[4]float32)(x), (*[4]float32)(w)
		s0 += v[0] * u[0]
		s1 += v[1] * u[1]
		s2 += v[2] * u[2]
		s3 += v[3] * u[3]
		x, w = x[4:], w[4:]
	}
	for i, v := range x {
		s0 += v * w[i]
	}
	return s0 + s1 + (s2 + s3)
}

// Mix adds Σ_r w[r]·rows[r·stride + i], over all of w, to y[i] for every i of y.
func Mix(y, w, rows []float32, stride int) {
	if len(w) == 0 || len(y) == 0 {
		return
	}
	_ = rows[(len(w)-1)*stride+len(y)-1]
	mix(y, w, rows, stride)
}

func mixGo(y, w, rows []float32, stride int) {
	for r, v := range w {
		for i, x := range rows[r*stride:][:len(y)] {
			y[i] += v * x
		}
	}
}

// Exp sets dst[i] = e^(factor·x[i] − shift) and returns their sum. Exponents above 88 count as 88, those below −87 give 0. dst may be x.
func Exp(dst, x []float32, factor, shift float32) float32 { return exp(dst[:len(x)], x, factor, shift) }

func expGo(dst, x []float32, factor, shift float32) float32 {
	sum := float32(0)
	for i, v := range x {
		if v = factor*v - shift; v < -87 {
			dst[i] = 0
			continue
		}
		dst[i] = float32(math.Exp(float64(min(v, 88))))
		sum += dst[i]
	}
	return sum
}

// DecodeF16 widens halves from the front of src to dst. It returns how many values are done, 0 where there are no instructions for it; the rest
// is the caller's.
func DecodeF16(dst []float32, src []byte) int { return decodeF16(dst, src[:2*len(dst)]) }

// EncodeF16 rounds values from the front of src to halves, ties to even; those that are too large become the largest finite one. It returns how many are
// done, as DecodeF16 does.
func EncodeF16(dst []byte, src []float32) int { return encodeF16(dst[:2*len(src)], src) }

// DecodeQ8 decodes blocks of 32 signed bytes, each with an f16 scale, as DecodeF16 does halves.
func DecodeQ8(dst []float32, values, scales []byte) int {
	n := len(dst) / 32
	return decodeQ8(dst, values[:32*n], scales[:2*n])
}

// DecodeQ4 decodes blocks of 32 codes of four bits, low half of a byte first, each with an f16 scale and an f16 minimum, as DecodeF16 does halves.
func DecodeQ4(dst []float32, values, scales []byte) int {
	n := len(dst) / 32
	return decodeQ4(dst, values[:16*n], scales[:4*n])
}
