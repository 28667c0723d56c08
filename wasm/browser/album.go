// SPDX-License-Identifier: Apache-2.0

//go:build js && wasm

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall/js"

	"fromage/bundle"
	"fromage/gpu"
	"fromage/index"
	"fromage/runner"
	"fromage/vision"
)

// album is the pictures that are searched: the gallery's, on the device, and the user's own, in Go's memory and in the browser's files. The rows of
// the gallery come first, then the own ones.
type album struct {
	s       *session
	r       *runner.Runner
	gallery *index.Index // nil without one
	own     *index.Index
	placed  *runner.Gallery // the gallery on dev
	dev     gpu.Device
	kept    map[[32]byte]js.Value // files of own pictures that the browser could not keep, by hash
	saving  sync.Mutex            // held while own changes, until that is saved
}

// identity is the mark that an index of the model's embeddings carries.
func identity(s bundle.Settings) (id [32]byte, err error) {
	raw, err := hex.DecodeString(s.HeadsHash)
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("heads_hash: want 64 hexadecimal digits, have %q", s.HeadsHash)
	}
	return [32]byte(raw), nil
}

// openAlbum opens the user's own pictures beside the gallery, nil for none.
func (s *session) openAlbum(ctx context.Context, r *runner.Runner, gallery *index.Index) (*album, error) {
	id, err := s.identity()
	if err != nil {
		return nil, err
	}
	a := &album{s: s, r: r, gallery: gallery}
	if err := a.openOwn(ctx, index.Header{D: s.manifest.Settings.SharedDim, DType: index.F32, Model: id}); err != nil {
		return nil, err
	}
	return a, a.place()
}

// place copies the gallery to the runner's device, if it is not there.
func (a *album) place() error {
	if a.gallery == nil || a.dev == a.r.Device() {
		return nil
	}
	g, err := runner.NewGallery(a.r, a.gallery)
	if err != nil {
		return err
	}
	a.placed, a.dev = g, a.r.Device()
	return nil
}

// first is the row of the first own picture.
func (a *album) first() int {
	if a.gallery == nil {
		return 0
	}
	return a.gallery.Rows()
}

func (a *album) size() int {
	n := a.own.Len()
	if a.gallery != nil {
		n += a.gallery.Len()
	}
	return n
}

// Search implements runner.Searcher.
func (a *album) Search(e []float32, k int, seen []int) ([]index.Hit, error) {
	find := k + len(seen) // whatever rows are seen, the k best after their penalty are among these
	hits, err := a.searchGallery(e, find)
	if err != nil {
		return nil, err
	}
	own, err := a.own.Search(e, find, index.Options{})
	if err != nil {
		return nil, err
	}
	for _, h := range own {
		hits = append(hits, index.Hit{Row: a.first() + h.Row, Score: h.Score * a.r.Scale()})
	}
	for i, h := range hits {
		if slices.Contains(seen, h.Row) {
			hits[i].Score -= index.SeenPenalty
		}
	}
	slices.SortFunc(hits, func(a, b index.Hit) int { return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Row, b.Row)) })
	return hits[:min(k, len(hits))], nil
}

// searchGallery searches the gallery on the device, or in Go where that was lost: the runner gets another at its next step.
func (a *album) searchGallery(e []float32, k int) ([]index.Hit, error) {
	if a.gallery == nil {
		return nil, nil
	}
	err := a.place()
	if err == nil {
		var hits []index.Hit
		if hits, err = a.placed.Search(e, k, nil); err == nil {
			return hits, nil
		}
	}
	if !errors.Is(err, gpu.ErrLost) {
		return nil, err
	}
	hits, err := a.gallery.Search(e, k, index.Options{})
	for i := range hits {
		hits[i].Score *= a.r.Scale()
	}
	return hits, err
}

// similar returns the k pictures that are most like one, {parts, k}: by visual_fc alone, without the language model.
func (s *session) similar(ctx context.Context, c *call) (any, error) {
	k := number(c.args.Get("k"))
	if k < 1 {
		return nil, coded("input", fmt.Errorf("k: want 1 or more, have %d", k))
	}
	parts, err := s.parts(ctx, c.args.Get("parts"))
	if err != nil {
		return nil, err
	}
	if len(parts) != 1 || isText(parts[0]) {
		return nil, coded("input", errors.New("want one picture to compare with"))
	}
	hits, err := s.album.Search(runner.Normalised(parts[0].Image.Retrieval), k, nil)
	if err != nil {
		return nil, err
	}
	return s.album.describe(hits)
}

// leaning is an album searched for what a picture looks like and what a prompt says: the one weighs w, the other 1−w.
type leaning struct {
	*album
	w    float64
	look []float32 // of length 1
}

// leaning returns the album, or it leaning towards a picture where w, a number from 0 to 1, is given.
func (a *album) leaning(w js.Value, image *runner.Image) (runner.Searcher, error) {
	if w.IsUndefined() {
		return a, nil
	}
	if w.Type() != js.TypeNumber || !(w.Float() >= 0 && w.Float() <= 1) {
		return nil, coded("input", fmt.Errorf("look: want a number from 0 to 1, have %v", w))
	}
	return leaning{a, w.Float(), runner.Normalised(image.Retrieval)}, nil
}

// Search implements runner.Searcher.
func (l leaning) Search(e []float32, k int, seen []int) ([]index.Hit, error) {
	mixed := make([]float32, len(e))
	for i := range e {
		mixed[i] = float32(l.w*float64(l.look[i]) + (1-l.w)*float64(e[i]))
	}
	return l.album.Search(runner.Normalised(mixed), k, seen)
}

// hit is a picture found, as the page sees it.
type hit struct {
	Row   int     `json:"row"`
	Score float32 `json:"score"`
	row
}

// row is what is known about a picture.
type row struct {
	Path    string `json:"path"`
	Caption string `json:"caption"`
	Licence string `json:"licence"`
	Own     bool   `json:"own"`
	Hash    string `json:"hash,omitempty"` // of a picture that may change while its path stays: what the server calls it
}

// meta returns what is known about a row that is there.
func (a *album) meta(i int) (index.Meta, bool, error) {
	x, at, own := a.gallery, i, i >= a.first()
	if own {
		x, at = a.own, i-a.first()
	}
	if x == nil || !x.Live(at) {
		return index.Meta{}, own, coded("input", fmt.Errorf("there is no picture %d", i))
	}
	m, err := x.Row(at)
	return m, own, err
}

func (a *album) row(m index.Meta, own bool) row {
	r := row{Path: m.Path, Caption: m.Caption, Licence: m.Licence, Own: own}
	if a.s.versions != nil && !own {
		r.Hash = hex.EncodeToString(m.Hash[:16])
	}
	return r
}

func (a *album) describe(hits []index.Hit) ([]hit, error) {
	out := []hit{}
	for _, h := range hits {
		m, own, err := a.meta(h.Row)
		if err != nil {
			return nil, err
		}
		out = append(out, hit{h.Row, h.Score, a.row(m, own)})
	}
	return out, nil
}

// name is the file of the own pictures' index: another model has another.
func (a *album) name() string {
	h := a.own.Header()
	return hex.EncodeToString(h.Model[:16]) + ".index"
}

// openOwn reads the own pictures' index. One that is damaged is left where it is until a picture is added.
func (a *album) openOwn(ctx context.Context, h index.Header) (err error) {
	a.kept = map[[32]byte]js.Value{}
	if a.own, err = index.New(h); err != nil {
		return err
	}
	v, err := await(ctx, a.s.host.Get("files").Call("read", a.name()))
	if err != nil || v.IsNull() {
		return err
	}
	data, err := bytesOf(v, 1<<30)
	if err != nil {
		return err
	}
	old, err := index.Parse("your pictures", data)
	if err == nil {
		err = old.CheckModel(h.D, h.Model)
	}
	if err == nil {
		err = a.copy(old)
	}
	if err != nil {
		a.s.notice("The index of your own pictures cannot be read: add them again. (%v)", err)
	}
	return nil
}

// copy adds the rows of an index that were not removed.
func (a *album) copy(old *index.Index) error {
	var rows []index.Row
	for i := range old.Rows() {
		if !old.Live(i) {
			continue
		}
		m, err := old.Row(i)
		if err != nil {
			return err
		}
		e := make([]float32, old.Header().D)
		if err := old.Vectors(i, 1, e); err != nil {
			return err
		}
		rows = append(rows, index.Row{Meta: m, Embedding: e})
	}
	if rows == nil {
		return nil
	}
	return a.own.Append(rows)
}

// save writes the own pictures' index to the browser's files.
func (a *album) save(ctx context.Context) error {
	var b bytes.Buffer
	if _, err := a.own.WriteTo(&b); err != nil {
		return err
	}
	_, err := await(ctx, a.s.host.Get("files").Call("write", a.name(), arrayOf(b.Bytes())))
	return err
}

// changed is the answer of add and remove.
type changed struct {
	Row  int `json:"row"`
	Size int `json:"size"`
}

// add embeds a picture, {bytes, path, caption}, and keeps it.
func (s *session) add(ctx context.Context, c *call) (any, error) {
	a := s.album
	file := c.args.Get("bytes")
	image, data, err := s.embedBytes(ctx, file)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(data)
	stored, err := await(ctx, s.host.Get("files").Call("write", hex.EncodeToString(hash[:]), file))
	if err != nil {
		return nil, err
	}
	if !stored.Bool() {
		a.kept[hash] = file
		s.notice("This browser cannot keep your picture: it is there until you leave the page.")
	}
	a.saving.Lock()
	defer a.saving.Unlock()
	m := index.Meta{Path: cmp.Or(text(c.args.Get("path")), "picture"), Caption: text(c.args.Get("caption")), Hash: hash}
	if err := a.own.Append([]index.Row{{Meta: m, Embedding: image.Retrieval}}); err != nil {
		return nil, coded("input", err)
	}
	at := a.own.Rows() - 1
	if err := a.save(ctx); err != nil {
		return nil, errors.Join(err, a.own.Remove(at))
	}
	return changed{a.first() + at, a.size()}, nil
}

// remove forgets an own picture, {row}.
func (s *session) remove(ctx context.Context, c *call) (any, error) {
	a, i := s.album, number(c.args.Get("row"))
	m, own, err := a.meta(i)
	if err != nil {
		return nil, err
	}
	if !own {
		return nil, coded("input", fmt.Errorf("picture %d is the gallery's: only your own can be removed", i))
	}
	a.saving.Lock()
	defer a.saving.Unlock()
	if err := a.own.Remove(i - a.first()); err != nil {
		return nil, err
	}
	if err := a.save(ctx); err != nil {
		return nil, err
	}
	if !a.holds(m.Hash) {
		delete(a.kept, m.Hash)
		if _, err := await(ctx, s.host.Get("files").Call("remove", hex.EncodeToString(m.Hash[:]))); err != nil {
			return nil, err
		}
	}
	return changed{i, a.size()}, nil
}

// holds says whether an own picture has this file.
func (a *album) holds(hash [32]byte) bool {
	for i := range a.own.Rows() {
		if m, err := a.own.Row(i); err == nil && a.own.Live(i) && m.Hash == hash {
			return true
		}
	}
	return false
}

// row tells of a picture, {row}.
func (s *session) row(_ context.Context, c *call) (any, error) {
	m, own, err := s.album.meta(number(c.args.Get("row")))
	return s.album.row(m, own), err
}

// picture returns the file of an own picture, {row}, or null.
func (s *session) picture(ctx context.Context, c *call) (any, error) {
	m, own, err := s.album.meta(number(c.args.Get("row")))
	if err != nil || !own {
		return js.Null(), err
	}
	if v, ok := s.album.kept[m.Hash]; ok {
		return v, nil
	}
	return await(ctx, s.host.Get("files").Call("read", hex.EncodeToString(m.Hash[:])))
}

// other is an own picture that another model has read.
type other struct {
	Path    string `json:"path"`
	Caption string `json:"caption"`
	Hash    string `json:"hash"`
}

// elsewhere lists the own pictures that other models have read and this one has not. An index that cannot be read has none.
func (s *session) elsewhere(ctx context.Context, _ *call) (any, error) {
	files := s.host.Get("files")
	names, err := await(ctx, files.Call("list"))
	if err != nil {
		return nil, err
	}
	seen, others := map[[32]byte]bool{}, []other{}
	for i := range names.Length() {
		name := names.Index(i).String()
		if !strings.HasSuffix(name, ".index") || name == s.album.name() {
			continue
		}
		v, err := await(ctx, files.Call("read", name))
		if err != nil {
			return nil, err
		}
		if v.IsNull() {
			continue
		}
		data, err := bytesOf(v, 1<<30)
		if err != nil {
			return nil, err
		}
		x, err := index.Parse(name, data)
		if err != nil {
			continue
		}
		for row := range x.Rows() {
			m, err := x.Row(row)
			if err != nil {
				return nil, err
			}
			if x.Live(row) && !seen[m.Hash] && !s.album.holds(m.Hash) {
				seen[m.Hash] = true
				others = append(others, other{m.Path, m.Caption, hex.EncodeToString(m.Hash[:])})
			}
		}
	}
	return others, nil
}

// file returns what is kept of an own picture, {hash}, or null.
func (s *session) file(ctx context.Context, c *call) (any, error) {
	hash, err := hex.DecodeString(text(c.args.Get("hash")))
	if err != nil || len(hash) != 32 {
		return nil, coded("input", errors.New("hash: want 64 hexadecimal digits"))
	}
	return await(ctx, s.host.Get("files").Call("read", hex.EncodeToString(hash)))
}

// embedBytes decodes a picture file and runs it through the vision tower and the maps.
func (s *session) embedBytes(ctx context.Context, file js.Value) (*runner.Image, []byte, error) {
	data, err := bytesOf(file, vision.DefaultBytes)
	if err != nil {
		return nil, nil, coded("picture", err)
	}
	p := s.r.Vision()
	h, w := p.Shape()
	pixels := make([]float32, 3*h*w)
	if err := p.Process(data, pixels); err != nil {
		return nil, nil, coded("picture", fmt.Errorf("this file is not a picture that can be read (PNG, JPEG, WebP, GIF or BMP): %w", err))
	}
	images, err := s.r.Embed(ctx, [][]float32{pixels}, nil)
	if err != nil {
		return nil, nil, err
	}
	return &images[0], data, nil
}
