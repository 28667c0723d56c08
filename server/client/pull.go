// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"fromage/server/store"
	"fromage/server/version"
	"fromage/server/wire"
)

// Progress is how far a pull is.
type Progress struct {
	Seq         uint64 // of the version that is being fetched
	Done, Total int64  // bytes, as far as sizes are known
}

// Puller mirrors a server into a store.
type Puller struct {
	Options
	Store    *store.Store
	Progress func(Progress)             // nil for none
	Failed   func(error, time.Duration) // hears of a connection that broke, and of the wait before the next try; nil for none
	Received int64                      // bytes of pieces and deltas that came

	progress Progress
	part     part // of a piece that a connection broke in
}

// waits between tries grow from least to most, each by a random part shorter, so that many clients do not come at once.
const (
	leastWait = 100 * time.Millisecond
	mostWait  = 30 * time.Second
)

// Once fetches what the current version has and the store lacks, however often the connection breaks, and returns the version. A refusal is an error at once.
func (p *Puller) Once(ctx context.Context) (v *store.Version, err error) {
	err = p.persist(ctx, func(c *Conn) error {
		v, err = p.advance(ctx, c)
		return err
	})
	return v, err
}

// Follow mirrors every version from now on and tells changed of each, until ctx ends.
func (p *Puller) Follow(ctx context.Context, changed func(*store.Version)) error {
	return p.persist(ctx, func(c *Conn) error {
		for {
			v, err := p.advance(ctx, c)
			if err != nil {
				return err
			}
			if v != nil {
				changed(v)
			}
		}
	})
}

// persist calls f with a connection, and again with another when that breaks, until f returns nil.
func (p *Puller) persist(ctx context.Context, f func(*Conn) error) error {
	wait := leastWait
	for {
		began, received, part := time.Now(), p.Received, len(p.part.data)
		err := p.connect(ctx, f)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if e := (*wire.Error)(nil); errors.As(err, &e) && (e.Code == wire.CodeDenied || e.Code == wire.CodeVersion) || errors.As(err, new(local)) {
			return err
		}
		if p.Received > received || len(p.part.data) > part || time.Since(began) > mostWait {
			wait = leastWait
		}
		rest := wait/2 + rand.N(wait/2)
		if p.Failed != nil {
			p.Failed(err, rest)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rest):
		}
		wait = min(2*wait, mostWait)
	}
}

// local is an error of this side, which another connection does not mend.
type local struct{ error }

func (l local) Unwrap() error { return l.error }

func (p *Puller) connect(ctx context.Context, f func(*Conn) error) error {
	if _, err := p.Options.address(); err != nil {
		return local{err}
	}
	now, _, err := p.Store.Current(ctx)
	if err != nil {
		return local{err}
	}
	held := wire.Hash{}
	if now != nil {
		held = now.ID
	}
	c, err := Dial(ctx, p.Options, held)
	if err != nil {
		return err
	}
	defer c.Close()
	c.part = &p.part
	return f(c)
}

// advance waits for a manifest and makes its version the store's.
func (p *Puller) advance(ctx context.Context, c *Conn) (*store.Version, error) {
	m, err := c.Latest(ctx)
	if err != nil {
		return nil, err
	}
	now, _, err := p.Store.Current(ctx)
	if err != nil {
		return nil, local{err}
	}
	if m.ID == (wire.Hash{}) {
		return nil, nil // nothing was published there yet
	}
	if now != nil && now.ID == m.ID {
		return now, p.heal(ctx, c, now)
	}
	if len(m.Document) == 0 {
		return nil, fmt.Errorf("client: version %d: want its document, have none", m.Seq)
	}
	if now != nil && now.Seq >= m.Seq {
		return nil, local{fmt.Errorf("client: the server is at version %d (%s), the mirror at %d (%s): it is a mirror of something else", m.Seq, m.ID, now.Seq, now.ID)}
	}
	next, err := version.Decode(m.Document)
	if err != nil {
		return nil, err
	}
	p.progress = Progress{Seq: m.Seq}
	if err := p.fill(ctx, c, next, now); err != nil {
		return nil, err
	}
	v, err := p.Store.Mirror(ctx, m.ID, m.Document)
	if err != nil {
		return nil, local{err}
	}
	return v, nil
}

// heal fetches again what of a version is missing or damaged in the store.
func (p *Puller) heal(ctx context.Context, c *Conn, v *store.Version) error {
	return p.fill(ctx, c, v.Manifest, v)
}

// fill fetches the pieces of a manifest that the store lacks: what the manifest names itself, then what is named in those.
func (p *Puller) fill(ctx context.Context, c *Conn, m *version.Manifest, now *store.Version) error {
	var direct []want
	for i := range m.Models {
		x := &m.Models[i]
		for _, f := range []*version.File{&x.Bundle, x.Heads} {
			if f != nil {
				for _, piece := range f.Pieces {
					direct = append(direct, want{piece: piece})
				}
			}
		}
		bases := map[uint64]wire.Hash{}
		if now != nil {
			if old := now.Model(x.Name); old != nil && old.Gallery.RowBytes() == x.Gallery.RowBytes() {
				for _, page := range old.Gallery.Pages {
					bases[page.Number] = page.Hash
				}
			}
		}
		for _, page := range x.Gallery.Pages {
			direct = append(direct, want{version.Piece{Hash: page.Hash, Size: page.Size}, bases[page.Number], x.Gallery.RowBytes()})
		}
		if x.Gallery.Features != nil {
			direct = append(direct, want{piece: *x.Gallery.Features})
		}
	}
	if err := p.get(ctx, c, direct); err != nil {
		return err
	}
	var rest []want
	seen := map[wire.Hash]bool{}
	err := p.Store.Pieces(ctx, m, func(piece version.Piece) (bool, error) {
		fresh := !seen[piece.Hash]
		seen[piece.Hash] = true
		rest = append(rest, want{piece: piece})
		return fresh, nil
	})
	if err != nil {
		return err
	}
	return p.get(ctx, c, rest)
}

// want is a piece to be had, and the page that a delta may begin from.
type want struct {
	piece version.Piece
	base  wire.Hash
	size  int // of a row's values
}

// get fetches those of the pieces that the store lacks.
func (p *Puller) get(ctx context.Context, c *Conn, all []want) error {
	var items []wire.Item
	lacking := map[wire.Hash]want{}
	for _, w := range all {
		if _, twice := lacking[w.piece.Hash]; twice || p.Store.Has(ctx, w.piece.Hash) {
			continue
		}
		i := wire.Item{Hash: w.piece.Hash}
		if w.base != (wire.Hash{}) && w.base != w.piece.Hash && p.Store.Has(ctx, w.base) {
			i.Base = w.base
		}
		lacking[w.piece.Hash] = w
		items = append(items, i)
		p.progress.Total += w.piece.Size
	}
	var again []wire.Item
	keep := func(i wire.Item, data []byte, delta bool) error {
		p.Received += int64(len(data))
		if data == nil {
			return fmt.Errorf("client: piece %s: the server does not have it", i.Hash)
		}
		if delta {
			page, err := p.apply(ctx, i, data, lacking[i.Hash].size)
			if err != nil {
				again = append(again, wire.Item{Hash: i.Hash}) // whole, then
				return nil
			}
			data = page
		}
		if _, err := p.Store.Put(ctx, data); err != nil {
			return local{err}
		}
		p.progress.Done += lacking[i.Hash].piece.Size
		if p.Progress != nil {
			p.Progress(p.progress)
		}
		return nil
	}
	if err := c.Fetch(ctx, items, keep); err != nil {
		return err
	}
	return c.Fetch(ctx, again, keep)
}

func (p *Puller) apply(ctx context.Context, i wire.Item, delta []byte, size int) ([]byte, error) {
	base, err := p.Store.Get(ctx, i.Base)
	if err != nil {
		return nil, err
	}
	page, err := version.Apply(base, delta, size)
	if err == nil && version.ID(page) != i.Hash {
		err = errDamaged
	}
	return page, err
}
