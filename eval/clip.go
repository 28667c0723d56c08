// SPDX-License-Identifier: Apache-2.0

package eval

import (
	"context"
	"errors"
	"fmt"

	"fromage/bundle"
	"fromage/dataset"
	"fromage/index"
	"fromage/runner"
	"fromage/tokenizer"
	"fromage/tokenizer/clip"
)

// CLIP scores texts and pictures by CLIP's own two towers: what FROMAGe is compared with.
type CLIP struct {
	r        *runner.Runner
	features *dataset.Features
	encode   func(text string) []int32
}

// NewCLIP makes a CLIP of a bundle with a text tower, loaded, and of pictures that its vision tower has seen.
func NewCLIP(b *bundle.Bundle, r *runner.Runner, features *dataset.Features) (*CLIP, error) {
	c := &CLIP{r: r, features: features}
	if !r.HasText() {
		return nil, errors.New("eval: the bundle has no CLIP text tower: compile one with fromage compile --clip-text")
	}
	if _, ok := b.Manifest().Files[bundle.FileTextTokenizerBPE]; ok {
		raw, err := b.File(bundle.FileTextTokenizerBPE)
		if err != nil {
			return nil, err
		}
		t := &tokenizer.Tokenizer{}
		if err := t.UnmarshalBinary(raw); err != nil {
			return nil, fmt.Errorf("eval: %s: %w", bundle.FileTextTokenizerBPE, err)
		}
		c.encode = func(text string) []int32 { return t.Encode(text, false) }
		return c, nil
	}
	raw, err := b.File(bundle.FileTextTokenizer)
	if err != nil {
		return nil, err
	}
	t, err := clip.Load(raw)
	if err != nil {
		return nil, fmt.Errorf("eval: %s: %w", bundle.FileTextTokenizer, err)
	}
	c.encode = t.Encode
	return c, nil
}

// Manifest returns the bundle's that the towers are of; nil for none.
func (c *CLIP) Manifest() *bundle.Manifest {
	if c == nil {
		return nil
	}
	return c.r.Manifest()
}

// textBatch is how many texts are given to the device at once.
const textBatch = 64

// Texts returns normalised embeddings (P) of texts, which are cut where the tower has no more positions.
func (c *CLIP) Texts(ctx context.Context, texts []string, p progress) ([][]float32, error) {
	var out [][]float32
	for len(out) < len(texts) {
		p.say("CLIP: texts", len(out), len(texts))
		var ids [][]int32
		for _, text := range texts[len(out):min(len(out)+textBatch, len(texts))] {
			ids = append(ids, c.encode(text))
		}
		rows, err := c.r.EncodeTexts(ctx, ids)
		if err != nil {
			return nil, err
		}
		out = append(out, normalised(rows)...)
	}
	return out, nil
}

// Pictures returns normalised embeddings (P) of pictures that have features.
func (c *CLIP) Pictures(ctx context.Context, names []string) ([][]float32, error) {
	v, err := c.features.Rows(names...)
	if err != nil {
		return nil, err
	}
	rows, err := c.r.Project(ctx, v)
	return normalised(rows), err
}

func normalised(rows [][]float32) [][]float32 {
	out := make([][]float32, len(rows))
	for i, row := range rows {
		out[i] = runner.Normalised(row)
	}
	return out
}

// Search returns the k pictures, as places in names, that CLIP holds to be most like a text, best first, by cosine. Those without features are left out.
func (c *CLIP) Search(ctx context.Context, text string, names []string, k int) ([]index.Hit, error) {
	var known []string
	var places []int
	for i, name := range names {
		if c.features.Has(name) {
			known, places = append(known, name), append(places, i)
		}
	}
	pictures, err := c.Pictures(ctx, known)
	if err != nil {
		return nil, err
	}
	texts, err := c.Texts(ctx, []string{text}, nil)
	if err != nil {
		return nil, err
	}
	var hits []index.Hit
	err = each(ctx, texts, pictures, func(_ int, scores []float64) {
		for _, i := range topOf(scores, k) {
			hits = append(hits, index.Hit{Row: places[i], Score: float32(scores[i])})
		}
	})
	return hits, err
}
