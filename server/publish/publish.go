// SPDX-License-Identifier: Apache-2.0

// Package publish makes versions of changes.
//
// What enters is a change whose pieces are in the store, trusted in nothing; what leaves is the next version, in which heads and the embeddings that they
// make are always of the same version, or an error and no version. The package refuses to know who may publish and how changes come.
//
// Embeddings are computed here, from the pictures' features, by the linear map visual_fc: no picture is read again when heads change, and no GPU is needed.
package publish

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"fromage/bundle"
	"fromage/server/store"
	"fromage/server/version"
	"fromage/server/wire"
)

// Refused is an error that is the publisher's: the change does not fit.
type Refused struct{ error }

func (r Refused) Unwrap() error { return r.error }

func refuse(format string, args ...any) error {
	return Refused{fmt.Errorf("publish: "+format, args...)}
}

// attempts is how often a change is built anew when somebody else publishes meanwhile.
const attempts = 50

// Apply publishes a change.
func Apply(ctx context.Context, s *store.Store, c *version.Change, by string) (*store.Version, error) {
	for range attempts {
		v, err := try(ctx, s, c, by)
		if !errors.Is(err, store.ErrConflict) {
			return v, err
		}
		time.Sleep(time.Millisecond) // whoever was first has published by now
	}
	return nil, fmt.Errorf("publish: %d versions were published meanwhile: try again", attempts)
}

func try(ctx context.Context, s *store.Store, c *version.Change, by string) (*store.Version, error) {
	current, last, err := s.Current(ctx)
	if err != nil {
		return nil, err
	}
	m := version.Manifest{Seq: last + 1, Time: time.Now().UTC().Truncate(time.Millisecond), By: by, Note: c.Note}
	if current != nil {
		m.Parent = current.ID
		m.Models = slices.Clone(current.Models)
	}
	if c.Parent != nil && *c.Parent != m.Parent {
		return nil, refuse("want it made from the current version %s, have it from %s", m.Parent, *c.Parent)
	}
	p := &publishing{s, &m, c}
	switch {
	case c.Rollback != 0:
		err = p.rollback(ctx)
	case c.Bundle != nil:
		err = p.bundle(ctx)
	case c.Heads != nil:
		err = p.heads(ctx)
	default:
		err = p.gallery(ctx)
	}
	if err != nil {
		return nil, err
	}
	return s.Append(ctx, &m)
}

type publishing struct {
	store *store.Store
	m     *version.Manifest // being made
	c     *version.Change
}

// rollback takes the models of an earlier version. Ids of rows go on where they were.
func (p *publishing) rollback(ctx context.Context) error {
	old, err := p.store.Version(ctx, p.c.Rollback)
	if errors.Is(err, store.ErrMissing) {
		return refuse("version %d is not there", p.c.Rollback)
	}
	if err != nil {
		return err
	}
	models := slices.Clone(old.Models)
	for i := range models {
		if now := p.m.Model(models[i].Name); now != nil {
			models[i].Gallery.Next = max(models[i].Gallery.Next, now.Gallery.Next)
		}
	}
	p.m.Models = models
	if p.m.Note == "" {
		p.m.Note = fmt.Sprintf("back to version %d", p.c.Rollback)
	}
	return nil
}

// model returns the model that the change is of, to be changed.
func (p *publishing) model() (*version.Model, error) {
	x := p.m.Model(p.c.Model)
	if x == nil {
		return nil, refuse("there is no model %q", p.c.Model)
	}
	return x, nil
}

// readBundle opens a bundle in the store.
func (p *publishing) readBundle(f *version.File) (*bundle.Bundle, error) {
	return bundle.Read(p.store.Reader(f), f.Size)
}

// pieces wants a file's pieces to be there.
func (p *publishing) pieces(ctx context.Context, pieces []version.Piece) error {
	for _, piece := range pieces {
		data, err := p.store.Get(ctx, piece.Hash)
		if errors.Is(err, store.ErrMissing) {
			return refuse("piece %s was not sent", piece.Hash)
		}
		if err != nil {
			return err
		}
		if int64(len(data)) != piece.Size {
			return refuse("piece %s: want %d bytes, have %d", piece.Hash, piece.Size, len(data))
		}
	}
	return nil
}

func (p *publishing) bundle(ctx context.Context) error {
	f := *p.c.Bundle
	if err := p.pieces(ctx, f.Pieces); err != nil {
		return err
	}
	b, err := p.readBundle(&f)
	if err != nil {
		return Refused{err}
	}
	if err := b.Verify(ctx, nil); err != nil {
		return Refused{err}
	}
	head := make([]byte, 64)
	if _, err := p.store.Reader(&f).ReadAt(head, 0); err != nil {
		return err
	}
	f.SHA256 = wire.Hash(head[32:]) // of the bundle's manifest: see package bundle
	m := b.Manifest()
	id, err := version.Identity(m, nil)
	if err != nil {
		return Refused{err}
	}
	title := p.c.Title
	if title == "" {
		title = m.Name
	}
	next := version.Model{Name: p.c.Model, Title: title, DType: m.DType.String(), Identity: id, Bundle: f, Gallery: version.Gallery{Dim: m.Settings.SharedDim}}
	x := p.m.Model(p.c.Model)
	if x == nil {
		p.m.Models = append(p.m.Models, next)
		return nil
	}
	if x.Gallery.Rows > 0 {
		if err := p.sameVision(m, x); err != nil {
			return err
		}
		next.Gallery = x.Gallery
		next.Gallery.Dim = m.Settings.SharedDim
		heads, err := headsOf(b)
		if err != nil {
			return err
		}
		if err := p.embed(ctx, &next.Gallery, x.Gallery.RowBytes(), m.Settings.VisionDim, heads); err != nil {
			return err
		}
	} else {
		next.Gallery.Next, next.Gallery.DType = x.Gallery.Next, x.Gallery.DType
	}
	*x = next
	return nil
}

// sameVision wants the gallery's features to be those of the new bundle's vision tower.
func (p *publishing) sameVision(m *bundle.Manifest, x *version.Model) error {
	b, err := p.readBundle(&x.Bundle)
	if err != nil {
		return err
	}
	if visionOf(m) != visionOf(b.Manifest()) {
		return refuse("model %s has a gallery of %d pictures, and the new bundle has another vision tower, which would have to read them all: publish it under another name, with its gallery",
			x.Name, x.Gallery.Rows)
	}
	return nil
}

// visionOf tells vision towers apart.
func visionOf(m *bundle.Manifest) string {
	p, err := m.Model.Program("vision")
	if err != nil {
		return ""
	}
	text := fmt.Sprintln(m.Settings.VisionDim, m.Files[bundle.FilePreprocessor].SHA256)
	for i, w := range m.Model.Weights {
		if p.Find(w.Name) != 0 {
			for _, s := range m.Tensors[i].Shards {
				text += fmt.Sprintln(w.Name, m.Tensors[i].Format, s.Values.SHA256)
			}
		}
	}
	return version.ID([]byte(text)).String()
}

// headsOf reads the heads that a bundle has itself.
func headsOf(b *bundle.Bundle) (map[string][]float32, error) {
	heads := map[string][]float32{}
	m := b.Manifest()
	for i, w := range m.Model.Weights {
		if !w.Head {
			continue
		}
		t := m.Tensors[i]
		if len(t.Shards) != 1 {
			return nil, refuse("tensor %s: want one shard, have %d", w.Name, len(t.Shards))
		}
		var raw []byte
		err := b.Chunks(context.Background(), t.Shards[0].Values, func(_ int64, chunk []byte) error {
			raw = append(raw, chunk...)
			return nil
		})
		if err != nil {
			return nil, err
		}
		if n := 4 * w.Rows * w.Cols; len(raw) < n {
			return nil, refuse("tensor %s: want %d bytes, have %d", w.Name, n, len(raw))
		}
		heads[w.Name] = version.Floats(raw[:4*w.Rows*w.Cols])
	}
	return heads, nil
}

// heads puts new trained parameters in the place of some or all, and embeds the gallery with them.
func (p *publishing) heads(ctx context.Context) error {
	x, err := p.model()
	if err != nil {
		return err
	}
	if err := p.pieces(ctx, p.c.Heads.Pieces); err != nil {
		return err
	}
	data, err := p.store.File(ctx, p.c.Heads, version.MaxHeads)
	if err != nil {
		return Refused{err}
	}
	sent, err := version.DecodeHeads(data)
	if err != nil {
		return Refused{err}
	}
	b, err := p.readBundle(&x.Bundle)
	if err != nil {
		return err
	}
	heads, err := p.currentHeads(ctx, x, b)
	if err != nil {
		return err
	}
	if err := join(heads, sent); err != nil {
		return err
	}
	if err := version.FitHeads(b.Manifest(), heads); err != nil {
		return Refused{err}
	}
	file := *p.c.Heads
	if len(sent) < len(heads) { // what is stored is always all of them
		if data, err = version.EncodeHeads(heads); err != nil {
			return err
		}
		whole, err := store.PutFile(ctx, p.store, data)
		if err != nil {
			return err
		}
		file = *whole
	}
	file.SHA256 = version.ID(data)
	if x.Identity, err = version.Identity(b.Manifest(), heads); err != nil {
		return Refused{err}
	}
	x.Heads = &file
	return p.embed(ctx, &x.Gallery, x.Gallery.RowBytes(), b.Manifest().Settings.VisionDim, heads)
}

// addedRows are the rows of added_tokens, where a checkpoint has them alone.
var addedRows = []string{"image_token_embedding.weight", "ret_input_embeddings.weight"}

// join puts what was sent in the place of heads.
func join(heads, sent map[string][]float32) error {
	added := heads["added_tokens"]
	for i, name := range addedRows {
		row, ok := sent[name]
		if !ok {
			continue
		}
		if 2*len(row) != len(added) {
			return refuse("heads: tensor %s: want %d values, have %d", name, len(added)/2, len(row))
		}
		copy(added[i*len(row):], row)
		delete(sent, name)
	}
	maps.Copy(heads, sent)
	return nil
}

// currentHeads are those that a model has now.
func (p *publishing) currentHeads(ctx context.Context, x *version.Model, b *bundle.Bundle) (map[string][]float32, error) {
	if x.Heads == nil {
		return headsOf(b)
	}
	data, err := p.store.File(ctx, x.Heads, version.MaxHeads)
	if err != nil {
		return nil, err
	}
	return version.DecodeHeads(data)
}
