// SPDX-License-Identifier: Apache-2.0

package wasmbuild

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

const header = "\x00asm\x01\x00\x00\x00"

// Numbers of sections.
const (
	typeSection     = 1
	importSection   = 2
	functionSection = 3
	startSection    = 8
	elementSection  = 9
	codeSection     = 10
	dataSection     = 11
)

// Of the table, in bytes and buckets.
const (
	bucketSize  = 20 // a function's number as u32, and 16 small numbers that are 0
	perFunction = 16
	leastCount  = 100 * perFunction
)

// maxMemory is the most bytes of a program's memory that its segments may fill.
const maxMemory = 1 << 30

type section struct {
	id   byte
	body []byte
}

// Shrink returns a program of the Go compiler that is smaller and does the same: its memory has the same bytes when it begins. One that has nothing to
// shrink comes back as it is.
//
// The linker writes a table from addresses of code to functions (runtime.findfunctab), a bucket for 4,096 addresses. On wasm each function has 65,536
// addresses, and what is empty but for counting takes a tenth of a program and nine tenths of its data segments, which a host reads one by one. Here a
// loop of 30 bytes writes it before the program begins.
func Shrink(program []byte) ([]byte, error) {
	sections, err := split(program)
	if err != nil {
		return nil, fmt.Errorf("wasmbuild: shrink: %w", err)
	}
	at := slices.IndexFunc(sections, func(s section) bool { return s.id == dataSection })
	if at < 0 {
		return program, nil
	}
	memory, first, err := image(sections[at].body)
	if err != nil {
		return nil, fmt.Errorf("wasmbuild: shrink: data: %w", err)
	}
	base, count := findTable(memory)
	if count < leastCount {
		return program, nil
	}
	clear(memory[base : base+count*bucketSize])
	sections[at].body = segments(memory, first)
	if sections, err = addStart(sections, fill(base, count)); err != nil {
		return nil, fmt.Errorf("wasmbuild: shrink: %w", err)
	}
	out := []byte(header)
	for _, s := range sections {
		out = append(out, s.id)
		out = appendBytes(out, s.body)
	}
	return out, nil
}

// split takes a program apart.
func split(program []byte) (sections []section, err error) {
	rest, ok := bytes.CutPrefix(program, []byte(header))
	if !ok {
		return nil, errors.New("want a WebAssembly module of version 1")
	}
	r := reader{rest}
	for len(r.b) > 0 {
		id, err := r.byte()
		if err != nil {
			return nil, err
		}
		body, err := r.bytes()
		if err != nil {
			return nil, fmt.Errorf("section %d: %w", id, err)
		}
		if id == startSection {
			return nil, errors.New("the program has a start function already")
		}
		sections = append(sections, section{id, body})
	}
	return sections, nil
}

// image is the memory that a data section fills, and the first address of it that it does.
func image(data []byte) (memory []byte, first int, err error) {
	r := reader{data}
	count, err := r.uint()
	if err != nil {
		return nil, 0, err
	}
	for i := range count {
		if kind, err := r.uint(); err != nil || kind != 0 {
			return nil, 0, fmt.Errorf("segment %d: want one at a constant address of memory 0, have kind %d: %w", i, kind, err)
		}
		address, err := r.constant()
		if err != nil {
			return nil, 0, fmt.Errorf("segment %d: %w", i, err)
		}
		b, err := r.bytes()
		if err != nil {
			return nil, 0, fmt.Errorf("segment %d: %w", i, err)
		}
		if address < first || address > maxMemory-len(b) {
			return nil, 0, fmt.Errorf("segment %d: want addresses from %d to %d, have %d bytes at %d", i, first, maxMemory, len(b), address)
		}
		if i == 0 {
			first = address
		}
		if end := address + len(b); end > len(memory) {
			memory = append(memory, make([]byte, end-len(memory))...)
		}
		copy(memory[address:], b)
	}
	return memory, first, nil
}

// findTable returns where the longest part of memory begins that is a table of functions, and its number of buckets.
func findTable(memory []byte) (base, count int) {
	for p := 0; p+leastCount*bucketSize <= len(memory); p += 4 {
		// The words of the first three functions rule nearly every place out.
		if n := 16 * bucketSize; word(memory, p) == 0 && word(memory, p+n) == 1 && word(memory, p+2*n) == 2 {
			if n := buckets(memory[p:]); n > count {
				base, count = p, n
			}
		}
	}
	return base, count
}

// buckets counts the buckets of a table at the beginning of memory.
func buckets(memory []byte) int {
	var bucket [bucketSize]byte
	for k := 0; ; k++ {
		binary.LittleEndian.PutUint32(bucket[:], uint32(k/perFunction))
		if !bytes.HasPrefix(memory[min(k*bucketSize, len(memory)):], bucket[:]) {
			return k
		}
	}
}

func word(memory []byte, at int) uint32 { return binary.LittleEndian.Uint32(memory[at:]) }

// segments writes memory from first on as a data section that leaves zeros out where that is shorter.
func segments(memory []byte, first int) []byte {
	const overhead = 8 // bytes of a segment besides its contents
	var body []byte
	count := 0
	for at := first; at < len(memory); {
		if memory[at] == 0 {
			at++
			continue
		}
		end, zeros := at, 0
		for i := at; i < len(memory) && zeros <= overhead; i++ {
			if zeros++; memory[i] != 0 {
				end, zeros = i+1, 0
			}
		}
		body = append(body, 0, 0x41) // i32.const
		body = appendInt(body, at)
		body = append(body, 0x0b) // end
		body = appendBytes(body, memory[at:end])
		count++
		at = end
	}
	return append(binary.AppendUvarint(nil, uint64(count)), body...)
}

// fill is the code of a function that writes a table of count buckets at base.
func fill(base, count int) []byte {
	code := []byte{1, 1, 0x7f, // one local, an i32: the bucket
		0x03, 0x40, // loop
		0x20, 0, 0x41, bucketSize, 0x6c, // local.get 0, i32.const, i32.mul
		0x20, 0, 0x41, 4, 0x76, // local.get 0, i32.const 4, i32.shr_u: by perFunction
		0x36, 2} // i32.store
	code = binary.AppendUvarint(code, uint64(base))
	code = append(code, 0x20, 0, 0x41, 1, 0x6a, 0x22, 0, 0x41) // local.get 0, i32.const 1, i32.add, local.tee 0, i32.const
	code = appendInt(code, count)
	return append(code, 0x49, 0x0d, 0, 0x0b, 0x0b) // i32.lt_u, br_if 0, end, end
}

// addStart adds a function without parameters that runs before every other.
func addStart(sections []section, code []byte) ([]section, error) {
	get := func(id byte) *section {
		for i := range sections {
			if sections[i].id == id {
				return &sections[i]
			}
		}
		return &section{body: []byte{0}}
	}
	imported, err := importedFunctions(get(importSection).body)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	kind, err := get(typeSection).add([]byte{0x60, 0, 0})
	if err != nil {
		return nil, fmt.Errorf("type: %w", err)
	}
	number, err := get(functionSection).add(binary.AppendUvarint(nil, uint64(kind)))
	if err != nil {
		return nil, fmt.Errorf("function: %w", err)
	}
	if _, err := get(codeSection).add(appendBytes(nil, code)); err != nil {
		return nil, fmt.Errorf("code: %w", err)
	}
	at := slices.IndexFunc(sections, func(s section) bool { return s.id >= elementSection })
	return slices.Insert(sections, at, section{startSection, binary.AppendUvarint(nil, uint64(imported+number))}), nil
}

// add adds an item to a section that is a count and items, and returns the item's number.
func (s *section) add(item []byte) (int, error) {
	r := reader{s.body}
	n, err := r.uint()
	if err != nil {
		return 0, err
	}
	s.body = slices.Concat(binary.AppendUvarint(nil, uint64(n+1)), r.b, item)
	return n, nil
}

// importedFunctions counts the imports of a program that imports nothing but functions.
func importedFunctions(imports []byte) (int, error) {
	r := reader{imports}
	count, err := r.uint()
	if err != nil {
		return 0, err
	}
	for i := range count {
		_, err1 := r.bytes() // the module
		_, err2 := r.bytes() // the name
		kind, err3 := r.byte()
		_, err4 := r.uint() // the type
		if err := errors.Join(err1, err2, err3, err4); err != nil || kind != 0 {
			return 0, fmt.Errorf("import %d: want a function, have kind %d: %w", i, kind, err)
		}
	}
	return count, nil
}

// reader reads the binary format.
type reader struct{ b []byte }

var errShort = errors.New("want more bytes")

func (r *reader) byte() (byte, error) {
	if len(r.b) == 0 {
		return 0, errShort
	}
	b := r.b[0]
	r.b = r.b[1:]
	return b, nil
}

// uint reads an unsigned number of 32 bits.
func (r *reader) uint() (int, error) {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > 1<<32-1 {
		return 0, errShort
	}
	r.b = r.b[size:]
	return int(n), nil
}

// bytes reads a length and as many bytes.
func (r *reader) bytes() ([]byte, error) {
	n, err := r.uint()
	if err != nil || n > len(r.b) {
		return nil, errShort
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b, nil
}

// constant reads an expression that is one i32.const, of an address.
func (r *reader) constant() (int, error) {
	if op, err := r.byte(); err != nil || op != 0x41 {
		return 0, fmt.Errorf("want i32.const, have opcode %#x", op)
	}
	n, shift := int64(0), 0
	for {
		b, err := r.byte()
		if err != nil || shift > 28 {
			return 0, errShort
		}
		n |= int64(b&0x7f) << shift
		if shift += 7; b < 0x80 {
			break
		}
	}
	if op, err := r.byte(); err != nil || op != 0x0b {
		return 0, fmt.Errorf("want end, have opcode %#x", op)
	}
	return int(uint32(n)), nil
}

func appendBytes(to, b []byte) []byte {
	return append(binary.AppendUvarint(to, uint64(len(b))), b...)
}

// appendInt writes a number that is not negative as a signed one.
func appendInt(to []byte, n int) []byte {
	for ; n >= 0x40; n >>= 7 {
		to = append(to, byte(n&0x7f)|0x80)
	}
	return append(to, byte(n))
}
