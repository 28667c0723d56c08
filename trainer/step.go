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
// sequences of two examples each. A loss that is not finite is an error. The gradients do not depend on how many runs the batch takes: where the device
// has no room for its runs they are made shorter, and an error for want of room (gpu.ErrMemory) has added nothing.
func (t *Trainer) Accumulate(ctx context.Context, examples []Example, concat bool) (*Losses, error) {
	b, err := t.newBatch(examples, concat)
	if err != nil {
		return nil, err
	}
	if err := b.room(); err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context) error{b.maps, b.caption, b.retrieve, b.mapsBack} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := part(ctx); err != nil {
			return nil, err
		}
	}
	l := &b.losses
	l.Total = t.c.CapLossScale*l.CaptioningCE + t.c.RetLossScale*(l.RetrievalCE+(l.CaptionLoss+l.ImageLoss)/2)
	if math.IsNaN(l.Total) || math.IsInf(l.Total, 0) {
		return nil, fmt.Errorf("%w: loss %.4g (captioning %.4g, retrieval %.4g, contrastive %.4g and %.4g)",
			ErrNotFinite, l.Total, l.CaptioningCE, l.RetrievalCE, l.CaptionLoss, l.ImageLoss)
	}
	return l, nil
}

// batch is one batch on its way.
type batch struct {
	t               *Trainer
	examples        []Example
	k               int           // visual embeddings of a picture
	sequences       [2][]sequence // of captioning and retrieval
	captions, texts []*packed     // the runs that they are packed into
	losses          Losses
}

func (t *Trainer) newBatch(examples []Example, concat bool) (*batch, error) {
	s := t.m.Manifest.Settings
	for i, e := range examples {
		if len(e.Tokens) < 2 || len(e.V) != s.VisionDim {
			return nil, fmt.Errorf("trainer: example %d: want 2 tokens or more and %d values of CLIP, have %d and %d", i, s.VisionDim, len(e.Tokens), len(e.V))
		}
	}
	if len(examples) == 0 {
		return nil, fmt.Errorf("trainer: want at least one example in a batch, have none")
	}
	b := &batch{t: t, examples: examples, k: s.VisualTokens}
	b.sequences = [2][]sequence{captioning(examples, b.k, s.Vocabulary, concat), retrieval(examples)}
	for _, q := range slices.Concat(b.sequences[:]...) {
		if len(q.ids) > s.MaxPositions {
			return nil, fmt.Errorf("trainer: example %d: want sequences of at most %d tokens, have %d", q.first, s.MaxPositions, len(q.ids))
		}
	}
	return b, nil
}

// room packs the batch and makes all buffers that it needs, before anything is computed. Where the device has no room for them, what other programs left
// is given back, and then runs get half the memory, as often as that makes them shorter.
func (b *batch) room() error {
	t, vocabulary := b.t, b.t.m.Manifest.Settings.Vocabulary
	for tries := 0; ; tries++ {
		b.captions, b.texts = pack(b.sequences[0], vocabulary, t.most), pack(b.sequences[1], vocabulary, t.most)
		longest := 0
		for _, p := range slices.Concat(b.captions, b.texts) {
			longest = max(longest, p.T())
		}
		err := b.reserve(longest)
		if !errors.Is(err, gpu.ErrMemory) {
			return err
		}
		t.release()
		if tries == 0 {
			continue
		}
		if !t.shrink(longest) {
			return fmt.Errorf("trainer: a run of %d tokens: %w", longest, err)
		}
		if t.c.Shrunk != nil {
			t.c.Shrunk(err, t.c.Memory, t.most)
		}
	}
}

// shrink halves the memory of a run until one has less than so many tokens, and says whether that is so.
func (t *Trainer) shrink(tokens int) bool {
	for t.most >= tokens && t.c.Memory > 1<<20 {
		t.c.Memory /= 2
		t.most = t.capacity()
	}
	return t.most < tokens
}

// release gives back all that runs have on the device, those of other programs too.
func (t *Trainer) release() {
	t.m.Release()
	for i := range t.m.Manifest.Settings.Layers {
		t.drop(kv(i))
	}
	t.kv = 0
}

// kv names the state with a layer's keys and values.
func kv(layer int) string { return state(fmt.Sprintf("kv.%d", layer)) }

// reserve makes room for all runs of the batch, the longest of which has so many tokens.
func (b *batch) reserve(longest int) error {
	most := map[string]plan.Dims{}
	need := func(program string, dims plan.Dims) {
		m := most[program]
		for i, n := range dims {
			m[i] = max(m[i], n)
		}
		most[program] = m
	}
	for _, p := range b.captions {
		need(own+"caption", b.captionDims(p))
	}
	for _, p := range b.texts {
		if len(b.texts) == 1 {
			need(own+"retrieve", b.textDims(p))
			break
		}
		need(own+"embed", b.textDims(p))
		need(own+"back", b.textBackDims(p))
		need(own+"contrast", b.pictureDims())
	}
	need("maps", plan.RunImages(len(b.examples), 1))
	need(own+"maps_back", b.pictureDims())
	for _, name := range running {
		if dims, ok := most[name]; ok {
			p, err := b.program(name)
			if err != nil {
				return err
			}
			if err := p.Reserve(dims); err != nil {
				return err
			}
		}
	}
	return b.t.keep(longest)
}

// captionDims and those that follow are the sizes of runs.
func (b *batch) captionDims(p *packed) plan.Dims {
	return b.t.dims(p.T(), len(p.rows), 0, len(p.prefixRows))
}
func (b *batch) textDims(p *packed) plan.Dims     { return b.t.dims(p.T(), len(p.rows), p.n, 0) }
func (b *batch) textBackDims(p *packed) plan.Dims { return b.t.dims(p.T(), 0, p.n, 0) }
func (b *batch) pictureDims() plan.Dims           { return b.t.dims(0, 0, len(b.examples), 0) }

// keep makes room for the keys and values of so many tokens.
func (t *Trainer) keep(tokens int) error {
	if t.kv >= tokens {
		return nil
	}
	s := t.m.Manifest.Settings
	t.kv = 0
	t.m.Forget()
	for i := range s.Layers {
		t.drop(kv(i))
		b, err := t.buffer(kv(i), (tokens*t.kvRow()+3)/4)
		if err != nil {
			return err
		}
		t.m.States[kv(i)] = b
	}
	t.kv = tokens
	return nil
}

func (b *batch) program(name string) (*machine.Program, error) { return b.t.m.Program(name) }

// maps runs the maps over all pictures.
func (b *batch) maps(context.Context) error {
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
	if err := back.Write("v", machine.Bytes(v)); err != nil {
		return err
	}
	return prog.Run(plan.RunImages(B, 1), map[string][]byte{"v": machine.Bytes(v)})
}

// mapsBack takes the gradients of what the maps made back to their weights.
func (b *batch) mapsBack(context.Context) error {
	prog, err := b.program(own + "maps_back")
	if err != nil {
		return err
	}
	return prog.Run(b.pictureDims(), nil)
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
func (b *batch) caption(ctx context.Context) error {
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
	E, n := b.t.m.Manifest.Settings.EmbedDim, labelled(b.captions)
	var sum tally
	for _, p := range b.captions {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := b.hand(prog, "prefix", 0, maps, "prefix", p.first*b.k, len(p.prefixRows), E); err != nil {
			return err
		}
		in := b.inputs(p, b.t.c.CapLossScale, n)
		in["prefix_rows"] = machine.Bytes(p.prefixRows)
		if err := prog.Run(b.captionDims(p), in); err != nil {
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
func (b *batch) retrieve(ctx context.Context) error {
	maps, err := b.program("maps")
	if err != nil {
		return err
	}
	back, err := b.program(own + "maps_back")
	if err != nil {
		return err
	}
	name, compute := own+"retrieve", b.retrieveWhole
	if len(b.texts) > 1 {
		name, compute = own+"contrast", b.retrieveInParts
	}
	prog, err := b.program(name)
	if err != nil {
		return err
	}
	B, S := len(b.examples), b.t.m.Manifest.Settings.SharedDim
	if err := b.hand(prog, "image", 0, maps, "retrieval", 0, B, S); err != nil {
		return err
	}
	var sum tally
	if err := compute(ctx, prog, &sum); err != nil {
		return err
	}
	b.losses.RetrievalCE, _, _ = sum.mean()
	if err := b.hand(back, "d.image", 0, prog, "d.image", 0, B, S); err != nil {
		return err
	}
	return b.contrast(prog)
}

// retrieveWhole computes all of retrieval in one run.
func (b *batch) retrieveWhole(_ context.Context, prog *machine.Program, sum *tally) error {
	p := b.texts[0]
	in := b.inputs(p, b.t.c.RetLossScale, len(p.labels))
	in["ret_rows"], in["ret_tokens"] = machine.Bytes(p.retRows), machine.Bytes(p.retTokens)
	if err := prog.Run(b.textDims(p), in); err != nil {
		return err
	}
	return sum.read(prog, len(p.rows))
}

// retrieveInParts computes the captions' embeddings run after run, the contrastive loss of all of them, and the way back run after run.
func (b *batch) retrieveInParts(ctx context.Context, contrast *machine.Program, sum *tally) error {
	if err := b.embed(ctx, contrast, sum); err != nil {
		return err
	}
	if err := contrast.Run(b.pictureDims(), nil); err != nil {
		return err
	}
	return b.textBack(ctx, contrast)
}

// embed computes the captions' retrieval embeddings, run after run, into the input of contrast.
func (b *batch) embed(ctx context.Context, contrast *machine.Program, sum *tally) error {
	prog, err := b.program(own + "embed")
	if err != nil {
		return err
	}
	S, n := b.t.m.Manifest.Settings.SharedDim, labelled(b.texts)
	for _, p := range b.texts {
		if err := ctx.Err(); err != nil {
			return err
		}
		in := b.inputs(p, b.t.c.RetLossScale, n)
		in["ret_rows"] = machine.Bytes(p.retRows)
		if err := prog.Run(b.textDims(p), in); err != nil {
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
func (b *batch) textBack(ctx context.Context, contrast *machine.Program) error {
	prog, err := b.program(own + "back")
	if err != nil {
		return err
	}
	S := b.t.m.Manifest.Settings.SharedDim
	for _, p := range b.texts {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := b.hand(prog, "d.text", 0, contrast, "d.text", p.first, p.n, S); err != nil {
			return err
		}
		in := map[string][]byte{"tokens": machine.Bytes(p.tokens), "ret_rows": machine.Bytes(p.retRows), "ret_tokens": machine.Bytes(p.retTokens)}
		if err := prog.Run(b.textBackDims(p), in); err != nil {
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
	l := &b.losses
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
