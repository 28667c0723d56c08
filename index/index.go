// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/x448/float16"

	"fromage/internal/atomicfile"
)

// Meta is what is known about a picture besides its embedding.
type Meta struct {
	Path    string   // path or URL, never empty; need not be unique
	Caption string   // may be empty
	Licence string   // may be empty
	Hash    [32]byte // of the picture's bytes, whichever the caller uses; zero if unknown
}

// Row is a picture to be added. Embedding holds D finite values, not all zero, of any norm.
type Row struct {
	Meta
	Embedding []float32
}

// Index is an open index. Its methods may be called from several goroutines; searches see the rows that were there
// when they began.
type Index struct {
	header Header
	name   string // for errors
	notice string
	src    io.ReaderAt
	state  atomic.Pointer[state]

	writing sync.Mutex
	store   store // nil: read only
	closer  io.Closer

	finding sync.Mutex
	paths   paths
}

// store is what a writable index is kept in: a file, or memory.
type store interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
}

// New returns an empty index in memory. Save it with WriteTo.
func New(h Header) (*Index, error) {
	return create(new(memory), h, "memory")
}

// Create makes a new, empty index file, open for appending. An existing file is an error.
func Create(path string, h Header) (*Index, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, fmt.Errorf("index: create: %w", err)
	}
	x, err := createFile(f, h)
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return x, nil
}

func createFile(f *os.File, h Header) (*Index, error) {
	if err := atomicfile.Lock(f); err != nil {
		return nil, fmt.Errorf("index: %s: lock: %w", f.Name(), err)
	}
	x, err := create(f, h, f.Name())
	if err != nil {
		return nil, err
	}
	x.closer = f
	syncFolder(f.Name())
	return x, nil
}

func create(s store, h Header, name string) (*Index, error) {
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("index: %s: create: %w", name, err)
	}
	if _, err := s.WriteAt(h.encode(), 0); err != nil {
		return nil, fmt.Errorf("index: %s: create: %w", name, err)
	}
	if err := s.Sync(); err != nil {
		return nil, fmt.Errorf("index: %s: create: %w", name, err)
	}
	x := &Index{header: h, name: name, src: s, store: s}
	x.state.Store(&state{end: headerSize})
	return x, nil
}

// Open opens an index file for reading and checks all of it. Vectors and metadata stay in the file until asked for.
func Open(path string) (*Index, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("index: open: %w", err)
	}
	x, err := load(f, fileSize(f), path)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	x.closer = f
	return x, nil
}

// OpenAppend opens an index file for reading and writing and checks all of it. An unfinished append at its end is cut
// off (see Notice). While another process, or this one, has the file open for writing it fails at once.
func OpenAppend(path string) (*Index, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("index: open for appending: %w", err)
	}
	x, err := openAppend(f, path)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	x.closer = f
	return x, nil
}

func openAppend(f *os.File, path string) (*Index, error) {
	if err := atomicfile.Lock(f); err != nil {
		return nil, fmt.Errorf("index: %s: locked by another writer: %w", path, err)
	}
	// A Compact that held the lock may have put another file in this one's place.
	opened, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("index: %s: %w", path, err)
	}
	if named, err := os.Stat(path); err != nil || !os.SameFile(opened, named) {
		return nil, fmt.Errorf("index: %s: replaced while it was being opened", path)
	}
	x, err := load(f, fileSize(f), path)
	if err != nil {
		return nil, err
	}
	if err := x.repair(f); err != nil {
		return nil, err
	}
	return x, nil
}

// repair makes x writable through s and cuts an unfinished append off its end.
func (x *Index) repair(s store) error {
	x.store = s
	st := x.state.Load()
	if st.torn == 0 {
		return nil
	}
	if err := st.lost(s, x.header); err != nil {
		return fmt.Errorf("index: %s: %w", x.name, err)
	}
	if err := s.Truncate(st.end); err != nil {
		return fmt.Errorf("index: %s: cut off %d unfinished bytes at %d: %w", x.name, st.torn, st.end, err)
	}
	x.notice = st.notice(x.name, "cut off")
	return nil
}

func (st *state) notice(name, fate string) string {
	return fmt.Sprintf("index: %s: segment %d at byte %d is unfinished: %d bytes %s", name, st.number, st.end, st.torn, fate)
}

// Parse opens the index whose bytes are b, for reading, and checks all of it. It keeps b, which must not change.
// Errors call it name.
func Parse(name string, b []byte) (*Index, error) {
	return Read(name, bytes.NewReader(b), int64(len(b)))
}

// Read opens an index of size bytes for reading from r and checks all of it. It reads r again for every search,
// Block and Row, from several goroutines at once. Errors call it name.
func Read(name string, r io.ReaderAt, size int64) (*Index, error) {
	section := io.NewSectionReader(r, 0, size)
	return load(section, func() (int64, error) { return size, nil }, name)
}

func load(src io.ReaderAt, size func() (int64, error), name string) (*Index, error) {
	head := make([]byte, headerSize)
	if _, err := readFull(src, head, 0); err != nil {
		return nil, fmt.Errorf("index: %s: header: %w", name, err)
	}
	h, err := decodeHeader(head)
	if err != nil {
		return nil, fmt.Errorf("index: %s: header: %w", name, err)
	}
	st, err := scan(src, size, h)
	if err != nil {
		return nil, fmt.Errorf("index: %s: %w", name, err)
	}
	if err := st.verify(src); err != nil {
		return nil, fmt.Errorf("index: %s: %w", name, err)
	}
	x := &Index{header: h, name: name, src: src}
	if st.torn > 0 {
		x.notice = st.notice(name, "ignored")
	}
	x.state.Store(st)
	return x, nil
}

func fileSize(f *os.File) func() (int64, error) {
	return func() (int64, error) {
		info, err := f.Stat()
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	}
}

// syncFolder makes a new name in path's folder durable, where the host can do that; elsewhere there is nothing to do.
func syncFolder(path string) {
	if d, err := os.Open(filepath.Dir(path)); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}

// Close closes the file and releases the writer's lock.
func (x *Index) Close() error {
	if x.closer == nil {
		return nil
	}
	return x.closer.Close()
}

// Header returns what all rows have in common.
func (x *Index) Header() Header { return x.header }

// Notice is one line about an unfinished append that was found, and ignored or cut off, on opening; else it is empty.
func (x *Index) Notice() string { return x.notice }

// CheckModel fails unless the embeddings were made by a model of this identity and size.
func (x *Index) CheckModel(d int, model [32]byte) error {
	if x.header.D != d {
		return fmt.Errorf("index: %s: embedding size: want %d, have %d", x.name, d, x.header.D)
	}
	if x.header.Model != model {
		return fmt.Errorf("index: %s: embeddings of another model: want %x, have %x", x.name, model[:6], x.header.Model[:6])
	}
	return nil
}

// Rows is the number of row numbers given out: rows are 0 to Rows()−1, some of them removed.
func (x *Index) Rows() int { return x.state.Load().rows }

// Len is the number of rows that are not removed.
func (x *Index) Len() int { return x.state.Load().live }

// Live reports whether row i exists and is not removed.
func (x *Index) Live(i int) bool {
	st := x.state.Load()
	return i >= 0 && i < st.rows && !st.removed.has(i)
}

// Row returns what is known about row i, removed or not.
func (x *Index) Row(i int) (Meta, error) {
	st := x.state.Load()
	if i < 0 || i >= st.rows {
		return Meta{}, fmt.Errorf("index: %s: row: want 0 to %d, have %d", x.name, st.rows-1, i)
	}
	s := st.segs[st.find(i)]
	m, err := x.meta(s, i-s.first)
	if err != nil {
		return Meta{}, fmt.Errorf("index: %s: row %d in segment %d at byte %d: %w", x.name, i, s.number, s.at, err)
	}
	return m, nil
}

// meta reads the metadata of the segment's j-th row.
func (x *Index) meta(s segment, j int) (Meta, error) {
	var table [8]byte
	if _, err := readFull(x.src, table[:], s.metadata()+4*int64(j)); err != nil {
		return Meta{}, err
	}
	from, to, err := s.bounds(table[:])
	if err != nil {
		return Meta{}, err
	}
	rec := make([]byte, to-from)
	if _, err := readFull(x.src, rec, s.metadata()+from); err != nil {
		return Meta{}, err
	}
	return decodeMeta(rec)
}

// find returns which of st.segs holds row i.
func (st *state) find(i int) int {
	lo, hi := 0, len(st.segs)
	for lo+1 < hi {
		if mid := (lo + hi) / 2; st.segs[mid].first <= i {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

// bounds turns two neighbouring offsets into where a record lies in the metadata.
func (s segment) bounds(table []byte) (from, to int64, err error) {
	records := 4 * int64(s.count+1)
	from = records + int64(binary.LittleEndian.Uint32(table))
	to = records + int64(binary.LittleEndian.Uint32(table[4:]))
	if from > to || to > s.metaSize {
		return 0, 0, fmt.Errorf("record: want within %d bytes of metadata, have %d to %d", s.metaSize, from, to)
	}
	return from, to, nil
}

func encodeMeta(b []byte, m Meta) []byte {
	b = binary.AppendUvarint(b, uint64(len(m.Path)))
	b = binary.AppendUvarint(b, uint64(len(m.Caption)))
	b = binary.AppendUvarint(b, uint64(len(m.Licence)))
	hashed := m.Hash != [32]byte{}
	if hashed {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = append(b, m.Path...)
	b = append(b, m.Caption...)
	b = append(b, m.Licence...)
	if hashed {
		b = append(b, m.Hash[:]...)
	}
	return b
}

func decodeMeta(rec []byte) (Meta, error) {
	f, err := splitMeta(rec)
	if err != nil {
		return Meta{}, err
	}
	m := Meta{Path: string(f[0]), Caption: string(f[1]), Licence: string(f[2])}
	copy(m.Hash[:], f[3])
	return m, nil
}

// splitMeta finds path, caption, licence and hash (32 bytes or none) in a record.
func splitMeta(rec []byte) (fields [4][]byte, err error) {
	var size [4]int
	rest := rec
	for i := range 3 {
		v, n := binary.Uvarint(rest)
		if n <= 0 || v > maxField {
			return fields, fmt.Errorf("record: length %d: want at most %d, have %d", i, maxField, v)
		}
		size[i], rest = int(v), rest[n:]
	}
	if len(rest) == 0 || rest[0] > 1 {
		return fields, errors.New("record: hash flag: want 0 or 1")
	}
	size[3], rest = 32*int(rest[0]), rest[1:]
	if want := size[0] + size[1] + size[2] + size[3]; len(rest) != want {
		return fields, fmt.Errorf("record: want %d bytes after the lengths, have %d", want, len(rest))
	}
	for i, n := range size {
		fields[i], rest = rest[:n], rest[n:]
	}
	return fields, nil
}

// paths finds rows by the hash of their path. It covers the rows before rows and grows when asked.
type paths struct {
	seed maphash.Seed
	last map[uint64]int32 // hash → last row with it
	prev []int32          // row → the row before it with the same hash, or −1
}

// Find returns the first row with this path that is not removed; ok is false if there is none. The first call reads
// all metadata once.
func (x *Index) Find(path string) (row int, ok bool, err error) {
	rows, err := x.find(x.state.Load(), path)
	if err != nil || len(rows) == 0 {
		return 0, false, err
	}
	return rows[len(rows)-1], true, nil
}

// find returns the rows of st with this path that are not removed, last first.
func (x *Index) find(st *state, path string) ([]int, error) {
	x.finding.Lock()
	defer x.finding.Unlock()
	if err := x.indexPaths(st); err != nil {
		return nil, err
	}
	row, ok := x.paths.last[maphash.String(x.paths.seed, path)]
	var rows []int
	for ; ok && row >= 0; row = x.paths.prev[row] {
		if int(row) >= st.rows || st.removed.has(int(row)) {
			continue
		}
		m, err := x.Row(int(row))
		if err != nil {
			return nil, err
		}
		if m.Path == path {
			rows = append(rows, int(row))
		}
	}
	return rows, nil
}

// indexPaths extends x.paths to the rows of st.
func (x *Index) indexPaths(st *state) error {
	p := &x.paths
	if p.last == nil {
		p.seed = maphash.MakeSeed()
		p.last = make(map[uint64]int32, st.rows)
	}
	for len(p.prev) < st.rows {
		s := st.segs[st.find(len(p.prev))]
		meta := make([]byte, s.metaSize)
		if _, err := readFull(x.src, meta, s.metadata()); err != nil {
			return fmt.Errorf("index: %s: %w", x.name, err)
		}
		for row := len(p.prev); row < s.first+s.count; row++ {
			from, to, err := s.bounds(meta[4*(row-s.first):])
			if err != nil {
				return fmt.Errorf("index: %s: row %d in segment %d at byte %d: %w", x.name, row, s.number, s.at, err)
			}
			fields, err := splitMeta(meta[from:to])
			if err != nil {
				return fmt.Errorf("index: %s: row %d in segment %d at byte %d: %w", x.name, row, s.number, s.at, err)
			}
			hash := maphash.Bytes(p.seed, fields[0])
			before, ok := p.last[hash]
			if !ok {
				before = -1
			}
			p.last[hash] = int32(row)
			p.prev = append(p.prev, before)
		}
	}
	return nil
}

// Block is a run of rows as they lie in the file.
type Block struct {
	First int    // row number of the first
	N     int    // rows, removed ones among them
	Data  []byte // N·D values of the header's dtype, little-endian, at most BlockBytes; valid until the next block
}

// Blocks yields all rows from row first on, in order, in blocks that can be copied to a device as they are.
// After an error it ends.
func (x *Index) Blocks(first int) iter.Seq2[Block, error] {
	return func(yield func(Block, error) bool) {
		st := x.state.Load()
		if first < 0 || first > st.rows {
			yield(Block{}, fmt.Errorf("index: %s: first row: want 0 to %d, have %d", x.name, st.rows, first))
			return
		}
		if first == st.rows {
			return
		}
		var buf []byte
		size := x.header.rowBytes()
		for _, s := range st.segs[st.find(first):] {
			skip := max(0, first-s.first)
			b := Block{First: s.first + skip, N: s.count - skip}
			if cap(buf) < b.N*size {
				buf = make([]byte, b.N*size)
			}
			b.Data = buf[:b.N*size]
			if _, err := readFull(x.src, b.Data, s.vectors()+int64(skip*size)); err != nil {
				yield(Block{}, fmt.Errorf("index: %s: %w", x.name, err))
				return
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}

// Vectors reads the normalised embeddings of rows first to first+n−1 into dst, n·D values, row after row.
func (x *Index) Vectors(first, n int, dst []float32) error {
	st := x.state.Load()
	if first < 0 || n < 0 || n > st.rows-first {
		return fmt.Errorf("index: %s: vectors: want rows within 0 to %d, have %d from %d", x.name, st.rows, n, first)
	}
	if len(dst) < n*x.header.D {
		return fmt.Errorf("index: %s: vectors: want room for %d values, have %d", x.name, n*x.header.D, len(dst))
	}
	size := x.header.rowBytes()
	buf := make([]byte, min(n*size, max(size, 64<<10)))
	for n > 0 {
		rows := min(n, len(buf)/size)
		if err := x.Stored(first, rows, buf); err != nil {
			return err
		}
		decode(dst[:rows*x.header.D], buf[:rows*size], x.header.D, x.header.DType)
		dst, first, n = dst[rows*x.header.D:], first+rows, n-rows
	}
	return nil
}

// Stored reads the embeddings of rows first to first+n−1 as they are stored into dst, n·D·DType.Size() bytes, row after row.
func (x *Index) Stored(first, n int, dst []byte) error {
	st, size := x.state.Load(), x.header.rowBytes()
	if first < 0 || n < 0 || n > st.rows-first || len(dst)/size < n {
		return fmt.Errorf("index: %s: stored: want rows within 0 to %d and %d bytes, have %d from %d and %d", x.name, st.rows, n*size, n, first, len(dst))
	}
	for n > 0 {
		s := st.segs[st.find(first)]
		rows := min(n, s.first+s.count-first)
		if _, err := readFull(x.src, dst[:rows*size], s.vectors()+int64(first-s.first)*int64(size)); err != nil {
			return fmt.Errorf("index: %s: %w", x.name, err)
		}
		dst, first, n = dst[rows*size:], first+rows, n-rows
	}
	return nil
}

// decode converts len(dst) stored values, of whole rows of d, to float32.
func decode(dst []float32, b []byte, d int, t DType) {
	switch t {
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	case F16:
		table := halves()
		for i := range dst {
			dst[i] = table[binary.LittleEndian.Uint16(b[2*i:])]
		}
	case Q8:
		for len(dst) > 0 {
			s := scaleQ8(b[:d])
			for i := range d {
				dst[i] = float32(int8(b[i])) * s
			}
			dst, b = dst[d:], b[d:]
		}
	}
}

// scaleQ8 is what the bytes of a row are multiplied by: one over their norm, 0 for a row of zeros, which only damage makes.
func scaleQ8(row []byte) float32 {
	n := int64(0)
	for _, c := range row {
		n += int64(int8(c)) * int64(int8(c))
	}
	if n == 0 {
		return 0
	}
	return float32(1 / math.Sqrt(float64(n)))
}

// halves is the value of every f16 bit pattern. A look-up is twice as fast as converting by bits.
var halves = sync.OnceValue(func() *[1 << 16]float32 {
	var t [1 << 16]float32
	for i := range t {
		t[i] = float16.Frombits(uint16(i)).Float32()
	}
	return &t
})

// WriteTo writes the index as a file to w, without an unfinished append that Notice speaks of.
func (x *Index) WriteTo(w io.Writer) (int64, error) {
	n, err := io.Copy(w, io.NewSectionReader(x.src, 0, x.state.Load().end))
	if err != nil {
		err = fmt.Errorf("index: %s: write: %w", x.name, err)
	}
	return n, err
}

// memory is a store in memory. Reading below what has been written is safe beside writing behind it.
type memory struct {
	mu sync.RWMutex
	b  []byte
}

func (m *memory) ReadAt(b []byte, at int64) (int, error) {
	m.mu.RLock()
	have := m.b
	m.mu.RUnlock()
	if at >= int64(len(have)) {
		return 0, io.EOF
	}
	n := copy(b, have[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt writes at most at the end: a batch leaves no holes.
func (m *memory) WriteAt(b []byte, at int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if end := at + int64(len(b)); end > int64(len(m.b)) {
		m.b = append(m.b, make([]byte, end-int64(len(m.b)))...)
	}
	return copy(m.b[at:], b), nil
}

func (m *memory) Truncate(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.b = m.b[:size]
	return nil
}

func (m *memory) Sync() error { return nil }
