// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/x448/float16"

	"fromage/compiler/safetensors"
)

// chunk is how many stored bytes are decoded at a time, unless one row is more.
const chunk = 1 << 20

// Rows gives the tensor's number of rows: its first dimension, or 1 if it has
// fewer than two.
func (t Tensor) Rows() int {
	if len(t.Shape) < 2 {
		return 1
	}
	return t.Shape[0]
}

// RowLen gives the elements of one row.
func (t Tensor) RowLen() int {
	inner := t.Shape
	if len(inner) > 1 {
		inner = inner[1:]
	}
	n := 1
	for _, d := range inner {
		n *= d
	}
	return n
}

// ReadRows decodes rows [first, first+n) to dst, which must have n × RowLen
// elements. F32, F16 and BF16 decode exactly and F64 is rounded; other dtypes
// are an error. Beyond dst it uses about a megabyte, or one row if that is more.
func (t Tensor) ReadRows(first, n int, dst []float32) error {
	if err := t.readRows(first, n, dst); err != nil {
		return fmt.Errorf("checkpoint: %s: tensor %q: %w", t.file, t.Name, err)
	}
	return nil
}

func (t Tensor) readRows(first, n int, dst []float32) error {
	rows, rowLen := t.Rows(), t.RowLen()
	if first < 0 || n < 0 || first > rows || n > rows-first {
		return fmt.Errorf("want rows within 0 to %d, have %d of them from %d", rows, n, first)
	}
	if len(dst) != n*rowLen {
		return fmt.Errorf("want a buffer of %d × %d elements, have %d", n, rowLen, len(dst))
	}
	decode := decoders[t.DType]
	if decode == nil {
		return fmt.Errorf("want dtype F32, F16, BF16 or F64, have %s", t.DType)
	}
	if len(dst) == 0 {
		return nil
	}
	size, _ := safetensors.ItemSize(t.DType)
	rowSize := rowLen * size
	step := min(n, max(1, chunk/rowSize))
	raw := make([]byte, step*rowSize)
	for n > 0 {
		step = min(step, n)
		part := raw[:step*rowSize]
		if err := t.data.ReadRows(part, first, step); err != nil {
			return err
		}
		decode(dst[:step*rowLen], part)
		first, n, dst = first+step, n-step, dst[step*rowLen:]
	}
	return nil
}

// decoders turn little-endian elements into float32, one for each element of
// dst.
var decoders = map[string]func(dst []float32, src []byte){
	"F64": func(dst []float32, src []byte) {
		for i := range dst {
			dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:])))
		}
	},
	"F32": func(dst []float32, src []byte) {
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	},
	"F16": func(dst []float32, src []byte) {
		for i := range dst {
			dst[i] = float16.Frombits(binary.LittleEndian.Uint16(src[2*i:])).Float32()
		}
	},
	// The upper half of a float32.
	"BF16": func(dst []float32, src []byte) {
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16)
		}
	},
}
