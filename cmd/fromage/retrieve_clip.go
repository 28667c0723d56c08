// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"fromage/bundle"
	"fromage/dataset"
	"fromage/eval"
	"fromage/index"
	"fromage/runner"
)

// clipSearch is how --with and --clip are given.
type clipSearch struct{ name, clip, cache string }

func (s *clipSearch) add(flags *pflag.FlagSet) {
	flags.StringVar(&s.name, "with", "", "clip: search with CLIP's two towers instead")
	flags.StringVar(&s.clip, "clip", "", "a `BUNDLE` with CLIP's text tower for --with clip (default: the model's own)")
	flags.StringVar(&s.cache, "feature-cache", "", "the `FOLDER` for what CLIP made of pictures (default: fromage/features in the user's cache folder)")
}

func (s *clipSearch) check() error {
	if s.clip != "" && s.name == "" {
		s.name = "clip"
	}
	if s.name != "" && s.name != "clip" {
		return fmt.Errorf("--with: want clip, have %q", s.name)
	}
	return nil
}

// openCLIP returns CLIP's two towers over pictures: those of the bundle in file, or of the model that is loaded.
func (a *app) openCLIP(ctx context.Context, r *runner.Runner, file string, names []string, from *dataset.Pictures, opt dataset.FeatureOptions) (*eval.CLIP, error) {
	var b *bundle.Bundle
	var err error
	if file == "" {
		b, err = a.openBundle()
		file = a.modelName()
	} else if b, err = bundle.Open(file); err == nil {
		a.atEnd(func() { b.Close() })
		if r, err = runner.Load(ctx, r.Device(), b, nil); err == nil {
			a.atEnd(r.Close)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if !r.HasText() {
		return nil, fmt.Errorf("%s: has no CLIP text tower: name a bundle made with fromage compile --clip-text by --clip", file)
	}
	opt.Progress = a.watch("")
	features, err := dataset.Embed(ctx, r, names, from, opt)
	a.endProgress()
	if err != nil {
		return nil, err
	}
	a.atEnd(features.Close)
	c, err := eval.NewCLIP(b, r, features)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

// retrieveByCLIP finds the k pictures of an album that CLIP holds to be most like a text.
func (a *app) retrieveByCLIP(ctx context.Context, r *runner.Runner, x *album, items []item, k int, s *clipSearch) (*exchange, error) {
	var texts []string
	for _, it := range items {
		if it.Image != "" {
			return nil, errors.New("retrieve --with clip: want a prompt of text alone, have a picture in it")
		}
		texts = append(texts, strings.TrimSpace(strings.ReplaceAll(it.Text, retMark, "")))
	}
	rows, names, from, err := x.pictures()
	if err != nil {
		return nil, err
	}
	clip, err := a.openCLIP(ctx, r, s.clip, names, from, dataset.FeatureOptions{Cache: s.cache})
	if err != nil {
		return nil, err
	}
	best, err := clip.Search(ctx, strings.Join(texts, " "), names, k)
	if err != nil {
		return nil, err
	}
	for i := range best {
		best[i].Row = rows[best[i].Row]
	}
	return newExchange(x, items, &runner.Answer{Pieces: []runner.Piece{{Text: strings.Join(texts, " "), Images: best, RET: true}}})
}

// pictures are an album's pictures by name, with their rows and the way to read them.
func (x *album) pictures() (rows []int, names []string, from *dataset.Pictures, err error) {
	hashes := map[string][32]byte{}
	for i := range x.Rows() {
		if !x.Live(i) {
			continue
		}
		m, err := x.Row(i)
		if err != nil {
			return nil, nil, nil, err
		}
		name := m.Path
		if x.embedded {
			name = galleryPrefix + name
		}
		rows, names = append(rows, i), append(names, name)
		if m.Hash != (index.Meta{}).Hash {
			hashes[name] = m.Hash
		}
	}
	if len(names) != len(slices.Compact(slices.Sorted(slices.Values(names)))) {
		return nil, nil, nil, errors.New("retrieve --with clip: want each picture once in the index")
	}
	return rows, names, dataset.PicturesFrom(readPicture, func(name string) ([32]byte, bool) {
		h, ok := hashes[name]
		return h, ok
	}), nil
}
