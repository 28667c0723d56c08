// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/x448/float16"
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

// block is how many values share a scale in Q8 and Q4.
const block = 32

// EncodeRow stores one row: values and scales must have RowBytes and ScaleBytes bytes, little-endian.
// Q8 rounds to nearest against the block's largest magnitude; Q4 takes the block's scale and minimum with the least squared error.
func (f Format) EncodeRow(row []float32, values, scales []byte) {
	switch f {
	case F32:
		for k, v := range row {
			put32(values[4*k:], math.Float32bits(v))
		}
	case F16:
		for k, v := range row {
			put16(values[2*k:], float16.Fromfloat32(v).Bits())
		}
	case Q8:
		for i := 0; i < len(row); i += block {
			encodeQ8(row[i:i+block], values[i:], scales[i/block*2:])
		}
	case Q4:
		for i := 0; i < len(row); i += block {
			encodeQ4(row[i:i+block], values[i/2:], scales[i/block*4:])
		}
	}
}

func encodeQ8(x []float32, values, scale []byte) {
	largest := 0.0
	for _, v := range x {
		largest = max(largest, math.Abs(float64(v)))
	}
	// The scale is rounded up to f16 so that the largest value is still within ±127.
	h := float16.Fromfloat32(float32(largest / 127))
	if float64(h.Float32())*127 < largest {
		h++
	}
	put16(scale, h.Bits())
	s := float64(h.Float32())
	for k, v := range x {
		q := 0.0
		if s > 0 {
			q = max(-127, min(127, math.RoundToEven(float64(v)/s)))
		}
		values[k] = byte(int8(q))
	}
}

func encodeQ4(x []float32, values, scale []byte) {
	s, m := fitQ4(x)
	put16(scale, s.Bits())
	put16(scale[2:], m.Bits())
	for k := 0; k < block; k += 2 {
		values[k/2] = codeQ4(x[k], s, m) | codeQ4(x[k+1], s, m)<<4
	}
}

func codeQ4(v float32, s, m float16.Float16) byte {
	if s == 0 {
		return 0
	}
	return byte(max(0, min(15, math.RoundToEven((float64(v)-float64(m.Float32()))/float64(s.Float32())))))
}

// fitQ4 tries ranges from the full spread of x down to four fifths of it, refines each by least squares on its own codes, and keeps the best.
func fitQ4(x []float32) (scale, minimum float16.Float16) {
	lo, hi := float64(x[0]), float64(x[0])
	for _, v := range x {
		lo, hi = min(lo, float64(v)), max(hi, float64(v))
	}
	best := math.Inf(1)
	try := func(s, m float64) {
		hs, hm := float16.Fromfloat32(float32(s)), float16.Fromfloat32(float32(m))
		sum := 0.0
		for _, v := range x {
			d := float64(hs.Float32())*float64(codeQ4(v, hs, hm)) + float64(hm.Float32()) - float64(v)
			sum += d * d
		}
		if sum < best {
			best, scale, minimum = sum, hs, hm
		}
	}
	for step := range 9 {
		cut := (hi - lo) * float64(step) / 80
		s, m := (hi-lo-2*cut)/15, lo+cut
		try(s, m)
		try(leastSquaresQ4(x, s, m))
	}
	return scale, minimum
}

// leastSquaresQ4 returns the scale and minimum with the least squared error for the codes that (s, m) gives.
func leastSquaresQ4(x []float32, s, m float64) (scale, minimum float64) {
	if s <= 0 {
		return 0, m
	}
	var n, q, qq, v, qv float64
	for _, xv := range x {
		c := max(0, min(15, math.RoundToEven((float64(xv)-m)/s)))
		n, q, qq, v, qv = n+1, q+c, qq+c*c, v+float64(xv), qv+c*float64(xv)
	}
	if d := n*qq - q*q; d > 0 {
		scale = (n*qv - q*v) / d
		return scale, (v - scale*q) / n
	}
	return s, m
}

// decodeRow reads row r of a matrix in this format into dst (K values). values and scales are the words that the kernels see.
func (f Format) decodeRow(values, scales []uint32, r int, dst []float32) {
	K := len(dst)
	b := bytesOf(values)[r*f.RowBytes(K) : (r+1)*f.RowBytes(K)]
	var s []byte
	if n := f.ScaleBytes(K); n > 0 {
		s = bytesOf(scales)[r*n : (r+1)*n]
	}
	f.DecodeRow(b, s, dst)
}

// DecodeRow is the inverse of EncodeRow, up to rounding.
func (f Format) DecodeRow(values, scales []byte, row []float32) {
	switch f {
	case F32:
		for k := range row {
			row[k] = math.Float32frombits(get32(values[4*k:]))
		}
	case F16:
		for k := range row {
			row[k] = float16.Frombits(get16(values[2*k:])).Float32()
		}
	case Q8:
		for i := 0; i < len(row); i += block {
			s := float16.Frombits(get16(scales[i/block*2:])).Float32()
			for k, q := range values[i : i+block] {
				row[i+k] = s * float32(int8(q))
			}
		}
	case Q4:
		for i := 0; i < len(row); i += block {
			s := float16.Frombits(get16(scales[i/block*4:])).Float32()
			m := float16.Frombits(get16(scales[i/block*4+2:])).Float32()
			for k, q := range values[i/2 : (i+block)/2] {
				row[i+2*k], row[i+2*k+1] = s*float32(q&15)+m, s*float32(q>>4)+m
			}
		}
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
