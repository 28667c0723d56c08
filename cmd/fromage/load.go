// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"fromage/assets"
	"fromage/bundle"
	"fromage/gpu"
	"fromage/index"
	"fromage/runner"
	"fromage/vision"
)

// keep has the device closed at the end.
func (a *app) keep(dev gpu.Device) gpu.Device {
	info := dev.Info()
	a.log.Info("device", "host", info.Host, "adapter", info.Adapter, "backend", info.Backend, "driver", info.Driver)
	a.atEnd(func() { dev.Close() })
	return dev
}

// openBundle opens -m, or the embedded model.
func (a *app) openBundle() (*bundle.Bundle, error) {
	if a.model == "" {
		return assets.Bundle()
	}
	b, err := bundle.Open(a.model)
	if err != nil {
		return nil, err
	}
	a.atEnd(func() { b.Close() })
	return b, nil
}

// modelName is what messages call the model.
func (a *app) modelName() string {
	if a.model == "" {
		return "the embedded model"
	}
	return a.model
}

// load puts the model onto a device. Both are given back at the end.
func (a *app) load(ctx context.Context) (*runner.Runner, error) {
	b, err := a.openBundle()
	if err != nil {
		return nil, err
	}
	return a.loadBundle(ctx, b)
}

func (a *app) loadBundle(ctx context.Context, b *bundle.Bundle) (*runner.Runner, error) {
	dev, err := a.openDevice()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	line := a.startProgress("loading "+a.modelName(), "B")
	r, err := runner.Load(ctx, dev, b, func(p runner.Progress) { line.set(p.Done, p.Total) })
	a.endProgress()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.modelName(), err)
	}
	a.atEnd(r.Close)
	if err := r.SetKV(a.kv); err != nil {
		return nil, fmt.Errorf("%s: %w", a.modelName(), err)
	}
	a.log.Info("loaded", "model", a.modelName(), "seconds", time.Since(began).Seconds())
	return r, nil
}

// loadWithAlbum is load and openAlbum.
func (a *app) loadWithAlbum(ctx context.Context) (*runner.Runner, *album, error) {
	r, err := a.load(ctx)
	if err != nil {
		return nil, nil, err
	}
	x, err := a.openAlbum(r)
	return r, x, err
}

// album is an open index with a search over it.
type album struct {
	*index.Index
	embedded bool // it is the embedded gallery, whose pictures are named gallery:PATH
	search   runner.Searcher
}

// openAlbum opens -i, or the embedded gallery, for a model. Where the gallery was not asked for and is another model's, it returns nil: the model
// answers without pictures.
func (a *app) openAlbum(r *runner.Runner) (*album, error) {
	x, name, err := a.openIndex()
	if err != nil {
		return nil, err
	}
	id, err := identity(r.Settings())
	if err == nil {
		err = x.CheckModel(r.Settings().SharedDim, id)
	}
	if err != nil && a.gallery == "" && a.model != "" {
		fmt.Fprintf(a.stderr, "fromage: the embedded gallery is not of %s: no pictures will be retrieved (fromage index build makes a gallery, -i names it)\n", a.model)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if n := x.Notice(); n != "" {
		fmt.Fprintln(a.stderr, "fromage:", n)
	}
	search, err := runner.NewGallery(r, x)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	a.atEnd(search.Close)
	return &album{x, a.gallery == "", search}, nil
}

func (a *app) openIndex() (*index.Index, string, error) {
	if a.gallery == "" {
		x, err := assets.Gallery()
		return x, "the embedded gallery", err
	}
	x, err := index.Open(a.gallery)
	if err != nil {
		return nil, "", err
	}
	a.atEnd(func() { x.Close() })
	return x, a.gallery, nil
}

// identity is the mark that an index of the model's embeddings carries.
func identity(s bundle.Settings) (id [32]byte, err error) {
	if s.HeadsHash == "" {
		return id, errors.New("the model has no heads: it knows no pictures")
	}
	raw, err := hex.DecodeString(s.HeadsHash)
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("heads_hash: want 64 hexadecimal digits, have %q", s.HeadsHash)
	}
	return [32]byte(raw), nil
}

// galleryPrefix begins the name of a picture of the embedded gallery.
const galleryPrefix = "gallery:"

// maxPicture is the most bytes of a picture file.
const maxPicture = 64 << 20

// readPicture returns a picture file's bytes. The name is a path, or gallery:PATH.
func readPicture(name string) ([]byte, error) {
	if path, ok := strings.CutPrefix(name, galleryPrefix); ok {
		return assets.Picture(path)
	}
	// A pipe that nobody writes to would block the opening itself, where Ctrl-C is not heard.
	if info, err := os.Stat(name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: want a picture file, have a %s", name, kindOf(info.Mode()))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPicture+1))
	if err == nil && len(data) > maxPicture {
		err = fmt.Errorf("%s: want a picture of at most %d bytes", name, maxPicture)
	}
	return data, err
}

// kindOf names what is not a regular file.
func kindOf(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "folder"
	case m&os.ModeNamedPipe != 0:
		return "pipe"
	}
	return "device"
}

// pictureError says that a file is not a picture that can be read.
type pictureError struct{ error }

func (e pictureError) Unwrap() error { return e.error }

// pixels decodes a picture to what the model's vision tower reads. A file that is at fault gives a pictureError.
func pixels(r *runner.Runner, name string) ([]float32, error) {
	p := r.Vision()
	if p == nil {
		return nil, errors.New("the model cannot read pictures")
	}
	data, err := readPicture(name)
	if err != nil {
		return nil, pictureError{err}
	}
	return process(p, name, data)
}

func process(p *vision.Processor, name string, data []byte) ([]float32, error) {
	h, w := p.Shape()
	x := make([]float32, 3*h*w)
	if err := p.Process(data, x); err != nil {
		return nil, pictureError{fmt.Errorf("%s: %w", name, err)}
	}
	return x, nil
}

// embed reads pictures and runs them through the vision tower and the maps.
func embed(ctx context.Context, r *runner.Runner, names ...string) ([]runner.Image, error) {
	var all [][]float32
	for _, name := range names {
		x, err := pixels(r, name)
		if err != nil {
			return nil, err
		}
		all = append(all, x)
	}
	return r.Embed(ctx, all, nil)
}
