// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"math"
	"strings"
	"testing"

	"fromage/compiler"
	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/machine"
	"fromage/model"
	"fromage/shaders"
)

// TestKV: with keys and values in f16 the logits are nearly those of f32, however they came about; there is room for twice as many sequences; what was
// computed before a change of the format is computed anew.
func TestKV(t *testing.T) {
	ctx := context.Background()
	devices(t, func(t *testing.T, r *Runner) {
		outputs := func(s *Sequence) [][]float32 {
			t.Helper()
			out, err := r.Outputs(ctx, s)
			if err != nil {
				t.Fatal(err)
			}
			return out.Logits
		}
		full := randomSequences(r, 100)[0]
		exact, room := outputs(copyOf(r, full, 100)), r.kv.fit(60, 1<<20, nil)
		s := copyOf(r, full, 20)
		outputs(s)
		if err := r.SetKV(shaders.F16); err != nil {
			t.Fatal(err)
		}
		if got := r.kv.fit(60, 1<<20, nil); got < 2*room {
			t.Errorf("room for %d sequences in f16, %d in f32", got, room)
		}
		for _, part := range [][2]int{{20, 50}, {50, 99}} { // the second moves the first's rows
			s.AppendTokens(full.Tokens()[part[0]:part[1]]...)
			outputs(s)
		}
		s.AppendTokens(full.Tokens()[99])
		last, whole := outputs(s), outputs(copyOf(r, full, 100))
		worst := 0.0
		for i := range whole {
			for j := range whole[i] {
				worst = max(worst, math.Abs(float64(whole[i][j]-exact[i][j])))
			}
		}
		if worst == 0 || worst > 0.02 {
			t.Errorf("logits with f16 and f32 are up to %g apart, want a little", worst)
		}
		for j, v := range last[0] {
			if d := math.Abs(float64(v - whole[99][j])); !(d <= 2e-3) {
				t.Fatalf("logit %d of a token after 99: %g, want %g", j, v, whole[99][j])
			}
		}
		if err := r.SetKV(shaders.F32); err != nil {
			t.Fatal(err)
		}
		near(t, "in f32 again", outputs(full), exact)
		if err := r.SetKV(shaders.Q8); err == nil || !strings.Contains(err.Error(), "want f32 or f16, have q8") {
			t.Errorf("keys and values in q8: %v, want an error that says what is possible", err)
		}
	})
}

// TestKVRefused: heads that are not in fours keep f32, and go on with it.
func TestKVRefused(t *testing.T) {
	ctx := context.Background()
	opt := model.OPTShapes()["125m"]
	opt.HiddenSize, opt.WordEmbedProjDim, opt.Layers, opt.FFN, opt.Heads, opt.VocabSize, opt.MaxPositions = 12, 12, 1, 16, 2, 40, 32
	manifest, err := compiler.Blank(model.Config{OPT: &opt, Vocabulary: 40}, shaders.F32)
	if err != nil {
		t.Fatal(err)
	}
	r, err := LoadRandom(ctx, cpu.New(), manifest, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.SetKV(shaders.F16); err == nil || !strings.Contains(err.Error(), "multiples of 4") {
		t.Errorf("heads of 6: %v, want an error that says what is wanted", err)
	}
	s := r.NewSequence()
	s.AppendTokens(Token{ID: 3}, Token{ID: 4})
	if _, err := r.Outputs(ctx, s); err != nil {
		t.Error(err)
	}
}

// TestKVRestored: a runner that moved to another device keeps its format.
func TestKVRestored(t *testing.T) {
	ctx, b := context.Background(), compiled(t, shaders.F32)
	r, err := Load(ctx, cpu.New(), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.SetKV(shaders.F16); err != nil {
		t.Fatal(err)
	}
	s := randomSequences(r, 30)[0]
	want, err := r.Outputs(ctx, copyOf(r, s, 30))
	if err != nil {
		t.Fatal(err)
	}
	r.OnLoss(func(context.Context) (gpu.Device, Source, error) {
		return cpu.New(), machine.Chunks{Open: b.File, Each: b.Chunks}, nil
	})
	if err := r.restore(ctx); err != nil {
		t.Fatal(err)
	}
	got, err := r.Outputs(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "on another device", got.Logits, want.Logits)
	if f := r.m.Layouts["kv.0"].Format; f != shaders.F16 {
		t.Errorf("keys and values are in %v after the move, want f16", f)
	}
}
