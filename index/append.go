// SPDX-License-Identifier: Apache-2.0

package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"slices"

	"github.com/x448/float16"
)

// Append adds rows, all or none: their embeddings are divided by their norm and get the numbers from Rows() on. It
// returns when they are on the disk. A path that is there already is not replaced.
func (x *Index) Append(rows []Row) error {
	return x.write(func(b *batch) error {
		for i := range rows {
			if err := b.addRow(rows[i].Meta, rows[i].Embedding); err != nil {
				return fmt.Errorf("row %d (%s): %w", i, rows[i].Path, err)
			}
		}
		return nil
	})
}

// AppendStored adds rows whose embeddings are stored already as another index of this size and dtype stores them, all or none. vectors holds those of
// all rows, one after another, little-endian.
func (x *Index) AppendStored(metas []Meta, vectors []byte) error {
	size := x.header.rowBytes()
	if len(vectors) != len(metas)*size {
		return fmt.Errorf("index: %s: append: want %d bytes of embeddings for %d rows, have %d", x.name, len(metas)*size, len(metas), len(vectors))
	}
	return x.write(func(b *batch) error {
		for i, m := range metas {
			if err := m.check(); err != nil {
				return fmt.Errorf("row %d (%s): %w", i, m.Path, err)
			}
			b.vectors = append(b.vectors, vectors[i*size:(i+1)*size]...)
			b.records = encodeMeta(b.records, m)
			if err := b.closeRow(); err != nil {
				return err
			}
		}
		return nil
	})
}

// ImportPairs adds rows of which only path and embedding are known, as in the reference's cc3m_embeddings*.pkl, all
// or none. embeddings[i] holds the D values of paths[i].
func (x *Index) ImportPairs(paths []string, embeddings [][]float32) error {
	if len(paths) != len(embeddings) {
		return fmt.Errorf("index: %s: import: want as many embeddings as paths, %d, have %d", x.name, len(paths), len(embeddings))
	}
	return x.write(func(b *batch) error {
		for i, path := range paths {
			if err := b.addRow(Meta{Path: path}, embeddings[i]); err != nil {
				return fmt.Errorf("row %d (%s): %w", i, path, err)
			}
		}
		return nil
	})
}

// Remove marks rows as removed. Rows removed before are passed over.
func (x *Index) Remove(rows ...int) error {
	return x.write(func(b *batch) error { return b.remove(rows) })
}

// RemovePaths removes every row with one of these paths and returns how many that were.
func (x *Index) RemovePaths(paths ...string) (int, error) {
	st := x.state.Load()
	var rows []int
	for _, path := range paths {
		found, err := x.find(st, path)
		if err != nil {
			return 0, err
		}
		rows = append(rows, found...)
	}
	slices.Sort(rows)
	rows = slices.Compact(rows)
	if err := x.Remove(rows...); err != nil {
		return 0, err
	}
	return len(rows), nil
}

// Compact rewrites the file without its removed rows and with full segments, numbering the rows anew, and puts it in
// the old one's place when it is complete. Who has the old one open keeps reading that.
func Compact(path string) error {
	old, err := OpenAppend(path) // holds the lock to the end
	if err != nil {
		return err
	}
	defer old.Close()
	temp := path + ".compact"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("index: %s: compact: %w", path, err)
	}
	if err := old.rewrite(temp); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(fmt.Errorf("index: %s: compact: %w", path, err), os.Remove(temp))
	}
	syncFolder(path)
	return nil
}

// rewrite copies the live rows of x to a new file, which is gone again after an error.
func (x *Index) rewrite(path string) error {
	y, err := Create(path, x.header)
	if err != nil {
		return err
	}
	err = y.write(func(b *batch) error { return x.copyTo(b) })
	if err := errors.Join(err, y.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func (x *Index) copyTo(b *batch) error {
	size := x.header.rowBytes()
	for block, err := range x.Blocks(0) {
		if err != nil {
			return err
		}
		for j := range block.N {
			if !x.Live(block.First + j) {
				continue
			}
			m, err := x.Row(block.First + j)
			if err != nil {
				return err
			}
			b.vectors = append(b.vectors, block.Data[j*size:(j+1)*size]...)
			b.records = encodeMeta(b.records, m)
			if err := b.closeRow(); err != nil {
				return err
			}
		}
	}
	return nil
}

// batch is an append under way: segments that are in the file but not reachable, and the one that is being filled.
type batch struct {
	x      *Index
	st     state  // what holds once the batch is committed
	number uint32 // of the batch's first segment
	at     int64  // where that one's head goes
	head   []byte // the head; nil while the batch has no segment

	vectors, records []byte
	ends             []uint32 // of each record
}

// write runs fill and commits what it has put into the batch; after an error the file ends where it did.
func (x *Index) write(fill func(b *batch) error) error {
	x.writing.Lock()
	defer x.writing.Unlock()
	if x.store == nil {
		return fmt.Errorf("index: %s: write: opened for reading only", x.name)
	}
	st := *x.state.Load()
	// What an earlier append left when it failed and could not clean up would look like part of this one.
	if err := x.store.Truncate(st.end); err != nil {
		return fmt.Errorf("index: %s: write: %w", x.name, err)
	}
	b := &batch{x: x, st: st, number: st.number, at: st.end}
	err := fill(b)
	if err == nil {
		err = b.commit()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("index: %s: write: %w", x.name, err), x.store.Truncate(st.end))
	}
	x.state.Store(&b.st)
	return nil
}

func (m *Meta) check() error {
	if m.Path == "" {
		return errors.New("path: want one, have none")
	}
	if n := max(len(m.Path), len(m.Caption), len(m.Licence)); n > maxField {
		return fmt.Errorf("path, caption or licence: want at most %d bytes, have %d", maxField, n)
	}
	return nil
}

// addRow adds a row with an embedding e (D) of any norm.
func (b *batch) addRow(m Meta, e []float32) error {
	if len(e) != b.x.header.D {
		return fmt.Errorf("embedding: want %d values, have %d", b.x.header.D, len(e))
	}
	if err := m.check(); err != nil {
		return err
	}
	vectors, err := b.x.header.DType.AppendRow(b.vectors, e)
	if err != nil {
		return err
	}
	b.vectors = vectors
	b.records = encodeMeta(b.records, m)
	return b.closeRow()
}

// AppendRow appends to b the bytes of a row: an embedding e of any norm, divided by that.
func (t DType) AppendRow(b []byte, e []float32) ([]byte, error) {
	var sum, most float64
	for _, v := range e {
		sum += float64(v) * float64(v)
		most = max(most, math.Abs(float64(v)))
	}
	if !(sum > 0) || math.IsInf(sum, 1) {
		return b, fmt.Errorf("embedding: want finite values that are not all zero, have norm %g", math.Sqrt(sum))
	}
	norm := math.Sqrt(sum)
	for _, v := range e {
		unit := float32(float64(v) / norm)
		switch t {
		case F32:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(unit))
		case F16:
			b = binary.LittleEndian.AppendUint16(b, float16.Fromfloat32(unit).Bits())
		case Q8:
			b = append(b, byte(int8(math.Round(float64(v)*127/most))))
		}
	}
	return b, nil
}

// closeRow ends the row whose vector and record have been appended, and the segment if that is full.
func (b *batch) closeRow() error {
	b.ends = append(b.ends, uint32(len(b.records)))
	if len(b.vectors)+b.x.header.rowBytes() <= BlockBytes && len(b.records) < BlockBytes {
		return nil
	}
	return b.flush()
}

// flush writes the segment that is being filled.
func (b *batch) flush() error {
	if len(b.ends) == 0 {
		return nil
	}
	if len(b.ends) > maxRows-b.st.rows {
		return fmt.Errorf("rows: want at most %d in a file, have %d", maxRows, b.st.rows+len(b.ends))
	}
	meta := make([]byte, 4, 4*(len(b.ends)+1)+len(b.records)+alignment)
	for _, end := range b.ends {
		meta = binary.LittleEndian.AppendUint32(meta, end)
	}
	meta = padded(append(meta, b.records...))
	b.vectors = padded(b.vectors)
	s := segment{kind: kindRows, count: len(b.ends)}
	if err := b.put(s, b.vectors, meta); err != nil {
		return err
	}
	b.vectors, b.records, b.ends = b.vectors[:0], b.records[:0], b.ends[:0]
	return nil
}

// remove adds a segment of removals.
func (b *batch) remove(rows []int) error {
	old := b.st.removed
	b.st.removed = make(bitset, (b.st.rows+63)/64)
	copy(b.st.removed, old)
	var list []byte
	count := 0
	for _, row := range rows {
		if row < 0 || row >= b.st.rows {
			return fmt.Errorf("remove: want a row below %d, have %d", b.st.rows, row)
		}
		if b.st.removed.has(row) {
			continue
		}
		b.st.removed[row>>6] |= 1 << (row & 63)
		list = binary.LittleEndian.AppendUint32(list, uint32(row))
		count++
	}
	if count == 0 {
		return nil
	}
	b.st.live -= count
	return b.put(segment{kind: kindRemovals, count: count}, nil, padded(list))
}

// put writes a segment behind those before it and takes it into b.st. The head of the batch's first one stays zero.
func (b *batch) put(s segment, vectors, meta []byte) error {
	s.number, s.batch = b.st.number, b.number
	s.first, s.at = b.st.rows, b.st.end
	s.vecBytes, s.metaSize = int64(len(vectors)), int64(len(meta))
	s.vecCRC, s.metaCRC = crc32.Checksum(vectors, castagnoli), crc32.Checksum(meta, castagnoli)
	head := s.encode()
	if b.head == nil {
		b.head, head = head, make([]byte, headerSize)
	}
	for _, part := range []struct {
		b  []byte
		at int64
	}{{head, s.at}, {vectors, s.vectors()}, {meta, s.metadata()}} {
		if _, err := b.x.store.WriteAt(part.b, part.at); err != nil {
			return err
		}
	}
	b.st.number, b.st.end = s.number+1, s.end()
	if s.kind == kindRows {
		// Published states share this array; none of them looks behind its own length.
		b.st.segs = append(b.st.segs, s)
		b.st.rows += s.count
		b.st.live += s.count
	}
	return nil
}

// commit makes the batch reachable: its bytes reach the disk first, then its first head.
func (b *batch) commit() error {
	if err := b.flush(); err != nil {
		return err
	}
	if b.head == nil {
		return nil
	}
	if err := b.x.store.Sync(); err != nil {
		return err
	}
	if _, err := b.x.store.WriteAt(b.head, b.at); err != nil {
		return err
	}
	return b.x.store.Sync()
}
