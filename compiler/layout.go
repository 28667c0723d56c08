// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"fromage/bundle"
	"fromage/model"
	"fromage/plan"
	"fromage/shaders"
)

// smallOPT is the largest hidden size of what choose takes for a small OPT: 125m and 350m are, 1.3b is not.
const smallOPT = 1024

const embedPositions = "model.decoder.embed_positions.weight"

// layout is everything that is decided before the first weight is read.
type layout struct {
	weights  []weight // in the model's order
	settings bundle.Settings
	total    int64 // bytes of stored weights
	// Two tensors that must hold the same values, for they are tied; nil if there is nothing to compare.
	tied []tensor
}

// weight is one weight of the model: what it is made of and how it is stored.
type weight struct {
	name       string
	rows, cols int
	format     shaders.Format
	shards     []int // rows of each
	sources    []source
	rounding   *rounding // while it is written; nil rounds every value by itself
}

// source is rows of a checkpoint's tensor: a run of values of the weight, row-major. The runs in a row are the weight.
type source struct {
	tensor             tensor
	first, rows, width int
}

// layout decides formats, shards and sources. No shard's values or scales take more than maxShard bytes.
func (in *inventory) layout(dtype shaders.Format, maxShard int) (*layout, error) {
	l := &layout{settings: in.settings()}
	for i := range in.model.Weights {
		w, err := in.place(&in.model.Weights[i], dtype, maxShard)
		if err != nil {
			return nil, fmt.Errorf("compiler: %w", err)
		}
		l.weights = append(l.weights, w)
		for _, rows := range w.shards {
			l.total += pad16(rows*w.format.RowBytes(w.cols)) + pad16(rows*w.format.ScaleBytes(w.cols))
		}
	}
	if head, ok := in.tensors[lmHead]; ok && in.config.OPT != nil {
		embed := in.tensors[embedTokens]
		if !slices.Equal(head.shape, embed.shape) {
			return nil, fmt.Errorf("compiler: %s: tensor %s: want shape %v as %s, with which it is tied, have %v", head.file, head.name, embed.shape, embed.name, head.shape)
		}
		l.tied = []tensor{embed, head}
	}
	return l, nil
}

func (in *inventory) settings() bundle.Settings {
	s := bundle.Settings{}
	if o := in.config.OPT; o != nil {
		s.Vocabulary, s.EmbedDim, s.HiddenDim, s.Layers, s.MaxPositions = o.VocabSize, o.WordEmbedProjDim, o.HiddenSize, o.Layers, o.MaxPositions
		s.BOS, s.EOS, s.Pad = o.BOS, o.EOS, o.Pad
	}
	if c := in.config.CLIP; c != nil {
		s.VisionDim, s.ImageSize, s.ImageTokens = c.HiddenSize, c.ImageSize, c.Tokens()
	}
	if t := in.config.Text; t != nil {
		s.Text = bundle.TextSettings{Vocabulary: t.VocabSize, Positions: t.MaxPositions, Dim: t.ProjectionDim, BOS: t.BOS, EOS: t.EOS, Pool: in.pool}
	}
	if h := in.config.Heads; h != nil {
		s.Vocabulary, s.VisualTokens, s.SharedDim = in.config.Vocabulary, h.VisualTokens, h.SharedDim
		s.RET, s.ImageToken = s.Vocabulary-1, s.Vocabulary-2
		if !slices.Equal(h.TextLayers, []int{-1}) {
			s.TextLayers = h.TextLayers
		}
	}
	return s
}

func (in *inventory) place(spec *plan.WeightSpec, dtype shaders.Format, maxShard int) (weight, error) {
	w := weight{name: spec.Name, rows: spec.Rows, cols: spec.Cols, format: choose(spec, dtype)}
	total := 0
	for _, s := range spec.Sources {
		total += s.Rows
	}
	// A matrix's tensors lie under one another, a vector's side by side: either way they follow each other in memory.
	width := spec.Rows * spec.Cols / total
	for _, s := range spec.Sources {
		t, ok := in.tensors[s.Tensor]
		if !ok {
			return w, in.missing(s.Tensor)
		}
		rows := s.First + s.Rows
		if s.Tensor == embedTokens {
			rows = in.config.OPT.VocabSize // of which the weight may take fewer
		}
		if haveRows, haveWidth := t.rows(); haveRows != rows || haveWidth != width {
			return w, fmt.Errorf("%s: tensor %s: want %d × %d values as the configuration says, have shape %v", t.file, t.name, rows, width, t.shape)
		}
		w.sources = append(w.sources, source{t, s.First, s.Rows, width})
	}
	var err error
	w.shards, err = split(spec, w.format, maxShard)
	return w, err
}

// choose gives a weight its format. Vectors and heads are f32. Positions of texts stay at f16 at least: they are small, and added to everything. The token
// table is also the output layer, whose errors nothing smooths: q8 at least. So is fc1 in a small OPT, which has little to spare: of its matrices it is
// the one whose errors change most (with opt-mini 93 % of next tokens stay the same instead of 89 %, for a ninth more bytes).
func choose(spec *plan.WeightSpec, dtype shaders.Format) shaders.Format {
	if !spec.Matrix {
		return shaders.F32
	}
	switch spec.Name {
	case embedPositions, model.TextPositions:
		dtype = min(dtype, shaders.F16)
	case embedTokens:
		dtype = min(dtype, shaders.Q8)
	}
	if strings.HasPrefix(spec.Name, "model.decoder.layers.") && strings.HasSuffix(spec.Name, ".fc1.weight") && spec.Cols <= smallOPT {
		dtype = min(dtype, shaders.Q8)
	}
	for _, f := range []shaders.Format{dtype, min(dtype, shaders.F16)} {
		if f.Fits(spec.Cols) {
			return f
		}
	}
	return shaders.F32
}

// split divides a weight's rows into as few shards as possible, of nearly equal rows. Vectors, and tables that are no matrix, are bound whole.
func split(spec *plan.WeightSpec, format shaders.Format, maxShard int) ([]int, error) {
	if !spec.Matrix && !spec.Head || spec.Rows == 1 {
		return []int{spec.Rows}, nil
	}
	most := maxShard / 16 * 16 / max(format.RowBytes(spec.Cols), format.ScaleBytes(spec.Cols))
	if most == 0 {
		return nil, fmt.Errorf("weight %s: want a row of %d values as %s within %d bytes", spec.Name, spec.Cols, format, maxShard)
	}
	n := (spec.Rows + most - 1) / most
	shards := make([]int, n)
	for i := range shards {
		shards[i] = spec.Rows*(i+1)/n - spec.Rows*i/n
	}
	return shards, nil
}

func pad16(n int) int64 { return (int64(n) + 15) / 16 * 16 }

// missing says which tensor is not there, and which is there of nearly the same name.
func (in *inventory) missing(name string) error {
	nearest, least := "", len(name)/2+1
	for _, other := range slices.Sorted(maps.Keys(in.tensors)) {
		if d := distance(name, other); d < least {
			nearest, least = other, d
		}
	}
	if nearest == "" {
		return fmt.Errorf("want tensor %s, have none in the %d tensors of the checkpoints", name, len(in.tensors))
	}
	t := in.tensors[nearest]
	return fmt.Errorf("want tensor %s, have none; the nearest is %s in %s", name, t.name, t.file)
}

// distance is Levenshtein's: how many bytes have to be inserted, removed or replaced to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
