// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fromage/bundle"
	"fromage/compiler"
	"fromage/gpu"
	"fromage/index"
	"fromage/internal/kerneltest"
	"fromage/plan"
	"fromage/shaders"
)

const golden = "../testdata/golden/fromage/one-token/"

// compiled makes a bundle of the golden FROMAGe in the given format.
func compiled(t *testing.T, dtype shaders.Format) *bundle.Bundle {
	t.Helper()
	out := filepath.Join(t.TempDir(), "model.bundle")
	err := compiler.Compile(context.Background(), compiler.Options{
		OPT: golden + "facebook/opt-tiny", CLIP: golden + "openai/clip-tiny", Heads: golden + "fromage_model_pretrained_ckpt.pth.tar", DType: dtype, Out: out,
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func devices(t *testing.T, f func(t *testing.T, r *Runner)) {
	b := compiled(t, shaders.F32)
	kerneltest.Devices(t, func(t *testing.T, dev gpu.Device) {
		r, err := Load(context.Background(), dev, b, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		f(t, r)
	})
}

// randomSequences makes sequences of the given lengths, some places of which are visual.
func randomSequences(r *Runner, lengths ...int) []*Sequence {
	rng := rand.New(rand.NewPCG(1, 2))
	var all []*Sequence
	for _, n := range lengths {
		s := r.NewSequence()
		for i := range n {
			token := Token{ID: rng.IntN(r.Settings().Vocabulary)}
			if i%5 == 3 {
				token.Visual = make([]float32, r.Settings().EmbedDim)
				for j := range token.Visual {
					token.Visual[j] = float32(rng.NormFloat64())
				}
			}
			s.AppendTokens(token)
		}
		all = append(all, s)
	}
	return all
}

func copyOf(r *Runner, s *Sequence, n int) *Sequence {
	c := r.NewSequence()
	c.AppendTokens(s.Tokens()[:n]...)
	return c
}

func near(t *testing.T, what string, got, want [][]float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: want %d rows, have %d", what, len(want), len(got))
	}
	worst := 0.0
	for i := range want {
		for j := range want[i] {
			worst = max(worst, math.Abs(float64(got[i][j]-want[i][j])))
		}
	}
	if !(worst <= 2e-4) {
		t.Errorf("%s: values differ by up to %g", what, worst)
	}
}

// TestPacking: however tokens are packed, cut into runs and spread over calls, every place gets the same logits.
func TestPacking(t *testing.T) {
	devices(t, func(t *testing.T, r *Runner) {
		ctx := context.Background()
		lengths := []int{1, 2, 63, 64, 65, 128}
		sequences := randomSequences(r, lengths...)
		var want [][]float32
		for _, s := range sequences {
			alone := copyOf(r, s, s.Len())
			out, err := r.Outputs(ctx, alone)
			if err != nil {
				t.Fatal(err)
			}
			alone.Close()
			want = append(want, out.Logits...)
		}
		packed, err := r.Outputs(ctx, sequences...)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "packed", packed.Logits, want)

		r.maxTokens = 7
		cut := randomSequences(r, lengths...)
		out, err := r.Outputs(ctx, cut...)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "in runs of 7", out.Logits, want)
		r.maxTokens = maxTokens
		for _, s := range append(sequences, cut...) {
			s.Close()
		}
	})
}

// TestWanted: what is computed for the logits alone, or for the retrieval embedding alone, is what it is when all outputs are made, at any place of a sequence.
func TestWanted(t *testing.T) {
	devices(t, func(t *testing.T, r *Runner) {
		ctx := context.Background()
		s := randomSequences(r, 40)[0]
		all, err := r.Outputs(ctx, copyOf(r, s, s.Len()))
		if err != nil {
			t.Fatal(err)
		}
		part := r.NewSequence()
		for at := range s.Len() {
			part.AppendTokens(s.Tokens()[at])
			if at%3 == 0 {
				continue
			}
			w := want{logits: at%3 == 1, retrieval: at%3 == 2}
			got, err := r.forward(ctx, []feed{{part, []int{at}}}, w)
			if err != nil {
				t.Fatal(err)
			}
			if w.logits {
				near(t, "logits", got.logits, all.Logits[at:at+1])
			} else {
				near(t, "retrieval", got.retrieval, all.Retrieval[at:at+1])
			}
		}
		lm, err := r.m.Program("lm")
		if err != nil {
			t.Fatal(err)
		}
		steps, err := lm.Steps(plan.Run(1, 1, 0))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := r.Dispatches(); err != nil || n >= len(steps) {
			t.Errorf("a token takes %d dispatches, all outputs of one %d, %v", n, len(steps), err)
		}
	})
}

// TestGrowth lets sequences grow in turns, so that the KV cache moves while others have rows in it.
func TestGrowth(t *testing.T) {
	devices(t, func(t *testing.T, r *Runner) {
		ctx := context.Background()
		full := randomSequences(r, 128, 100, 128)
		want := make([][][]float32, len(full))
		for i, s := range full {
			out, err := r.Outputs(ctx, s)
			if err != nil {
				t.Fatal(err)
			}
			want[i] = out.Logits
			s.Close()
		}
		grown := []*Sequence{r.NewSequence(), r.NewSequence(), r.NewSequence()}
		for at := 0; at < 128; at += 9 {
			for i, s := range grown {
				to := min(at+9, full[i].Len())
				if s.Len() >= to {
					continue
				}
				s.AppendTokens(full[i].Tokens()[s.Len():to]...)
				out, err := r.Outputs(ctx, s)
				if err != nil {
					t.Fatal(err)
				}
				near(t, fmt.Sprintf("sequence %d up to %d", i, to), out.Logits, want[i][at:to])
			}
		}
		grown[1].Truncate(50)
		grown[1].AppendTokens(full[1].Tokens()[50:]...)
		out, err := r.Outputs(ctx, grown[1])
		if err != nil {
			t.Fatal(err)
		}
		near(t, "after Truncate", out.Logits, want[1][50:])
		grown[0].AppendTokens(Token{ID: 5})
		if _, err := r.Outputs(ctx, grown[0]); err == nil || !strings.Contains(err.Error(), "128 positions") {
			t.Errorf("beyond the positions: want an error that says so, have %v", err)
		}
		for _, s := range grown {
			s.Close()
		}
		if n := len(r.kv.sequences); n != 0 {
			t.Errorf("closed sequences: want no rows kept, have %d", n)
		}
	})
}

// TestGenerate: what is emitted adds up to the answer, a conversation continues from its cache as from scratch, and a cancelled one says so.
func TestGenerate(t *testing.T) {
	devices(t, func(t *testing.T, r *Runner) {
		ctx := context.Background()
		opt := DefaultOptions()
		opt.NumWords, opt.Temperature, opt.TopP, opt.Seed, opt.IgnoreEOS = 24, 1.2, 0.95, 7, true
		first := r.NewSequence()
		defer first.Close()
		if err := first.Append(Part{Text: "Q: What is this?\nA:"}); err != nil {
			t.Fatal(err)
		}
		var streamed strings.Builder
		answer, err := first.Generate(ctx, opt, nil, func(e Event) { streamed.WriteString(e.Text) })
		if err != nil {
			t.Fatal(err)
		}
		if got := streamed.String(); got != answer.Pieces[0].Text || len(answer.IDs) == 0 {
			t.Errorf("streamed %q, want the answer's text %q", got, answer.Pieces[0].Text)
		}
		second := r.NewSequence()
		defer second.Close()
		second.AppendTokens(first.Tokens()...)
		for _, s := range []*Sequence{first, second} {
			if err := s.Append(Part{Text: "\nQ: And now?\nA:"}); err != nil {
				t.Fatal(err)
			}
		}
		opt.Temperature, opt.TopP = 0, 1
		a, err := first.Generate(ctx, opt, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := second.Generate(ctx, opt, nil, nil)
		if err != nil || !slices.Equal(a.IDs, b.IDs) {
			t.Errorf("continued %v, from scratch %v, %v", a.IDs, b.IDs, err)
		}
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := first.Generate(cancelled, opt, nil, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: want context.Canceled, have %v", err)
		}
	})
}

func TestSampler(t *testing.T) {
	logits := func() []float32 { return []float32{1, 3, 2.5, -1, 2.9} }
	greedy := DefaultOptions()
	for _, c := range []struct {
		name string
		opt  func(*Options)
		i    int
		want int
	}{
		{"most likely", func(*Options) {}, 0, 1},
		{"[RET] scaled up", func(o *Options) { o.RetScaleFactor = 1.3 }, 0, 2},
		{"[RET] scaled down", func(o *Options) { o.RetScaleFactor = 0 }, 0, 1},
		{"[RET] too early", func(o *Options) { o.RetScaleFactor, o.MinWordTokens = 100, 3 }, 2, 1},
		{"[RET] no longer too early", func(o *Options) { o.RetScaleFactor, o.MinWordTokens = 100, 3 }, 3, 2},
		{"top-p of the first alone", func(o *Options) { o.Temperature, o.TopP = 1, 0.01 }, 0, 1},
	} {
		opt := greedy
		c.opt(&opt)
		if got := NewSampler(opt, 2).Next(logits(), c.i); got != c.want {
			t.Errorf("%s: Next = %d, want %d", c.name, got, c.want)
		}
	}
	opt := greedy
	opt.Temperature, opt.TopP, opt.Seed = 1, 0.75, 3
	s, counts := NewSampler(opt, -1), map[int]int{}
	const n = 20000
	for i := range n {
		counts[s.Next(logits(), i)]++
	}
	// Probabilities .37, .34, .23, .05, … : the first two make .71, so the third is still kept, and the three .94.
	if len(counts) != 3 || counts[0]+counts[3] != 0 {
		t.Fatalf("top-p 0.75: drew %v, want tokens 1, 4 and 2 only", counts)
	}
	weight := math.Exp(3) + math.Exp(2.9) + math.Exp(2.5)
	for token, logit := range map[int]float64{1: 3, 4: 2.9, 2: 2.5} {
		if got, want := float64(counts[token])/n, math.Exp(logit)/weight; math.Abs(got-want) > 0.02 {
			t.Errorf("top-p 0.75: token %d drawn %.3f of the time, want %.3f", token, got, want)
		}
	}
}

func TestTruncateCaption(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a cat": "a cat", "a cat. A dog.": "a cat.", "a cat. A\ndog": "a cat. A\n", "\n\na cat\n": "a cat", "\n": "", ".": ".",
	} {
		if got := truncateCaption(in); got != want {
			t.Errorf("truncateCaption(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestGallery compares the device's search with the index's own, for rows of each kind.
func TestGallery(t *testing.T) {
	devices(t, func(t *testing.T, r *Runner) {
		for dtype, bytes := range map[index.DType]int{index.F32: 4, index.F16: 2, index.Q8: 4} {
			t.Run(dtype.String(), func(t *testing.T) { testGallery(t, r, dtype, bytes) })
		}
	})
}

func testGallery(t *testing.T, r *Runner, dtype index.DType, bytes int) {
	d := r.Settings().SharedDim
	x, err := index.New(index.Header{D: d, DType: dtype})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	vector := func() []float32 {
		v := make([]float32, d)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
		return v
	}
	var rows []index.Row
	for i := range 5000 {
		rows = append(rows, index.Row{Meta: index.Meta{Path: fmt.Sprint(i)}, Embedding: vector()})
	}
	if err := x.Append(rows); err != nil {
		t.Fatal(err)
	}
	if err := x.Remove(0, 17, 4999); err != nil {
		t.Fatal(err)
	}
	g, err := NewGallery(r, x)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if g.Len() != 4997 || g.Bytes() != 4997*d*bytes {
		t.Errorf("Len() = %d, Bytes() = %d, want 4997 and %d a row", g.Len(), g.Bytes(), d*bytes)
	}
	for _, k := range []int{1, 10, 300, 1500, 6000} {
		e := Normalised(vector())
		best, err := x.Search(e, 3, index.Options{})
		if err != nil {
			t.Fatal(err)
		}
		seen := []int{best[0].Row, best[2].Row}
		want, err := x.Search(e, k, index.Options{Seen: seen})
		if err != nil {
			t.Fatal(err)
		}
		got, err := g.Search(e, k, seen)
		if err != nil {
			t.Fatal(err)
		}
		sameHits(t, k, got, want, r.Scale())
	}
}

// sameHits wants the same rows in order, but for neighbours whose scores differ by rounding alone.
func sameHits(t *testing.T, k int, got, want []index.Hit, scale float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("k = %d: want %d hits, have %d", k, len(want), len(got))
		return
	}
	for i := range want {
		w := float64(want[i].Score)
		if w < -index.SeenPenalty/2 {
			w = (w+index.SeenPenalty)*float64(scale) - index.SeenPenalty
		} else {
			w *= float64(scale)
		}
		if math.Abs(float64(got[i].Score)-w) > 2e-3 {
			t.Errorf("k = %d: hit %d: want row %d with %g, have row %d with %g", k, i, want[i].Row, w, got[i].Row, got[i].Score)
			return
		}
	}
}

// TestLost: a device that is lost gives errors that say so.
func TestLost(t *testing.T) {
	devices(t, func(t *testing.T, r *Runner) {
		d, ok := r.Device().(interface{ Lose() })
		if !ok {
			return // the Go twins cannot be lost
		}
		s := randomSequences(r, 3)[0]
		d.Lose()
		if _, err := r.Outputs(context.Background(), s); !errors.Is(err, gpu.ErrLost) {
			t.Errorf("after the device is lost: want gpu.ErrLost, have %v", err)
		}
	})
}

// TestFormats: smaller formats stay near f32.
func TestFormats(t *testing.T) {
	ctx := context.Background()
	kerneltest.Devices(t, func(t *testing.T, dev gpu.Device) {
		var exact [][]float32
		for _, f := range []shaders.Format{shaders.F32, shaders.F16, shaders.Q8, shaders.Q4} {
			r, err := Load(ctx, dev, compiled(t, f), nil)
			if err != nil {
				t.Fatal(err)
			}
			s := randomSequences(r, 40)[0]
			out, err := r.Outputs(ctx, s)
			if err != nil {
				t.Fatal(err)
			}
			r.Close()
			if f == shaders.F32 {
				exact = out.Logits
				continue
			}
			same := 0
			for i := range exact {
				if argmax(out.Logits[i]) == argmax(exact[i]) {
					same++
				}
			}
			if least := map[shaders.Format]int{shaders.F16: 39, shaders.Q8: 36, shaders.Q4: 24}[f]; same < least {
				t.Errorf("%s: the same token at %d of 40 positions, want %d at least", f, same, least)
			}
		}
	})
}
