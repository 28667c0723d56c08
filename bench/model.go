// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"time"

	"fromage/plan"
	"fromage/runner"
	"fromage/shaders"
)

// Model is the speed of a whole model. Times are medians.
type Model struct {
	Name        string         `json:"name"`
	DType       shaders.Format `json:"dtype"`
	Dispatches  int            `json:"dispatches_per_token"`
	Submits     float64        `json:"submits_per_token"`
	Reads       float64        `json:"reads_per_token"`        // from the device, each a wait for it
	WeightBytes int64          `json:"weight_bytes_per_token"` // stored bytes that decoding a token reads
	Decode      float64        `json:"decode_tok_per_s"`
	DecodeGBps  float64        `json:"decode_gb_per_s"` // WeightBytes per second of decoding
	CopyShare   float64        `json:"copy_share"`      // DecodeGBps as a part of the copy bandwidth
	PrefillLen  int            `json:"prefill_tokens"`
	Prefill     float64        `json:"prefill_tok_per_s"`
	FirstLen    int            `json:"first_token_after"`
	FirstMS     float64        `json:"first_token_ms"` // from a prompt of FirstLen tokens to the first token
	Images      float64        `json:"images_per_s"`   // 0 where the model has no vision tower
	Programs    []Program      `json:"programs"`
}

// Options say how much of a model is measured.
type Options struct {
	Tokens   int                   // to decode
	Kernels  bool                  // the programs' kernels too
	Progress func(runner.Progress) // counts measurements
}

// The most tokens of the prompts that are measured, and how many pictures are.
const (
	mostPrefill = 512
	firstLen    = 64
	pictures    = 16
)

// Of measures a loaded model, which nobody else uses meanwhile.
func Of(ctx context.Context, r *runner.Runner, c Ceilings, o Options) (*Model, error) {
	limit := r.Settings().MaxPositions
	if o.Tokens < 1 || limit < 4 {
		return nil, fmt.Errorf("bench: want a model of 4 positions or more and a token to decode, have %d and %d", limit, o.Tokens)
	}
	m := &Model{WeightBytes: r.LMBytes(), PrefillLen: min(mostPrefill, limit/2)}
	m.FirstLen = min(firstLen, m.PrefillLen)
	b := &modelBench{ctx: ctx, r: r, c: c, m: m}
	done := 0
	for _, part := range []func() error{
		b.prefill, b.first, func() error { return b.decode(min(o.Tokens, limit-m.FirstLen-1)) }, b.images, b.kernels,
	} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if done++; o.Progress != nil {
			o.Progress(runner.Progress{Done: int64(done), Total: 5, What: "measurements"})
		}
		if done == 5 && !o.Kernels {
			break
		}
		if err := part(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

type modelBench struct {
	ctx context.Context
	r   *runner.Runner
	c   Ceilings
	m   *Model
}

// prompt begins a sequence of n tokens.
func (b *modelBench) prompt(n int) *runner.Sequence {
	s := b.r.NewSequence()
	for i := range n {
		s.AppendTokens(runner.Token{ID: 4 + i%200})
	}
	return s
}

// answer is how long a prompt of n tokens takes to its first token.
func (b *modelBench) answer(n int) (time.Duration, error) {
	return median(func() error {
		s := b.prompt(n)
		defer s.Close()
		return s.Continue(b.ctx, 1)
	})
}

func (b *modelBench) prefill() error {
	took, err := b.answer(b.m.PrefillLen)
	b.m.Prefill = float64(b.m.PrefillLen) / took.Seconds()
	return err
}

func (b *modelBench) first() error {
	took, err := b.answer(b.m.FirstLen)
	b.m.FirstMS = took.Seconds() * 1e3
	return err
}

// decode times n tokens after a prompt, and counts what the device is asked for meanwhile.
func (b *modelBench) decode(n int) error {
	s := b.prompt(b.m.FirstLen)
	defer s.Close()
	if err := s.Continue(b.ctx, 1); err != nil {
		return err
	}
	start := s.Len()
	took, err := median(func() error {
		s.Truncate(start)
		return s.Continue(b.ctx, n)
	})
	if err != nil {
		return err
	}
	b.m.Decode = float64(n) / took.Seconds()
	b.m.DecodeGBps = b.m.Decode * float64(b.m.WeightBytes) / 1e9
	b.m.CopyShare = over(b.m.DecodeGBps, b.c.CopyGBps)
	m := b.r.Machine()
	counted := &counter{Device: m.Dev}
	m.Dev = counted
	defer func() { m.Dev = counted.Device }()
	s.Truncate(start)
	if err := s.Continue(b.ctx, n); err != nil {
		return err
	}
	b.m.Dispatches, b.m.Submits, b.m.Reads = counted.dispatches/n, float64(counted.submits)/float64(n), float64(counted.reads)/float64(n)
	return nil
}

// pixels are pictures without a pattern; nil where the model has no vision tower.
func (b *modelBench) pixels() [][]float32 {
	s := b.r.Settings()
	if s.ImageSize == 0 || s.SharedDim == 0 {
		return nil
	}
	all := make([][]float32, pictures)
	for i := range all {
		all[i] = make([]float32, 3*s.ImageSize*s.ImageSize)
	}
	return all
}

func (b *modelBench) images() error {
	pixels := b.pixels()
	if pixels == nil {
		return nil
	}
	took, err := median(func() error {
		_, err := b.r.Embed(b.ctx, pixels, nil)
		return err
	})
	b.m.Images = pictures / took.Seconds()
	return err
}

// kernels measures the programs of a prompt, of a token after it, and of pictures, as they were run.
func (b *modelBench) kernels() error {
	m := b.r.Machine()
	add := func(what string, f func() error) error {
		runs, err := watched(m, f)
		if err != nil {
			return err
		}
		for _, r := range runs {
			work := what
			if n := r.dims[plan.Images]; n > 0 {
				work = fmt.Sprintf("%d %s", n, what)
			}
			p, err := r.measure(m, r.p.Plan().Name, work, b.c)
			if err != nil {
				return err
			}
			b.m.Programs = append(b.m.Programs, *p)
		}
		return b.ctx.Err()
	}
	s := b.prompt(b.m.PrefillLen)
	defer s.Close()
	next := func() error { return s.Continue(b.ctx, 1) }
	if err := add(fmt.Sprintf("a prompt of %d tokens", b.m.PrefillLen), next); err != nil {
		return err
	}
	if err := add(fmt.Sprintf("a token after %d", s.Len()-1), next); err != nil {
		return err
	}
	pixels := b.pixels()
	if pixels == nil {
		return nil
	}
	return add("pictures", func() error {
		_, err := b.r.Embed(b.ctx, pixels, nil)
		return err
	})
}
