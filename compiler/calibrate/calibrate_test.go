// SPDX-License-Identifier: Apache-2.0

package calibrate

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fromage/bundle"
	"fromage/compiler"
	"fromage/gpu/cpu"
	"fromage/runner"
	"fromage/shaders"
)

const golden = "../../testdata/golden/fromage/one-token/"

func options(t *testing.T, dtype shaders.Format) compiler.Options {
	return compiler.Options{
		OPT: golden + "facebook/opt-tiny", CLIP: golden + "openai/clip-tiny", Heads: golden + "fromage_model_pretrained_ckpt.pth.tar",
		DType: dtype, Out: filepath.Join(t.TempDir(), "model.bundle"),
	}
}

// outputs are what the bundle's model says after every token of the sequences.
func outputs(t *testing.T, path string, sequences [][]int32) *runner.Outputs {
	t.Helper()
	b, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Verify(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	r, err := runner.Load(context.Background(), cpu.New(), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var batch []*runner.Sequence
	for _, ids := range sequences {
		s := r.NewSequence()
		for _, id := range ids {
			s.AppendTokens(runner.Token{ID: int(id)})
		}
		batch = append(batch, s)
	}
	out, err := r.Outputs(context.Background(), batch...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// compare returns the mean squared difference of two models' logits, and how often they choose the same token.
func compare(a, b *runner.Outputs) (squared float64, same int) {
	for i, x := range a.Logits {
		for j, v := range x {
			squared += math.Pow(float64(v-b.Logits[i][j]), 2) / float64(len(x)*len(a.Logits))
		}
		if slices.Index(x, slices.Max(x)) == slices.Index(b.Logits[i], slices.Max(b.Logits[i])) {
			same++
		}
	}
	return squared, same
}

// TestCompile holds calibrated bundles of a golden model to its f32 outputs: nearer than uncalibrated ones, on samples that they were not calibrated on.
func TestCompile(t *testing.T) {
	ctx := context.Background()
	o := options(t, shaders.F32)
	if err := compiler.Compile(ctx, o); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	r, err := runner.Load(ctx, cpu.New(), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	samples, err := r.Sample(ctx, 32, 24, 1, 1000, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := outputs(t, o.Out, samples)
	for _, dtype := range []shaders.Format{shaders.Q8, shaders.Q4} {
		o := options(t, dtype)
		if err := compiler.Compile(ctx, o); err != nil {
			t.Fatal(err)
		}
		plain, plainSame := compare(outputs(t, o.Out, samples), want)
		var files [2][]byte
		for i := range files {
			if err := Compile(ctx, o, Options{Device: cpu.New(), Tokens: 2048}); err != nil {
				t.Fatal(err)
			}
			if files[i], err = os.ReadFile(o.Out); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(files[0], files[1]) {
			t.Errorf("%s: calibrating again makes another file", dtype)
		}
		got, same := compare(outputs(t, o.Out, samples), want)
		t.Logf("%s: squared error of logits %.3g, same token at %d of %d; uncalibrated %.3g, %d", dtype, got, same, len(want.Logits), plain, plainSame)
		if !(got < plain) || same < plainSame {
			t.Errorf("%s: squared error of logits %g, same token at %d; want better than %g and %d of the uncalibrated model", dtype, got, same, plain, plainSame)
		}
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		want   string
		change func(*compiler.Options, *Options)
	}{
		{"want 1 token or more, have -1", func(_ *compiler.Options, c *Options) { c.Tokens = -1 }},
		{"want dtype q8 or q4, have f16", func(o *compiler.Options, _ *Options) { o.DType = shaders.F16 }},
		{"want an OPT checkpoint", func(o *compiler.Options, _ *Options) { o.OPT, o.Heads = "", "" }},
		{"no such file", func(o *compiler.Options, _ *Options) { o.OPT += "x" }},
	} {
		o := options(t, shaders.Q4)
		calibration := Options{Device: cpu.New(), Tokens: 64}
		c.change(&o, &calibration)
		err := Compile(context.Background(), o, calibration)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Compile = %v, want an error with %q", err, c.want)
		}
	}
}

// TestCancel stops at every stage: nothing is left, neither beside the bundle nor among the temporary files.
func TestCancel(t *testing.T) {
	for _, stage := range []string{"writing samples", "reading samples", "compiling"} {
		temporary := t.TempDir()
		t.Setenv("TMPDIR", temporary)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		o := options(t, shaders.Q8)
		o.Progress = func(compiler.Progress) { cancel() }
		err := Compile(ctx, o, Options{Device: cpu.New(), Tokens: 2048, Progress: func(p runner.Progress) {
			if p.What == stage && p.Done <= p.Total {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: Compile after cancel = %v", stage, err)
		}
		for _, dir := range []string{temporary, filepath.Dir(o.Out)} {
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("%s: %s is left behind", stage, left[0].Name())
			}
		}
	}
}

// TestTooLarge leaves matrices out that cost too much, and says so once.
func TestTooLarge(t *testing.T) {
	var log bytes.Buffer
	g := gathered{log: slog.New(slog.NewTextHandler(&log, nil)), moments: map[string]*compiler.Moments{}, bytes: maxMemory - 8*64*64}
	for range 2 {
		for _, K := range []int{64, 32, compiler.MaxMoments + 1} {
			if err := g.add([]string{"w" + string(rune('a'+K%26))}, K, make([]float32, K)); err != nil {
				t.Fatal(err)
			}
		}
	}
	kept := 0
	for _, m := range g.moments {
		if m != nil {
			kept++
		}
	}
	if lines := strings.Count(log.String(), "not calibrated"); kept != 1 || len(g.moments) != 3 || lines != 2 {
		t.Errorf("%d of %d moments kept, log %q; want the first of three and two lines", kept, len(g.moments), log.String())
	}
}
