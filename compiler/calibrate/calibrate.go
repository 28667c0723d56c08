// SPDX-License-Identifier: Apache-2.0

// Package calibrate compiles a bundle whose matrices are rounded for what the model computes with them.
//
// What enters is a compiler's options and a device; what leaves is a bundle. The package has the model write text of its own, measures what every linear
// layer of the language model reads meanwhile, and gives these moments to package compiler, which rounds by them. It needs no data set, and refuses to know
// how matrices are rounded and what a device is.
package calibrate

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"fromage/bundle"
	"fromage/compiler"
	"fromage/gpu"
	"fromage/runner"
	"fromage/shaders"
)

// The samples: their length, unless the model has fewer positions, and how they are drawn. They are to stand for texts of others, which surprise the model more
// than its own would: hence a temperature above 1.
const (
	length      = 128
	temperature = 1.5
	seed        = 1
)

// maxMemory bounds the bytes of all moments together.
const maxMemory = 2 << 30

// Options say how to calibrate.
type Options struct {
	Device gpu.Device // that the unrounded model runs on
	Tokens int        // that the model writes, rounded up to whole samples of 128; a model of 17 million parameters gained from 2048 to 8192
	Log    *slog.Logger

	// Progress, where given, counts the tokens that the model writes and then reads.
	Progress func(runner.Progress)
}

// Compile makes the bundle o.Out as compiler.Compile does, of DType q8 or q4, calibrated. Besides what that needs, it keeps the language model as f16 (f32
// where its rows do not fit f16) in a temporary file and on the device, and 8·K² bytes for each linear layer of K inputs: 0.2 GB for an OPT of 17 million
// parameters, 1.1 GB for opt-125m. Matrices beyond compiler.MaxMoments columns, or beyond 2 GiB in all, are rounded as without calibration, and the log says so.
// Where it fails, or ctx is done, nothing is left behind. The same device computes the same bundle.
func Compile(ctx context.Context, o compiler.Options, c Options) error {
	if o.DType != shaders.Q8 && o.DType != shaders.Q4 {
		return fmt.Errorf("calibrate: want dtype q8 or q4, have %s", o.DType)
	}
	if o.OPT == "" {
		return fmt.Errorf("calibrate: want an OPT checkpoint: only the language model is calibrated")
	}
	if c.Tokens < 1 {
		return fmt.Errorf("calibrate: want 1 token or more, have %d", c.Tokens)
	}
	moments, err := measure(ctx, o.OPT, c)
	if err != nil {
		return fmt.Errorf("calibrate: %w", err)
	}
	o.Moments = moments
	return compiler.Compile(ctx, o)
}

// measure compiles the language model alone, without loss worth the name, and runs it.
func measure(ctx context.Context, opt string, c Options) (map[string]*compiler.Moments, error) {
	dir, err := os.MkdirTemp("", "fromage-calibrate-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model.bundle")
	if err := compiler.Compile(ctx, compiler.Options{OPT: opt, DType: shaders.F16, Out: path}); err != nil {
		return nil, err
	}
	b, err := bundle.Open(path)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	r, err := runner.Load(ctx, c.Device, b, nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	n := min(length, r.Settings().MaxPositions)
	samples, err := r.Sample(ctx, max(1, (c.Tokens+n-1)/n), n, temperature, seed, c.progress("writing samples"))
	if err != nil {
		return nil, err
	}
	g := gathered{log: c.Log, moments: map[string]*compiler.Moments{}}
	return g.moments, r.Inputs(ctx, samples, g.add, c.progress("reading samples"))
}

// progress reports under another name.
func (c Options) progress(what string) func(runner.Progress) {
	return func(p runner.Progress) {
		if c.Progress != nil {
			p.What = what
			c.Progress(p)
		}
	}
}

// gathered is moments by weight; nil for a weight that is too large.
type gathered struct {
	log     *slog.Logger
	moments map[string]*compiler.Moments
	bytes   int
}

func (g *gathered) add(weights []string, K int, x []float32) error {
	m, known := g.moments[weights[0]]
	if !known {
		if size := 8 * K * K; K > compiler.MaxMoments || g.bytes+size > maxMemory {
			if g.log != nil {
				g.log.Warn("not calibrated: too large", "weight", weights[0], "columns", K)
			}
		} else {
			g.bytes += size
			m = compiler.NewMoments(K)
		}
		for _, w := range weights {
			g.moments[w] = m
		}
	}
	if m != nil {
		m.Add(x)
	}
	return nil
}
