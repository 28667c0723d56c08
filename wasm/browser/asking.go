// SPDX-License-Identifier: Apache-2.0

//go:build js && wasm

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall/js"
	"time"

	"fromage/server/version"
	"fromage/server/wire"
)

const (
	askEvery = 5 * time.Second
	askFor   = 5 * time.Minute // then a websocket is tried again
)

// asking has a server's versions by plain HTTP, where a proxy lets no websocket through: it asks for the version every few seconds, and pieces come whole.
type asking struct {
	url   string // of the server's end
	began time.Time
	seen  wire.Hash // the version that was handed on last
	ended bool
}

var errAsking = errors.New("the server does not answer")

// ask returns a line to the server whose websocket is at url.
func ask(url string) *asking {
	return &asking{url: "http" + strings.TrimPrefix(url, "ws"), began: time.Now()}
}

// manifest implements line.
func (a *asking) manifest(ctx context.Context) (*wire.Manifest, error) {
	for {
		document, err := a.get(ctx, "/version", wire.MaxDocument)
		if err != nil {
			return nil, err
		}
		if id := version.ID(document); id != a.seen {
			a.seen = id
			m, err := version.Decode(document)
			if err != nil {
				return nil, err
			}
			return &wire.Manifest{Seq: m.Seq, ID: id, Document: document}, nil
		}
		select {
		case <-time.After(askEvery):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if time.Since(a.began) > askFor || a.ended {
			return nil, errAsking
		}
	}
}

// fetch implements line.
func (a *asking) fetch(ctx context.Context, items []wire.Item, got func(i wire.Item, data []byte, delta bool) error) error {
	for _, i := range items {
		data, err := a.get(ctx, "/pieces/"+i.Hash.String(), wire.MaxWhole)
		if err != nil {
			return err
		}
		if version.ID(data) != i.Hash {
			return fmt.Errorf("piece %s was damaged on its way", i.Hash)
		}
		if err := got(i, data, false); err != nil {
			return err
		}
	}
	return nil
}

func (a *asking) close() { a.ended = true }

func (a *asking) get(ctx context.Context, path string, most int) ([]byte, error) {
	response, err := await(ctx, js.Global().Call("fetch", a.url+path))
	if err != nil {
		return nil, errors.Join(errAsking, err)
	}
	if !response.Get("ok").Bool() {
		return nil, fmt.Errorf("%w: %s has status %d", errAsking, path, response.Get("status").Int())
	}
	buffer, err := await(ctx, response.Call("arrayBuffer"))
	if err != nil {
		return nil, errors.Join(errAsking, err)
	}
	return bytesOf(js.Global().Get("Uint8Array").New(buffer), most)
}
