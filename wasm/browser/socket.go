// SPDX-License-Identifier: Apache-2.0

//go:build js && wasm

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall/js"
	"time"

	"fromage/server/version"
	"fromage/server/wire"
)

const (
	syncCredit = 4 << 20          // bytes that may be on their way
	silence    = 25 * time.Second // after so much the server is asked whether it lives, and after as much again given up
	greeting   = 10 * time.Second
)

// socket is a websocket to a server of versions. What has come waits in a queue, which credit bounds.
type socket struct {
	ws    js.Value
	funcs []js.Func

	mu    sync.Mutex
	queue [][]byte
	ended bool
	wake  chan struct{}

	back uint64         // bytes taken that no credit was given back for
	news *wire.Manifest // the newest that was heard of and not handled
}

var errSocket = errors.New("the connection to the server ended")

// dial connects and says hello; held is the version that is here.
func dial(ctx context.Context, url string, held wire.Hash) (*socket, error) {
	c := &socket{wake: make(chan struct{}, 1)}
	c.ws = js.Global().Get("WebSocket").New(url, "fromage.sync")
	c.ws.Set("binaryType", "arraybuffer")
	on := func(name string, f func(js.Value)) {
		fn := js.FuncOf(func(_ js.Value, args []js.Value) any {
			f(args[0])
			select {
			case c.wake <- struct{}{}:
			default:
			}
			return nil
		})
		c.funcs = append(c.funcs, fn)
		c.ws.Call("addEventListener", name, fn)
	}
	on("open", func(js.Value) {
		c.send(&wire.Hello{Least: wire.Version, Greatest: wire.Version, Credit: syncCredit, Name: "page", Held: held})
	})
	on("close", func(js.Value) { c.ended = true })
	on("message", func(e js.Value) {
		data, err := bytesOf(js.Global().Get("Uint8Array").New(e.Get("data")), wire.MaxFrame)
		if err != nil {
			c.ended = true
			return
		}
		c.mu.Lock()
		c.queue = append(c.queue, data)
		c.mu.Unlock()
	})
	f, err := c.next(ctx, greeting)
	if err == nil {
		if _, ok := f.(*wire.Hello); !ok {
			err = fmt.Errorf("want a hello, have %T", f)
		}
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *socket) send(f wire.Frame) {
	if c.ws.Get("readyState").Int() == 1 { // else its end is heard of
		c.ws.Call("send", arrayOf(wire.Append(nil, f)))
	}
}

func (c *socket) close() {
	c.ws.Call("close")
	c.ended = true
	for _, name := range []string{"open", "close", "message"} {
		c.ws.Call("removeEventListener", name, c.funcs[map[string]int{"open": 0, "close": 1, "message": 2}[name]])
	}
	for _, f := range c.funcs {
		f.Release()
	}
}

// next waits for a frame, for a time; manifests are noted besides.
func (c *socket) next(ctx context.Context, patience time.Duration) (wire.Frame, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		c.mu.Lock()
		var data []byte
		if len(c.queue) > 0 {
			data, c.queue = c.queue[0], c.queue[1:]
		}
		c.mu.Unlock()
		if data != nil {
			f, err := wire.Parse(data)
			if f == nil && err == nil {
				continue
			}
			return c.note(f), err
		}
		if c.ended {
			return nil, errSocket
		}
		select {
		case <-c.wake:
		case <-timer.C:
			return nil, errSilent
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

var errSilent = errors.New("the server is silent")

// note answers what is to be answered whatever one waits for.
func (c *socket) note(f wire.Frame) wire.Frame {
	switch f := f.(type) {
	case *wire.Ping:
		if !f.Answer {
			c.send(&wire.Ping{Number: f.Number, Answer: true})
		}
	case *wire.Manifest:
		c.news = f
	}
	return f
}

// manifest implements line.
func (c *socket) manifest(ctx context.Context) (*wire.Manifest, error) {
	asked := false
	for c.news == nil {
		f, err := c.next(ctx, silence)
		if errors.Is(err, errSilent) && !asked {
			asked = true
			c.send(&wire.Ping{Number: 1})
			continue
		}
		if err != nil {
			return nil, err
		}
		asked = false
		if e, ok := f.(*wire.Error); ok {
			return nil, e
		}
	}
	m := c.news
	c.news = nil
	return m, nil
}

// fetch implements line.
func (c *socket) fetch(ctx context.Context, items []wire.Item, got func(i wire.Item, data []byte, delta bool) error) error {
	for len(items) > 0 {
		some := items[:min(len(items), 256)]
		c.send(&wire.Want{Items: some})
		for _, i := range some {
			if err := c.piece(ctx, i, got); err != nil {
				return err
			}
		}
		items = items[len(some):]
	}
	return nil
}

func (c *socket) piece(ctx context.Context, i wire.Item, got func(wire.Item, []byte, bool) error) error {
	var data []byte
	for {
		f, err := c.next(ctx, silence)
		if err != nil {
			return err
		}
		switch f := f.(type) {
		case *wire.Missing:
			return fmt.Errorf("the server has no piece %s", f.Hash)
		case *wire.Error:
			return f
		case *wire.Chunk:
			delta := f.Base != (wire.Hash{})
			if f.Hash != i.Hash || delta && f.Base != i.Base || f.Offset != uint64(len(data)) || len(f.Data) == 0 {
				return fmt.Errorf("want piece %s from byte %d on, have %s from %d", i.Hash, len(data), f.Hash, f.Offset)
			}
			data = append(data, f.Data...)
			if c.back += uint64(len(f.Data)); c.back >= syncCredit/4 {
				c.send(&wire.Credit{Bytes: c.back})
				c.back = 0
			}
			if uint64(len(data)) < f.Total {
				continue
			}
			if !delta && version.ID(data) != i.Hash {
				return fmt.Errorf("piece %s was damaged on its way", i.Hash)
			}
			return got(i, data, delta)
		}
	}
}
