// SPDX-License-Identifier: Apache-2.0

package torchfile

import (
	"cmp"
	"fmt"
	"io"
	"math/bits"
	"slices"
)

// elem is an element type: its dtype in safetensors' spelling and its bytes.
type elem struct {
	dtype string
	size  int
}

// storage is a run of elements somewhere in the file: what torch calls an
// untyped storage together with the type it was saved under.
type storage struct {
	src   io.ReaderAt
	off   int64 // of the first byte in src
	elem  *elem
	numel int
}

// Tensor is a strided view of a storage in an open file. Its methods may be
// called concurrently, until the file is closed.
type Tensor struct {
	Shape []int // empty for a scalar

	strides []int // in elements, one for each dimension
	offset  int   // of the first element in data
	data    *storage
}

// DType gives the element type, spelled as safetensors does: F32, F16, BF16, …
func (t *Tensor) DType() string { return t.data.elem.dtype }

// ItemSize gives the bytes of one element.
func (t *Tensor) ItemSize() int { return t.data.elem.size }

// newTensor checks that the view lies within its storage. It also refuses a
// view with more elements than its storage has (an expanded tensor), so that
// no tensor claims more memory than its file pays for.
func newTensor(data *storage, offset int, shape, strides []int) (*Tensor, error) {
	if len(shape) != len(strides) {
		return nil, fmt.Errorf("shape %v has %d dimensions, strides %v have %d", brief(shape), len(shape), brief(strides), len(strides))
	}
	if offset < 0 || offset > data.numel {
		return nil, fmt.Errorf("storage offset: want 0 to %d, have %d", data.numel, offset)
	}
	n, err := product(shape)
	if err != nil {
		return nil, err
	}
	if n > data.numel {
		return nil, fmt.Errorf("shape %v: want at most the storage's %d elements, have %d", brief(shape), data.numel, n)
	}
	room := data.numel - offset // elements from the first on
	for i, d := range shape {
		if strides[i] < 0 {
			return nil, fmt.Errorf("strides %v: negative", brief(strides))
		}
		if n == 0 || d == 1 || strides[i] == 0 {
			continue
		}
		if strides[i] > (room-1)/(d-1) {
			return nil, fmt.Errorf("shape %v, strides %v, offset %d: reaches beyond the storage's %d elements", brief(shape), brief(strides), offset, data.numel)
		}
		room -= strides[i] * (d - 1)
	}
	if n > 0 && room < 1 {
		return nil, fmt.Errorf("shape %v, offset %d: reaches beyond the storage's %d elements", brief(shape), offset, data.numel)
	}
	return &Tensor{Shape: shape, strides: strides, offset: offset, data: data}, nil
}

// product multiplies a shape's dimensions.
func product(shape []int) (int, error) {
	n := uint64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("shape %v: negative", brief(shape))
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > 1<<62 {
			return 0, fmt.Errorf("shape %v: overflows", brief(shape))
		}
		n = lo
	}
	return int(n), nil
}

// brief keeps a hostile list from filling an error.
func brief(list []int) []int { return list[:min(len(list), 8)] }

// contiguous gives the row-major strides of a shape whose product is known not
// to overflow.
func contiguous(shape []int) []int {
	strides := make([]int, len(shape))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		strides[i] = n
		n *= max(shape[i], 1)
	}
	return strides
}

// rows gives the number of rows and the elements of each: a row is one index of
// the first dimension; a tensor of fewer than two dimensions is one row.
func (t *Tensor) rows() (n, elems int) {
	n, inner := 1, t.Shape
	if len(t.Shape) > 1 {
		n, inner = t.Shape[0], t.Shape[1:]
	}
	elems = 1
	for _, d := range inner {
		elems *= d
	}
	return n, elems
}

// ReadRows fills dst with rows [first, first+n), little-endian and row-major
// whatever the tensor's strides. A row is one index of the first dimension; a
// tensor of fewer than two dimensions is one row. len(dst) must be the rows'
// size in bytes. Beyond dst it uses a bounded buffer.
func (t *Tensor) ReadRows(dst []byte, first, n int) error {
	rows, elems := t.rows()
	if first < 0 || n < 0 || first > rows || n > rows-first {
		return fmt.Errorf("torchfile: read rows: want rows within 0 to %d, have %d of them from %d", rows, n, first)
	}
	if want := n * elems * t.ItemSize(); len(dst) != want {
		return fmt.Errorf("torchfile: read rows: want a buffer of %d bytes, have %d", want, len(dst))
	}
	if len(dst) == 0 {
		return nil
	}
	shape, start := t.Shape, t.offset
	if len(shape) > 1 {
		shape = append([]int{n}, shape[1:]...)
		start += first * t.strides[0]
	}
	if err := t.data.gather(dst, start, shape, t.strides); err != nil {
		return fmt.Errorf("torchfile: read rows: %w", err)
	}
	return nil
}

// axis is one dimension of a gather: how far a step moves in the storage and in
// the row-major destination, in elements.
type axis struct{ n, from, to int }

// gather copies a strided block of at least one element to dst. It walks the
// storage in the order of its bytes, the widest stride outermost, so that a
// transposed matrix is read in runs too.
func (s *storage) gather(dst []byte, start int, shape, strides []int) error {
	to := contiguous(shape)
	var axes []axis
	for i, n := range shape {
		if n > 1 {
			axes = append(axes, axis{n, strides[i], to[i]})
		}
	}
	slices.SortStableFunc(axes, func(a, b axis) int {
		return cmp.Or(cmp.Compare(b.from, a.from), cmp.Compare(b.to, a.to))
	})
	// Neighbouring axes that step alike on both sides are one run.
	merged := axes[:0]
	for _, a := range axes {
		if k := len(merged) - 1; k >= 0 && merged[k].from == a.n*a.from && merged[k].to == a.n*a.to {
			merged[k] = axis{merged[k].n * a.n, a.from, a.to}
			continue
		}
		merged = append(merged, a)
	}
	g := gatherer{storage: s, dst: dst}
	return g.block(start, 0, merged)
}

// gatherer holds what stays the same through a gather's recursion, which is as
// deep as the tensor has dimensions.
type gatherer struct {
	*storage
	dst []byte
	buf []byte // of gatherWindow bytes, made when first needed
}

// gatherWindow bounds the buffer for elements that do not lie side by side.
const gatherWindow = 1 << 16

func (g *gatherer) block(from, to int, axes []axis) error {
	size := g.elem.size
	if len(axes) == 0 {
		return g.read(g.dst[to*size:(to+1)*size], from)
	}
	a := axes[0]
	if len(axes) > 1 {
		for i := range a.n {
			if err := g.block(from+i*a.from, to+i*a.to, axes[1:]); err != nil {
				return err
			}
		}
		return nil
	}
	if a.from == 1 && a.to == 1 {
		return g.read(g.dst[to*size:(to+a.n)*size], from)
	}
	if g.buf == nil {
		g.buf = make([]byte, gatherWindow)
	}
	// Read a span that holds as many of the spaced elements as the window can.
	perSpan := a.n
	if a.from > 0 {
		perSpan = min(a.n, 1+(gatherWindow/size-1)/a.from)
	}
	for i := 0; i < a.n; i += perSpan {
		k := min(perSpan, a.n-i)
		span := g.buf[:((k-1)*a.from+1)*size]
		if err := g.read(span, from+i*a.from); err != nil {
			return err
		}
		for j := range k {
			copy(g.dst[(to+(i+j)*a.to)*size:][:size], span[j*a.from*size:][:size])
		}
	}
	return nil
}

// read fills dst with the elements from index first on.
func (s *storage) read(dst []byte, first int) error {
	off := s.off + int64(first)*int64(s.elem.size)
	if err := readFull(s.src, dst, off); err != nil {
		return fmt.Errorf("offset %d: %w", off, err)
	}
	return nil
}
