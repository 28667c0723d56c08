// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"fromage/bundle"
	"fromage/server/hub"
	"fromage/server/publish"
	"fromage/server/store"
	"fromage/server/version"
)

// Live is what is served instead of Config.Models and Config.Pictures where it changes while it is served: the store's current version. The hub is at
// /sync, the current version's document at /sync/version, pieces at /sync/pieces/SHA256.
type Live struct {
	Hub      *hub.Hub
	Store    *store.Store
	Metrics  bool   // serve /metrics
	Embedded string // hash of the program's own bundle, whose examples the page knows

	mu    sync.Mutex
	about map[string]bundle.Needs // by bundle's hash
	paths *paths
}

// paths finds the pictures of a version.
type paths struct {
	of  *store.Version
	all map[string][32]byte
}

func (l *Live) routes(mux *http.ServeMux, program string) {
	mux.Handle("GET /sync", l.Hub)
	mux.HandleFunc("GET /sync/version", l.Hub.ServeVersion)
	mux.HandleFunc("GET /sync/pieces/{hash}", l.Hub.ServePiece)
	mux.HandleFunc("GET /healthz", l.Hub.ServeHealth)
	if l.Metrics {
		mux.Handle("GET /metrics", l.Hub.Metrics())
	}
	mux.HandleFunc("GET /config.json", func(w http.ResponseWriter, r *http.Request) { l.describe(w, r, program) })
	mux.HandleFunc("GET /models/{file}", l.bundle)
	mux.HandleFunc("GET /gallery/{file}", l.index)
	mux.HandleFunc("GET /gallery/pictures/{path...}", Pictures(l.picture).serve)
}

// describe makes config.json of the current version.
func (l *Live) describe(w http.ResponseWriter, r *http.Request, program string) {
	doc := siteConfig{Version: program, Pictures: "/gallery/pictures/", Sync: "/sync", Models: []siteModel{}}
	if v := l.Hub.Current(); v != nil {
		for i := range v.Models {
			x := &v.Models[i]
			needs, err := l.needs(x)
			if err != nil {
				http.Error(w, "the store cannot be read", http.StatusServiceUnavailable)
				return
			}
			hash := x.Bundle.SHA256.String()
			doc.Models = append(doc.Models, siteModel{Name: x.Name, URL: "/models/" + x.Name + ".bundle", Title: x.Title, Bytes: x.Bundle.Size, DType: x.DType, Hash: hash,
				Embedded: hash == l.Embedded, Memory: needs.Memory(), Buffer: needs.Buffer})
		}
	}
	data, err := json.Marshal(doc)
	if err != nil {
		panic(err) // only a mistake in this package makes it fail
	}
	f := static{"config.json", types[".json"], version.ID(data).String()[:32], map[string][]byte{"": data}}
	f.serve(w, r)
}

// needs says what a model takes of a GPU.
func (l *Live) needs(x *version.Model) (bundle.Needs, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := x.Bundle.SHA256.String()
	if n, ok := l.about[key]; ok {
		return n, nil
	}
	b, err := bundle.Read(l.Store.Reader(&x.Bundle), x.Bundle.Size)
	if err != nil {
		return bundle.Needs{}, err
	}
	if l.about == nil {
		l.about = map[string]bundle.Needs{}
	}
	l.about[key] = b.Manifest().Needs()
	return l.about[key], nil
}

// model finds the model that a file is of.
func (l *Live) model(r *http.Request, ext string) *version.Model {
	name, ok := strings.CutSuffix(r.PathValue("file"), ext)
	v := l.Hub.Current()
	if !ok || v == nil {
		return nil
	}
	return v.Model(name)
}

func (l *Live) bundle(w http.ResponseWriter, r *http.Request) {
	x := l.model(r, ".bundle")
	if x == nil {
		http.NotFound(w, r)
		return
	}
	f := File{l.Store.Reader(&x.Bundle), x.Bundle.Size, x.Bundle.SHA256.String()}
	f.serve(w, r)
}

// index makes a gallery's index, the same bytes that a client makes of the rows.
func (l *Live) index(w http.ResponseWriter, r *http.Request) {
	x := l.model(r, ".index")
	if x == nil {
		http.NotFound(w, r)
		return
	}
	data, err := Index(r.Context(), l.Store, x)
	if err != nil {
		http.Error(w, "the store cannot be read", http.StatusServiceUnavailable)
		return
	}
	f := File{bytes.NewReader(data), int64(len(data)), version.ID(data).String()}
	f.serve(w, r)
}

// Index makes the index file of a model's gallery.
func Index(ctx context.Context, s *store.Store, x *version.Model) ([]byte, error) {
	rows, err := x.Gallery.ReadRows(func(p version.Page) ([]byte, error) { return s.Get(ctx, p.Hash) })
	if err != nil {
		return nil, err
	}
	i, err := x.Index(rows)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if _, err := i.WriteTo(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

var errNoPicture = errors.New("server: no such picture")

// picture returns the file of a picture of the current version, by its path. Paths are looked up and never opened.
func (l *Live) picture(name string) ([]byte, error) {
	if !publish.ValidPicture(name) {
		return nil, errNoPicture
	}
	all, err := l.pictures()
	if err != nil {
		return nil, err
	}
	hash, ok := all[name]
	if !ok {
		return nil, errNoPicture
	}
	return l.Store.Get(context.Background(), hash)
}

func (l *Live) pictures() (map[string][32]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.Hub.Current()
	if v == nil {
		return nil, nil
	}
	if l.paths != nil && l.paths.of == v {
		return l.paths.all, nil
	}
	all := map[string][32]byte{}
	for i := range v.Models {
		rows, err := v.Models[i].Gallery.ReadRows(func(p version.Page) ([]byte, error) { return l.Store.Get(context.Background(), p.Hash) })
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			if _, ok := all[r.Path]; !ok {
				all[r.Path] = r.Hash
			}
		}
	}
	l.paths = &paths{v, all}
	return all, nil
}

// socketsEnd is how long a shutdown waits for websockets.
const socketsEnd = 3 * time.Second

// Close ends the websockets, after what is being sent over each.
func (l *Live) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), socketsEnd)
	defer cancel()
	return l.Hub.Close(ctx)
}

// pictureType is the type of a picture file, "" for a file that is none.
func pictureType(name string) string { return publish.PictureTypes[strings.ToLower(path.Ext(name))] }
