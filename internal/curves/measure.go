// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"fromage/bench"
	"fromage/compiler"
	"fromage/gpu"
	"fromage/model"
	"fromage/runner"
	"fromage/shaders"
)

// curve is something whose time is measured against a size.
type curve struct {
	name, title, x string
	measure        func(ctx context.Context, dev gpu.Device, o options, found func(series string, x int, took time.Duration)) error
}

var curves = []curve{
	{"context", "a token after a context", "tokens of context", measureContext},
	{"width", "a token by the width of the model, 2 layers", "width", measureWidth},
	{"vocabulary", "a token by the size of the vocabulary, 2 layers of 384", "vocabulary", measureVocabulary},
	{"batch", "a token of each of several sequences", "sequences", measureBatch},
	{"index", "a search for 10 pictures, embeddings of 256 values", "pictures in the index", measureIndex},
	{"pictures", "reading pictures of 64 × 64 pixels", "pictures", measurePictures},
}

// sizes are the powers of factor times least up to most.
func sizes(least, most, factor int) []int {
	var all []int
	for n := least; n <= most; n *= factor {
		all = append(all, n)
	}
	return all
}

// quickly is full, or where that is enough its quick part.
func (o options) quickly(quick, full int) int {
	if o.quick {
		return quick
	}
	return full
}

// mini is the shape of the default model.
func mini() (model.OPT, model.CLIP) {
	opt, clip := model.OPTShapes()["125m"], model.CLIPShapes()["b32"]
	opt.HiddenSize, opt.WordEmbedProjDim, opt.Layers, opt.FFN, opt.Heads, opt.VocabSize, opt.MaxPositions = 384, 384, 8, 1536, 6, 8200, 2048
	clip.HiddenSize, clip.Intermediate, clip.Layers, clip.Heads, clip.ImageSize, clip.PatchSize = 256, 1024, 8, 4, 64, 8
	return opt, clip
}

// with calls f with a model of these shapes, its weights made up.
func with(ctx context.Context, dev gpu.Device, opt model.OPT, clip model.CLIP, f shaders.Format, do func(*runner.Runner) error) error {
	c := model.Config{OPT: &opt, CLIP: &clip, Heads: &model.Heads{VisualTokens: 1, SharedDim: 256, TextLayers: []int{-1}}, Vocabulary: opt.VocabSize - 5}
	manifest, err := compiler.Blank(c, f)
	if err != nil {
		return err
	}
	r, err := runner.LoadRandom(ctx, dev, manifest, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	return do(r)
}

var formats = []shaders.Format{shaders.F16, shaders.Q8, shaders.Q4}

// token is how long a token after a prompt of n takes.
func token(ctx context.Context, r *runner.Runner, n int, o options) (time.Duration, error) {
	s := r.NewSequence()
	defer s.Close()
	for i := range n {
		s.AppendTokens(runner.Token{ID: 4 + i%200})
	}
	if err := s.Continue(ctx, 1); err != nil {
		return 0, err
	}
	start := s.Len()
	return bench.Median(o.budget, func() error {
		s.Truncate(start)
		return s.Continue(ctx, 1)
	})
}

func measureContext(ctx context.Context, dev gpu.Device, o options, found func(string, int, time.Duration)) error {
	opt, clip := mini()
	return with(ctx, dev, opt, clip, shaders.Q8, func(r *runner.Runner) error {
		for _, n := range sizes(1, o.quickly(64, 1024), 2) {
			took, err := token(ctx, r, n, o)
			if err != nil {
				return err
			}
			found("q8", n, took)
		}
		return nil
	})
}

func measureWidth(ctx context.Context, dev gpu.Device, o options, found func(string, int, time.Duration)) error {
	for _, f := range formats {
		for _, width := range sizes(128, o.quickly(256, 4096), 2) {
			opt, clip := mini()
			opt.HiddenSize, opt.WordEmbedProjDim, opt.FFN, opt.Heads, opt.Layers, opt.VocabSize = width, width, 4*width, width/64, 2, 1005
			if int64(2*12*width*width)*4 > o.memory {
				fmt.Printf("width: %d is left out: it does not fit -memory\n", width)
				break
			}
			err := with(ctx, dev, opt, clip, f, func(r *runner.Runner) error {
				took, err := token(ctx, r, 16, o)
				if err == nil {
					found(f.String(), width, took)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func measureVocabulary(ctx context.Context, dev gpu.Device, o options, found func(string, int, time.Duration)) error {
	for _, f := range formats {
		for _, V := range sizes(1024, o.quickly(4096, 65536), 2) {
			opt, clip := mini()
			opt.Layers, opt.VocabSize = 2, V+5
			err := with(ctx, dev, opt, clip, f, func(r *runner.Runner) error {
				took, err := token(ctx, r, 16, o)
				if err == nil {
					found(f.String(), V, took)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func measureBatch(ctx context.Context, dev gpu.Device, o options, found func(string, int, time.Duration)) error {
	for _, f := range formats {
		opt, clip := mini()
		err := with(ctx, dev, opt, clip, f, func(r *runner.Runner) error {
			for _, n := range sizes(1, o.quickly(4, 64), 2) {
				took, err := together(ctx, r, n, o)
				if err != nil {
					return err
				}
				found(f.String(), n, took)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// together is how long a token of each of n sequences takes, in one run.
func together(ctx context.Context, r *runner.Runner, n int, o options) (time.Duration, error) {
	const prompt = 8
	all := make([]*runner.Sequence, n)
	for i := range all {
		all[i] = r.NewSequence()
		defer all[i].Close()
		for j := range prompt {
			all[i].AppendTokens(runner.Token{ID: 4 + (i+j)%200})
		}
	}
	step := func() error {
		for _, s := range all {
			s.Truncate(prompt)
		}
		_, err := r.Greedy(ctx, all, 1, nil, func([]int32) bool { return true })
		return err
	}
	return bench.Median(o.budget, step)
}

func measureIndex(ctx context.Context, dev gpu.Device, o options, found func(string, int, time.Duration)) error {
	opt, clip := mini()
	opt.Layers, clip.Layers = 1, 1
	return with(ctx, dev, opt, clip, shaders.F16, func(r *runner.Runner) error {
		for _, rows := range sizes(1024, o.quickly(16<<10, 4<<20), 4) {
			if need := int64(rows) * 256 * 5; need > o.memory { // as f16 in the index and on the device, and room to grow
				fmt.Printf("index: %d rows are left out: they need %d MB, -memory allows %d\n", rows, need/1e6, o.memory/1e6)
				break
			}
			s, err := bench.SearchOf(ctx, r, rows, bench.Ceilings{}, nil)
			if err != nil {
				return err
			}
			found("f16", rows, time.Duration(s.MS*1e6))
		}
		return nil
	})
}

func measurePictures(ctx context.Context, dev gpu.Device, o options, found func(string, int, time.Duration)) error {
	opt, clip := mini()
	opt.Layers = 1
	for _, f := range formats {
		err := with(ctx, dev, opt, clip, f, func(r *runner.Runner) error {
			for _, n := range sizes(1, o.quickly(4, 128), 2) {
				pixels := make([][]float32, n)
				for i := range pixels {
					pixels[i] = make([]float32, 3*clip.ImageSize*clip.ImageSize)
				}
				took, err := bench.Median(o.budget, func() error {
					_, err := r.Embed(ctx, pixels, nil)
					return err
				})
				if err != nil {
					return err
				}
				found(f.String(), n, took)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
