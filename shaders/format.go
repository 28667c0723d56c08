// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/x448/float16"

	"fromage/internal/simd"
)

// Format is how the values of a weight matrix (rows, K) are stored: two buffers, the values and the scales, row after row.
// shared/weight_FORMAT.wgsl reads what EncodeRow writes.
type Format uint8

// The formats. K must fit: see Format.Fits.
const (
	F32 Format = iota // one word a value
	F16               // IEEE half, two values a word
	Q8                // signed bytes with one f16 scale for each 32 values
	Q4                // 4-bit codes with one f16 scale and one f16 minimum for each 32 values
)

var formatNames = [...]string{"f32", "f16", "q8", "q4"}

// String returns the format's name as in `--dtype`.
func (f Format) String() string { return formatNames[f] }

// ParseFormat is the inverse of String.
func ParseFormat(name string) (Format, error) {
	for f, n := range formatNames {
		if n == name {
			return Format(f), nil
		}
	}
	return 0, fmt.Errorf("shaders: weight format: want f32, f16, q8 or q4, have %q", name)
}

// MarshalText implements encoding.TextMarshaler.
func (f Format) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *Format) UnmarshalText(text []byte) (err error) {
	*f, err = ParseFormat(string(text))
	return err
}

func (f Format) imports() map[string]string {
	return map[string]string{"weight": "weight_" + f.String()}
}

// Fits says whether rows of K values can be stored in the format: whole words, whole blocks.
func (f Format) Fits(K int) bool {
	return K > 0 && K%[...]int{1, 8, 64, 32}[f] == 0
}

// RowBytes returns the bytes that the values of one row of K take.
func (f Format) RowBytes(K int) int {
	return K * [...]int{8, 4, 2, 1}[f] / 2
}

// ScaleBytes returns the bytes that the scales of one row of K take; 0 for f32 and f16.
func (f Format) ScaleBytes(K int) int {
	return K / 32 * [...]int{0, 0, 2, 4}[f]
}

// Block is how many values share a scale in Q8 and Q4.
const Block = 32

// largest is the largest magnitude that each format holds.
var largest = [...]float64{math.MaxFloat32, 65504, 127 * 65504, 65504}

// Check says whether EncodeRow can store the row: an error names the first value that is NaN or infinite or too large for the format.
func (f Format) Check(row []float32) error {
	for k, v := range row {
		if !(math.Abs(float64(v)) <= largest[f]) {
			return fmt.Errorf("shaders: %v weight: value %d of the row: want a magnitude of at most %g, have %g", f, k, largest[f], v)
		}
	}
	return nil
}

// EncodeRow stores one row that Check passes: values and scales must have RowBytes and ScaleBytes bytes, little-endian. Where Check would
// not pass, values are stored as some number of the format.
//
// F16 rounds to nearest even; magnitudes below 2⁻²⁵ become zero. Q8 rounds to nearest against the block's largest magnitude. Q4 searches for
// the scale and minimum of each block with the least squared error. The bytes are the same on every machine: where a product meets a sum,
// a conversion keeps the compiler from fusing them.
func (f Format) EncodeRow(row []float32, values, scales []byte) {
	switch f {
	case F32:
		for k, v := range row {
			put32(values[4*k:], math.Float32bits(v))
		}
	case F16:
		for k := simd.EncodeF16(values, row); k < len(row); k++ {
			put16(values[2*k:], half(float64(row[k])))
		}
	case Q8:
		for i := 0; i < len(row); i += Block {
			encodeQ8((*[Block]float32)(row[i:]), (*[Block]byte)(values[i:]), scales[i/Block*2:])
		}
	case Q4:
		for i := 0; i < len(row); i += Block {
			encodeQ4((*[Block]float32)(row[i:]), (*[Block / 2]byte)(values[i/2:]), scales[i/Block*4:])
		}
	}
}

// half rounds v to f16; what is too large becomes the largest finite value.
func half(v float64) uint16 {
	return float16.Fromfloat32(float32(max(-65504, min(65504, v)))).Bits()
}

// widen is the value of an f16: its sign, exponent and fraction read as those of an f32, times 2¹¹² for the difference of the exponents' biases.
func widen(h uint16) float32 {
	bits := uint32(int16(h)) << 13 & 0x8fffe000
	if bits&0x0f800000 == 0x0f800000 {
		return math.Float32frombits(bits | 0x7f800000) // infinite or NaN
	}
	return math.Float32frombits(bits) * 0x1p112
}

// Grid is the numbers that one block of a row can hold once its scale, and for Q4 its minimum, is chosen: minimum + scale · code.
type Grid struct {
	format         Format
	scale, minimum uint16 // as stored; Q8 has no minimum
}

// Fit chooses the scale and minimum that EncodeRow would choose for the values of a block. The format is Q8 or Q4.
func (f Format) Fit(x *[Block]float32) Grid {
	if f == Q8 {
		return Grid{format: f, scale: fitQ8(x)}
	}
	s, m := fitQ4(x)
	return Grid{f, s, m}
}

// Nearest returns the code of the grid's number nearest to v, and that number.
func (g Grid) Nearest(v float32) (code int32, value float32) {
	s := widen(g.scale)
	if g.format == Q8 {
		code = codeQ8(v, inverseQ8(g.scale))
		return code, s * float32(code)
	}
	m := widen(g.minimum)
	code = codeQ4(v-m, inverseQ4(g.scale))
	return code, s*float32(code) + m
}

// Store writes a block's codes, as Nearest returned them, and the grid itself: RowBytes(Block) bytes of values and ScaleBytes(Block) of scales.
func (g Grid) Store(codes *[Block]int32, values, scales []byte) {
	put16(scales, g.scale)
	if g.format == Q8 {
		for k, c := range codes {
			values[k] = byte(c)
		}
		return
	}
	put16(scales[2:], g.minimum)
	for k := range Block / 2 {
		values[k] = byte(codes[2*k] | codes[2*k+1]<<4)
	}
}

func encodeQ8(x *[Block]float32, values *[Block]byte, scale []byte) {
	s := fitQ8(x)
	put16(scale, s)
	inverse := inverseQ8(s)
	for k, v := range x {
		values[k] = byte(codeQ8(v, inverse))
	}
}

// fitQ8 returns the least scale, as f16, with which the largest value is still within ±127.
func fitQ8(x *[Block]float32) uint16 {
	var most float32
	for _, v := range x {
		if v < 0 {
			v = -v
		}
		if v > most {
			most = v
		}
	}
	h := half(float64(most) / 127)
	if float64(widen(h))*127 < float64(most) && h < 0x7bff {
		h++
	}
	return h
}

func inverseQ8(scale uint16) float64 {
	if scale == 0 {
		return 0
	}
	return 1 / float64(widen(scale))
}

// codeQ8 is the code for v at 1/inverse a step. Truncation of a positive number rounds to nearest once a half is added.
func codeQ8(v float32, inverse float64) int32 {
	return max(-127, min(127, int32(float64(float64(v)*inverse)+128.5)-128))
}

func encodeQ4(x *[Block]float32, values *[Block / 2]byte, scale []byte) {
	s, m := fitQ4(x)
	put16(scale, s)
	put16(scale[2:], m)
	inverse, minimum := inverseQ4(s), widen(m)
	for k := range values {
		values[k] = byte(codeQ4(x[2*k]-minimum, inverse) | codeQ4(x[2*k+1]-minimum, inverse)<<4)
	}
}

func inverseQ4(scale uint16) float32 {
	if scale == 0 {
		return 0
	}
	return 1 / widen(scale)
}

// codeQ4 is the code for a value v above the minimum, at 1/inverse a step.
func codeQ4(v, inverse float32) int32 {
	return max(0, min(15, int32(float32(v*inverse)+0.5)))
}

// fitQ4 returns a scale and minimum for x, as f16. It tries ranges that leave out nothing or a part of the spread at either end, knows each
// range's error after a least-squares fit to its codes from a few sums, and refines the best by coding and fitting again.
func fitQ4(x *[Block]float32) (scale, minimum uint16) {
	lo, hi, mean := x[0], x[0], float32(0)
	for _, v := range x {
		mean += v / Block
		if v < lo {
			lo = v
		}
		if v > hi {
			hi = v
		}
	}
	if lo == hi {
		return 0, half(float64(lo))
	}
	// Around the mean, the sums below lose no digits.
	var centred [Block]float32
	for k, v := range x {
		centred[k] = v - mean
	}
	var best fitted
	for _, cut := range cutsQ4 {
		low, high := lo+float32(cut[0]*(hi-lo)), hi-float32(cut[1]*(hi-lo))
		best = better(best, leastSquaresQ4(&centred, (high-low)/15, low-mean))
	}
	for range 2 {
		best = better(best, leastSquaresQ4(&centred, best.scale, best.minimum))
	}
	if best.scale <= 0 {
		return 0, half(float64(mean))
	}
	return half(float64(best.scale)), half(float64(mean) + float64(best.minimum))
}

// cutsQ4 are the parts of a block's spread that fitQ4 leaves out at the low and the high end.
var cutsQ4 = [...][2]float32{{0, 0}, {.03, 0}, {0, .03}, {.03, .03}}

// fitted is a scale and minimum, and by how much they lessen the squared error of values around zero.
type fitted struct{ scale, minimum, gain float32 }

func better(a, b fitted) fitted {
	if b.gain > a.gain {
		return b
	}
	return a
}

// leastSquaresQ4 returns the best scale and minimum for the codes that the given ones make of x, whose mean is zero.
func leastSquaresQ4(x *[Block]float32, scale, minimum float32) fitted {
	inverse := 1 / scale
	var sum, squares int32
	var products float32
	for _, v := range x {
		c := codeQ4(v-minimum, inverse)
		sum += c
		squares += c * c
		products += float32(float32(c) * v)
	}
	spread := float32(squares) - float32(sum*sum)/Block
	if spread <= 0 {
		return fitted{}
	}
	s := products / spread
	return fitted{s, -s * float32(sum) / Block, products * s}
}

// decodeRow reads row r of a matrix in this format into dst (K values). values and scales are the words that the kernels see.
func (f Format) decodeRow(values, scales []uint32, r int, dst []float32) {
	K := len(dst)
	if f == F32 {
		copy(dst, floats(values)[r*K:(r+1)*K])
		return
	}
	b := bytesOf(values)[r*f.RowBytes(K) : (r+1)*f.RowBytes(K)]
	var s []byte
	if n := f.ScaleBytes(K); n > 0 {
		s = bytesOf(scales)[r*n : (r+1)*n]
	}
	f.DecodeRow(b, s, dst)
}

// decodePart reads values first to last−1 of row r of a matrix with rows of K into dst. first is where a block begins.
func (f Format) decodePart(values, scales []uint32, K, r, first, last int, dst []float32) {
	if f == F32 {
		copy(dst, floats(values)[r*K+first:r*K+last])
		return
	}
	at, to := r*f.RowBytes(K), r*f.ScaleBytes(K)
	f.DecodeRow(bytesOf(values)[at+f.RowBytes(first):at+f.RowBytes(last)], bytesOf(scales)[to+f.ScaleBytes(first):to+f.ScaleBytes(last)], dst[:last-first])
}

// DecodeRow is the inverse of EncodeRow, up to rounding.
func (f Format) DecodeRow(values, scales []byte, row []float32) {
	switch f {
	case F32:
		for k := range row {
			row[k] = math.Float32frombits(get32(values[4*k:]))
		}
	case F16:
		for k := simd.DecodeF16(row, values); k < len(row); k++ {
			row[k] = widen(get16(values[2*k:]))
		}
	case Q8:
		for i := simd.DecodeQ8(row, values, scales); i < len(row); i += Block {
			decodeQ8((*[Block]byte)(values[i:]), widen(get16(scales[i/Block*2:])), (*[Block]float32)(row[i:]))
		}
	case Q4:
		for i := simd.DecodeQ4(row, values, scales); i < len(row); i += Block {
			s := scales[i/Block*4:]
			decodeQ4((*[Block / 2]byte)(values[i/2:]), widen(get16(s)), widen(get16(s[2:])), (*[Block]float32)(row[i:]))
		}
	}
}

func decodeQ8(values *[Block]byte, scale float32, x *[Block]float32) {
	for k, q := range values {
		x[k] = scale * float32(int8(q))
	}
}

func decodeQ4(values *[Block / 2]byte, scale, minimum float32, x *[Block]float32) {
	for k, q := range values {
		x[2*k], x[2*k+1] = scale*float32(q&15)+minimum, scale*float32(q>>4)+minimum
	}
}

func put32(b []byte, v uint32) {
	b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
}
func put16(b []byte, v uint16) { b[0], b[1] = byte(v), byte(v>>8) }
func get16(b []byte) uint16    { return uint16(b[0]) | uint16(b[1])<<8 }
func get32(b []byte) uint32    { return uint32(get16(b)) | uint32(get16(b[2:]))<<16 }
func bytesOf(w []uint32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), 4*len(w))
}
func floats(w []uint32) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(w))), len(w))
}
func wordsOf(x []float32) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}
