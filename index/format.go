// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	fileMagic    = "fromagei"
	segmentMagic = "FSEG"
	version      = 1

	headerSize = 64
	alignment  = 64

	// MaxD is the largest embedding size a file may declare.
	MaxD = 65536
	// BlockBytes bounds the vectors of one segment, hence of one Block.
	BlockBytes = 8 << 20

	maxField = 1 << 20 // bytes of one path, caption or licence
	maxRows  = math.MaxInt32

	kindRows     = 1
	kindRemovals = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// DType is how a row's D values are stored.
type DType uint32

const (
	F32 DType = 1 // 4 bytes a value, IEEE binary32, little-endian
	F16 DType = 2 // 2 bytes a value, IEEE binary16, little-endian
	Q8  DType = 3 // a signed byte a value: the row is those bytes divided by their norm
)

var dtypeNames = [...]string{F32: "f32", F16: "f16", Q8: "q8"}

// ParseDType is the inverse of String.
func ParseDType(name string) (DType, error) {
	for _, t := range []DType{F32, F16, Q8} {
		if dtypeNames[t] == name {
			return t, nil
		}
	}
	return 0, fmt.Errorf("index: row dtype: want f32, f16 or q8, have %q", name)
}

// Size is the number of bytes of one value; 0 for an unknown type.
func (t DType) Size() int {
	switch t {
	case F32:
		return 4
	case F16:
		return 2
	case Q8:
		return 1
	}
	return 0
}

func (t DType) String() string {
	if t.Size() == 0 {
		return fmt.Sprintf("dtype %d", uint32(t))
	}
	return dtypeNames[t]
}

// Header says what every row of a file has in common.
type Header struct {
	D     int      // values in an embedding, 1 to MaxD
	DType DType    // how they are stored
	Model [32]byte // identity of the heads and models that made them, the caller's choice
}

func (h Header) check() error {
	if h.D < 1 || h.D > MaxD {
		return fmt.Errorf("embedding size: want 1 to %d, have %d", MaxD, h.D)
	}
	if h.DType.Size() == 0 {
		return fmt.Errorf("row dtype: want f32 (1), f16 (2) or q8 (3), have %d", uint32(h.DType))
	}
	return nil
}

func (h Header) rowBytes() int { return h.D * h.DType.Size() }

func (h Header) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, fileMagic)
	binary.LittleEndian.PutUint32(b[8:], version)
	binary.LittleEndian.PutUint32(b[12:], uint32(h.D))
	binary.LittleEndian.PutUint32(b[16:], uint32(h.DType))
	copy(b[24:], h.Model[:])
	return seal(b)
}

func decodeHeader(b []byte) (Header, error) {
	if string(b[:8]) != fileMagic {
		return Header{}, fmt.Errorf("magic: want %q, have %q", fileMagic, b[:8])
	}
	if err := checkSeal(b); err != nil {
		return Header{}, err
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != version {
		return Header{}, fmt.Errorf("format version: want %d, have %d", version, v)
	}
	h := Header{
		D:     int(binary.LittleEndian.Uint32(b[12:])),
		DType: DType(binary.LittleEndian.Uint32(b[16:])),
		Model: [32]byte(b[24:56]),
	}
	return h, h.check()
}

// seal puts the checksum of a 64-byte header's first 60 bytes into its last 4.
func seal(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

func checkSeal(b []byte) error {
	want, have := binary.LittleEndian.Uint32(b[60:]), crc32.Checksum(b[:60], castagnoli)
	if want != have {
		return fmt.Errorf("header checksum: want %#08x, have %#08x", want, have)
	}
	return nil
}

// segment is the decoded head of a segment and where its parts lie in the file.
type segment struct {
	kind     uint32
	number   uint32 // counted from 0 over the whole file
	batch    uint32 // number of the first segment of the same append
	first    int    // rows before this segment
	count    int    // rows added, or row numbers removed
	vecCRC   uint32
	metaCRC  uint32
	at       int64 // offset of the head
	vecBytes int64 // padded; the vectors follow the head
	metaSize int64 // padded; the metadata follows the vectors
}

func (s segment) vectors() int64  { return s.at + headerSize }
func (s segment) metadata() int64 { return s.vectors() + s.vecBytes }
func (s segment) end() int64      { return s.metadata() + s.metaSize }

func (s segment) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint32(b[4:], s.kind)
	binary.LittleEndian.PutUint32(b[8:], s.number)
	binary.LittleEndian.PutUint32(b[12:], s.batch)
	binary.LittleEndian.PutUint64(b[16:], uint64(s.first))
	binary.LittleEndian.PutUint32(b[24:], uint32(s.count))
	binary.LittleEndian.PutUint32(b[28:], s.vecCRC)
	binary.LittleEndian.PutUint32(b[32:], s.metaCRC)
	binary.LittleEndian.PutUint32(b[36:], uint32(s.metaSize))
	return seal(b)
}

// decodeSegment reads the head b that stands at byte at. It checks all that the head alone can be wrong about.
func decodeSegment(b []byte, at int64, h Header) (segment, error) {
	if string(b[:4]) != segmentMagic {
		return segment{}, fmt.Errorf("magic: want %q, have %q", segmentMagic, b[:4])
	}
	if err := checkSeal(b); err != nil {
		return segment{}, err
	}
	s := segment{
		kind:     binary.LittleEndian.Uint32(b[4:]),
		number:   binary.LittleEndian.Uint32(b[8:]),
		batch:    binary.LittleEndian.Uint32(b[12:]),
		vecCRC:   binary.LittleEndian.Uint32(b[28:]),
		metaCRC:  binary.LittleEndian.Uint32(b[32:]),
		metaSize: int64(binary.LittleEndian.Uint32(b[36:])),
		at:       at,
	}
	first, count := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint32(b[24:])
	if first > maxRows || count < 1 || count > maxRows {
		return segment{}, fmt.Errorf("row count: want 1 to %d, have %d after %d", maxRows, count, first)
	}
	s.first, s.count = int(first), int(count)
	table := int64(s.count) * 4 // the row numbers removed
	switch s.kind {
	case kindRows:
		vectors := int64(s.count) * int64(h.rowBytes())
		if vectors > BlockBytes {
			return segment{}, fmt.Errorf("vectors: want at most %d bytes, have %d rows of %d", BlockBytes, s.count, h.rowBytes())
		}
		s.vecBytes = pad(vectors)
		table += 4 // offsets, one more than there are rows
	case kindRemovals:
	default:
		return segment{}, fmt.Errorf("kind: want %d or %d, have %d", kindRows, kindRemovals, s.kind)
	}
	if s.metaSize%alignment != 0 || s.metaSize < table {
		return segment{}, fmt.Errorf("metadata: want a multiple of %d from %d bytes on, have %d", alignment, table, s.metaSize)
	}
	return s, nil
}

func pad(n int64) int64 { return (n + alignment - 1) &^ (alignment - 1) }

// padded appends zeros to b until its length is a multiple of the alignment.
func padded(b []byte) []byte {
	var zero [alignment]byte
	return append(b, zero[:pad(int64(len(b)))-int64(len(b))]...)
}

// state is what a file's finished segments say. A published state never changes: readers keep the one they loaded.
type state struct {
	segs    []segment // those with rows, in order of their first row
	rows    int       // all row numbers given out
	live    int       // of these, not removed
	removed bitset
	number  uint32 // of the next segment
	end     int64  // offset of the next segment
	torn    int64  // bytes after end
}

// bitset has bit i at word i/64; a missing word is zero.
type bitset []uint64

func (b bitset) has(i int) bool { return i>>6 < len(b) && b[i>>6]>>(i&63)&1 != 0 }

// scan walks the segment heads of src and loads the removals. It stops before a segment that was never finished;
// a head that is wrong in any other way is an error. size is asked again after each head: bytes that a finished head
// speaks of were in the file before it, also when another process appended them just now.
func scan(src io.ReaderAt, size func() (int64, error), h Header) (*state, error) {
	st := &state{end: headerSize}
	head := make([]byte, headerSize)
	for {
		n, err := src.ReadAt(head, st.end)
		if n < headerSize && err != io.EOF {
			return nil, fmt.Errorf("segment %d at byte %d: %w", st.number, st.end, err)
		}
		total, err := size()
		if err != nil {
			return nil, err
		}
		st.torn = max(0, total-st.end)
		if n < headerSize || isZero(head) {
			return st, nil
		}
		s, err := decodeSegment(head, st.end, h)
		if err != nil {
			return nil, fmt.Errorf("segment %d at byte %d: %w", st.number, st.end, err)
		}
		if s.end() > total {
			return st, nil
		}
		if s.number != st.number || s.batch > s.number || s.first != st.rows {
			return nil, fmt.Errorf("segment %d at byte %d: want segment %d after %d rows, have segment %d of batch %d after %d rows",
				st.number, st.end, st.number, st.rows, s.number, s.batch, s.first)
		}
		if err := st.add(src, s); err != nil {
			return nil, fmt.Errorf("segment %d at byte %d: %w", st.number, st.end, err)
		}
	}
}

// add extends st by a finished segment.
func (st *state) add(src io.ReaderAt, s segment) error {
	st.number, st.end = s.number+1, s.end()
	if s.kind == kindRows {
		if s.count > maxRows-st.rows {
			return fmt.Errorf("rows: want at most %d in a file, have %d", maxRows, st.rows+s.count)
		}
		st.segs = append(st.segs, s)
		st.rows += s.count
		st.live += s.count
		return nil
	}
	list := make([]byte, s.count*4)
	if _, err := readFull(src, list, s.metadata()); err != nil {
		return err
	}
	// The list is read before verify has seen every segment, so it is checked against its sum here.
	if err := checkPart(src, s.metadata(), s.metaSize, s.metaCRC, make([]byte, 64<<10)); err != nil {
		return err
	}
	if words := (st.rows + 63) / 64; len(st.removed) < words {
		st.removed = append(st.removed, make(bitset, words-len(st.removed))...)
	}
	for i := 0; i < s.count; i++ {
		row := binary.LittleEndian.Uint32(list[4*i:])
		if int64(row) >= int64(st.rows) {
			return fmt.Errorf("removal %d: want a row below %d, have %d", i, st.rows, row)
		}
		if !st.removed.has(int(row)) {
			st.removed[row>>6] |= 1 << (row & 63)
			st.live--
		}
	}
	return nil
}

// verify compares the vectors and metadata of every segment with their checksums, over all cores. Of several damaged
// parts it reports the first in the file.
func (st *state) verify(src io.ReaderAt) error {
	errs := make([]error, len(st.segs))
	share(len(st.segs), func(next func() int) {
		buf := make([]byte, 64<<10)
		for i := next(); i >= 0; i = next() {
			s := st.segs[i]
			err := checkPart(src, s.vectors(), s.vecBytes, s.vecCRC, buf)
			if err == nil {
				err = checkPart(src, s.metadata(), s.metaSize, s.metaCRC, buf)
			}
			if err != nil {
				errs[i] = fmt.Errorf("segment %d at byte %d: %w", s.number, s.at, err)
			}
		}
	})
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func checkPart(src io.ReaderAt, at, size int64, want uint32, buf []byte) error {
	var have uint32
	for off := int64(0); off < size; {
		n, err := readFull(src, buf[:min(int64(len(buf)), size-off)], at+off)
		if err != nil {
			return err
		}
		have = crc32.Update(have, castagnoli, buf[:n])
		off += int64(n)
	}
	if have != want {
		return fmt.Errorf("checksum of bytes %d to %d: want %#08x, have %#08x", at, at+size, want, have)
	}
	return nil
}

// lost looks behind an unfinished segment for a finished one of a later append. There can be none unless the head
// at st.end was wiped by damage, and then truncating there would throw good rows away.
func (st *state) lost(src io.ReaderAt, h Header) error {
	buf := make([]byte, 64<<10)
	for at := st.end; ; {
		n, err := src.ReadAt(buf, at)
		for off := 0; off+headerSize <= n; off += headerSize {
			s, err := decodeSegment(buf[off:off+headerSize], at+int64(off), h)
			if err == nil && s.batch > st.number {
				return fmt.Errorf("segment %d at byte %d: head: want one before segment %d at byte %d, have zeros",
					st.number, st.end, s.number, s.at)
			}
		}
		at += int64(n)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readFull is ReadAt that counts reading less than b as an error and reading b up to the very end as none.
func readFull(src io.ReaderAt, b []byte, at int64) (int, error) {
	n, err := src.ReadAt(b, at)
	if n == len(b) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("bytes %d to %d: %w", at, at+int64(len(b)), err)
}

func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// share runs worker on every core until all have returned; each draws numbers 0 to n−1 from next until it gives −1.
func share(n int, worker func(next func() int)) {
	var drawn atomic.Int64
	next := func() int {
		if i := int(drawn.Add(1)) - 1; i < n {
			return i
		}
		return -1
	}
	var wait sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) - 1 {
		wait.Go(func() { worker(next) })
	}
	worker(next)
	wait.Wait()
}
