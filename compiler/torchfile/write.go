// SPDX-License-Identifier: Apache-2.0

package torchfile

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Dict is a Python dict to be written, its items in order.
type Dict []Item

// Item is one key of a Dict with its value: a Dict, Source, string, bool, int
// or float64.
type Item struct {
	Key   string
	Value any
}

// Source is a tensor to be written.
type Source struct {
	DType string // F32, BF16, … as in Tensor.DType
	Shape []int
	Data  []byte // shape × dtype bytes, little-endian, row-major
}

// FromFloats makes a tensor of values; dtype is F32, or BF16 to which values are
// rounded to nearest even, as torch does.
func FromFloats(dtype string, shape []int, values []float32) (Source, error) {
	s := Source{DType: dtype, Shape: shape}
	switch dtype {
	case "F32":
		for _, v := range values {
			s.Data = binary.LittleEndian.AppendUint32(s.Data, math.Float32bits(v))
		}
	case "BF16":
		for _, v := range values {
			s.Data = binary.LittleEndian.AppendUint16(s.Data, bf16(v))
		}
	default:
		return s, fmt.Errorf("torchfile: tensor of floats: want F32 or BF16, have %.20q", dtype)
	}
	return s, nil
}

func bf16(v float32) uint16 {
	if v != v {
		return 0x7fc0
	}
	bits := math.Float32bits(v)
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// Write writes root as torch.save does: a zip of stored entries
// whose data start at multiples of 64 bytes, in a folder called archive, which
// torch makes of the file's name without its extension. The same root always
// gives the same bytes.
func Write(w io.Writer, archive string, root Dict) error {
	if archive == "" || strings.ContainsAny(archive, "/\\") || !utf8.ValidString(archive) || len(archive) > maxName {
		return fmt.Errorf("torchfile: write: archive: want the name of a folder, have %.100q", archive)
	}
	p := pickler{memo: map[string]int{}}
	p.op(opProto, 2)
	if err := p.dict(root, 0); err != nil {
		return fmt.Errorf("torchfile: write: %w", err)
	}
	p.op(opStop)
	z := zipWriter{out: counter{w: w}, folder: archive + "/"}
	z.zip = zip.NewWriter(&z.out)
	z.add("data.pkl", p.out)
	z.add(".format_version", []byte("1"))
	z.add(".storage_alignment", []byte(strconv.Itoa(alignment)))
	z.add("byteorder", []byte("little"))
	for i, data := range p.storages {
		z.add("data/"+strconv.Itoa(i), data)
	}
	z.add("version", []byte("3\n"))
	z.add(".data/serialization_id", z.id())
	if z.err == nil {
		z.err = z.zip.Close()
	}
	if z.err != nil {
		return fmt.Errorf("torchfile: write: %w", z.err)
	}
	return nil
}

// alignment is where torch lets an entry's data start.
const alignment = 64

// zipWriter lays entries out as torch does. Its first error stays.
type zipWriter struct {
	zip    *zip.Writer
	out    counter
	folder string
	sums   []byte // names and checksums so far
	err    error
}

// counter knows how many bytes went through it.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// add writes an entry, padded before its data by a field of its header.
func (z *zipWriter) add(name string, data []byte) {
	if z.err != nil {
		return
	}
	if int64(len(data)) >= math.MaxUint32 {
		z.err = fmt.Errorf("entry %s: want less than 4 GiB, have %d bytes", name, len(data))
		return
	}
	const (
		localHeader    = 30
		extraHeader    = 4
		dataDescriptor = 8 // a flag: checksum and sizes follow the data
		utf8Name       = 0x800
	)
	if z.err = z.zip.Flush(); z.err != nil {
		return
	}
	// The descriptor of the entry before is written only when this one begins.
	start := z.out.n + z.pending() + localHeader + int64(len(z.folder)+len(name)) + extraHeader
	padding := int(-start & (alignment - 1))
	extra := binary.LittleEndian.AppendUint16([]byte("FB"), uint16(padding))
	header := &zip.FileHeader{
		Name: z.folder + name, Flags: dataDescriptor | utf8Name, CRC32: crc32.ChecksumIEEE(data),
		CompressedSize64: uint64(len(data)), UncompressedSize64: uint64(len(data)),
		Extra: append(extra, strings.Repeat("Z", padding)...),
	}
	z.sums = binary.LittleEndian.AppendUint32(append(z.sums, name...), header.CRC32)
	entry, err := z.zip.CreateRaw(header)
	if err == nil {
		_, err = entry.Write(data)
	}
	z.err = err
}

// pending is how many bytes the zip package still owes to the entry before.
func (z *zipWriter) pending() int64 {
	if z.sums == nil {
		return 0
	}
	const descriptor = 16
	return descriptor
}

// id is the forty digits by which torch tells files apart: any that differ where
// contents do.
func (z *zipWriter) id() []byte {
	sum := sha256.Sum256(z.sums)
	return fmt.Appendf(nil, "%020d%020d", binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:]))
}

// pickler makes the pickle, protocol 2, that Python's makes: every value but
// numbers goes to the memo, in order.
type pickler struct {
	out      []byte
	memo     map[string]int // of globals, and of the strings that torch repeats
	puts     int
	storages [][]byte
}

func (p *pickler) op(code byte, args ...byte) {
	p.out = append(append(p.out, code), args...)
}

// put puts the value on top of the stack into the memo.
func (p *pickler) put() int {
	n := p.puts
	p.puts++
	if n < 1<<8 {
		p.op(opBinPut, byte(n))
	} else {
		p.op(opLongBinPut, binary.LittleEndian.AppendUint32(nil, uint32(n))...)
	}
	return n
}

// get pushes what the memo holds under key, or what push pushes.
func (p *pickler) get(key string, push func()) {
	n, ok := p.memo[key]
	switch {
	case !ok:
		push()
		p.memo[key] = p.put()
	case n < 1<<8:
		p.op(opBinGet, byte(n))
	default:
		p.op(opLongBinGet, binary.LittleEndian.AppendUint32(nil, uint32(n))...)
	}
}

// text pushes a string without putting it into the memo.
func (p *pickler) text(s string) {
	p.op(opBinUnicode, binary.LittleEndian.AppendUint32(nil, uint32(len(s)))...)
	p.out = append(p.out, s...)
}

func (p *pickler) repeated(s string) { p.get("text "+s, func() { p.text(s) }) }

func (p *pickler) global(module, name string) {
	p.get("global "+module+" "+name, func() { p.op(opGlobal, []byte(module+"\n"+name+"\n")...) })
}

func (p *pickler) int(v int64) {
	switch {
	case v >= 0 && v < 1<<8:
		p.op(opBinInt1, byte(v))
	case v >= 0 && v < 1<<16:
		p.op(opBinInt2, byte(v), byte(v>>8))
	case v == int64(int32(v)):
		p.op(opBinInt, binary.LittleEndian.AppendUint32(nil, uint32(v))...)
	default:
		b := binary.LittleEndian.AppendUint64(nil, uint64(v))
		// The shortest two's complement.
		for n := len(b); n > 1 && int8(b[n-1]) == int8(b[n-2])>>7; n-- {
			b = b[:n-1]
		}
		p.op(opLong1, append([]byte{byte(len(b))}, b...)...)
	}
}

func (p *pickler) dict(d Dict, depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("dicts: want at most %d within each other, have more", maxNesting)
	}
	p.op(opEmptyDict)
	p.put()
	if len(d) > 1 {
		p.op(opMark)
	}
	seen := map[string]bool{}
	for _, item := range d {
		if seen[item.Key] || !utf8.ValidString(item.Key) || len(item.Key) > maxName {
			return fmt.Errorf("%.100q: want a name of its own, UTF-8, at most %d bytes", item.Key, maxName)
		}
		seen[item.Key] = true
		p.text(item.Key)
		p.put()
		if err := p.value(item.Value, depth); err != nil {
			return fmt.Errorf("%s: %w", item.Key, err)
		}
	}
	switch {
	case len(d) > 1:
		p.op(opSetItems)
	case len(d) == 1:
		p.op(opSetItem)
	}
	return nil
}

func (p *pickler) value(v any, depth int) error {
	switch v := v.(type) {
	case Dict:
		return p.dict(v, depth+1)
	case Source:
		return p.tensor(v)
	case string:
		if !utf8.ValidString(v) || len(v) > maxString {
			return fmt.Errorf("text: want UTF-8, at most %d bytes", maxString)
		}
		p.text(v)
		p.put()
	case bool:
		if v {
			p.op(opNewTrue)
		} else {
			p.op(opNewFalse)
		}
	case int:
		p.int(int64(v))
	case float64:
		p.op(opBinFloat, binary.BigEndian.AppendUint64(nil, math.Float64bits(v))...)
	default:
		return fmt.Errorf("want a Dict, Source, string, bool, int or float64, have %T", v)
	}
	return nil
}

// tensor pushes torch._utils._rebuild_tensor_v2(("storage", type, key, "cpu",
// elements), 0, shape, strides, False, OrderedDict()).
func (p *pickler) tensor(t Source) error {
	storageType, size := "", 0
	for name, e := range storageTypes {
		if e.dtype == t.DType {
			storageType, size = name, e.size
		}
	}
	if size == 0 {
		return fmt.Errorf("tensor: unknown dtype %.20q", t.DType)
	}
	if len(t.Shape) > maxDims {
		return fmt.Errorf("tensor: want at most %d dimensions, have %d", maxDims, len(t.Shape))
	}
	n, err := product(t.Shape)
	if err != nil {
		return err
	}
	if len(t.Data)%size != 0 || len(t.Data)/size != n {
		return fmt.Errorf("tensor of %s %v: want %d elements of %d bytes, have %d bytes", t.DType, t.Shape, n, size, len(t.Data))
	}
	p.global("torch._utils", "_rebuild_tensor_v2")
	p.op(opMark)
	p.op(opMark)
	p.repeated("storage")
	p.global("torch", storageType)
	p.text(strconv.Itoa(len(p.storages)))
	p.put()
	p.repeated("cpu")
	p.int(int64(n))
	p.op(opTuple)
	p.put()
	p.op(opBinPersID)
	p.int(0)
	p.ints(t.Shape)
	p.ints(contiguous(t.Shape))
	p.op(opNewFalse)
	p.global("collections", "OrderedDict")
	p.op(opEmptyTuple)
	p.op(opReduce)
	p.put()
	p.op(opTuple)
	p.put()
	p.op(opReduce)
	p.put()
	p.storages = append(p.storages, t.Data)
	return nil
}

// ints pushes a tuple.
func (p *pickler) ints(list []int) {
	if len(list) == 0 {
		p.op(opEmptyTuple)
		return
	}
	if len(list) > 3 {
		p.op(opMark)
	}
	for _, v := range list {
		p.int(int64(v))
	}
	if len(list) > 3 {
		p.op(opTuple)
	} else {
		p.op(byte(opTuple1 + len(list) - 1))
	}
	p.put()
}
