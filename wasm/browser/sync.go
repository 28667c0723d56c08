// SPDX-License-Identifier: Apache-2.0

//go:build js && wasm

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall/js"
	"time"

	"fromage/bundle"
	"fromage/index"
	"fromage/server/version"
	"fromage/server/wire"
)

// versions keeps a session at a server's current version: its heads and its gallery. What a version is made of is kept in the browser's files, so that a page
// that comes back fetches what is new alone, and works without a server.
type versions struct {
	s         *session
	url, name string   // of the server's end; of the model there
	line      line     // nil while there is none
	now       *edition // what is used
	noted     []byte   // the document that this page found noted as the last, or noted itself
}

// line is a connection to a server of versions.
type line interface {
	// manifest waits for a version that was not handled yet.
	manifest(ctx context.Context) (*wire.Manifest, error)
	// fetch asks for pieces and hands each on, in order: its bytes, held to its hash unless they are a delta.
	fetch(ctx context.Context, items []wire.Item, got func(i wire.Item, data []byte, delta bool) error) error
	close()
}

// edition is a version with what this page needs of it.
type edition struct {
	id     wire.Hash
	m      *version.Manifest
	x      *version.Model
	heads  map[string][]float32 // nil: the bundle's own
	rows   []version.Row
	pieces map[wire.Hash][]byte

	document []byte
	keeping  sync.WaitGroup // pieces that are being written to the browser's files
}

// errOther says that a version has another bundle than the one that is loaded.
var errOther = errors.New("another model was published: try again")

// begin returns the newest edition that can be had, and the index of its gallery.
func (v *versions) begin(ctx context.Context) (*index.Index, error) {
	v.s.stage("gallery", 0, 1)
	v.now = v.kept(ctx)
	e, err := v.connect(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err == nil && e != nil:
		v.now = e
	case err != nil && v.now == nil:
		return nil, coded("network", fmt.Errorf("%s: %w. Check the connection and try again", v.url, err))
	case err != nil:
		v.s.notice("The server does not answer: the pictures and heads are those of version %d.", v.now.m.Seq)
	}
	if v.now == nil {
		return nil, coded("network", fmt.Errorf("%s: nothing was published there yet", v.url))
	}
	v.s.stage("gallery", 1, 1)
	return v.now.index()
}

// connect connects, by asking where no websocket gets through, and returns the current edition, nil where that is the one that is used.
func (v *versions) connect(ctx context.Context) (*edition, error) {
	held := wire.Hash{}
	if v.now != nil {
		held = v.now.id
	}
	if c, err := dial(ctx, v.url, held); err == nil {
		v.line = c
	} else if ctx.Err() == nil {
		v.line = ask(v.url)
	} else {
		return nil, ctx.Err()
	}
	var e *edition
	m, err := v.line.manifest(ctx)
	if err == nil {
		e, err = v.fetch(ctx, m)
	}
	if err != nil {
		v.drop() // the next connection begins with this version again
	}
	return e, err
}

// drop ends the connection.
func (v *versions) drop() {
	if v.line != nil {
		v.line.close()
		v.line = nil
	}
}

// polling says whether versions come by asking.
func (v *versions) polling() bool {
	_, ok := v.line.(*asking)
	return ok
}

// fetch makes an edition of a manifest, of which only what is not here is asked for.
func (v *versions) fetch(ctx context.Context, f *wire.Manifest) (*edition, error) {
	if v.now != nil && f.ID == v.now.id || f.ID == (wire.Hash{}) {
		return nil, nil
	}
	if have := version.ID(f.Document); have != f.ID {
		return nil, fmt.Errorf("version %d: want SHA-256 %s, have %s", f.Seq, f.ID, have)
	}
	e, err := v.edition(f.Document)
	if err != nil {
		return nil, err
	}
	bases := map[uint64]wire.Hash{}
	if v.now != nil && v.now.x.Gallery.RowBytes() == e.x.Gallery.RowBytes() {
		for _, p := range v.now.x.Gallery.Pages {
			bases[p.Number] = p.Hash
		}
	}
	var items, again []wire.Item
	files := v.list(ctx)
	want := func(hash, base wire.Hash) {
		if v.now != nil && v.now.pieces[hash] != nil {
			e.pieces[hash] = v.now.pieces[hash]
		} else if e.pieces[hash] == nil {
			if slices.Contains(files, fileOf(hash)) {
				e.pieces[hash] = v.read(ctx, hash)
			}
			if e.pieces[hash] == nil {
				items = append(items, wire.Item{Hash: hash, Base: base})
			}
		}
	}
	if e.x.Heads != nil {
		for _, p := range e.x.Heads.Pieces {
			want(p.Hash, wire.Hash{})
		}
	}
	for _, p := range e.x.Gallery.Pages {
		want(p.Hash, bases[p.Number])
	}
	take := func(i wire.Item, data []byte, delta bool) error {
		if delta {
			page, err := version.Apply(v.now.pieces[i.Base], data, e.x.Gallery.RowBytes())
			if err != nil || version.ID(page) != i.Hash {
				again = append(again, wire.Item{Hash: i.Hash}) // whole, then
				return nil
			}
			data = page
		}
		e.pieces[i.Hash] = data
		e.keeping.Go(func() { v.write(context.WithoutCancel(ctx), fileOf(i.Hash), data) }) // while others come
		return nil
	}
	if err := v.line.fetch(ctx, items, take); err != nil {
		return nil, err
	}
	if err := v.line.fetch(ctx, again, take); err != nil {
		return nil, err
	}
	return e, e.open(v.s.manifest)
}

// edition reads a document, and wants it to have the bundle that is loaded.
func (v *versions) edition(document []byte) (*edition, error) {
	m, err := version.Decode(document)
	if err != nil {
		return nil, err
	}
	e := &edition{id: version.ID(document), m: m, x: m.Model(v.name), pieces: map[wire.Hash][]byte{}, document: document}
	if e.x == nil || !bytes.Equal(e.x.Bundle.SHA256[:], v.s.header[32:64]) {
		return nil, errOther
	}
	return e, nil
}

// open reads the pieces, which are all there, and checks that they are of one another.
func (e *edition) open(m *bundle.Manifest) (err error) {
	if e.x.Heads != nil {
		var data []byte
		for _, p := range e.x.Heads.Pieces {
			data = append(data, e.pieces[p.Hash]...)
		}
		if e.heads, err = version.DecodeHeads(data); err != nil {
			return err
		}
		if err := version.FitHeads(m, e.heads); err != nil {
			return err
		}
	}
	if id, err := version.Identity(m, e.heads); err != nil || id != e.x.Identity || e.x.Gallery.Dim != m.Settings.SharedDim {
		return fmt.Errorf("version %d: its heads are not those of its pictures: want %s, have %s, %v", e.m.Seq, e.x.Identity, id, err)
	}
	e.rows, err = e.x.Gallery.ReadRows(func(p version.Page) ([]byte, error) { return e.pieces[p.Hash], nil })
	return err
}

func (e *edition) index() (*index.Index, error) {
	return e.x.Index(e.rows)
}

// Files of the browser's.

const (
	versionFile = "sync-"  // and a model's name: the SHA-256 of its last version's document, and the document
	pieceFile   = "piece-" // and its hash
)

func (v *versions) file() string    { return versionFile + v.name }
func fileOf(piece wire.Hash) string { return pieceFile + piece.String() }
func (v *versions) files() js.Value { return v.s.host.Get("files") }
func (v *versions) readFile(ctx context.Context, name string, most int) []byte {
	found, err := await(ctx, v.files().Call("read", name))
	if err != nil || found.IsNull() {
		return nil
	}
	data, err := bytesOf(found, most)
	if err != nil {
		return nil
	}
	return data
}

// read returns a piece that is kept and undamaged.
func (v *versions) read(ctx context.Context, hash wire.Hash) []byte {
	data := v.readFile(ctx, fileOf(hash), wire.MaxWhole)
	if data == nil || version.ID(data) != hash {
		return nil
	}
	return data
}

// list is the names of the files.
func (v *versions) list(ctx context.Context) (names []string) {
	list, err := await(ctx, v.files().Call("list"))
	if err != nil {
		return nil // as if there were none
	}
	for i := range list.Length() {
		names = append(names, list.Index(i).String())
	}
	return names
}

// write keeps a file if that is possible; what is not kept is fetched at the next visit.
func (v *versions) write(ctx context.Context, name string, data []byte) {
	_, _ = await(ctx, v.files().Call("write", name, arrayOf(data)))
}

// readDocument returns the document that a file of a last version has, undamaged, or nil.
func (v *versions) readDocument(ctx context.Context, name string) []byte {
	data := v.readFile(ctx, name, wire.MaxDocument+len(wire.Hash{}))
	if len(data) < len(wire.Hash{}) || version.ID(data[len(wire.Hash{}):]) != wire.Hash(data[:len(wire.Hash{})]) {
		return nil
	}
	return data[len(wire.Hash{}):]
}

// kept is the edition of the last visit, if all of it is there.
func (v *versions) kept(ctx context.Context) *edition {
	v.noted = v.readDocument(ctx, v.file())
	if v.noted == nil {
		return nil
	}
	e, err := v.edition(v.noted)
	if err != nil {
		return nil
	}
	for _, h := range piecesOf(e.x) {
		if e.pieces[h] = v.read(ctx, h); e.pieces[h] == nil {
			return nil
		}
	}
	if e.open(v.s.manifest) != nil {
		return nil
	}
	return e
}

// piecesOf lists the pieces that a page keeps of a model.
func piecesOf(x *version.Model) (all []wire.Hash) {
	if x.Heads != nil {
		for _, p := range x.Heads.Pieces {
			all = append(all, p.Hash)
		}
	}
	for _, p := range x.Gallery.Pages {
		all = append(all, p.Hash)
	}
	return all
}

// settle notes the edition that is used as the last, with all of its pieces, and removes the files of pieces that no model's last version has. Pages of one
// browser do so one after the other. One that comes late leaves what a newer version has alone, and one whose pieces another removed writes them again.
func (v *versions) settle(ctx context.Context) {
	v.now.keeping.Wait()
	unlock, err := await(ctx, v.files().Call("lock"))
	if err != nil {
		return // the page is going away
	}
	defer unlock.Invoke()
	last := v.readDocument(ctx, v.file())
	if m, err := version.Decode(last); err == nil && !bytes.Equal(last, v.noted) && m.Time.After(v.now.m.Time) {
		return
	}
	files := v.list(ctx)
	for _, h := range piecesOf(v.now.x) {
		if name := fileOf(h); !slices.Contains(files, name) {
			v.write(ctx, name, v.now.pieces[h])
		}
	}
	v.write(ctx, v.file(), append(v.now.id[:], v.now.document...))
	if v.noted = v.readDocument(ctx, v.file()); !bytes.Equal(v.noted, v.now.document) {
		return // nothing can be kept
	}
	needed, found := map[string]bool{}, []string{}
	for _, name := range v.list(ctx) {
		if strings.HasPrefix(name, pieceFile) {
			found = append(found, name)
		}
		model, ok := strings.CutPrefix(name, versionFile)
		if !ok {
			continue
		}
		m, err := version.Decode(v.readDocument(ctx, name))
		if err != nil || m.Model(model) == nil {
			continue
		}
		for _, h := range piecesOf(m.Model(model)) {
			needed[fileOf(h)] = true
		}
	}
	for _, name := range found {
		if !needed[name] {
			_, _ = await(ctx, v.files().Call("remove", name))
		}
	}
}

// Waits between tries to connect grow, each by a random part shorter, so that many pages do not come at once.
const (
	leastWait = 200 * time.Millisecond
	mostWait  = 15 * time.Second
)

// follow takes every version from now on, as long as the page lives.
func (v *versions) follow(ctx context.Context) {
	v.settle(ctx)
	wait := leastWait
	for {
		began := time.Now()
		err := v.takeAll(ctx)
		v.drop()
		if errors.Is(err, errOther) {
			v.s.tell(map[string]any{"type": "version", "bundle": true})
		} else if !errors.Is(err, errSocket) && !errors.Is(err, errSilent) && !errors.Is(err, errAsking) {
			v.s.notice("A new version could not be taken: %v", err)
		}
		if time.Since(began) > mostWait {
			wait = leastWait
		}
		time.Sleep(wait/2 + rand.N(wait/2))
		wait = min(2*wait, mostWait)
	}
}

// takeAll takes versions until the connection ends.
func (v *versions) takeAll(ctx context.Context) error {
	if v.line == nil {
		e, err := v.connect(ctx)
		if err != nil {
			return err
		}
		if err := v.take(ctx, e); err != nil {
			return err
		}
	}
	for {
		f, err := v.line.manifest(ctx)
		if err != nil {
			return err
		}
		e, err := v.fetch(ctx, f)
		if err != nil {
			return err
		}
		if err := v.take(ctx, e); err != nil {
			return err
		}
	}
}

// take swaps an edition in, between two answers, and tells the page what is new.
func (v *versions) take(ctx context.Context, e *edition) error {
	if e == nil {
		return nil
	}
	x, err := e.index()
	if err != nil {
		return err
	}
	old := v.now
	heads := e.x.Identity != old.x.Identity
	values := e.heads
	if heads && values == nil {
		if values, err = v.s.ownHeads(ctx); err != nil {
			return err
		}
	}
	if err := v.s.swap(ctx, values, heads, e, x); err != nil {
		return err
	}
	event := difference(old, e)
	event["heads"], event["size"] = heads, v.s.album.size()
	v.s.tell(event)
	v.settle(ctx)
	return nil
}

// difference says what is new in an edition.
func difference(old, e *edition) map[string]any {
	before := map[uint64]*version.Row{}
	for i := range old.rows {
		before[old.rows[i].ID] = &old.rows[i]
	}
	added, changed := 0, 0
	for i := range e.rows {
		o := before[e.rows[i].ID]
		switch {
		case o == nil:
			added++
		case o.Meta != e.rows[i].Meta:
			changed++
		}
		delete(before, e.rows[i].ID)
	}
	return map[string]any{
		"type": "version", "seq": e.m.Seq, "id": e.id.String(), "by": e.m.By, "note": e.m.Note, "added": added, "changed": changed, "removed": len(before),
	}
}

// swap puts heads and a gallery in place of those in use, while no answer is being made.
func (s *session) swap(ctx context.Context, heads map[string][]float32, changed bool, e *edition, x *index.Index) error {
	s.swapping.Lock()
	defer s.swapping.Unlock()
	old := s.album
	if changed {
		if err := s.r.SetHeads(heads); err != nil {
			return err
		}
	}
	s.versions.now = e
	next := &album{s: s, r: s.r, gallery: x, own: old.own, kept: old.kept}
	if changed {
		if err := next.embedOwn(ctx, old); err != nil {
			s.notice("Your own pictures could not be read with the new heads: %v", err)
		}
	}
	if err := next.place(); err != nil {
		return err
	}
	s.album = next
	if old.placed != nil {
		old.placed.Close()
	}
	return nil
}

// embedOwn makes the own pictures' embeddings anew, of their files, with the heads that are in use now.
func (a *album) embedOwn(ctx context.Context, old *album) error {
	h := old.own.Header()
	id, err := a.s.identity()
	if err != nil {
		return err
	}
	h.Model = id
	if a.own, err = index.New(h); err != nil {
		return err
	}
	for i := range old.own.Rows() {
		if !old.own.Live(i) {
			continue
		}
		m, err := old.own.Row(i)
		if err != nil {
			return err
		}
		file, ok := old.kept[m.Hash]
		if !ok {
			if file, err = await(ctx, a.s.host.Get("files").Call("read", fmt.Sprintf("%x", m.Hash))); err != nil || file.IsNull() {
				continue // it is gone
			}
		}
		image, _, err := a.s.embedBytes(ctx, file)
		if err != nil {
			return err
		}
		if err := a.own.Append([]index.Row{{Meta: m, Embedding: image.Retrieval}}); err != nil {
			return err
		}
	}
	if a.own.Rows() == 0 {
		return nil
	}
	if err := a.save(ctx); err != nil {
		return err
	}
	a.s.versions.note(ctx, id)
	_, err = await(ctx, a.s.host.Get("files").Call("remove", old.name()))
	return err
}

// note notes whose embeddings the own pictures have.
func (v *versions) note(ctx context.Context, id wire.Hash) { v.write(ctx, "own-"+v.name, id[:]) }

// moveOwn makes the own pictures' embeddings anew where heads have come since the last visit.
func (v *versions) moveOwn(ctx context.Context) error {
	id, err := v.s.identity()
	if err != nil {
		return err
	}
	last := v.readFile(ctx, "own-"+v.name, len(id))
	if len(last) == len(id) && wire.Hash(last) != id && v.s.album.own.Rows() == 0 {
		old := &album{s: v.s, r: v.s.r}
		h := v.s.album.own.Header()
		h.Model = [32]byte(last)
		if err := old.openOwn(ctx, h); err != nil {
			return err
		}
		if err := v.s.album.embedOwn(ctx, old); err != nil {
			return err
		}
	}
	v.note(ctx, id)
	return nil
}

// ownHeads reads the heads that the bundle has itself.
func (s *session) ownHeads(ctx context.Context) (map[string][]float32, error) {
	store, err := s.openStore(ctx)
	if err != nil {
		return nil, err
	}
	defer store.close()
	heads := map[string][]float32{}
	for i, w := range s.manifest.Model.Weights {
		if !w.Head {
			continue
		}
		blob := s.manifest.Tensors[i].Shards[0].Values
		file, err := await(ctx, store.v.Call("file", encode(chunksOf(blob))))
		if err != nil {
			return nil, err
		}
		data, err := bytesOf(file, int(blob.Size))
		if err != nil {
			return nil, err
		}
		if n := 4 * w.Rows * w.Cols; len(data) >= n {
			heads[w.Name] = version.Floats(data[:n])
		}
	}
	return heads, version.FitHeads(s.manifest, heads)
}

// identity is the mark that embeddings carry which are made now.
func (s *session) identity() ([32]byte, error) {
	if s.versions != nil && s.versions.now != nil {
		return s.versions.now.x.Identity, nil
	}
	return identity(s.manifest.Settings)
}

// unswapped are the functions that new versions do not wait for.
var unswapped = []string{"load", "rest", "info", "lose"}

// steady keeps versions out while f runs.
func (s *session) steady(name string, f func() (any, error)) (any, error) {
	if slices.Contains(unswapped, name) {
		return f()
	}
	s.swapping.RLock()
	defer s.swapping.RUnlock()
	return f()
}

// seq is the version in use, 0 where there are none.
func (s *session) seq() uint64 {
	if s.versions == nil || s.versions.now == nil {
		return 0
	}
	return s.versions.now.m.Seq
}
