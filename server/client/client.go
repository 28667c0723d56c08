// SPDX-License-Identifier: Apache-2.0

// Package client is the other end of package hub, for programs: it follows a server's versions, mirrors them into a store, and publishes.
//
// What enters is a server's address and its frames, trusted in nothing; what leaves is pieces that were held to their hashes, and versions that are whole. The
// package refuses to know what models and galleries are used for.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"fromage/server/version"
	"fromage/server/wire"
)

// Path is where a server's websocket is, when an address has no path of its own.
const Path = "/sync"

// Options say whom to speak to, and how.
type Options struct {
	URL   string // http://host:port, https://…, ws://… or wss://…
	Token string // of a publisher
	Name  string // for the server's log

	Credit uint64        // bytes that may be on their way, 8 MiB
	Silent time.Duration // after so much silence the server is asked whether it lives, and after as much again given up: 20 s

	DialContext func(ctx context.Context, network, address string) (net.Conn, error) // for tests
}

// address is the websocket's.
func (o *Options) address() (string, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("client: address: want one such as https://example.org, have %q", o.URL)
	}
	switch u.Scheme {
	case "http", "ws":
		u.Scheme = "ws"
	case "https", "wss":
		u.Scheme = "wss"
	default:
		return "", fmt.Errorf("client: address: want http, https, ws or wss, have %q", o.URL)
	}
	if u.User != nil || u.RawQuery != "" {
		return "", errors.New("client: address: want no password and no query in it: a token goes by itself")
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = Path
	}
	return u.String(), nil
}

// Conn is a connection. One goroutine calls it, but for Close.
type Conn struct {
	o      Options
	ws     *websocket.Conn
	server wire.Hello

	writing sync.Mutex
	frames  chan wire.Frame // all but manifests and pings
	news    chan struct{}   // there is a manifest
	ended   chan struct{}
	err     error // why, once ended
	closed  chan struct{}
	closing sync.Once

	mu       sync.Mutex
	manifest *wire.Manifest // the newest, whole or brief
	up       uint64         // credit to send pieces

	back uint64        // bytes taken that no credit was given back for
	part *part         // where a piece is kept that came in part only; nil for nowhere
	more chan struct{} // there is more of it
}

// Dial connects and waits for the server's first manifest. held is the version that the caller has, zero for none.
func Dial(ctx context.Context, o Options, held wire.Hash) (*Conn, error) {
	if o.Credit == 0 {
		o.Credit = 8 << 20
	}
	if o.Silent == 0 {
		o.Silent = 20 * time.Second
	}
	address, err := o.address()
	if err != nil {
		return nil, err
	}
	d := websocket.Dialer{HandshakeTimeout: 20 * time.Second, Subprotocols: []string{"fromage.sync"}, NetDialContext: o.DialContext, Proxy: http.ProxyFromEnvironment}
	ws, response, err := d.DialContext(ctx, address, nil)
	if err != nil {
		if response != nil {
			err = fmt.Errorf("%w: the server answers with status %d", err, response.StatusCode)
		}
		return nil, fmt.Errorf("client: %s: %w", o.URL, err)
	}
	ws.SetReadLimit(wire.MaxFrame)
	c := &Conn{o: o, ws: ws, frames: make(chan wire.Frame, 64), news: make(chan struct{}, 1), ended: make(chan struct{}), closed: make(chan struct{}), more: make(chan struct{}, 1)}
	hello := &wire.Hello{Least: wire.Version, Greatest: wire.Version, Credit: o.Credit, Name: o.Name, Token: o.Token, Held: held}
	if err := c.greet(ctx, hello); err != nil {
		ws.Close()
		return nil, fmt.Errorf("client: %s: %w", o.URL, err)
	}
	go c.read()
	return c, nil
}

func (c *Conn) greet(ctx context.Context, hello *wire.Hello) error {
	stop := context.AfterFunc(ctx, func() { c.ws.Close() })
	defer stop()
	_ = c.ws.SetReadDeadline(time.Now().Add(20 * time.Second))
	if err := c.write(hello); err != nil {
		return err
	}
	f, err := c.next()
	if err != nil {
		return errors.Join(ctx.Err(), err)
	}
	switch f := f.(type) {
	case *wire.Hello:
		c.server, c.up = *f, f.Credit
		return nil
	case *wire.Error:
		return f
	}
	return fmt.Errorf("want a hello, have %T", f)
}

func (c *Conn) next() (wire.Frame, error) {
	for {
		_, data, err := c.ws.ReadMessage()
		if err != nil {
			return nil, err
		}
		f, err := wire.Parse(data)
		if err != nil {
			return nil, err
		}
		if f != nil {
			return f, nil
		}
	}
}

func (c *Conn) write(f wire.Frame) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	_ = c.ws.SetWriteDeadline(time.Now().Add(3 * c.o.Silent))
	return c.ws.WriteMessage(websocket.BinaryMessage, wire.Append(nil, f))
}

// Close ends the connection.
func (c *Conn) Close() error {
	c.closing.Do(func() { close(c.closed) })
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
	return c.ws.Close()
}

// read hears the server until the connection ends.
func (c *Conn) read() {
	defer close(c.ended)
	defer c.ws.Close()
	alive := func() { _ = c.ws.SetReadDeadline(time.Now().Add(2 * c.o.Silent)) }
	quiet := time.AfterFunc(c.o.Silent, func() { _ = c.write(&wire.Ping{Number: 1}) })
	defer quiet.Stop()
	pings := c.ws.PingHandler()
	c.ws.SetPingHandler(func(text string) error {
		alive()
		return pings(text)
	})
	for {
		alive()
		quiet.Reset(c.o.Silent)
		f, err := c.next()
		if err != nil {
			c.err = err
			return
		}
		switch f := f.(type) {
		case *wire.Manifest:
			c.mu.Lock()
			c.manifest = f
			c.mu.Unlock()
			signal(c.news)
		case *wire.Credit:
			c.mu.Lock()
			c.up += min(f.Bytes, 1<<40)
			c.mu.Unlock()
			signal(c.more)
		case *wire.Ping:
			if !f.Answer {
				_ = c.write(&wire.Ping{Number: f.Number, Answer: true})
			}
		case *wire.Error:
			if f.Fatal {
				c.err = f
				return
			}
			c.pass(f)
		default:
			c.pass(f)
		}
	}
}

// pass hands a frame on, unless nobody listens any more.
func (c *Conn) pass(f wire.Frame) {
	select {
	case c.frames <- f:
	case <-c.closed:
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// receive waits for a frame.
func (c *Conn) receive(ctx context.Context) (wire.Frame, error) {
	select {
	case f := <-c.frames:
		return f, nil
	default:
	}
	select {
	case f := <-c.frames:
		return f, nil
	case <-c.ended:
		select {
		case f := <-c.frames:
			return f, nil
		default:
		}
		return nil, fmt.Errorf("client: %s: %w", c.o.URL, c.err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Latest waits for a manifest that was not returned before, and returns the newest. Its document is empty where it is that of the version held.
func (c *Conn) Latest(ctx context.Context) (*wire.Manifest, error) {
	select {
	case <-c.news:
	case <-c.ended:
		select {
		case <-c.news:
		default:
			return nil, fmt.Errorf("client: %s: %w", c.o.URL, c.err)
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.manifest
	if len(m.Document) > 0 && version.ID(m.Document) != m.ID {
		return nil, fmt.Errorf("client: %s: manifest %d: want SHA-256 %s, have %s", c.o.URL, m.Seq, m.ID, version.ID(m.Document))
	}
	return m, nil
}

// window is how many pieces are asked for at once.
const window = 512

// Fetch asks for pieces and calls got with each: its bytes, which were held to the hash unless they are a delta, and are got's. Those of a piece that the
// server does not have are nil.
func (c *Conn) Fetch(ctx context.Context, items []wire.Item, got func(i wire.Item, data []byte, delta bool) error) error {
	for len(items) > 0 {
		n := min(window, len(items))
		begun := c.part.take(items[0].Hash)
		if len(begun) > 0 {
			items[0].Base, items[0].Offset = wire.Hash{}, uint64(len(begun))
		}
		if err := c.write(&wire.Want{Items: items[:n]}); err != nil {
			return fmt.Errorf("client: %s: %w", c.o.URL, err)
		}
		for _, i := range items[:n] {
			if err := c.fetch(ctx, i, begun, got); err != nil {
				return err
			}
			begun = nil
		}
		items = items[n:]
	}
	return nil
}

// part is the first bytes of a piece, for the next connection.
type part struct {
	hash wire.Hash
	data []byte
}

// take returns what is there of a piece.
func (p *part) take(hash wire.Hash) []byte {
	if p == nil || p.hash != hash {
		return nil
	}
	data := p.data
	p.data = nil
	return data
}

// taken gives credit back for bytes that were taken, a quarter of all at a time.
func (c *Conn) taken(n int) error {
	c.back += uint64(n)
	if c.back < c.o.Credit/4 {
		return nil
	}
	n64 := c.back
	c.back = 0
	if err := c.write(&wire.Credit{Bytes: n64}); err != nil {
		return fmt.Errorf("client: %s: %w", c.o.URL, err)
	}
	return nil
}

// keep notes the first bytes of a piece; a delta begins anew.
func (c *Conn) keep(hash wire.Hash, data []byte, delta bool) {
	if c.part != nil && !delta {
		*c.part = part{hash, data}
	}
}

// errDamaged is a piece that came with wrong bytes.
var errDamaged = errors.New("it was damaged on its way")

// fetch receives the piece that is next, of which data is there.
func (c *Conn) fetch(ctx context.Context, i wire.Item, data []byte, got func(wire.Item, []byte, bool) error) error {
	delta := false
	for {
		f, err := c.receive(ctx)
		if err != nil {
			c.keep(i.Hash, data, delta)
			return err
		}
		switch f := f.(type) {
		case *wire.Missing:
			if f.Hash != i.Hash {
				return fmt.Errorf("client: %s: want piece %s, have word of %s", c.o.URL, i.Hash, f.Hash)
			}
			return got(i, nil, false)
		case *wire.Chunk:
			delta = f.Base != (wire.Hash{})
			if f.Hash != i.Hash || delta && f.Base != i.Base || f.Offset != uint64(len(data)) || len(f.Data) == 0 {
				return fmt.Errorf("client: %s: want piece %s from byte %d on, have %s from %d", c.o.URL, i.Hash, len(data), f.Hash, f.Offset)
			}
			data = append(data, f.Data...)
			if err := c.taken(len(f.Data)); err != nil {
				c.keep(i.Hash, data, delta)
				return err
			}
			if uint64(len(data)) < f.Total {
				continue
			}
			if !delta && version.ID(data) != i.Hash {
				return fmt.Errorf("client: %s: piece %s: %w", c.o.URL, i.Hash, errDamaged)
			}
			return got(i, data, delta)
		case *wire.Error:
			return f
		default:
			return fmt.Errorf("client: %s: want a piece, have %T", c.o.URL, f)
		}
	}
}

// Offer sends those of the pieces that the server lacks; read returns the bytes of one. sent, where given, hears of bytes sent.
func (c *Conn) Offer(ctx context.Context, hashes []wire.Hash, read func(wire.Hash) ([]byte, error), sent func(int)) error {
	for len(hashes) > 0 {
		n := min(window, len(hashes))
		if err := c.write(&wire.Have{Hashes: hashes[:n]}); err != nil {
			return c.broken(err)
		}
		f, err := c.receive(ctx)
		if err != nil {
			return err
		}
		want, ok := f.(*wire.Want)
		if !ok {
			return unexpected(f)
		}
		for _, i := range want.Items {
			data, err := read(i.Hash)
			if err != nil {
				return err
			}
			if err := c.upload(ctx, i.Hash, data, sent); err != nil {
				return err
			}
		}
		hashes = hashes[n:]
	}
	return nil
}

// broken is why nothing can be sent: what the server said last, if anything.
func (c *Conn) broken(err error) error {
	select {
	case <-c.ended:
		err = c.err
	case <-time.After(time.Second):
	}
	return fmt.Errorf("client: %s: %w", c.o.URL, err)
}

func unexpected(f wire.Frame) error {
	if e, ok := f.(*wire.Error); ok {
		return e
	}
	return fmt.Errorf("client: want an answer to what was published, have %T", f)
}

func (c *Conn) upload(ctx context.Context, hash wire.Hash, data []byte, sent func(int)) error {
	for at := 0; at < len(data); {
		c.mu.Lock()
		n := int(min(c.up, uint64(min(wire.MaxPiece, len(data)-at))))
		c.up -= uint64(n)
		c.mu.Unlock()
		if n == 0 {
			select {
			case <-c.more:
			case <-c.ended:
				return fmt.Errorf("client: %s: %w", c.o.URL, c.err)
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		if err := c.write(&wire.Chunk{Hash: hash, Offset: uint64(at), Total: uint64(len(data)), Data: data[at : at+n]}); err != nil {
			return c.broken(err)
		}
		at += n
		if sent != nil {
			sent(n)
		}
	}
	return nil
}

// Commit publishes a change whose pieces were offered.
func (c *Conn) Commit(ctx context.Context, change *version.Change) (*wire.Committed, error) {
	data, err := json.Marshal(change)
	if err != nil {
		return nil, fmt.Errorf("client: change: %w", err)
	}
	if len(data) > wire.MaxDocument {
		return nil, fmt.Errorf("client: change: want at most %d bytes, have %d: publish in parts", wire.MaxDocument, len(data))
	}
	if err := c.write(&wire.Commit{Change: data}); err != nil {
		return nil, c.broken(err)
	}
	f, err := c.receive(ctx)
	if err != nil {
		return nil, err
	}
	done, ok := f.(*wire.Committed)
	if !ok {
		return nil, unexpected(f)
	}
	return done, nil
}
