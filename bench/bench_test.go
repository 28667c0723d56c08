// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"math"
	"slices"
	"testing"
	"time"

	"fromage/compiler"
	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/model"
	"fromage/runner"
	"fromage/shaders"
	"fromage/trainer"
)

// TestBench runs every measurement once: they must run on every device and give numbers. How large they are is nobody's business here.
func TestBench(t *testing.T) {
	budget = time.Millisecond
	ctx := context.Background()
	opt, clip := model.OPTShapes()["125m"], model.CLIPShapes()["b32"]
	opt.HiddenSize, opt.WordEmbedProjDim, opt.Layers, opt.FFN, opt.Heads, opt.VocabSize, opt.MaxPositions = 64, 64, 2, 128, 2, 608, 64
	clip.HiddenSize, clip.Intermediate, clip.Layers, clip.Heads, clip.ImageSize, clip.PatchSize = 64, 256, 2, 2, 32, 8
	kerneltest.Devices(t, func(t *testing.T, dev gpu.Device) {
		copied, err := Copy(dev, 1<<20)
		if err != nil || copied <= 0 {
			t.Fatalf("Copy = %g, %v", copied, err)
		}
		kernels, err := Kernels(ctx, dev, Shape{Hidden: 64, FFN: 128, Heads: 2}, []shaders.Format{shaders.F32, shaders.Q8}, copied)
		if err != nil || len(kernels) != 14 {
			t.Fatalf("Kernels: want 14, have %d, %v", len(kernels), err)
		}
		for _, k := range kernels {
			if !(k.Micros > 0 && k.GBps > 0 && k.Share > 0) {
				t.Errorf("%s %s: %+v", k.Kernel, k.Shape, k)
			}
		}
		for _, f := range []shaders.Format{shaders.F16, shaders.Q4} {
			manifest, err := compiler.Blank(model.Config{OPT: &opt, CLIP: &clip, Heads: &model.Heads{VisualTokens: 1, SharedDim: 32, TextLayers: []int{-1}}, Vocabulary: 602}, f)
			if err != nil {
				t.Fatal(err)
			}
			r, err := runner.LoadRandom(ctx, dev, manifest, nil)
			if err != nil {
				t.Fatal(err)
			}
			m, err := Of(ctx, r, 4, copied)
			if err != nil {
				t.Fatal(err)
			}
			testTrain(t, r)
			r.Close()
			if !(m.Decode > 0 && m.Prefill > 0 && m.Images > 0 && m.WeightBytes > 0 && m.Dispatches > 10 && m.PrefillLen == 32) {
				t.Errorf("%s: %+v", f, *m)
			}
		}
	})
}

// testTrain measures training once: every part has its time and its operations, and together they are the step.
func testTrain(t *testing.T, r *runner.Runner) {
	t.Helper()
	var last runner.Progress
	m, err := Train(context.Background(), r, TrainOptions{Batch: 3, Tokens: 6, Progress: func(p runner.Progress) {
		if p.Done < last.Done || p.Done > p.Total {
			t.Errorf("progress goes from %+v to %+v", last, p)
		}
		last = p
	}})
	if err != nil {
		t.Fatal(err)
	}
	if m.Batch != 3 || m.Steps != 2 || !(m.ExamplesPS > 0 && m.StepMS > 0 && m.GFLOP > 0 && m.TFLOPs > 0 && m.WatchedMS > 0) {
		t.Errorf("Train = %+v", *m)
	}
	if x := m.Memory; !(x.Weights > 0 && x.Optimizer > 0 && x.KV > 0 && x.Activations > 0 && x.Tokens >= 64) {
		t.Errorf("memory: %+v", x)
	}
	share, gflop := m.Rest, 0.0
	var names []string
	for _, p := range m.Parts {
		names, share, gflop = append(names, p.Part), share+p.Share, gflop+p.GFLOP
		if !(p.MS > 0 && p.Share > 0) || (p.GFLOP > 0) != (p.Part != "optimizer") {
			t.Errorf("part %+v", p)
		}
	}
	if !slices.Equal(names, trainer.Parts) || math.Abs(share-1) > 1e-9 || math.Abs(gflop/m.GFLOP-1) > 1e-9 {
		t.Errorf("parts %q are %g of a step and %g of %g GFLOP, want %q, all of it", names, share, gflop, m.GFLOP, trainer.Parts)
	}
	for _, o := range []TrainOptions{{Batch: 1, Tokens: 6}, {Batch: 3, Tokens: 1}, {Batch: 3, Tokens: 60}} {
		if _, err := Train(context.Background(), r, o); err == nil {
			t.Errorf("Train(%+v): want an error, have none", o)
		}
	}
}
