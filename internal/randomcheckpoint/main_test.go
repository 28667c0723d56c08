// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fromage/model"
	"math"
	"path/filepath"
	"testing"

	"fromage/bundle"
	"fromage/compiler"
	"fromage/compiler/checkpoint"
	"fromage/shaders"
)

// TestGenerate makes the smallest shape, in several files, and compiles it.
func TestGenerate(t *testing.T) {
	dir := t.TempDir()
	lm := model.OPTShapes()["125m"]
	lm.HiddenSize, lm.WordEmbedProjDim, lm.Layers, lm.FFN, lm.Heads, lm.VocabSize, lm.MaxPositions = 64, 64, 2, 128, 2, 608, 64
	tower := model.CLIPShapes()["b32"]
	tower.HiddenSize, tower.Intermediate, tower.Layers, tower.Heads, tower.ImageSize, tower.PatchSize = 64, 256, 2, 2, 32, 8
	if err := generate(dir, lm, tower, 2, 100_000); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "tiny.bundle")
	o := compiler.Options{OPT: filepath.Join(dir, "opt"), CLIP: filepath.Join(dir, "clip"), Heads: filepath.Join(dir, "heads"), DType: shaders.Q4, Out: out}
	if err := compiler.Compile(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if s := b.Manifest().Settings; s.Vocabulary != 603 || s.RET != 602 || s.VisualTokens != 2 {
		t.Errorf("settings = %+v, want 603 tokens, the last [RET], and 2 visual tokens", s)
	}
	c, err := checkpoint.Open(o.OPT)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	x, _ := c.Tensor("model.decoder.layers.1.fc1.weight")
	v := make([]float32, x.Rows()*x.RowLen())
	if err := x.ReadRows(0, x.Rows(), v); err != nil {
		t.Fatal(err)
	}
	sum, squares := 0.0, 0.0
	for _, w := range v {
		sum, squares = sum+float64(w), squares+float64(w)*float64(w)
	}
	mean, deviation := sum/float64(len(v)), math.Sqrt(squares/float64(len(v)))
	if math.Abs(mean) > 0.01 || math.Abs(deviation-0.125) > 0.005 {
		t.Errorf("fc1: mean %g, deviation %g, want 0 and 0.125", mean, deviation)
	}
}

func TestTokenizerLength(t *testing.T) {
	if err := writeTokenizer(t.TempDir(), 4+256+65536+1); err == nil {
		t.Error("a tokenizer of more than all pairs: want an error")
	}
}
