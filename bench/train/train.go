// SPDX-License-Identifier: Apache-2.0

// Package train measures steps of training part by part.
//
// What enters is a loaded runner; what leaves is numbers. The package judges nothing. It is apart from package bench, which goes into a page that does
// not train.
package train

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"fromage/runner"
	"fromage/shaders"
	"fromage/trainer"
)

// Options say what training is measured on.
type Options struct {
	Batch       int // examples of a step
	Tokens      int // of a caption, the leading </s> and [RET] included
	Memory      int // as trainer.Config has it, and Activations
	Activations shaders.Format
	Budget      time.Duration
	Progress    func(runner.Progress) // counts GFLOP
}

// Training is the speed of training a model on features that are computed already. Half of the steps concatenate captions in pairs.
type Training struct {
	Batch      int            `json:"batch"`
	Tokens     int            `json:"caption_tokens"`
	Steps      int            `json:"steps"` // measured
	ExamplesPS float64        `json:"examples_per_s"`
	StepMS     float64        `json:"step_ms"`
	GFLOP      float64        `json:"gflop_per_step"` // of matrix products
	TFLOPs     float64        `json:"tflop_per_s"`
	Memory     trainer.Memory `json:"memory_bytes"`
	Parts      []Part         `json:"parts"`           // of steps whose parts were waited for
	WatchedMS  float64        `json:"watched_step_ms"` // such a step, of which the parts are shares
	Rest       float64        `json:"rest_share"`      // of it: packing, copies, reading
}

// Part is the part of a step that trainer.Parts names.
type Part struct {
	Part   string  `json:"part"`
	MS     float64 `json:"ms"` // in a step
	Share  float64 `json:"share"`
	GFLOP  float64 `json:"gflop_per_step"`
	TFLOPs float64 `json:"tflop_per_s"`
}

// slowStep is the time from which on waiting for each part of a step costs nothing to speak of: then the same steps tell parts and speed.
const slowStep = time.Second

// Measure measures training. The model's heads are replaced by untrained ones.
func Measure(ctx context.Context, r *runner.Runner, o Options) (*Training, error) {
	if o.Batch < 2 || o.Tokens < 2 || o.Tokens+r.Settings().VisualTokens > r.Settings().MaxPositions/2 {
		return nil, fmt.Errorf("bench/train: want batches of 2 or more and captions of 2 to %d tokens, have %d and %d",
			r.Settings().MaxPositions/2-r.Settings().VisualTokens, o.Batch, o.Tokens)
	}
	heads, err := trainer.Initial(ctx, r.Machine(), 1, false)
	if err != nil {
		return nil, err
	}
	if err := r.SetHeads(heads); err != nil {
		return nil, err
	}
	c := trainer.DefaultConfig()
	c.Memory, c.Activations = o.Memory, o.Activations
	t, err := trainer.New(ctx, r.Machine(), c)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	b := &training{ctx: ctx, o: o, t: t, examples: madeUp(r, o.Batch, o.Tokens), parts: map[string]*Part{}}
	return b.measure()
}

// madeUp makes up captions and pictures.
func madeUp(r *runner.Runner, n, tokens int) []trainer.Example {
	rng := rand.New(rand.NewPCG(1, 2))
	s := r.Settings()
	all := make([]trainer.Example, n)
	for i := range all {
		all[i].Tokens = append(all[i].Tokens, int32(s.BOS))
		for range tokens - 2 {
			all[i].Tokens = append(all[i].Tokens, int32(4+rng.IntN(s.Vocabulary-6)))
		}
		all[i].Tokens = append(all[i].Tokens, int32(s.RET))
		for range s.VisionDim {
			all[i].V = append(all[i].V, float32(rng.NormFloat64()))
		}
	}
	return all
}

// training is a measurement at work.
type training struct {
	ctx      context.Context
	o        Options
	t        *trainer.Trainer
	examples []trainer.Example
	parts    map[string]*Part // sums over watched steps
	flops    float64          // of watched steps since watch was last called
	done     float64          // operations so far
	total    float64          // and to come, as far as is known
}

// watch begins to sum parts anew.
func (b *training) watch() {
	clear(b.parts)
	b.flops = 0
	b.t.Watch(func(part string, flops float64, d time.Duration) {
		p := b.parts[part]
		if p == nil {
			p = &Part{Part: part}
			b.parts[part] = p
		}
		p.MS += d.Seconds() * 1e3
		p.GFLOP += flops / 1e9
		b.flops += flops
		b.count(flops)
	})
}

func (b *training) count(flops float64) {
	b.done += flops
	if b.o.Progress != nil && b.total > 0 {
		b.o.Progress(runner.Progress{Done: int64(b.done / 1e9), Total: int64(max(b.done, b.total) / 1e9), What: "training"})
	}
}

// step takes a step.
func (b *training) step(examples []trainer.Example, concat bool) (time.Duration, error) {
	began := time.Now()
	if _, err := b.t.Accumulate(b.ctx, examples, concat); err != nil {
		return 0, err
	}
	_, err := b.t.Update(1e-6)
	return time.Since(began), err
}

// both takes a step that concatenates and one that does not.
func (b *training) both() (time.Duration, error) {
	joined, err := b.step(b.examples, true)
	if err != nil {
		return 0, err
	}
	plain, err := b.step(b.examples, false)
	return joined + plain, err
}

func (b *training) measure() (*Training, error) {
	// A step of two examples tells how much a whole one computes, for the progress.
	b.watch()
	if _, err := b.step(b.examples[:2], true); err != nil {
		return nil, err
	}
	whole := b.flops * float64(b.o.Batch) / 2
	b.total = b.done + 3*whole
	// The first whole step makes buffers and compiles kernels, and is not counted.
	if _, err := b.step(b.examples, true); err != nil {
		return nil, err
	}
	b.watch()
	took, err := b.both()
	if err != nil {
		return nil, err
	}
	m := &Training{Batch: b.o.Batch, Tokens: b.o.Tokens, Steps: 2, GFLOP: b.flops / 2e9, WatchedMS: took.Seconds() * 1e3 / 2, Rest: 1}
	for _, name := range trainer.Parts {
		p := b.parts[name]
		if p == nil {
			continue
		}
		p.TFLOPs = p.GFLOP / p.MS
		p.Share = p.MS / (took.Seconds() * 1e3)
		p.MS, p.GFLOP = p.MS/2, p.GFLOP/2
		m.Parts = append(m.Parts, *p)
		m.Rest -= p.Share
	}
	b.t.Watch(nil)
	if took < 2*slowStep {
		if m.Steps, took, err = b.undisturbed(took); err != nil {
			return nil, err
		}
	}
	m.StepMS = took.Seconds() * 1e3 / float64(m.Steps)
	m.ExamplesPS = float64(m.Steps*m.Batch) / took.Seconds()
	m.TFLOPs = m.GFLOP / m.StepMS
	m.Memory = b.t.Memory()
	return m, nil
}

// undisturbed takes steps in pairs that nobody watches until the budget is spent; pair is how long one takes.
func (b *training) undisturbed(pair time.Duration) (steps int, took time.Duration, err error) {
	flops := b.flops
	b.total = b.done + flops*max(1, float64(b.o.Budget/pair))
	if _, err := b.both(); err != nil {
		return 0, 0, err
	}
	for steps == 0 || took < b.o.Budget {
		d, err := b.both()
		if err != nil {
			return 0, 0, err
		}
		steps, took = steps+2, took+d
		b.count(flops)
	}
	return steps, took, nil
}
