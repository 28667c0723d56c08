// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"gocloud.dev/gcerrors"

	"fromage/server/version"
	"fromage/server/wire"
)

// Grace is how long a piece that nothing refers to, and a version that was dropped, stay: longer than any publishing takes.
const Grace = time.Hour

// Pin has a version kept, or no longer.
func (s *Store) Pin(ctx context.Context, seq uint64, keep bool) error {
	if !keep {
		err := s.bucket.Delete(ctx, seqKey(pinPrefix, seq))
		if gcerrors.Code(err) == gcerrors.NotFound {
			return fmt.Errorf("store: %s: version %d: want a pin, have none", s.where, seq)
		}
		return err
	}
	if _, err := s.Version(ctx, seq); err != nil {
		return err
	}
	return s.write(ctx, seqKey(pinPrefix, seq), []byte("\n"), false)
}

// Pins returns the versions that are to be kept.
func (s *Store) Pins(ctx context.Context) (map[uint64]bool, error) {
	list, err := s.entries(ctx, pinPrefix)
	pins := map[uint64]bool{}
	for _, e := range list {
		pins[e.seq] = true
	}
	return pins, err
}

// Collected is what Collect did.
type Collected struct {
	Versions int   `json:"versions"` // dropped from the log
	Pieces   int   `json:"pieces"`   // removed
	Bytes    int64 `json:"bytes"`    // in them
	Kept     int   `json:"kept"`     // pieces that are left
}

// Collect drops all versions but the newest keep (at least one) and those with a pin, and removes pieces that nothing has referred to for grace.
//
// A dropped version's pieces stay for grace: who builds on it now, as a rollback does, has published before they go. So do young pieces, whose
// version is not there yet.
func (s *Store) Collect(ctx context.Context, keep int, grace time.Duration) (c Collected, err error) {
	if err := s.drop(ctx, max(1, keep), &c); err != nil {
		return c, err
	}
	used := map[wire.Hash]bool{}
	for _, prefix := range []string{logPrefix, droppedPrefix} {
		list, err := s.entries(ctx, prefix)
		if err != nil {
			return c, err
		}
		for _, e := range list {
			if prefix == droppedPrefix && time.Since(e.at) >= grace {
				if err := s.bucket.Delete(ctx, seqKey(prefix, e.seq)); err != nil {
					return c, fmt.Errorf("store: %s: %w", s.where, err)
				}
				continue
			}
			if err := s.mark(ctx, seqKey(prefix, e.seq), e.seq, used); err != nil {
				return c, err
			}
		}
	}
	return c, s.sweep(ctx, used, grace, &c)
}

// drop moves versions out of the log.
func (s *Store) drop(ctx context.Context, keep int, c *Collected) error {
	all, err := s.Versions(ctx)
	if err != nil {
		return err
	}
	pins, err := s.Pins(ctx)
	if err != nil {
		return err
	}
	for _, v := range all[:max(0, len(all)-keep)] {
		if pins[v.Seq] {
			continue
		}
		data, err := s.read(ctx, seqKey(logPrefix, v.Seq), wire.MaxDocument+128)
		if err == nil {
			err = s.write(ctx, seqKey(droppedPrefix, v.Seq), data, false)
		}
		if err == nil {
			err = s.bucket.Delete(ctx, seqKey(logPrefix, v.Seq))
		}
		if err != nil {
			return fmt.Errorf("store: %s: drop version %d: %w", s.where, v.Seq, err)
		}
		c.Versions++
	}
	return nil
}

// mark notes the pieces that a version refers to.
func (s *Store) mark(ctx context.Context, key string, seq uint64, used map[wire.Hash]bool) error {
	v, err := s.version(ctx, key, seq)
	if errors.Is(err, ErrMissing) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.Pieces(ctx, v.Manifest, func(p version.Piece) (bool, error) {
		fresh := !used[p.Hash]
		used[p.Hash] = true
		return fresh, nil
	})
}

// Pieces calls f with every piece that a version refers to, pictures included, whose size is not known here (0). Pages whose piece f does not call new are
// not looked into.
func (s *Store) Pieces(ctx context.Context, m *version.Manifest, f func(p version.Piece) (fresh bool, err error)) error {
	for i := range m.Models {
		x := &m.Models[i]
		files := []*version.File{&x.Bundle}
		if x.Heads != nil {
			files = append(files, x.Heads)
		}
		for _, file := range files {
			for _, p := range file.Pieces {
				if _, err := f(p); err != nil {
					return err
				}
			}
		}
		if err := s.galleryPieces(ctx, &x.Gallery, f); err != nil {
			return fmt.Errorf("model %s: %w", x.Name, err)
		}
	}
	return nil
}

func (s *Store) galleryPieces(ctx context.Context, g *version.Gallery, f func(version.Piece) (bool, error)) error {
	for _, p := range g.Pages {
		fresh, err := f(version.Piece{Hash: p.Hash, Size: p.Size})
		if err != nil || !fresh {
			if err != nil {
				return err
			}
			continue
		}
		data, err := s.Get(ctx, p.Hash)
		if err != nil {
			return err
		}
		rows, err := version.DecodePage(data, g.RowBytes())
		if err != nil {
			return err
		}
		for _, r := range rows {
			if r.Hash == [32]byte{} {
				continue
			}
			if _, err := f(version.Piece{Hash: r.Hash}); err != nil {
				return err
			}
		}
	}
	if g.Features == nil {
		return nil
	}
	fresh, err := f(*g.Features)
	if err != nil || !fresh {
		return err
	}
	data, err := s.Get(ctx, g.Features.Hash)
	if err != nil {
		return err
	}
	pages, err := version.DecodePages(data, g.Next, g.Rows)
	if err != nil {
		return err
	}
	for _, p := range pages {
		if _, err := f(version.Piece{Hash: p.Hash, Size: p.Size}); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes pieces that are not used and not young.
func (s *Store) sweep(ctx context.Context, used map[wire.Hash]bool, grace time.Duration, c *Collected) error {
	type old struct {
		key  string
		size int64
	}
	var gone []old
	objects, err := s.list(ctx, chunkPrefix)
	if err != nil {
		return err
	}
	for _, o := range objects {
		var h wire.Hash
		stray := h.UnmarshalText([]byte(path.Base(o.Key))) != nil // a temporary file that a killed process left
		if !stray && used[h] || time.Since(o.ModTime) < grace {
			c.Kept++
			continue
		}
		gone = append(gone, old{o.Key, o.Size})
	}
	slices.SortFunc(gone, func(a, b old) int { return strings.Compare(a.key, b.key) })
	for _, o := range gone {
		if err := s.bucket.Delete(ctx, o.key); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
			return fmt.Errorf("store: %s: %w", s.where, err)
		}
		c.Pieces, c.Bytes = c.Pieces+1, c.Bytes+o.size
	}
	return nil
}

// Audit checks every piece of a version and returns those that are missing or damaged.
func (s *Store) Audit(ctx context.Context, m *version.Manifest) (bad []wire.Hash, err error) {
	err = s.Pieces(ctx, m, func(p version.Piece) (bool, error) {
		s.cache.drop(p.Hash)
		if _, err := s.Get(ctx, p.Hash); errors.Is(err, ErrMissing) {
			bad = append(bad, p.Hash)
			return false, nil
		} else if err != nil {
			return false, err
		}
		return true, nil
	})
	return bad, err
}

func (c *cache) drop(h wire.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.pieces[h]; ok {
		c.held -= len(c.order.Remove(e).(*cached).data)
		delete(c.pieces, h)
	}
}
