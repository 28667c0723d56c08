// SPDX-License-Identifier: Apache-2.0

package trainer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"fromage/bundle"
	"fromage/compiler"
	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/internal/kerneltest"
	"fromage/model"
	"fromage/plan"
	"fromage/runner"
	"fromage/shaders"
)

const golden = "../testdata/golden/fromage/four-tokens/"

// compiled makes a bundle of the golden FROMAGe.
func compiled(t *testing.T, o compiler.Options) *bundle.Bundle {
	t.Helper()
	o.OPT, o.CLIP, o.Out = golden+"facebook/opt-tiny", golden+"openai/clip-tiny", filepath.Join(t.TempDir(), "model.bundle")
	if o.NewHeads == nil {
		o.Heads = golden + "initial_ckpt.pth.tar"
	}
	if err := compiler.Compile(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// learner puts a bundle onto a device and makes a trainer.
func learner(t *testing.T, dev gpu.Device, b *bundle.Bundle, c Config) (*Trainer, *runner.Runner) {
	t.Helper()
	r, err := runner.Load(context.Background(), dev, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	l, err := New(context.Background(), r.Machine(), c)
	if err != nil {
		t.Fatal(err)
	}
	return l, r
}

// made are examples of random tokens and pictures for a model.
func made(s bundle.Settings, n int, seed uint64) []Example {
	rng := rand.New(rand.NewPCG(seed, 0))
	all := make([]Example, n)
	for i := range all {
		all[i].Tokens = []int32{int32(s.BOS)}
		for range rng.IntN(20) {
			all[i].Tokens = append(all[i].Tokens, int32(4+rng.IntN(s.Vocabulary-8)))
		}
		all[i].Tokens = append(all[i].Tokens, int32(s.RET))
		for range s.VisionDim {
			all[i].V = append(all[i].V, float32(rng.NormFloat64()))
		}
	}
	return all
}

// same compares gradients or parameters, each with a part of the largest value.
func same(t *testing.T, what string, got, want map[string][]float32, part float64) {
	t.Helper()
	for name, w := range want {
		g, largest, worst := got[name], 0.0, 0.0
		if len(g) != len(w) {
			t.Fatalf("%s: %s: %d values, want %d", what, name, len(g), len(w))
		}
		for i := range w {
			largest, worst = max(largest, math.Abs(float64(w[i]))), max(worst, math.Abs(float64(g[i]-w[i])))
		}
		if !(worst <= part*largest) {
			t.Errorf("%s: %s: differs by %g, largest value %g", what, name, worst, largest)
		}
	}
}

// TestParts: a batch in one run has the gradients of the same batch in many runs, with logits in one piece or many, concatenated or not.
func TestParts(t *testing.T) {
	b := compiled(t, compiler.Options{})
	kerneltest.Devices(t, func(t *testing.T, dev gpu.Device) {
		ctx := context.Background()
		l, r := learner(t, dev, b, DefaultConfig())
		examples := made(r.Settings(), 7, 1)
		if _, err := l.Update(0); err != nil { // scales [RET]'s row
			t.Fatal(err)
		}
		for _, concat := range []bool{false, true} {
			var losses []*Losses
			var grads []map[string][]float32
			for _, c := range []struct{ most, memory int }{{l.most, l.c.Memory}, {40, l.c.Memory}, {1, 16 * r.Settings().Vocabulary * 5}} {
				l.most, l.c.Memory = c.most, c.memory
				loss, err := l.Accumulate(ctx, examples, concat)
				if err != nil {
					t.Fatal(err)
				}
				g, err := l.Gradients()
				if err != nil {
					t.Fatal(err)
				}
				losses, grads = append(losses, loss), append(grads, g)
				if _, err := l.Update(0); err != nil {
					t.Fatal(err)
				}
			}
			for i := range grads {
				clear(grads[i][addedTokens][:r.Settings().EmbedDim])
				same(t, fmt.Sprintf("concat %t, way %d", concat, i), grads[i], grads[0], 2e-5)
				if d := math.Abs(losses[i].Total - losses[0].Total); d > 1e-5 {
					t.Errorf("concat %t, way %d: loss %g, want %g", concat, i, losses[i].Total, losses[0].Total)
				}
			}
			l.most, l.c.Memory = 1<<20, DefaultMemory
		}
	})
}

// TestWatch: a step that is watched has the bits of one that is not, in one run or many, and all of its parts are told.
func TestWatch(t *testing.T) {
	b := compiled(t, compiler.Options{})
	kerneltest.Devices(t, func(t *testing.T, dev gpu.Device) {
		l, r := learner(t, dev, b, DefaultConfig())
		examples := made(r.Settings(), 5, 2)
		for _, most := range []int{l.most, 30} {
			l.most = most
			var states [2]*State
			for i := range states {
				if err := r.SetHeads(startHeads(t, r)); err != nil {
					t.Fatal(err)
				}
				flops := map[string]float64{}
				if i == 1 {
					l.Watch(func(part string, f float64, _ time.Duration) { flops[part] += f })
				}
				if _, err := l.Accumulate(context.Background(), examples, true); err != nil {
					t.Fatal(err)
				}
				if _, err := l.Update(1e-3); err != nil {
					t.Fatal(err)
				}
				l.Watch(nil)
				var err error
				if states[i], err = l.Snapshot(); err != nil {
					t.Fatal(err)
				}
				if i == 1 && !slices.Equal(slices.Sorted(maps.Keys(flops)), slices.Sorted(slices.Values(Parts))) {
					t.Errorf("up to %d tokens a run: parts %v, want %v", most, flops, Parts)
				}
				if err := l.Restore(&State{Weights: states[i].Weights, M: zeros(states[i].M), V: zeros(states[i].V)}); err != nil {
					t.Fatal(err)
				}
			}
			if !reflect.DeepEqual(states[0], states[1]) {
				t.Errorf("up to %d tokens a run: a watched step has other parameters", most)
			}
		}
	})
}

// startHeads are untrained heads.
func startHeads(t *testing.T, r *runner.Runner) map[string][]float32 {
	t.Helper()
	heads, err := Initial(context.Background(), r.Machine(), 1, true)
	if err != nil {
		t.Fatal(err)
	}
	return heads
}

func zeros(like map[string][]float32) map[string][]float32 {
	out := map[string][]float32{}
	for name, x := range like {
		out[name] = make([]float32, len(x))
	}
	return out
}

// TestAccumulation: two batches of an accumulation sum their gradients, each halved.
func TestAccumulation(t *testing.T) {
	ctx := context.Background()
	b := compiled(t, compiler.Options{})
	half := DefaultConfig()
	half.Accumulation = 2
	l, r := learner(t, cpu.New(), b, DefaultConfig())
	h, _ := learner(t, cpu.New(), b, half)
	want := map[string][]float32{}
	for i := range 2 {
		examples := made(r.Settings(), 3+i, uint64(i))
		if _, err := l.Accumulate(ctx, examples, i == 1); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Accumulate(ctx, examples, i == 1); err != nil {
			t.Fatal(err)
		}
	}
	both, err := l.Gradients()
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range both {
		for _, v := range x {
			want[name] = append(want[name], v/2)
		}
	}
	got, err := h.Gradients()
	if err != nil {
		t.Fatal(err)
	}
	same(t, "accumulated", got, want, 1e-5)
}

// TestActivations: with activations in f16 the gradients are nearly those with f32, and more tokens fit into a run.
func TestActivations(t *testing.T) {
	b := compiled(t, compiler.Options{})
	kerneltest.Devices(t, func(t *testing.T, dev gpu.Device) {
		var losses [2]*Losses
		var grads [2]map[string][]float32
		var most [2]int
		for i, format := range []shaders.Format{shaders.F32, shaders.F16} {
			c := DefaultConfig()
			c.Activations, c.Memory = format, 8<<20
			l, r := learner(t, dev, b, c)
			most[i] = l.Tokens()
			var err error
			if losses[i], err = l.Accumulate(context.Background(), made(r.Settings(), 7, 3), true); err != nil { // no ReLU is so near its corner that rounding turns it
				t.Fatal(err)
			}
			if grads[i], err = l.Gradients(); err != nil {
				t.Fatal(err)
			}
		}
		same(t, "in f16", grads[1], grads[0], 3e-3)
		if reflect.DeepEqual(grads[1], grads[0]) {
			t.Error("gradients are the same to the bit, as if nothing had been f16")
		}
		if d := math.Abs(losses[1].Total - losses[0].Total); d > 1e-3 {
			t.Errorf("loss differs by %g", d)
		}
		if most[1] < most[0]*5/4 {
			t.Errorf("%d tokens fit into a run with f16, %d with f32", most[1], most[0])
		}
	})
	for want, c := range map[string]struct {
		format shaders.Format
		width  int
	}{"want f32 or f16, have q8": {shaders.Q8, 16}, "multiples of 4": {shaders.F16, 12}} {
		opt, clip := model.OPTShapes()["125m"], model.CLIPShapes()["b32"]
		opt.HiddenSize, opt.WordEmbedProjDim, opt.Layers, opt.FFN, opt.Heads, opt.VocabSize, opt.MaxPositions = c.width, c.width, 1, 16, 2, 40, 32
		clip.HiddenSize, clip.Intermediate, clip.Layers, clip.Heads, clip.ImageSize, clip.PatchSize = 16, 16, 1, 2, 4, 2
		manifest, err := compiler.Blank(model.Config{OPT: &opt, CLIP: &clip, Heads: &model.Heads{VisualTokens: 1, SharedDim: 8, TextLayers: []int{-1}}, Vocabulary: 40}, shaders.F32)
		if err != nil {
			t.Fatal(err)
		}
		r, err := runner.LoadRandom(context.Background(), cpu.New(), manifest, nil)
		if err != nil {
			t.Fatal(err)
		}
		config := DefaultConfig()
		config.Activations = c.format
		if _, err := New(context.Background(), r.Machine(), config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v with heads of %d: %v, want %q in it", c.format, c.width/2, err, want)
		}
		r.Close()
	}
}

// TestLayers: gradients of a model whose text embedding reads several layers, on a quantised base, equal differences of its losses.
func TestLayers(t *testing.T) {
	ctx := context.Background()
	b := compiled(t, compiler.Options{DType: shaders.Q8, NewHeads: &model.Heads{VisualTokens: 2, SharedDim: 8, TextLayers: []int{-1, 0, 1}}})
	l, r := learner(t, cpu.New(), b, DefaultConfig())
	heads, err := Initial(ctx, r.Machine(), 3, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.SetHeads(heads); err != nil {
		t.Fatal(err)
	}
	examples := made(r.Settings(), 4, 5)
	loss := func() float64 {
		t.Helper()
		losses, err := l.Accumulate(ctx, examples, true)
		if err != nil {
			t.Fatal(err)
		}
		return losses.Total
	}
	loss()
	grads, err := l.Gradients()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, name := range slices.Sorted(maps.Keys(heads)) {
		x, first := heads[name], 0
		if name == addedTokens {
			first = len(x) / 2
		}
		// Along a random direction, so that every value has its part and rounding in f32 has little.
		const step = 4e-4
		direction, want := make([]float64, len(x)), 0.0
		for i := first; i < len(x); i++ {
			direction[i] = rng.NormFloat64()
			want += direction[i] * float64(grads[name][i])
		}
		var at [2]float64
		for side, sign := range []float64{-1, 1} {
			moved := slices.Clone(x)
			for i := range moved {
				moved[i] += float32(sign * step * direction[i])
			}
			if err := r.SetHeads(map[string][]float32{name: moved}); err != nil {
				t.Fatal(err)
			}
			at[side] = loss()
		}
		if err := r.SetHeads(map[string][]float32{name: x}); err != nil {
			t.Fatal(err)
		}
		if got := (at[1] - at[0]) / (2 * step); math.Abs(got-want) > 0.02+0.03*math.Abs(want) {
			t.Errorf("%s: the loss changes by %g along a direction, its gradient says %g", name, got, want)
		}
	}
}

// TestPacking holds packed sequences to a plain transcription of the reference's padded ones.
func TestPacking(t *testing.T) {
	const V, k, pad, ret = 100, 2, 1, 99
	examples := []Example{{Tokens: []int32{2, 5, 6, ret}}, {Tokens: []int32{2, ret}}, {Tokens: []int32{2, 7, 8, 9, ret}}}
	p := pack(captioning(examples, k, V, false), V, 8)
	if len(p) != 2 || p[0].n != 2 || p[1].first != 2 {
		t.Fatalf("captioning runs: %+v", p)
	}
	// Picture, picture, 2, 5 (the label 6 needs no more); picture, picture of the second.
	wantTokens := []uint32{100, 0, 0, 1, 101, 1, 0, 2, 2, 2, 0, 3, 5, 3, 0, 4, 102, 0, 4, 1, 103, 1, 4, 2}
	for _, c := range []struct {
		name      string
		got, want []uint32
	}{
		{"tokens", p[0].tokens, wantTokens}, {"rows", p[0].rows, []uint32{1, 2, 3, 5}}, {"labels", p[0].labels, []uint32{2, 5, 6, 2}},
		{"prefix rows", p[0].prefixRows, []uint32{0, 1, 4, 5}}, {"second tokens", p[1].tokens[:8], []uint32{100, 0, 0, 1, 101, 1, 0, 2}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("captioning %s = %v, want %v", c.name, c.got, c.want)
		}
	}
	joined := pack(captioning(examples[:2], k, V, true), V, 100)[0]
	// v v 2 5 6 v v, with the label 2 of the second at the end.
	if want := []uint32{1, 2, 3, 6}; !slices.Equal(joined.rows, want) || !slices.Equal(joined.labels, []uint32{2, 5, 6, 2}) || joined.T() != 7 || joined.tokens[4*6+1] != 6 {
		t.Errorf("concatenated: rows %v, labels %v, %d tokens", joined.rows, joined.labels, joined.T())
	}
	texts := pack(retrieval(examples), V, 100)[0]
	if !slices.Equal(texts.labels, []uint32{5, 6, ret, ret, 7, 8, 9, ret}) || !slices.Equal(texts.retRows, []uint32{3, 5, 10}) || texts.retTokens[4+1] != 1 {
		t.Errorf("retrieval: labels %v, [RET] at %v", texts.labels, texts.retRows)
	}
}

// tight is a device with so many bytes for buffers, that is lost after so many submits.
type tight struct {
	gpu.Device
	room, used int
	sizes      map[gpu.Buffer]int
	left       int
}

func newTight() *tight {
	return &tight{Device: cpu.New(), room: 1 << 40, sizes: map[gpu.Buffer]int{}, left: 1 << 40}
}

func (d *tight) NewBuffer(label string, size int) (gpu.Buffer, error) {
	if d.used+size > d.room {
		return 0, fmt.Errorf("tight: %s of %d bytes: %w", label, size, gpu.ErrMemory)
	}
	b, err := d.Device.NewBuffer(label, size)
	d.sizes[b], d.used = size, d.used+size
	return b, err
}

func (d *tight) Free(b gpu.Buffer) error {
	d.used -= d.sizes[b]
	delete(d.sizes, b)
	return d.Device.Free(b)
}

func (d *tight) Submit(l *gpu.List) error {
	if d.left--; d.left < 0 {
		return fmt.Errorf("tight: %w", gpu.ErrLost)
	}
	return d.Device.Submit(l)
}

// TestMemory: a device with less and less room computes the same gradients in shorter runs, and where it has none says so and has added nothing.
func TestMemory(t *testing.T) {
	ctx, b, dev := context.Background(), compiled(t, compiler.Options{}), newTight()
	l, r := learner(t, dev, b, DefaultConfig())
	examples := made(r.Settings(), 24, 4)
	if _, err := l.Update(0); err != nil { // scales [RET]'s row
		t.Fatal(err)
	}
	base := dev.used
	gradients := func() map[string][]float32 {
		t.Helper()
		g, err := l.Gradients()
		if err != nil {
			t.Fatal(err)
		}
		clear(g[addedTokens][:r.Settings().EmbedDim])
		return g
	}
	want, err := l.Accumulate(ctx, examples, true)
	if err != nil {
		t.Fatal(err)
	}
	wantGradients, need := gradients(), dev.used-base
	// What another program left gives way before runs do.
	l.release()
	lm, err := r.Machine().Program("lm")
	if err != nil {
		t.Fatal(err)
	}
	if err := lm.Reserve(plan.Run(200, 200, 0)); err != nil {
		t.Fatal(err)
	}
	dev.room = base + need
	l.c.Shrunk = func(err error, _, _ int) { t.Errorf("Shrunk(%v) where there was room", err) }
	if _, err := l.Accumulate(ctx, examples, true); err != nil || lm.Held() != 0 {
		t.Errorf("Accumulate beside another program's buffers: %v, %d bytes of them left", err, lm.Held())
	}

	shrunk, failed := 0, 0
	for room := need - 4; room >= 0; room -= need / 8 {
		if _, err := l.Update(0); err != nil {
			t.Fatal(err)
		}
		l.release()
		l.c.Memory = DefaultMemory
		l.most = l.capacity()
		before, tokens := gradients(), l.most
		dev.room = base + room
		l.c.Shrunk = func(err error, memory, most int) {
			if shrunk++; !errors.Is(err, gpu.ErrMemory) || memory >= DefaultMemory || most >= tokens {
				t.Errorf("Shrunk(%v, %d, %d) after %d tokens", err, memory, most, tokens)
			}
			tokens = most
		}
		got, err := l.Accumulate(ctx, examples, true)
		if err != nil {
			if failed++; !errors.Is(err, gpu.ErrMemory) || dev.used > base {
				t.Errorf("room for %d bytes: %v, %d bytes left behind", room, err, dev.used-base)
			}
			same(t, fmt.Sprintf("after no room for %d bytes", room), gradients(), before, 0)
			continue
		}
		if failed > 0 || dev.used > dev.room {
			t.Errorf("room for %d bytes was enough, more was not", room)
		}
		same(t, fmt.Sprintf("room for %d bytes", room), gradients(), wantGradients, 2e-5)
		if d := math.Abs(got.Total - want.Total); d > 1e-5 {
			t.Errorf("room for %d bytes: loss %g, want %g", room, got.Total, want.Total)
		}
	}
	if shrunk < 3 || failed == 0 || failed > 6 {
		t.Errorf("runs were made shorter %d times, and there was no room %d times of 8", shrunk, failed)
	}
}

// TestLost: a run whose device is lost at any time ends with gpu.ErrLost, and goes on on another one from its last checkpoint to the same bits.
func TestLost(t *testing.T) {
	b := compiled(t, compiler.Options{})
	recipe := shortRecipe()
	recipe.CheckpointEvery = 3
	whole := newRun(t, t.TempDir(), b, recipe)
	if _, err := whole.Start(); err != nil {
		t.Fatal(err)
	}
	if err := whole.Loop(context.Background()); err != nil {
		t.Fatal(err)
	}
	want, err := whole.Trainer.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for life := 30; ; life += 25 {
		dev := newTight()
		run := newRunOn(t, dev, dir, b, recipe)
		from, err := run.Start()
		if err != nil {
			t.Fatal(err)
		}
		dev.left = life
		err = run.Loop(context.Background())
		if err == nil {
			got, err := run.Trainer.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Error("a run whose devices were lost ends with other parameters")
			}
			if from == 0 {
				t.Error("the device was not lost in time")
			}
			return
		}
		_, meta, e := ReadState(filepath.Join(dir, CheckpointFile))
		if !errors.Is(err, gpu.ErrLost) || e != nil || meta["step"] != strconv.Itoa(run.Saved()) {
			t.Errorf("lost after %d submits: %v; the checkpoint is of step %s, %v, Saved says %d", life, err, meta["step"], e, run.Saved())
		}
	}
}
