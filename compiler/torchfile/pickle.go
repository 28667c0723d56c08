// SPDX-License-Identifier: Apache-2.0

package torchfile

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
	"unicode/utf8"
)

// maxString bounds one pickled string; a longer one is no name or path.
const maxString = 1 << 24

// maxLine bounds each of the two lines of GLOBAL.
const maxLine = 256

// argKind says how an opcode's argument is encoded.
type argKind uint8

const (
	argNone  argKind = iota
	argUint1         // little-endian, of so many bytes
	argUint2
	argUint4
	argUint8
	argInt4    // signed
	argLong1   // length in 1 byte, little-endian two's complement
	argFloat8  // big-endian
	argString1 // length in so many bytes, UTF-8
	argString4
	argString8
	argBytes1 // length in so many bytes, anything
	argBytes4
	argBytes8
	argLines // two lines of text
)

const (
	opMark            = '('
	opStop            = '.'
	opNone            = 'N'
	opNewTrue         = 0x88
	opNewFalse        = 0x89
	opBinInt          = 'J'
	opBinInt1         = 'K'
	opBinInt2         = 'M'
	opLong1           = 0x8a
	opBinFloat        = 'G'
	opBinUnicode      = 'X'
	opShortBinUnicode = 0x8c
	opBinUnicode8     = 0x8d
	opBinBytes        = 'B'
	opShortBinBytes   = 'C'
	opBinBytes8       = 0x8e
	opByteArray8      = 0x96
	opEmptyList       = ']'
	opAppend          = 'a'
	opAppends         = 'e'
	opEmptyDict       = '}'
	opSetItem         = 's'
	opSetItems        = 'u'
	opEmptyTuple      = ')'
	opTuple           = 't'
	opTuple1          = 0x85
	opTuple2          = 0x86
	opTuple3          = 0x87
	opBinGet          = 'h'
	opLongBinGet      = 'j'
	opBinPut          = 'q'
	opLongBinPut      = 'r'
	opMemoize         = 0x94
	opGlobal          = 'c'
	opStackGlobal     = 0x93
	opReduce          = 'R'
	opNewObj          = 0x81
	opBuild           = 'b'
	opBinPersID       = 'Q'
	opProto           = 0x80
	opFrame           = 0x95
)

// opcodes lists every opcode that is obeyed; all others are refused.
var opcodes = [256]struct {
	name string // empty if refused
	arg  argKind
}{
	opMark: {"MARK", argNone}, opStop: {"STOP", argNone}, opNone: {"NONE", argNone},
	opNewTrue: {"NEWTRUE", argNone}, opNewFalse: {"NEWFALSE", argNone},
	opBinInt: {"BININT", argInt4}, opBinInt1: {"BININT1", argUint1}, opBinInt2: {"BININT2", argUint2},
	opLong1: {"LONG1", argLong1}, opBinFloat: {"BINFLOAT", argFloat8},
	opBinUnicode: {"BINUNICODE", argString4}, opShortBinUnicode: {"SHORT_BINUNICODE", argString1},
	opBinUnicode8: {"BINUNICODE8", argString8},
	opBinBytes:    {"BINBYTES", argBytes4}, opShortBinBytes: {"SHORT_BINBYTES", argBytes1},
	opBinBytes8: {"BINBYTES8", argBytes8}, opByteArray8: {"BYTEARRAY8", argBytes8},
	opEmptyList: {"EMPTY_LIST", argNone}, opAppend: {"APPEND", argNone}, opAppends: {"APPENDS", argNone},
	opEmptyDict: {"EMPTY_DICT", argNone}, opSetItem: {"SETITEM", argNone}, opSetItems: {"SETITEMS", argNone},
	opEmptyTuple: {"EMPTY_TUPLE", argNone}, opTuple: {"TUPLE", argNone},
	opTuple1: {"TUPLE1", argNone}, opTuple2: {"TUPLE2", argNone}, opTuple3: {"TUPLE3", argNone},
	opBinGet: {"BINGET", argUint1}, opLongBinGet: {"LONG_BINGET", argUint4},
	opBinPut: {"BINPUT", argUint1}, opLongBinPut: {"LONG_BINPUT", argUint4}, opMemoize: {"MEMOIZE", argNone},
	opGlobal: {"GLOBAL", argLines}, opStackGlobal: {"STACK_GLOBAL", argNone},
	opReduce: {"REDUCE", argNone}, opNewObj: {"NEWOBJ", argNone}, opBuild: {"BUILD", argNone},
	opBinPersID: {"BINPERSID", argNone}, opProto: {"PROTO", argUint1}, opFrame: {"FRAME", argUint8},
}

// instruction is one decoded opcode.
type instruction struct {
	code byte
	name string
	at   int64  // offset of the opcode
	arg  uint64 // of the unsigned kinds
	// value is the argument of the other kinds: int64, float64, string, global,
	// *blob, or longInt for an integer of more than 64 bits.
	value any
}

// longInt is an integer beyond 64 bits, as its little-endian bytes. Only
// torch's magic number needs one.
type longInt string

// blob is a bytes object, left where it lies in the file. A bytes object that
// is loaded as a nested file is loaded once, however often it is asked for.
type blob struct {
	src    io.ReaderAt
	off, n int64
	loaded *storage
}

// global is a (module, name) pair: an inert symbol, never looked up or called.
type global struct{ module, name string }

func (g global) String() string { return g.module + "." + g.name }

// reader decodes instructions from a byte range, holding a small window of it.
type reader struct {
	src  io.ReaderAt
	size int64 // end of the range in src
	at   int64 // next byte

	window   []byte
	windowAt int64
}

// maxWindow bounds the bytes of a pickle held at a time.
const maxWindow = 1 << 15

// take gives the next n bytes, n at most maxWindow. They are valid until the
// next call.
func (r *reader) take(n int) ([]byte, error) {
	if int64(n) > r.size-r.at {
		return nil, io.ErrUnexpectedEOF
	}
	i := r.at - r.windowAt
	if i < 0 || i+int64(n) > int64(len(r.window)) {
		if r.window == nil {
			r.window = make([]byte, min(maxWindow, r.size-r.at))
		}
		r.window = r.window[:min(int64(cap(r.window)), r.size-r.at)]
		k, err := r.src.ReadAt(r.window, r.at)
		r.window, r.windowAt, i = r.window[:k], r.at, 0
		if k < n {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	r.at += int64(n)
	return r.window[i : i+int64(n)], nil
}

// uint reads a little-endian unsigned integer of n bytes.
func (r *reader) uint(n int) (uint64, error) {
	b, err := r.take(n)
	if err != nil {
		return 0, err
	}
	var wide [8]byte
	copy(wide[:], b)
	return binary.LittleEndian.Uint64(wide[:]), nil
}

// length reads a length of n bytes and checks it against what remains.
func (r *reader) length(n int) (int64, error) {
	v, err := r.uint(n)
	if err != nil {
		return 0, err
	}
	if v > uint64(r.size-r.at) {
		return 0, fmt.Errorf("want at most the %d bytes that remain, have a length of %d", r.size-r.at, v)
	}
	return int64(v), nil
}

// next decodes the next instruction. Without values it skips over strings,
// which is all that a pass looking at the memo needs.
func (r *reader) next(values bool) (instruction, error) {
	in := instruction{at: r.at}
	b, err := r.take(1)
	if err != nil {
		return in, fmt.Errorf("offset %d: %w", in.at, err)
	}
	in.code = b[0]
	op := &opcodes[in.code]
	if op.name == "" {
		return in, fmt.Errorf("offset %d: opcode 0x%02x is not allowed", in.at, in.code)
	}
	in.name = op.name
	if err := r.argument(&in, op.arg, values); err != nil {
		return in, in.fail(err)
	}
	return in, nil
}

// fail gives an error the instruction's address.
func (in instruction) fail(err error) error {
	return fmt.Errorf("offset %d: %s: %w", in.at, in.name, err)
}

func (r *reader) argument(in *instruction, kind argKind, values bool) (err error) {
	switch kind {
	case argUint1:
		in.arg, err = r.uint(1)
	case argUint2:
		in.arg, err = r.uint(2)
	case argUint4:
		in.arg, err = r.uint(4)
	case argUint8:
		in.arg, err = r.uint(8)
	case argInt4:
		in.arg, err = r.uint(4)
		in.value = int64(int32(in.arg))
	case argFloat8:
		in.arg, err = r.uint(8)
		in.value = math.Float64frombits(bits.ReverseBytes64(in.arg))
	case argLong1:
		in.value, err = r.long()
	case argString1:
		in.value, err = r.text(1, values)
	case argString4:
		in.value, err = r.text(4, values)
	case argString8:
		in.value, err = r.text(8, values)
	case argBytes1:
		in.value, err = r.blob(1)
	case argBytes4:
		in.value, err = r.blob(4)
	case argBytes8:
		in.value, err = r.blob(8)
	case argLines:
		in.value, err = r.global()
	}
	return err
}

// long reads LONG1's argument: an int64, or a longInt when it needs more bits.
func (r *reader) long() (any, error) {
	n, err := r.length(1)
	if err != nil {
		return nil, err
	}
	b, err := r.take(int(n))
	if err != nil {
		return nil, err
	}
	if n > 8 {
		return longInt(b), nil
	}
	var wide [8]byte
	copy(wide[:], b)
	v := int64(binary.LittleEndian.Uint64(wide[:]))
	unused := 64 - 8*uint(n)
	return v << unused >> unused, nil
}

// text reads a string whose length takes width bytes.
func (r *reader) text(width int, values bool) (any, error) {
	n, err := r.length(width)
	if err != nil {
		return nil, err
	}
	if n > maxString {
		return nil, fmt.Errorf("want a string of at most %d bytes, have %d", maxString, n)
	}
	if !values {
		r.at += n
		return nil, nil
	}
	var b []byte
	if n <= maxWindow {
		b, err = r.take(int(n))
	} else {
		b = make([]byte, n)
		err = readFull(r.src, b, r.at)
		r.at += n
	}
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(b) {
		return nil, fmt.Errorf("string is not valid UTF-8")
	}
	return string(b), nil
}

// blob skips a bytes object whose length takes width bytes.
func (r *reader) blob(width int) (any, error) {
	n, err := r.length(width)
	if err != nil {
		return nil, err
	}
	b := &blob{src: r.src, off: r.at, n: n}
	r.at += n
	return b, nil
}

// global reads GLOBAL's two lines.
func (r *reader) global() (any, error) {
	var lines [2]string
	for i := range lines {
		var line []byte
		for {
			b, err := r.take(1)
			if err != nil {
				return nil, err
			}
			if b[0] == '\n' {
				break
			}
			if len(line) == maxLine {
				return nil, fmt.Errorf("want lines of at most %d bytes", maxLine)
			}
			line = append(line, b[0])
		}
		lines[i] = string(line)
	}
	return global{lines[0], lines[1]}, nil
}

// readFull fills p from offset off. An io.ReaderAt may report io.EOF together
// with the last bytes; that is not an error here.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
