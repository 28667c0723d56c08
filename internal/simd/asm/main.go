// SPDX-License-Identifier: Apache-2.0

// Asm writes the amd64 assembly of package simd with github.com/mmcloughlin/avo. It runs in that package's folder, by `go generate ./internal/simd`.
package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	tile()
	turn()
	decodeF16()
	encodeF16()
	decodeQ8()
	decodeQ4()
	dots()
	mix()
	exp()
	Generate()
}

// at is the float32 or byte at an offset from a pointer.
func at(base reg.Register, disp int) Mem { return Mem{Base: base, Disp: disp} }

// rows of a tile: with two registers of sums each, beside those for a row of b and a value of a, they fill the sixteen registers.
const rows = 6

func tile() {
	TEXT("tileAVX2", NOSPLIT, "func(c *float32, ldc int, a *float32, rowStride, depthStride int, b *float32, depth int)")
	Doc("tileAVX2 adds Σ_k a[r·rowStride + k·depthStride]·b[16·k + j] to c[r·ldc + j] for r < 6 and j < 16.")
	c, ldc := Load(Param("c"), GP64()), Load(Param("ldc"), GP64())
	rowStride, depthStride := Load(Param("rowStride"), GP64()), Load(Param("depthStride"), GP64())
	a, b, depth := Load(Param("a"), GP64()), Load(Param("b"), GP64()), Load(Param("depth"), GP64())
	SHLQ(Imm(2), depthStride)
	// One register reaches three rows: at it, and one and two strides on.
	a3 := GP64()
	LEAQ(Mem{Base: rowStride, Index: rowStride, Scale: 2}, a3)
	LEAQ(Mem{Base: a, Index: a3, Scale: 4}, a3)
	value := func(r int) Mem {
		m := Mem{Base: []reg.Register{a, a3}[r/3]}
		if r%3 > 0 {
			m.Index, m.Scale = rowStride, uint8(4*(r%3))
		}
		return m
	}
	var sums [2 * rows]reg.VecVirtual
	for i := range sums {
		sums[i] = YMM()
		VXORPS(sums[i], sums[i], sums[i])
	}
	step := func(k int) {
		low, high := YMM(), YMM()
		VMOVUPS(at(b, 64*k), low)
		VMOVUPS(at(b, 64*k+32), high)
		for r := range rows {
			v := YMM()
			VBROADCASTSS(value(r), v)
			VFMADD231PS(low, v, sums[2*r])
			VFMADD231PS(high, v, sums[2*r+1])
		}
		ADDQ(depthStride, a)
		ADDQ(depthStride, a3)
	}
	const unrolled = 4
	loop("steps", depth, unrolled, func() {
		for k := range unrolled {
			step(k)
		}
		ADDQ(U32(64*unrolled), b)
	})
	loop("step", depth, 1, func() {
		step(0)
		ADDQ(Imm(64), b)
	})
	SHLQ(Imm(2), ldc)
	for r := range rows {
		for half := range 2 {
			sum := sums[2*r+half]
			VADDPS(at(c, 32*half), sum, sum)
			VMOVUPS(sum, at(c, 32*half))
		}
		ADDQ(ldc, c)
	}
	VZEROUPPER()
	RET()
}

// loop repeats body while n is at least by, and takes by from it each time.
func loop(name string, n reg.Register, by int, body func()) {
	Label(name)
	CMPQ(n, Imm(uint64(by)))
	JL(LabelRef(name + "_done"))
	body()
	SUBQ(Imm(uint64(by)), n)
	JMP(LabelRef(name))
	Label(name + "_done")
}

// turn makes columns of rows, in squares of 8 × 8: pairs, then fours, then halves change places.
func turn() {
	TEXT("turnAVX2", NOSPLIT, "func(dst, src *float32, stride, depth int)")
	Doc("turnAVX2 sets dst[16·k + j] = src[j·stride + k] for j < 16 and k < depth, a multiple of 8.")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	stride, depth := Load(Param("stride"), GP64()), Load(Param("depth"), GP64())
	SHLQ(Imm(2), stride)
	row := GP64()
	loop("columns", depth, 8, func() {
		MOVQ(src, row)
		for half := range 2 {
			var r [8]reg.VecVirtual
			for i := range r {
				r[i] = YMM()
				VMOVUPS(at(row, 0), r[i])
				ADDQ(stride, row)
			}
			var pairs, fours [8]reg.VecVirtual
			for i := 0; i < 8; i += 2 {
				pairs[i], pairs[i+1] = YMM(), YMM()
				VUNPCKLPS(r[i+1], r[i], pairs[i])
				VUNPCKHPS(r[i+1], r[i], pairs[i+1])
			}
			for i := 0; i < 8; i += 4 {
				for j := range 2 {
					fours[i+2*j], fours[i+2*j+1] = YMM(), YMM()
					VSHUFPS(Imm(0x44), pairs[i+2+j], pairs[i+j], fours[i+2*j])
					VSHUFPS(Imm(0xee), pairs[i+2+j], pairs[i+j], fours[i+2*j+1])
				}
			}
			for i := range 4 {
				low, high := YMM(), YMM()
				VPERM2F128(Imm(0x20), fours[i+4], fours[i], low)
				VPERM2F128(Imm(0x31), fours[i+4], fours[i], high)
				VMOVUPS(low, at(dst, 64*i+32*half))
				VMOVUPS(high, at(dst, 64*(i+4)+32*half))
			}
		}
		ADDQ(Imm(32), src)
		ADDQ(U32(8*64), dst)
	})
	VZEROUPPER()
	RET()
}

func decodeF16() {
	TEXT("f16AVX2", NOSPLIT, "func(dst *float32, src *byte, n int)")
	Doc("f16AVX2 widens n halves, a multiple of 8.")
	dst, src, n := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("n"), GP64())
	loop("eight", n, 8, func() {
		v := YMM()
		VCVTPH2PS(at(src, 0), v)
		VMOVUPS(v, at(dst, 0))
		ADDQ(Imm(16), src)
		ADDQ(Imm(32), dst)
	})
	VZEROUPPER()
	RET()
}

func encodeF16() {
	TEXT("toF16AVX2", NOSPLIT, "func(dst *byte, src *float32, limits *float32, n int)")
	Doc("toF16AVX2 rounds n values, a multiple of 8, to the nearest halves, ties to even, after those beyond the limits, a least and a greatest, became these.")
	dst, src, limits, n := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("limits"), GP64()), Load(Param("n"), GP64())
	least, greatest := YMM(), YMM()
	VBROADCASTSS(at(limits, 0), least)
	VBROADCASTSS(at(limits, 4), greatest)
	loop("values", n, 8, func() {
		v, h := YMM(), XMM()
		VMOVUPS(at(src, 0), v)
		VMINPS(v, greatest, v) // what is no number stays none
		VMAXPS(v, least, v)
		VCVTPS2PH(Imm(0), v, h)
		VMOVUPS(h, at(dst, 0))
		ADDQ(Imm(32), src)
		ADDQ(Imm(16), dst)
	})
	VZEROUPPER()
	RET()
}

// half loads an f16 into all eight lanes, as f32.
func half(m Mem) reg.VecVirtual {
	x, v := XMM(), YMM()
	VPBROADCASTW(m, x)
	VCVTPH2PS(x, v)
	return v
}

func decodeQ8() {
	TEXT("q8AVX2", NOSPLIT, "func(dst *float32, values, scales *byte, blocks int)")
	Doc("q8AVX2 decodes blocks of 32 signed bytes, each with an f16 scale.")
	dst, values := Load(Param("dst"), GP64()), Load(Param("values"), GP64())
	scales, blocks := Load(Param("scales"), GP64()), Load(Param("blocks"), GP64())
	loop("block", blocks, 1, func() {
		scale := half(at(scales, 0))
		for i := range 4 {
			v := YMM()
			VPMOVSXBD(at(values, 8*i), v)
			VCVTDQ2PS(v, v)
			VMULPS(scale, v, v)
			VMOVUPS(v, at(dst, 32*i))
		}
		ADDQ(Imm(2), scales)
		ADDQ(Imm(32), values)
		ADDQ(Imm(128), dst)
	})
	VZEROUPPER()
	RET()
}

func decodeQ4() {
	TEXT("q4AVX2", NOSPLIT, "func(dst *float32, values, scales *byte, blocks int)")
	Doc("q4AVX2 decodes blocks of 32 codes, low half of a byte first, each with an f16 scale and an f16 minimum.")
	dst, values := Load(Param("dst"), GP64()), Load(Param("values"), GP64())
	scales, blocks := Load(Param("scales"), GP64()), Load(Param("blocks"), GP64())
	nibble := XMM()
	VPCMPEQD(nibble, nibble, nibble)
	VPSRLW(Imm(12), nibble, nibble)
	VPACKUSWB(nibble, nibble, nibble) // 0x0f in every byte
	loop("block", blocks, 1, func() {
		scale, minimum := half(at(scales, 0)), half(at(scales, 2))
		low, high := XMM(), XMM()
		VMOVDQU(at(values, 0), low)
		VPSRLW(Imm(4), low, high)
		VPAND(nibble, low, low)
		VPAND(nibble, high, high)
		codes := [2]reg.VecVirtual{XMM(), XMM()}
		VPUNPCKLBW(high, low, codes[0])
		VPUNPCKHBW(high, low, codes[1])
		for i := range 4 {
			v := YMM()
			VPMOVZXBD(codes[i/2], v)
			VPSRLDQ(Imm(8), codes[i/2], codes[i/2])
			VCVTDQ2PS(v, v)
			VMULPS(scale, v, v)
			VADDPS(minimum, v, v)
			VMOVUPS(v, at(dst, 32*i))
		}
		ADDQ(Imm(4), scales)
		ADDQ(Imm(16), values)
		ADDQ(Imm(128), dst)
	})
	VZEROUPPER()
	RET()
}

func dots() {
	TEXT("dotsAVX2", NOSPLIT, "func(dst, x, rows *float32, stride, n, count int)")
	Doc("dotsAVX2 sets dst[r] = Σ x[i]·rows[r·stride + i] over n values, a multiple of 8, for r < count.")
	dst, x, rows := Load(Param("dst"), GP64()), Load(Param("x"), GP64()), Load(Param("rows"), GP64())
	stride, n, count := Load(Param("stride"), GP64()), Load(Param("n"), GP64()), Load(Param("count"), GP64())
	SHLQ(Imm(2), stride)
	sums := [4]reg.VecVirtual{YMM(), YMM(), YMM(), YMM()}
	at1, at2, left := GP64(), GP64(), GP64()
	loop("row", count, 1, func() {
		MOVQ(x, at1)
		MOVQ(rows, at2)
		MOVQ(n, left)
		for _, sum := range sums {
			VXORPS(sum, sum, sum)
		}
		step := func(i int) {
			v := YMM()
			VMOVUPS(at(at1, 32*i), v)
			VFMADD231PS(at(at2, 32*i), v, sums[i])
		}
		loop("fours", left, 32, func() {
			for i := range sums {
				step(i)
			}
			ADDQ(Imm(128), at1)
			ADDQ(Imm(128), at2)
		})
		loop("eight", left, 8, func() {
			step(0)
			ADDQ(Imm(32), at1)
			ADDQ(Imm(32), at2)
		})
		VADDPS(sums[1], sums[0], sums[0])
		VADDPS(sums[3], sums[2], sums[2])
		VADDPS(sums[2], sums[0], sums[0])
		VMOVSS(across(sums[0]), at(dst, 0))
		ADDQ(Imm(4), dst)
		ADDQ(stride, rows)
	})
	VZEROUPPER()
	RET()
}

// across adds up the lanes of v, which it changes.
func across(v reg.VecVirtual) reg.Register {
	upper := XMM()
	VEXTRACTF128(Imm(1), v, upper)
	sum := v.AsX()
	VADDPS(upper, sum, sum)
	VHADDPS(sum, sum, sum)
	VHADDPS(sum, sum, sum)
	return sum
}

func mix() {
	TEXT("mixAVX2", NOSPLIT, "func(y, w, rows *float32, stride, n, count int)")
	Doc("mixAVX2 adds Σ_r w[r]·rows[r·stride + i], over r < count, to y[i] for n values, a multiple of 8.")
	y, w, rows := Load(Param("y"), GP64()), Load(Param("w"), GP64()), Load(Param("rows"), GP64())
	stride, n, count := Load(Param("stride"), GP64()), Load(Param("n"), GP64()), Load(Param("count"), GP64())
	SHLQ(Imm(2), stride)
	weight, row, left := GP64(), GP64(), GP64()
	columns := func(name string, vectors int) {
		loop(name, n, 8*vectors, func() {
			var sums []reg.VecVirtual
			for i := range vectors {
				sums = append(sums, YMM())
				VMOVUPS(at(y, 32*i), sums[i])
			}
			MOVQ(w, weight)
			MOVQ(rows, row)
			MOVQ(count, left)
			loop(name+"_row", left, 1, func() {
				v := YMM()
				VBROADCASTSS(at(weight, 0), v)
				for i := range vectors {
					VFMADD231PS(at(row, 32*i), v, sums[i])
				}
				ADDQ(Imm(4), weight)
				ADDQ(stride, row)
			})
			for i := range vectors {
				VMOVUPS(sums[i], at(y, 32*i))
			}
			ADDQ(U32(32*vectors), y)
			ADDQ(U32(32*vectors), rows)
		})
	}
	columns("eights", 8)
	columns("one", 1)
	VZEROUPPER()
	RET()
}

// exp takes 2 to the whole part of x/ln 2 and a polynomial for the rest, which lies within ±ln 2/2: e^r = 1 + r + r²·p(r), with the coefficients of
// the Cephes library's expf.
func exp() {
	TEXT("expAVX2", NOSPLIT, "func(dst, x *float32, factor, shift float32, n int) float32")
	Doc("expAVX2 sets dst[i] = e^(factor·x[i] − shift) for n values, a multiple of 8, and returns their sum.")
	dst, x, n := Load(Param("dst"), GP64()), Load(Param("x"), GP64()), Load(Param("n"), GP64())
	word := GP32()
	lanes := func(bits uint32) reg.VecVirtual {
		low, v := XMM(), YMM()
		MOVL(U32(bits), word)
		VMOVD(word, low)
		VBROADCASTSS(low, v)
		return v
	}
	number := func(v float32) reg.VecVirtual { return lanes(math.Float32bits(v)) }
	param := func(name string) reg.VecVirtual {
		low, v := XMM(), YMM()
		Load(Param(name), low)
		VBROADCASTSS(low, v)
		return v
	}
	factor, shift, sum := param("factor"), param("shift"), YMM()
	VXORPS(sum, sum, sum)
	lowest, highest, one := number(expLowest), number(expHighest), number(1)
	perLog2, log2High, log2Low := number(1/math.Ln2), number(0.693359375), number(-2.12194440e-4)
	var coefficients []Mem
	for i, c := range []float32{1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		name := fmt.Sprintf("exp%d", i)
		coefficients = append(coefficients, GLOBL(name, RODATA|NOPTR))
		for lane := range 8 {
			DATA(4*lane, F32(c))
		}
	}
	loop("eight", n, 8, func() {
		v, power, square, p, tooLow := YMM(), YMM(), YMM(), YMM(), YMM()
		VMOVUPS(at(x, 0), v)
		VFMSUB132PS(factor, shift, v)
		// The comparison and the bounds let NaN pass.
		VCMPPS(Imm(1), lowest, v, tooLow) // v < lowest
		VMINPS(v, highest, v)
		VMAXPS(v, lowest, v)
		VMULPS(perLog2, v, power)
		VROUNDPS(Imm(0), power, power)
		VFNMADD231PS(log2High, power, v)
		VFNMADD231PS(log2Low, power, v)
		VMULPS(v, v, square)
		VMOVUPS(coefficients[0], p)
		for _, c := range coefficients[1:] {
			VFMADD213PS(c, v, p)
		}
		VFMADD213PS(v, square, p)
		VADDPS(one, p, p)
		VCVTPS2DQ(power, power)
		VPSLLD(Imm(23), power, power)
		VPADDD(power, p, p) // the exponent's bits
		VANDNPS(p, tooLow, p)
		VMOVUPS(p, at(dst, 0))
		VADDPS(p, sum, sum)
		ADDQ(Imm(32), x)
		ADDQ(Imm(32), dst)
	})
	total := across(sum)
	VZEROUPPER()
	Store(total, ReturnIndex(0))
	RET()
}

// Between these, e^x is a normal float32. Package simd has the same bounds.
const expLowest, expHighest = -87, 88
