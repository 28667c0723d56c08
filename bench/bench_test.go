// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"testing"
	"time"

	"fromage/compiler"
	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/model"
	"fromage/runner"
	"fromage/shaders"
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
			r.Close()
			if err != nil {
				t.Fatal(err)
			}
			if !(m.Decode > 0 && m.Prefill > 0 && m.Images > 0 && m.WeightBytes > 0 && m.Dispatches > 10 && m.PrefillLen == 32) {
				t.Errorf("%s: %+v", f, *m)
			}
		}
	})
}
