// SPDX-License-Identifier: Apache-2.0

// Package safetensors reads and writes the safetensors format: eight bytes of
// little-endian header length, a JSON header, then the tensors' bytes.
//
// A file or any io.ReaderAt enters; tensor descriptions and byte ranges leave.
// Only the header is ever held in memory. The package knows nothing of what the
// bytes mean: decoding to numbers, models and shards are for its callers.
//
// A file is refused unless it obeys the format's published rules: a header of
// at most 100 MB that starts with '{', no key twice, every size equal to its
// shape times its dtype, and tensors that cover the data without hole, overlap
// or trailing bytes.
package safetensors

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"os"
	"slices"
)

// MaxHeader is the largest header accepted, in bytes, as the format fixes it.
const MaxHeader = 100_000_000

// headerStart is the size of the length that precedes the header.
const headerStart = 8

// metadataKey is the one header key that is not a tensor.
const metadataKey = "__metadata__"

// itemSizes gives the bytes of one element of each dtype.
var itemSizes = map[string]int{
	"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1,
	"U16": 2, "I16": 2, "F16": 2, "BF16": 2,
	"U32": 4, "I32": 4, "F32": 4,
	"U64": 8, "I64": 8, "F64": 8,
}

// ItemSize gives the bytes of one element of dtype, spelled as in the file
// ("F32", "BF16", …), or false for a dtype that the package does not know.
func ItemSize(dtype string) (int, bool) {
	size, ok := itemSizes[dtype]
	return size, ok
}

// Tensor describes one tensor of a file.
type Tensor struct {
	Name   string
	DType  string // as spelled in the file: F32, F16, BF16, …
	Shape  []int  // empty for a scalar
	Offset int64  // of its first byte, from the start of the file
	Size   int64  // in bytes
}

// File is an open safetensors file. Its methods may be called concurrently.
type File struct {
	Tensors  []Tensor          // in the order of their bytes
	Metadata map[string]string // the header's __metadata__; nil if absent

	r      io.ReaderAt
	closer io.Closer
	byName map[string]int
}

// Open opens the file at path and reads its header. The caller closes it.
func Open(path string) (*File, error) {
	h, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	info, err := h.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("safetensors: %s: not a regular file", path)
	}
	if err != nil {
		h.Close()
		return nil, err
	}
	f, err := NewFile(h, info.Size(), path)
	if err != nil {
		h.Close()
		return nil, err
	}
	f.closer = h
	return f, nil
}

// NewFile reads the header of a safetensors file of size bytes from r. The name
// is used in errors only.
func NewFile(r io.ReaderAt, size int64, name string) (*File, error) {
	header, err := readHeader(r, size)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", name, err)
	}
	f := &File{r: r, byName: map[string]int{}}
	f.Tensors, f.Metadata, err = parseHeader(header)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %s: header: %w", name, err)
	}
	dataStart := headerStart + int64(len(header))
	if err := checkCover(f.Tensors, size-dataStart); err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", name, err)
	}
	for i := range f.Tensors {
		f.Tensors[i].Offset += dataStart
		f.byName[f.Tensors[i].Name] = i
	}
	return f, nil
}

// Close closes the file that Open opened.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// Lookup gives the tensor called name.
func (f *File) Lookup(name string) (Tensor, bool) {
	i, ok := f.byName[name]
	if !ok {
		return Tensor{}, false
	}
	return f.Tensors[i], true
}

// Data gives access to any byte range of t, which must be a tensor of f.
func (f *File) Data(t Tensor) *io.SectionReader {
	return io.NewSectionReader(f.r, t.Offset, t.Size)
}

// readHeader reads the header's JSON, having checked its length against the
// file's size.
func readHeader(r io.ReaderAt, size int64) ([]byte, error) {
	var start [headerStart]byte
	if size < headerStart {
		return nil, fmt.Errorf("want at least %d bytes, have %d", headerStart, size)
	}
	if err := readFull(r, start[:], 0); err != nil {
		return nil, fmt.Errorf("offset 0: %w", err)
	}
	n := binary.LittleEndian.Uint64(start[:])
	if n > MaxHeader {
		return nil, fmt.Errorf("header length: want at most %d, have %d", MaxHeader, n)
	}
	if n > uint64(size-headerStart) {
		return nil, fmt.Errorf("header length: want at most the %d bytes that follow, have %d", size-headerStart, n)
	}
	header := make([]byte, n)
	if err := readFull(r, header, headerStart); err != nil {
		return nil, fmt.Errorf("offset %d: %w", headerStart, err)
	}
	if len(header) == 0 || header[0] != '{' {
		return nil, fmt.Errorf("offset %d: header does not start with '{'", headerStart)
	}
	return header, nil
}

// readFull fills p from offset off. An io.ReaderAt may report io.EOF together
// with the last bytes; that is not an error here.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// checkCover sorts tensors by offset and checks that they cover dataSize bytes
// exactly once. Offsets are relative to the data here.
func checkCover(tensors []Tensor, dataSize int64) error {
	slices.SortStableFunc(tensors, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Size, b.Size))
	})
	end := int64(0)
	for _, t := range tensors {
		if t.Offset != end {
			return fmt.Errorf("tensor %q: want data offset %d, where the tensor before it ends, have %d", t.Name, end, t.Offset)
		}
		if t.Size > dataSize-end {
			return fmt.Errorf("tensor %q: want data end at most %d, have %d", t.Name, dataSize, uint64(end)+uint64(t.Size))
		}
		end += t.Size
	}
	if end != dataSize {
		return fmt.Errorf("want %d bytes of data after the header, have %d", end, dataSize)
	}
	return nil
}

// byteSize multiplies a shape by its dtype's item size, both already known to
// be non-negative, and reports overflow of int64.
func byteSize(dtype string, shape []int) (int64, error) {
	item, ok := itemSizes[dtype]
	if !ok {
		return 0, fmt.Errorf("dtype %q is not known", dtype)
	}
	size := uint64(item)
	for _, d := range shape {
		hi, lo := bits.Mul64(size, uint64(d))
		if hi != 0 || lo > 1<<63-1 {
			return 0, fmt.Errorf("shape %s of %s overflows", briefShape(shape), dtype)
		}
		size = lo
	}
	return int64(size), nil
}

// briefShape prints a shape for an error, whatever its length.
func briefShape(shape []int) string {
	if len(shape) > 8 {
		return fmt.Sprintf("of %d dimensions", len(shape))
	}
	return fmt.Sprint(shape)
}
