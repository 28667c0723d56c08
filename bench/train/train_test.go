// SPDX-License-Identifier: Apache-2.0

package train

import (
	"context"
	"math"
	"slices"
	"testing"

	"fromage/compiler"
	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/model"
	"fromage/runner"
	"fromage/shaders"
	"fromage/trainer"
)

// TestMeasure measures training once: every part has its time and its operations, and together they are the step.
func TestMeasure(t *testing.T) {
	opt, clip := model.OPTShapes()["125m"], model.CLIPShapes()["b32"]
	opt.HiddenSize, opt.WordEmbedProjDim, opt.Layers, opt.FFN, opt.Heads, opt.VocabSize, opt.MaxPositions = 64, 64, 2, 128, 2, 608, 64
	clip.HiddenSize, clip.Intermediate, clip.Layers, clip.Heads, clip.ImageSize, clip.PatchSize = 64, 256, 2, 2, 32, 8
	kerneltest.Devices(t, func(t *testing.T, dev gpu.Device) {
		for _, f := range []shaders.Format{shaders.F16, shaders.Q4} {
			manifest, err := compiler.Blank(model.Config{OPT: &opt, CLIP: &clip, Heads: &model.Heads{VisualTokens: 1, SharedDim: 32, TextLayers: []int{-1}}, Vocabulary: 602}, f)
			if err != nil {
				t.Fatal(err)
			}
			r, err := runner.LoadRandom(context.Background(), dev, manifest, nil)
			if err != nil {
				t.Fatal(err)
			}
			testMeasure(t, r)
			r.Close()
		}
	})
}

func testMeasure(t *testing.T, r *runner.Runner) {
	t.Helper()
	var last runner.Progress
	m, err := Measure(context.Background(), r, Options{Batch: 3, Tokens: 6, Progress: func(p runner.Progress) {
		if p.Done < last.Done || p.Done > p.Total {
			t.Errorf("progress goes from %+v to %+v", last, p)
		}
		last = p
	}})
	if err != nil {
		t.Fatal(err)
	}
	if m.Batch != 3 || m.Steps != 2 || !(m.ExamplesPS > 0 && m.StepMS > 0 && m.GFLOP > 0 && m.TFLOPs > 0 && m.WatchedMS > 0) {
		t.Errorf("Measure = %+v", *m)
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
	for _, o := range []Options{{Batch: 1, Tokens: 6}, {Batch: 3, Tokens: 1}, {Batch: 3, Tokens: 60}} {
		if _, err := Measure(context.Background(), r, o); err == nil {
			t.Errorf("Measure(%+v): want an error, have none", o)
		}
	}
}
