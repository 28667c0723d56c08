// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"

	"fromage/index"
	"fromage/server/store"
	"fromage/server/version"
)

// table is a gallery's rows in memory: pages by number, each row with its embedding and its features.
type table struct {
	store    *store.Store
	g        *version.Gallery
	dim      int // of features
	pages    map[uint64][]version.Row
	features map[uint64][]version.Row
	changed  map[uint64]bool
}

// load reads a gallery, of which rows have size bytes of embeddings and features of dim values.
func (p *publishing) load(ctx context.Context, g *version.Gallery, size, dim int) (*table, error) {
	t := &table{p.store, g, dim, map[uint64][]version.Row{}, map[uint64][]version.Row{}, map[uint64]bool{}}
	read := func(page version.Page) ([]byte, error) { return p.store.Get(ctx, page.Hash) }
	rows, err := version.ReadPages(g.Pages, size, g.Next, read)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		t.pages[r.ID/version.PageRows] = append(t.pages[r.ID/version.PageRows], r)
	}
	if g.Features == nil {
		return t, nil
	}
	list, err := p.store.Get(ctx, g.Features.Hash)
	if err != nil {
		return nil, err
	}
	pages, err := version.DecodePages(list, g.Next, g.Rows)
	if err != nil {
		return nil, err
	}
	if rows, err = version.ReadPages(pages, 4*dim, g.Next, read); err != nil {
		return nil, err
	}
	for _, r := range rows {
		t.features[r.ID/version.PageRows] = append(t.features[r.ID/version.PageRows], r)
	}
	return t, nil
}

// embed computes a gallery's embeddings, which had size bytes, with other heads.
func (p *publishing) embed(ctx context.Context, g *version.Gallery, size, dim int, heads map[string][]float32) error {
	if g.Rows == 0 {
		return nil
	}
	projection, err := version.NewProjection(heads)
	if err != nil {
		return Refused{err}
	}
	t, err := p.load(ctx, g, size, dim)
	if err != nil {
		return err
	}
	if err := t.embed(projection); err != nil {
		return err
	}
	return t.save(ctx)
}

// embed computes all embeddings.
func (t *table) embed(projection *version.Projection) error {
	var all sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	errs := make([]error, 0, len(t.pages))
	var mu sync.Mutex
	for n, rows := range t.pages {
		t.changed[n] = true
		features := t.features[n]
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if err := embedRows(rows, features, projection, t.g.Embeddings()); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return Refused{err}
	}
	return nil
}

func embedRows(rows, features []version.Row, p *version.Projection, t index.DType) (err error) {
	if len(features) != len(rows) {
		return errors.New("publish: want features of every row")
	}
	for i := range rows {
		if features[i].ID != rows[i].ID {
			return errors.New("publish: want features of every row")
		}
		if rows[i].Values, err = p.Embed(version.Floats(features[i].Values), t); err != nil {
			return err
		}
	}
	return nil
}

// gallery adds and removes rows, and changes how embeddings are stored.
func (p *publishing) gallery(ctx context.Context) error {
	x, err := p.model()
	if err != nil {
		return err
	}
	b, err := p.readBundle(&x.Bundle)
	if err != nil {
		return err
	}
	heads, err := p.currentHeads(ctx, x, b)
	if err != nil {
		return err
	}
	projection, err := version.NewProjection(heads)
	if err != nil {
		return Refused{err}
	}
	t, err := p.load(ctx, &x.Gallery, x.Gallery.RowBytes(), b.Manifest().Settings.VisionDim)
	if err != nil {
		return err
	}
	ids := map[string]uint64{}
	for _, rows := range t.pages {
		for _, r := range rows {
			ids[r.Path] = r.ID
		}
	}
	for _, path := range p.c.Remove {
		id, ok := ids[path]
		if !ok {
			return refuse("%s is not in the gallery of %s", path, x.Name)
		}
		delete(ids, path)
		t.remove(id)
	}
	if err := p.pieces(ctx, p.c.Add); err != nil {
		return err
	}
	for _, piece := range p.c.Add {
		data, err := p.store.Get(ctx, piece.Hash)
		if err != nil {
			return err
		}
		all, err := version.DecodeAdditions(data, t.dim)
		if err != nil {
			return Refused{err}
		}
		for _, a := range all {
			if err := p.add(ctx, t, ids, a, projection); err != nil {
				return err
			}
		}
	}
	if p.c.Embeddings != "" {
		dtype, err := version.ParseEmbeddings(p.c.Embeddings)
		if err != nil {
			return Refused{err}
		}
		x.Gallery.SetEmbeddings(dtype)
		if err := t.embed(projection); err != nil {
			return err
		}
	}
	return t.save(ctx)
}

// add adds a row, or puts it in the place of the one with its path.
func (p *publishing) add(ctx context.Context, t *table, ids map[string]uint64, a version.Addition, projection *version.Projection) error {
	if !ValidPicture(a.Path) {
		return refuse("path %q: want a relative path of a picture file, without hidden folders", a.Path)
	}
	if !p.store.Has(ctx, a.Hash) {
		return refuse("%s: its file %x was not sent", a.Path, a.Hash)
	}
	embedding, err := projection.Embed(a.Features, t.g.Embeddings())
	if err != nil {
		return Refused{err}
	}
	id, ok := ids[a.Path]
	if !ok {
		id = t.g.Next
		t.g.Next++
		ids[a.Path] = id
	}
	t.set(version.Row{ID: id, Meta: a.Meta, Values: embedding}, version.Row{ID: id, Meta: a.Meta, Values: version.FloatBytes(a.Features)})
	return nil
}

// PictureTypes are the pictures that are served, by extension: those that a page can show and the model can read. SVG is not among them: it may carry scripts.
var PictureTypes = map[string]string{
	".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif", ".bmp": "image/bmp",
}

// ValidPicture says whether a path may be a gallery's.
func ValidPicture(name string) bool {
	return PictureTypes[strings.ToLower(path.Ext(name))] != "" && fs.ValidPath(name) && !strings.Contains("/"+name, "/.") && !strings.Contains(name, "\\")
}

func byID(r version.Row, id uint64) int {
	switch {
	case r.ID < id:
		return -1
	case r.ID > id:
		return 1
	}
	return 0
}

func (t *table) set(row, features version.Row) {
	n := row.ID / version.PageRows
	t.changed[n] = true
	for _, c := range []struct {
		pages map[uint64][]version.Row
		row   version.Row
	}{{t.pages, row}, {t.features, features}} {
		i, found := slices.BinarySearchFunc(c.pages[n], row.ID, byID)
		if found {
			c.pages[n][i] = c.row
		} else {
			c.pages[n] = slices.Insert(c.pages[n], i, c.row)
		}
	}
}

func (t *table) remove(id uint64) {
	n := id / version.PageRows
	t.changed[n] = true
	for _, pages := range []map[uint64][]version.Row{t.pages, t.features} {
		if i, found := slices.BinarySearchFunc(pages[n], id, byID); found {
			pages[n] = slices.Delete(pages[n], i, i+1)
		}
	}
}

// save stores the pages that changed, and lists all in the gallery.
func (t *table) save(ctx context.Context) error {
	var err error
	if t.g.Pages, err = t.list(ctx, t.g.Pages, t.pages, t.g.RowBytes()); err != nil {
		return err
	}
	t.g.Rows = 0
	for _, p := range t.g.Pages {
		t.g.Rows += p.Rows
	}
	var old []version.Page
	if f := t.g.Features; f != nil {
		data, err := t.store.Get(ctx, f.Hash)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(data, &old); err != nil {
			return err
		}
	}
	pages, err := t.list(ctx, old, t.features, 4*t.dim)
	if err != nil {
		return err
	}
	data, err := json.Marshal(pages)
	if err != nil {
		return err
	}
	hash, err := t.store.Put(ctx, data)
	if err != nil {
		return err
	}
	t.g.Features = &version.Piece{Hash: hash, Size: int64(len(data))}
	return nil
}

// list stores the pages that changed, of rows with values of size bytes, and lists all.
func (t *table) list(ctx context.Context, old []version.Page, pages map[uint64][]version.Row, size int) ([]version.Page, error) {
	list := []version.Page{}
	for _, p := range old {
		if !t.changed[p.Number] {
			list = append(list, p)
		}
	}
	for n := range t.changed {
		if len(pages[n]) == 0 {
			continue
		}
		data := version.EncodePage(pages[n], size)
		hash, err := t.store.Put(ctx, data)
		if err != nil {
			return nil, err
		}
		list = append(list, version.Page{Number: n, Hash: hash, Size: int64(len(data)), Rows: len(pages[n])})
	}
	slices.SortFunc(list, func(a, b version.Page) int {
		if a.Number < b.Number {
			return -1
		}
		return 1
	})
	return list, nil
}
