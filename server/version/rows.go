// SPDX-License-Identifier: Apache-2.0

package version

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"fromage/index"
)

// PageRows is how many ids a page covers.
const PageRows = 1024

const maxField = 1 << 16 // bytes of one path, caption or licence

// Row is a picture: its number, what is known of it, and its values as stored, little-endian: an embedding in f16 or q8, or features in f32.
type Row struct {
	ID uint64
	index.Meta
	Values []byte
}

func (r *Row) equalMeta(o *Row) bool { return r.Meta == o.Meta }

// A page is the bytes
//
//	n count, n bytes of one row's values, count × n: the first id, then how far each is from the one before,
//	count × values, count × (s path, s caption, s licence, 32 bytes hash)
//
// with n and s as in package wire, and a delta is
//
//	a page of rows that are new or changed in both parts; removed: n count, ids as above;
//	values: n count, ids, count × values; captions: n count, ids, count × (s path, …)
//
// where a list of ids is its count, the first, and the distances.

// EncodePage returns the bytes of rows, which stand in the order of their ids and have values of size bytes each.
func EncodePage(rows []Row, size int) []byte {
	b := binary.AppendUvarint(nil, uint64(len(rows)))
	b = binary.AppendUvarint(b, uint64(size))
	b = appendIDs(b, rows)
	for i := range rows {
		b = append(b, rows[i].Values...)
	}
	for i := range rows {
		b = appendMeta(b, &rows[i])
	}
	return b
}

func appendIDs(b []byte, rows []Row) []byte {
	last := uint64(0)
	for i := range rows {
		b = binary.AppendUvarint(b, rows[i].ID-last)
		last = rows[i].ID
	}
	return b
}

func appendMeta(b []byte, r *Row) []byte {
	for _, s := range []string{r.Path, r.Caption, r.Licence} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return append(b, r.Hash[:]...)
}

// DecodePage reads a page of rows with values of size bytes. Values are parts of data.
func DecodePage(data []byte, size int) ([]Row, error) {
	r := &reader{b: data}
	rows := r.page(size)
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("version: page: %w", err)
	}
	return rows, nil
}

// ValueSize is how many bytes of values the rows of a page have, as it says itself.
func ValueSize(page []byte) int {
	r := &reader{b: page}
	r.count()
	return int(min(r.number(), 1<<20))
}

// reader reads pages and deltas; after an error it yields nothing.
type reader struct {
	b   []byte
	err error
}

var errShort = errors.New("it is cut short")

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("want its end, have %d more bytes", len(r.b))
	}
	return r.err
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.fail(errShort)
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) count() int {
	n := r.number()
	if n > PageRows {
		r.fail(fmt.Errorf("want at most %d rows, have %d", PageRows, n))
		return 0
	}
	return int(n)
}

func (r *reader) ids(n int) []Row {
	rows := make([]Row, n)
	last := uint64(0)
	for i := range rows {
		step := r.number()
		if r.err == nil && (i > 0 && step == 0 || last+step < last) {
			r.fail(errors.New("want ascending ids"))
		}
		last += step
		rows[i].ID = last
	}
	return rows
}

func (r *reader) values(rows []Row, size int) {
	if len(rows)*size > len(r.b) {
		r.fail(errShort)
		return
	}
	for i := range rows {
		rows[i].Values = r.bytes(size)
	}
}

func (r *reader) metas(rows []Row) {
	for i := range rows {
		for _, s := range []*string{&rows[i].Path, &rows[i].Caption, &rows[i].Licence} {
			n := r.number()
			if n > maxField {
				r.fail(fmt.Errorf("row %d: want fields of at most %d bytes, have %d", rows[i].ID, maxField, n))
				return
			}
			*s = string(r.bytes(int(n)))
		}
		copy(rows[i].Hash[:], r.bytes(32))
		if r.err == nil && rows[i].Path == "" {
			r.fail(fmt.Errorf("row %d: want a path, have none", rows[i].ID))
		}
	}
}

func (r *reader) page(size int) []Row {
	n := r.count()
	if have := r.number(); r.err == nil && have != uint64(size) {
		r.fail(fmt.Errorf("want rows of %d bytes of values, have %d", size, have))
	}
	if r.err != nil || n*size > len(r.b) {
		r.fail(errShort)
		return nil
	}
	rows := r.ids(n)
	r.values(rows, size)
	r.metas(rows)
	return rows
}

// Delta returns what makes the page target of the page base.
func Delta(base, target []byte, size int) ([]byte, error) {
	from, err := DecodePage(base, size)
	if err != nil {
		return nil, err
	}
	to, err := DecodePage(target, size)
	if err != nil {
		return nil, err
	}
	old := map[uint64]*Row{}
	for i := range from {
		old[from[i].ID] = &from[i]
	}
	var whole, removed, values, metas []Row
	for _, row := range to {
		o := old[row.ID]
		delete(old, row.ID)
		switch sameMeta, sameValues := o != nil && o.equalMeta(&row), o != nil && bytes.Equal(o.Values, row.Values); {
		case sameMeta && sameValues:
		case sameMeta:
			values = append(values, row)
		case sameValues:
			metas = append(metas, row)
		default:
			whole = append(whole, row)
		}
	}
	for _, row := range from {
		if old[row.ID] != nil {
			removed = append(removed, row)
		}
	}
	b := EncodePage(whole, size)
	list := func(rows []Row, part func(*Row)) {
		b = appendIDs(binary.AppendUvarint(b, uint64(len(rows))), rows)
		for i := range rows {
			part(&rows[i])
		}
	}
	list(removed, func(*Row) {})
	list(values, func(r *Row) { b = append(b, r.Values...) })
	list(metas, func(r *Row) { b = appendMeta(b, r) })
	return b, nil
}

// Apply makes a page of the page base and a delta; the caller compares its hash with what it wants.
func Apply(base, delta []byte, size int) ([]byte, error) {
	rows, err := DecodePage(base, size)
	if err != nil {
		return nil, err
	}
	r := &reader{b: delta}
	whole := r.page(size)
	removed := r.ids(r.count())
	values := r.ids(r.count())
	r.values(values, size)
	metas := r.ids(r.count())
	r.metas(metas)
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("version: delta: %w", err)
	}
	all := map[uint64]Row{}
	for _, row := range rows {
		all[row.ID] = row
	}
	for _, row := range removed {
		delete(all, row.ID)
	}
	for _, row := range values {
		o := all[row.ID]
		o.Values = row.Values
		all[row.ID] = o
	}
	for _, row := range metas {
		o := all[row.ID]
		o.Meta = row.Meta
		all[row.ID] = o
	}
	for _, row := range whole {
		all[row.ID] = row
	}
	rows = rows[:0]
	for id, row := range all {
		if row.Path == "" || len(row.Values) != size {
			return nil, fmt.Errorf("version: delta: want changes of rows that are there, have row %d", id)
		}
		row.ID = id
		rows = append(rows, row)
	}
	if len(rows) > PageRows {
		return nil, fmt.Errorf("version: delta: want at most %d rows, have %d", PageRows, len(rows))
	}
	slices.SortFunc(rows, func(a, b Row) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return EncodePage(rows, size), nil
}

// ReadRows reads all pages of a gallery, whose bytes page returns, each held to its hash here.
func (g *Gallery) ReadRows(page func(Page) ([]byte, error)) ([]Row, error) {
	return ReadPages(g.Pages, g.RowBytes(), g.Next, page)
}

// ReadPages reads pages of rows with values of size bytes and ids below next.
func ReadPages(pages []Page, size int, next uint64, page func(Page) ([]byte, error)) ([]Row, error) {
	var rows []Row
	for _, p := range pages {
		data, err := page(p)
		if err != nil {
			return nil, err
		}
		if have := ID(data); have != p.Hash {
			return nil, fmt.Errorf("version: page %d: want SHA-256 %s, have %s", p.Number, p.Hash, have)
		}
		some, err := DecodePage(data, size)
		if err != nil {
			return nil, err
		}
		if err := p.holds(some, next); err != nil {
			return nil, err
		}
		rows = append(rows, some...)
	}
	return rows, nil
}

func (p *Page) holds(rows []Row, next uint64) error {
	if len(rows) != p.Rows {
		return fmt.Errorf("version: page %d: want %d rows, have %d", p.Number, p.Rows, len(rows))
	}
	for _, r := range rows {
		if r.ID/PageRows != p.Number || r.ID >= next {
			return fmt.Errorf("version: page %d: want ids of the page below %d, have %d", p.Number, next, r.ID)
		}
	}
	return nil
}

// Index makes the index of a model's gallery, whose rows these are: the same bytes for the same rows however they came.
func (x *Model) Index(rows []Row) (*index.Index, error) {
	size := x.Gallery.RowBytes()
	all, err := index.New(index.Header{D: x.Gallery.Dim, DType: x.Gallery.Embeddings(), Model: x.Identity})
	if err != nil {
		return nil, err
	}
	metas, vectors := make([]index.Meta, len(rows)), make([]byte, 0, len(rows)*size)
	for i := range rows {
		metas[i] = rows[i].Meta
		vectors = append(vectors, rows[i].Values...)
	}
	return all, all.AppendStored(metas, vectors)
}
