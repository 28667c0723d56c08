// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// small is a file with two appends, the second of two segments, and a removal between; ends are the offsets at which
// the first n rows are all there is, and rows what it holds.
func small(t testing.TB) (file []byte, rows []Row, ends map[int64]int) {
	x, err := New(Header{D: 3, DType: F32})
	must(t, err)
	rows = pictures(4, 6, 3)
	ends = map[int64]int{headerSize: 0}
	must(t, x.Append(rows[:2]))
	ends[x.state.Load().end] = 2
	must(t, x.Remove(1))
	ends[x.state.Load().end] = 2
	must(t, x.write(func(b *batch) error {
		for i, r := range rows[2:] {
			must(t, b.addRow(r.Meta, r.Embedding))
			if i == 1 {
				must(t, b.flush())
				ends[b.st.end] = 4
			}
		}
		return nil
	}))
	ends[x.state.Load().end] = 6
	return save(t, x), rows, ends
}

func TestCutAnywhere(t *testing.T) {
	file, rows, ends := small(t)
	path := filepath.Join(t.TempDir(), "gallery.index")
	whole, at := 0, int64(headerSize) // rows of finished segments so far, and where the last one ends
	for n := range len(file) + 1 {
		cut := file[:n]
		x, err := Parse("cut", cut)
		if n < headerSize {
			if err == nil {
				t.Fatalf("a file of %d bytes opened, want an error", n)
			}
			continue
		}
		must(t, err)
		if r, ok := ends[int64(n)]; ok {
			whole, at = r, int64(n)
		}
		same(t, x, rows[:whole])
		if (x.Notice() == "") != (int64(n) == at) {
			t.Fatalf("a file cut at %d of a segment from %d: Notice() = %q", n, at, x.Notice())
		}
		if n%7 != 0 && int64(n) != at { // the disk is slow
			continue
		}
		must(t, os.WriteFile(path, cut, 0o666))
		w, err := OpenAppend(path)
		must(t, err)
		if (w.Notice() == "") != (int64(n) == at) {
			t.Fatalf("a file cut at %d: OpenAppend's Notice() = %q", n, w.Notice())
		}
		must(t, w.Append(rows[5:]))
		must(t, w.Close())
		w, err = Open(path)
		must(t, err)
		same(t, w, append(rows[:whole:whole], rows[5]))
		if w.Notice() != "" {
			t.Fatalf("a file cut at %d, then appended to: Notice() = %q", n, w.Notice())
		}
		must(t, w.Close())
	}
}

func TestEveryBitCounts(t *testing.T) {
	file, _, _ := small(t)
	for i := range file {
		for bit := range 8 {
			b := bytes.Clone(file)
			b[i] ^= 1 << bit
			_, err := Parse("flipped.index", b)
			if err == nil {
				t.Fatalf("bit %d of byte %d flipped: opened, want an error", bit, i)
			}
			if want := "flipped.index: segment "; i >= headerSize && !strings.Contains(err.Error(), want) {
				t.Fatalf("bit %d of byte %d flipped: %v, want %q in it", bit, i, err, want)
			}
			if i >= headerSize && !strings.Contains(err.Error(), " at byte ") {
				t.Fatalf("bit %d of byte %d flipped: %v, want an offset in it", bit, i, err)
			}
		}
	}
}

// A head wiped to zeros looks like an append that was never finished; the segments behind it must not be thrown away.
func TestWipedHead(t *testing.T) {
	file, _, _ := small(t)
	path := filepath.Join(t.TempDir(), "gallery.index")
	clear(file[headerSize : 2*headerSize])
	must(t, os.WriteFile(path, file, 0o666))
	if _, err := OpenAppend(path); err == nil || !strings.Contains(err.Error(), "segment 0 at byte 64") {
		t.Errorf("OpenAppend = %v, want an error naming segment 0 at byte 64", err)
	}
	have, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(have, file) {
		t.Error("OpenAppend changed a file it refused")
	}
}

// faulty is a store whose disk takes only so many more bytes.
type faulty struct {
	memory
	left  int
	dead  bool // what was written when the disk was full stays, as if the process had been killed
	full  bool
	syncs int // Sync fails when this reaches 0
}

var errFull = errors.New("no space left")

func (f *faulty) WriteAt(b []byte, at int64) (int, error) {
	if len(b) > f.left {
		f.full = true
		if len(b) == headerSize { // a sector or nothing
			return 0, errFull
		}
		n, _ := f.memory.WriteAt(b[:f.left], at)
		f.left = 0
		return n, errFull
	}
	f.left -= len(b)
	return f.memory.WriteAt(b, at)
}

func (f *faulty) Truncate(size int64) error {
	if f.dead && f.full {
		return errFull
	}
	return f.memory.Truncate(size)
}

func (f *faulty) Sync() error {
	if f.syncs--; f.syncs == 0 {
		return errFull
	}
	return nil
}

func TestFullDisk(t *testing.T) {
	rows := pictures(5, 8, 3)
	twoSegments := func(x *Index) error {
		return x.write(func(b *batch) error {
			for _, r := range rows[3:] {
				if err := errors.Join(b.addRow(r.Meta, r.Embedding), b.flush()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, dead := range []bool{false, true} {
		for left := 0; ; left++ {
			f := &faulty{left: 1 << 20}
			x, err := create(f, Header{D: 3, DType: F32}, "full")
			must(t, err)
			must(t, x.Append(rows[:3]))
			f.left, f.dead = left, dead
			if err := twoSegments(x); err == nil {
				break
			} else if !errors.Is(err, errFull) {
				t.Fatalf("Append with room for %d bytes = %v, want %v", left, err, errFull)
			}
			same(t, x, rows[:3])
			y, err := Parse("full", f.b) // what the next process finds
			must(t, err)
			same(t, y, rows[:3])
			if !dead && y.Notice() != "" {
				t.Fatalf("room for %d bytes: Notice() = %q after cleaning up", left, y.Notice())
			}
			must(t, y.repair(&memory{b: bytes.Clone(f.b)}))

			f.left, f.full = 1<<20, false // room again
			must(t, x.Append(rows[3:4]))
			y, err = Parse("full", f.b)
			must(t, err)
			same(t, y, rows[:4])
		}
	}
	for syncs := 1; syncs <= 2; syncs++ {
		f := &faulty{left: 1 << 20}
		x, err := create(f, Header{D: 3, DType: F32}, "full")
		must(t, err)
		must(t, x.Append(rows[:3]))
		f.syncs = syncs
		if err := twoSegments(x); !errors.Is(err, errFull) {
			t.Fatalf("Append whose sync %d fails = %v, want %v", syncs, err, errFull)
		}
		y, err := Parse("full", f.b)
		must(t, err)
		same(t, y, rows[:3])
	}
}

// Files that no writer of ours makes but whose checksums are right.
func TestForeignSegments(t *testing.T) {
	file, _, _ := small(t)
	reseal := func(at int, f func(head []byte)) []byte {
		b := bytes.Clone(file)
		f(b[at : at+headerSize])
		seal(b[at : at+headerSize])
		return b
	}
	put := func(at int, v uint32) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint32(b[at:], v) }
	}
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"version", reseal(0, put(8, 2)), "version: want 1, have 2"},
		{"size", reseal(0, put(12, 0)), "embedding size"},
		{"dtype", reseal(0, put(16, 9)), "dtype"},
		{"kind", reseal(64, put(4, 3)), "kind"},
		{"number", reseal(64, put(8, 1)), "want segment 0"},
		{"first", reseal(64, put(16, 1)), "after 0 rows"},
		{"first, huge", reseal(64, put(20, 1<<31)), "row count"},
		{"no rows", reseal(64, put(24, 0)), "row count"},
		{"too many rows", reseal(64, put(24, 1<<30)), "vectors: want at most"},
		{"metadata too small", reseal(64, put(36, 0)), "metadata"},
		{"metadata unaligned", reseal(64, put(36, 65)), "metadata"},
	} {
		if _, err := Parse(c.name, c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Parse(%s) = %v, want %q in it", c.name, err, c.want)
		}
	}
	// A record that does not add up is found when it is read.
	for _, rec := range [][]byte{{}, {1}, {1, 0, 0}, {1, 0, 0, 2, 'a'}, {2, 0, 0, 0, 'a'}, {1, 0, 0, 0, 'a', 'b'}, {1, 0, 0, 1, 'a'},
		{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0}} {
		x, err := New(Header{D: 1, DType: F32})
		must(t, err)
		must(t, x.write(func(b *batch) error {
			b.vectors, b.records = make([]byte, 4), rec
			return b.closeRow()
		}))
		if m, err := x.Row(0); err == nil {
			t.Errorf("Row with record %v = %+v, want an error", rec, m)
		}
		if _, _, err := x.Find("a"); err == nil {
			t.Errorf("Find with record %v succeeded, want an error", rec)
		}
	}
}

func FuzzParse(f *testing.F) {
	file, _, _ := small(f)
	f.Add(file)
	f.Add(file[:len(file)-1])
	for _, dtype := range []DType{F16, Q8} {
		x, err := New(Header{D: 9, DType: dtype})
		must(f, err)
		f.Add(save(f, x))
		must(f, x.Append(pictures(7, 5, 9)))
		f.Add(save(f, x))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		// Checksums made right, so that what they protect is reached.
		fixed := bytes.Clone(b)
		resealAll(fixed)
		for _, b := range [][]byte{b, fixed} {
			x, err := Parse("fuzz", b)
			if err != nil {
				continue
			}
			for i := range x.Rows() {
				_, _ = x.Row(i)
			}
			_, _, _ = x.Find("a")
			d := x.Header().D
			must(t, x.Vectors(0, x.Rows(), make([]float32, x.Rows()*d)))
			if hits, err := x.Search(make([]float32, d), 3, Options{}); err != nil || len(hits) != min(3, x.Len()) {
				t.Fatalf("Search = %d hits, %v, want %d", len(hits), err, min(3, x.Len()))
			}
			for _, err := range x.Blocks(0) {
				must(t, err)
			}
		}
	})
}

// resealAll puts right checksums into b as far as its segments make sense.
func resealAll(b []byte) {
	if len(b) < headerSize {
		return
	}
	h, err := decodeHeader(seal(b[:headerSize]))
	if err != nil {
		return
	}
	for at := int64(headerSize); at+headerSize <= int64(len(b)); {
		head := b[at : at+headerSize]
		s, err := decodeSegment(seal(head), at, h)
		if err != nil || s.end() > int64(len(b)) {
			return
		}
		s.vecCRC, s.metaCRC = sums(b, s)
		copy(head, s.encode())
		at = s.end()
	}
}
