// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"fromage/index"
	"fromage/server/publish"
	"fromage/server/store"
	"fromage/server/version"
	"fromage/server/wire"
)

// Published is a version that was published.
type Published struct {
	Seq  uint64    `json:"seq"`
	ID   wire.Hash `json:"id"`
	Sent int64     `json:"sent"` // bytes of pieces
}

// Publisher publishes to a server, or into a folder or bucket directly.
type Publisher struct {
	conn  *Conn
	store *store.Store
	by    string
	sent  int64

	Progress func(sent int64) // hears of bytes sent; nil for none
}

// Open connects to where versions are published: the address of a server (http, https, ws, wss), which wants a token, or a folder or bucket's URL.
func Open(ctx context.Context, where, token, name string) (*Publisher, error) {
	scheme, _, _ := strings.Cut(where, "://")
	switch scheme {
	case "http", "https", "ws", "wss":
		c, err := Dial(ctx, Options{URL: where, Token: token, Name: name}, wire.Hash{})
		if err != nil {
			return nil, err
		}
		return &Publisher{conn: c}, nil
	}
	s, err := store.Open(ctx, where)
	if err != nil {
		return nil, err
	}
	return To(s, name), nil
}

// To publishes into a store that is open, under a name.
func To(s *store.Store, by string) *Publisher { return &Publisher{store: s, by: by} }

// Close ends the connection.
func (p *Publisher) Close() error {
	if p.conn != nil {
		return p.conn.Close()
	}
	return p.store.Close()
}

// Current returns the current version's manifest, nil where there is none. It is called once, before anything is published.
func (p *Publisher) Current(ctx context.Context) (*version.Manifest, error) {
	if p.store != nil {
		v, _, err := p.store.Current(ctx)
		if v == nil || err != nil {
			return nil, err
		}
		return v.Manifest, nil
	}
	m, err := p.conn.Latest(ctx)
	if err != nil || len(m.Document) == 0 {
		return nil, err
	}
	return version.Decode(m.Document)
}

// Piece returns a piece of the current version.
func (p *Publisher) Piece(ctx context.Context, hash wire.Hash) (data []byte, err error) {
	if p.store != nil {
		return p.store.Get(ctx, hash)
	}
	err = p.conn.Fetch(ctx, []wire.Item{{Hash: hash}}, func(_ wire.Item, b []byte, _ bool) error {
		if b == nil {
			return fmt.Errorf("client: piece %s: the server does not have it", hash)
		}
		data = b
		return nil
	})
	return data, err
}

// offer has pieces sent that are lacking.
func (p *Publisher) offer(ctx context.Context, hashes []wire.Hash, read func(wire.Hash) ([]byte, error)) error {
	count := func(n int) {
		p.sent += int64(n)
		if p.Progress != nil {
			p.Progress(p.sent)
		}
	}
	if p.conn != nil {
		return p.conn.Offer(ctx, hashes, read, count)
	}
	for _, h := range hashes {
		data, err := read(h)
		if err != nil {
			return err
		}
		if _, err := p.store.Put(ctx, data); err != nil {
			return err
		}
		count(len(data))
	}
	return nil
}

// Commit publishes a change whose pieces were sent.
func (p *Publisher) Commit(ctx context.Context, change *version.Change) (Published, error) {
	if p.conn != nil {
		done, err := p.conn.Commit(ctx, change)
		if err != nil {
			return Published{}, err
		}
		return Published{done.Seq, done.ID, p.sent}, nil
	}
	v, err := publish.Apply(ctx, p.store, change, p.by)
	if err != nil {
		return Published{}, err
	}
	return Published{v.Seq, v.ID, p.sent}, nil
}

// file sends a file in pieces. It is read twice where pieces are lacking.
func (p *Publisher) file(ctx context.Context, r io.ReaderAt, size int64) (*version.File, error) {
	type place struct {
		at int64
		n  int
	}
	places := map[wire.Hash]place{}
	var hashes []wire.Hash
	at := int64(0)
	f, err := store.Split(io.NewSectionReader(r, 0, size), size, func(data []byte) error {
		h := version.ID(data)
		if _, ok := places[h]; !ok {
			places[h] = place{at, len(data)}
			hashes = append(hashes, h)
		}
		at += int64(len(data))
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	return f, p.offer(ctx, hashes, func(h wire.Hash) ([]byte, error) {
		data := make([]byte, places[h].n)
		if n, err := r.ReadAt(data, places[h].at); n < len(data) {
			return nil, err
		}
		return data, nil
	})
}

// Bundle publishes a bundle of size bytes under a name.
func (p *Publisher) Bundle(ctx context.Context, name, title, note string, r io.ReaderAt, size int64) (Published, error) {
	f, err := p.file(ctx, r, size)
	if err != nil {
		return Published{}, err
	}
	return p.Commit(ctx, &version.Change{Model: name, Title: title, Note: note, Bundle: f})
}

// Heads publishes trained parameters, by weight, of a model; those that are left out stay as they are.
func (p *Publisher) Heads(ctx context.Context, model, note string, heads map[string][]float32) (Published, error) {
	data, err := version.EncodeHeads(heads)
	if err != nil {
		return Published{}, err
	}
	f, err := p.file(ctx, bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return Published{}, err
	}
	return p.Commit(ctx, &version.Change{Model: model, Note: note, Heads: f})
}

// Picture is a picture to be published.
type Picture struct {
	index.Meta
	Features []float32 // (Dv): what runner.Pooled gives
	File     []byte
}

// Add publishes pictures, in place of those of the same paths. Meta.Hash is computed here.
func (p *Publisher) Add(ctx context.Context, model, note string, pictures []Picture) (Published, error) {
	change := &version.Change{Model: model, Note: note}
	pieces := map[wire.Hash][]byte{}
	var hashes []wire.Hash
	put := func(data []byte) wire.Hash {
		h := version.ID(data)
		if pieces[h] == nil {
			pieces[h] = data
			hashes = append(hashes, h)
		}
		return h
	}
	for len(pictures) > 0 {
		n := min(len(pictures), version.Additions)
		all := make([]version.Addition, n)
		for i, picture := range pictures[:n] {
			picture.Hash = put(picture.File)
			all[i] = version.Addition{Meta: picture.Meta, Features: picture.Features}
		}
		data := version.EncodeAdditions(all)
		change.Add = append(change.Add, version.Piece{Hash: put(data), Size: int64(len(data))})
		pictures = pictures[n:]
	}
	if err := p.offer(ctx, hashes, func(h wire.Hash) ([]byte, error) { return pieces[h], nil }); err != nil {
		return Published{}, err
	}
	return p.Commit(ctx, change)
}

// PublishHeads publishes trained parameters, by weight, as the next version of a model: "" is the only one there is. where is a server's address or a
// folder; token is for a server. Open pages take them between two answers.
func PublishHeads(ctx context.Context, where, token, model, note string, heads map[string][]float32) (Published, error) {
	p, err := Open(ctx, where, token, "fromage train")
	if err != nil {
		return Published{}, err
	}
	defer p.Close()
	if model == "" {
		m, err := p.Current(ctx)
		if err != nil {
			return Published{}, err
		}
		if model, err = Only(m); err != nil {
			return Published{}, fmt.Errorf("client: %s: %w", where, err)
		}
	}
	return p.Heads(ctx, model, note, heads)
}

// Only returns the name of a version's one model.
func Only(m *version.Manifest) (string, error) {
	if m == nil || len(m.Models) == 0 {
		return "", fmt.Errorf("there is no model yet: publish a bundle first")
	}
	if len(m.Models) > 1 {
		var names []string
		for _, x := range m.Models {
			names = append(names, x.Name)
		}
		return "", fmt.Errorf("there are several models, %s: name one", strings.Join(names, ", "))
	}
	return m.Models[0].Name, nil
}
