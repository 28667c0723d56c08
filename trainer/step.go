// SPDX-License-Identifier: Apache-2.0

package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"fromage/gpu"
	"fromage/machine"
	"fromage/plan"
)

// Losses are what a batch's losses and accuracies are, before any scale. Accuracies are parts of 1.
type Losses struct {
	CaptioningCE float64 `json:"captioning_ce"` // mean over labelled tokens
	RetrievalCE  float64 `json:"retrieval_ce"`
	CaptionLoss  float64 `json:"caption_loss"` // contrastive, texts → images
	ImageLoss    float64 `json:"image_loss"`   // contrastive, images → texts
	Total        float64 `json:"loss"`         // scaled and summed as it is minimised, before gradient accumulation
	Top1         float64 `json:"seq_top1_acc"` // of captioning
	Top5         float64 `json:"seq_top5_acc"`
	T2I1         float64 `json:"t2i_top1_acc"` // of the batch's captions, those that find their picture among the batch's
	T2I5         float64 `json:"t2i_top5_acc"`
	I2T1         float64 `json:"i2t_top1_acc"`
	I2T5         float64 `json:"i2t_top5_acc"`
}

// ErrNotFinite says that a loss or gradient is no number: training cannot go on, and beginning again from a checkpoint would end there again.
var ErrNotFinite = errors.New("trainer: not a finite number")

// Accumulate computes the losses of a batch and adds their gradients, over Config.Accumulation, to those of earlier batches. concat makes captioning
// sequences of two examples each. A loss that is not finite is an error. The gradients do not depend on how many runs the batch takes.
func (t *Trainer) Accumulate(ctx context.Context, examples []Example, concat bool) (*Losses, error) {
	s := t.m.Manifest.Settings
	b := &batch{t: t, examples: examples, k: s.VisualTokens, losses: &Losses{}}
	for i, e := range examples {
		if len(e.Tokens) < 2 || len(e.V) != s.VisionDim {
			return nil, fmt.Errorf("trainer: example %d: want 2 tokens or more and %d values of CLIP, have %d and %d", i, s.VisionDim, len(e.Tokens), len(e.V))
		}
	}
	if len(examples) == 0 {
		return nil, fmt.Errorf("trainer: want at least one example in a batch, have none")
	}
	sequences := [][]sequence{captioning(examples, b.k, s.Vocabulary, concat), retrieval(examples)}
	for _, q := range slices.Concat(sequences...) {
		if len(q.ids) > s.MaxPositions {
			return nil, fmt.Errorf("trainer: example %d: want sequences of at most %d tokens, have %d", q.first, s.MaxPositions, len(q.ids))
		}
	}
	captions, texts := pack(sequences[0], s.Vocabulary, t.most), pack(sequences[1], s.Vocabulary, t.most)
	for _, part := range []func() error{
		func() error { return t.reserve(captions, texts) },
		b.maps,
		func() error { return b.caption(ctx, captions) },
		func() error { return b.retrieve(ctx, texts) },
		b.mapsBack,
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	l := b.losses
	l.Total = t.c.CapLossScale*l.CaptioningCE + t.c.RetLossScale*(l.RetrievalCE+(l.CaptionLoss+l.ImageLoss)/2)
	if math.IsNaN(l.Total) || math.IsInf(l.Total, 0) {
		return nil, fmt.Errorf("%w: loss %.4g (captioning %.4g, retrieval %.4g, contrastive %.4g and %.4g)",
			ErrNotFinite, l.Total, l.CaptioningCE, l.RetrievalCE, l.CaptionLoss, l.ImageLoss)
	}
	return l, nil
}

// reserve makes room for the keys and values of the longest run.
func (t *Trainer) reserve(groups ...[]*packed) error {
	need := 0
	for _, runs := range groups {
		for _, p := range runs {
			need = max(need, p.T())
		}
	}
	s := t.m.Manifest.Settings
	fresh := false
	for i := range s.Layers {
		name := state(fmt.Sprintf("kv.%d", i))
		size := machine.Padded(4 * need * 2 * s.HiddenDim)
		if t.kv >= need {
			continue
		}
		if old, ok := t.own[name]; ok {
			_ = t.m.Dev.Free(old)
			delete(t.own, name)
		}
		b, err := t.m.Dev.NewBuffer(name, size)
		if err != nil {
			return err
		}
		t.own[name], t.m.States[name], fresh = b, b, true
	}
	if fresh {
		t.kv = need
		t.m.Forget()
	}
	return nil
}

// batch is one batch on its way.
type batch struct {
	t        *Trainer
	examples []Example
	k        int
	losses   *Losses
}

func (b *batch) program(name string) (*machine.Program, error) { return b.t.m.Program(name) }

// maps runs the maps over all pictures.
func (b *batch) maps() error {
	prog, err := b.program("maps")
	if err != nil {
		return err
	}
	back, err := b.program(own + "maps_back")
	if err != nil {
		return err
	}
	B := len(b.examples)
	var v []float32
	for _, e := range b.examples {
		v = append(v, e.V...)
	}
	if err := back.Reserve(b.t.dims(0, 0, B, 0)); err != nil {
		return err
	}
	if err := back.Write("v", machine.Bytes(v)); err != nil {
		return err
	}
	return prog.Run(plan.RunImages(B, 1), map[string][]byte{"v": machine.Bytes(v)})
}

// mapsBack takes the gradients of what the maps made back to their weights.
func (b *batch) mapsBack() error {
	prog, err := b.program(own + "maps_back")
	if err != nil {
		return err
	}
	return prog.Run(b.t.dims(0, 0, len(b.examples), 0), nil)
}

// hand copies rows of cols values from one program's output to another's input.
func (b *batch) hand(to *machine.Program, input string, toRow int, from *machine.Program, output string, fromRow, rows, cols int) error {
	var list gpu.List
	list.Copy(to.Buffer(input), 4*toRow*cols, from.Buffer(output), 4*fromRow*cols, 4*rows*cols)
	return b.t.m.Dev.Submit(&list)
}

// inputs are those that all programs over tokens take; n is the number of labels of the whole batch.
func (b *batch) inputs(p *packed, scale float64, n int) map[string][]byte {
	weights := make([]float32, len(p.labels))
	for i := range weights {
		weights[i] = float32(scale / float64(n) / float64(b.t.c.Accumulation))
	}
	return map[string][]byte{"tokens": machine.Bytes(p.tokens), "rows": machine.Bytes(p.rows), "labels": machine.Bytes(p.labels), "weights": machine.Bytes(weights)}
}

// caption computes the captioning loss and the gradients of the visual embeddings.
func (b *batch) caption(ctx context.Context, runs []*packed) error {
	prog, err := b.program(own + "caption")
	if err != nil {
		return err
	}
	maps, err := b.program("maps")
	if err != nil {
		return err
	}
	back, err := b.program(own + "maps_back")
	if err != nil {
		return err
	}
	E, n := b.t.m.Manifest.Settings.EmbedDim, labelled(runs)
	var sum tally
	for _, p := range runs {
		if err := ctx.Err(); err != nil {
			return err
		}
		dims := b.t.dims(p.T(), len(p.rows), 0, len(p.prefixRows))
		if err := prog.Reserve(dims); err != nil {
			return err
		}
		if err := b.hand(prog, "prefix", 0, maps, "prefix", p.first*b.k, len(p.prefixRows), E); err != nil {
			return err
		}
		in := b.inputs(p, b.t.c.CapLossScale, n)
		in["prefix_rows"] = machine.Bytes(p.prefixRows)
		if err := prog.Run(dims, in); err != nil {
			return err
		}
		if err := b.hand(back, "d.prefix", p.first*b.k, prog, "d.prefix", 0, len(p.prefixRows), E); err != nil {
			return err
		}
		if err := sum.read(prog, len(p.rows)); err != nil {
			return err
		}
	}
	b.losses.CaptioningCE, b.losses.Top1, b.losses.Top5 = sum.mean()
	return nil
}

// retrieve computes the retrieval losses: in one run, which keeps what the way back needs, or where the batch is longer in two passes of several.
func (b *batch) retrieve(ctx context.Context, runs []*packed) error {
	maps, err := b.program("maps")
	if err != nil {
		return err
	}
	back, err := b.program(own + "maps_back")
	if err != nil {
		return err
	}
	name := own + "retrieve"
	if len(runs) > 1 {
		name = own + "contrast"
	}
	prog, err := b.program(name)
	if err != nil {
		return err
	}
	B, S, n := len(b.examples), b.t.m.Manifest.Settings.SharedDim, labelled(runs)
	dims := b.t.dims(0, 0, B, 0)
	if len(runs) == 1 {
		dims = b.t.dims(runs[0].T(), len(runs[0].rows), B, 0)
	}
	if err := prog.Reserve(dims); err != nil {
		return err
	}
	if err := b.hand(prog, "image", 0, maps, "retrieval", 0, B, S); err != nil {
		return err
	}
	var sum tally
	if len(runs) == 1 {
		in := b.inputs(runs[0], b.t.c.RetLossScale, n)
		in["ret_rows"], in["ret_tokens"] = machine.Bytes(runs[0].retRows), machine.Bytes(runs[0].retTokens)
		if err := prog.Run(dims, in); err != nil {
			return err
		}
		if err := sum.read(prog, len(runs[0].rows)); err != nil {
			return err
		}
	} else {
		if err := b.embed(ctx, runs, prog, n, &sum); err != nil {
			return err
		}
		if err := prog.Run(dims, nil); err != nil {
			return err
		}
		if err := b.textBack(ctx, runs, prog); err != nil {
			return err
		}
	}
	b.losses.RetrievalCE, _, _ = sum.mean()
	if err := b.hand(back, "d.image", 0, prog, "d.image", 0, B, S); err != nil {
		return err
	}
	return b.contrast(prog)
}

// embed computes the captions' retrieval embeddings, run after run, into the input of contrast.
func (b *batch) embed(ctx context.Context, runs []*packed, contrast *machine.Program, n int, sum *tally) error {
	prog, err := b.program(own + "embed")
	if err != nil {
		return err
	}
	S := b.t.m.Manifest.Settings.SharedDim
	for _, p := range runs {
		if err := ctx.Err(); err != nil {
			return err
		}
		in := b.inputs(p, b.t.c.RetLossScale, n)
		in["ret_rows"] = machine.Bytes(p.retRows)
		dims := b.t.dims(p.T(), len(p.rows), p.n, 0)
		if err := prog.Reserve(dims); err != nil {
			return err
		}
		if err := prog.Run(dims, in); err != nil {
			return err
		}
		if err := b.hand(contrast, "text", p.first, prog, "text", 0, p.n, S); err != nil {
			return err
		}
		if err := sum.read(prog, len(p.rows)); err != nil {
			return err
		}
	}
	return nil
}

// textBack takes the gradients of the captions' embeddings back, run after run.
func (b *batch) textBack(ctx context.Context, runs []*packed, contrast *machine.Program) error {
	prog, err := b.program(own + "back")
	if err != nil {
		return err
	}
	S := b.t.m.Manifest.Settings.SharedDim
	for _, p := range runs {
		if err := ctx.Err(); err != nil {
			return err
		}
		dims := b.t.dims(p.T(), 0, p.n, 0)
		if err := prog.Reserve(dims); err != nil {
			return err
		}
		if err := b.hand(prog, "d.text", 0, contrast, "d.text", p.first, p.n, S); err != nil {
			return err
		}
		in := map[string][]byte{"tokens": machine.Bytes(p.tokens), "ret_rows": machine.Bytes(p.retRows), "ret_tokens": machine.Bytes(p.retTokens)}
		if err := prog.Run(dims, in); err != nil {
			return err
		}
	}
	return nil
}

// contrast reads the contrastive losses.
func (b *batch) contrast(prog *machine.Program) error {
	B := len(b.examples)
	stats, err := prog.Rows("stats", 2*B, 4)
	if err != nil {
		return err
	}
	l := b.losses
	for i, row := range stats {
		loss, top1, top5 := &l.ImageLoss, &l.I2T1, &l.I2T5
		if i >= B {
			loss, top1, top5 = &l.CaptionLoss, &l.T2I1, &l.T2I5
		}
		*loss += float64(row[1]) / float64(B)
		if row[2] < 1 {
			*top1 += 1 / float64(B)
		}
		if row[2] < 5 {
			*top5 += 1 / float64(B)
		}
	}
	return nil
}

// tally sums next-token losses.
type tally struct {
	n, top1, top5 int
	nll           float64
}

// read adds the R losses of the last run.
func (s *tally) read(prog *machine.Program, R int) error {
	rows, err := prog.Rows("nll", R, 2)
	for _, r := range rows {
		s.n++
		s.nll += float64(r[0])
		if r[1] < 1 {
			s.top1++
		}
		if r[1] < 5 {
			s.top5++
		}
	}
	return err
}

func (s *tally) mean() (nll, top1, top5 float64) {
	n := float64(s.n)
	return s.nll / n, float64(s.top1) / n, float64(s.top5) / n
}
