// SPDX-License-Identifier: Apache-2.0

// Package compiler turns checkpoints (Hugging Face OPT, Hugging Face CLIP, FROMAGe's trained heads) into one bundle.
//
// What enters is folders and files; what leaves is a bundle. The work has three parts: the inventory opens the checkpoints, reads headers and
// configurations only, and gives every tensor its one name; the layout decides each weight's format, shards and sources, and is pure; the writer carries
// the layout out, a few megabytes at a time. The package refuses to know devices and how a model computes; it executes nothing that a checkpoint holds.
package compiler

import (
	"context"
	"fmt"
	"time"

	"fromage/bundle"
	"fromage/model"
	"fromage/shaders"
)

// Options say what to compile, and to where. OPT or CLIP may be left out, and Heads need both.
type Options struct {
	OPT  string // folder of an OPT checkpoint: config.json, weights, tokenizer files
	CLIP string // folder of a CLIPModel or CLIPVisionModel: config.json, weights, preprocessor_config.json
	// Text keeps CLIP's text tower and both projections. TextTokenizer is the folder of its tokenizer; "" is CLIP's own, or else OPT's.
	Text          bool
	TextTokenizer string
	Heads         string // FROMAGe's heads: a folder with model_args.json and pretrained_ckpt.pth.tar or model.safetensors, or one file of these kinds

	// NewHeads, in place of Heads, are heads yet to be trained: zeros, but for the rows of the added tokens, which are what OPT's table has there.
	NewHeads *model.Heads

	DType shaders.Format // of the weight matrices, where a row of them fits the format
	Out   string         // path of the bundle; CompileTo does not look at it
	Notes map[string]string

	// Moments, where given, are those of the inputs of matrices, by the weights' names. A matrix with moments that is stored as q8 or q4 is rounded so
	// that its outputs change least. Package compiler/calibrate measures them.
	Moments map[string]*Moments

	// Progress, where given, is called after every few megabytes, from the goroutine that compiles.
	Progress func(Progress)
}

// Progress is how far a compilation has come.
type Progress struct {
	Tensor      string // being written
	Done, Total int64  // bytes of stored weights
	Elapsed     time.Duration
}

// Rate returns the bytes of stored weights made per second.
func (p Progress) Rate() float64 { return float64(p.Done) / max(p.Elapsed.Seconds(), 1e-9) }

// Compile makes the bundle o.Out. Where it fails, or ctx is done, nothing is left behind; an older bundle at o.Out stays as it was.
func Compile(ctx context.Context, o Options) error {
	w, err := bundle.Create(o.Out)
	if err != nil {
		return fmt.Errorf("compiler: %w", err)
	}
	defer w.Abort()
	return CompileTo(ctx, w, o)
}

// CompileTo is Compile into a bundle writer, which it finishes. After an error the caller aborts w.
func CompileTo(ctx context.Context, w *bundle.Writer, o Options) error {
	in, err := open(o)
	if err != nil {
		return err
	}
	defer in.close()
	l, err := in.layout(o.DType, bundle.MaxShard)
	if err != nil {
		return err
	}
	return in.write(ctx, w, l, o)
}
