// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/index"
	"fromage/machine"
	"fromage/shaders"
)

// watched is a source that notes which tensors are uploaded, and calls before, if that is set, once the first of them is.
type watched struct {
	machine.Chunks
	names  []string
	before func()
}

func (w *watched) Upload(ctx context.Context, dev gpu.Device, targets []Target, done func(int64)) error {
	for _, t := range targets {
		w.names = append(w.names, t.Name)
	}
	if w.before != nil {
		w.before()
	}
	return w.Chunks.Upload(ctx, dev, targets, done)
}

// TestLoadPictures reads and finds pictures before the language model is there, and wants the same of it afterwards as of a model that was loaded at once.
func TestLoadPictures(t *testing.T) {
	ctx, b := context.Background(), compiled(t, shaders.Q8)
	opt := DefaultOptions()
	opt.NumWords, opt.IgnoreEOS = 6, true
	side := b.Manifest().Settings.ImageSize
	pixels := [][]float32{make([]float32, 3*side*side)}
	for i := range pixels[0] {
		pixels[0][i] = float32(i%17)/17 - 0.5
	}
	say := func(r *Runner) []int32 {
		t.Helper()
		s := r.NewSequence()
		defer s.Close()
		if err := s.Append(Part{Text: "Q: What is this?\nA:"}); err != nil {
			t.Fatal(err)
		}
		answer, err := s.Generate(ctx, opt, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return answer.IDs
	}
	whole, err := Load(ctx, cpu.New(), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantImages, err := whole.Embed(ctx, pixels, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantIDs := say(whole)

	// lost is when the device goes: before the rest comes, while it does, while another call finds that out, or never.
	for _, lost := range []string{"never", "before", "meanwhile", "heard of elsewhere"} {
		from := &watched{Chunks: machine.Chunks{Open: b.File, Each: b.Chunks}}
		dev := &mortal{cpu.New(), 1 << 30}
		var progress Progress
		r, err := LoadPictures(ctx, dev, b.Manifest(), from, func(p Progress) { progress = p })
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(from.names, func(n string) bool { return strings.HasPrefix(n, "model.decoder.") }) || progress.Done != progress.Total || progress.Total == 0 {
			t.Errorf("LoadPictures uploads %v, and tells of %+v", from.names, progress)
		}
		reopened := 0
		r.OnLoss(func(context.Context) (gpu.Device, Source, error) {
			reopened++
			return cpu.New(), from.Chunks, nil
		})
		images, err := r.Embed(ctx, pixels, nil)
		if err != nil || !reflect.DeepEqual(images, wantImages) || r.Scale() != whole.Scale() {
			t.Fatalf("pictures alone: %v, embeddings as of the whole model: %v, scale %g, want %g", err, reflect.DeepEqual(images, wantImages), r.Scale(), whole.Scale())
		}
		x, err := index.New(index.Header{D: r.Settings().SharedDim, DType: index.F32})
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Append([]index.Row{{Meta: index.Meta{Path: "a"}, Embedding: images[0].Retrieval}}); err != nil {
			t.Fatal(err)
		}
		g, err := NewGallery(r, x)
		if err != nil {
			t.Fatal(err)
		}
		row := make([]float32, x.Header().D)
		if err := x.Vectors(0, 1, row); err != nil {
			t.Fatal(err)
		}
		if hits, err := g.Search(row, 1, nil); err != nil || len(hits) != 1 || hits[0].Score < 0.99*r.Scale() {
			t.Errorf("a gallery's own picture: %v, %v, want a score of %g", hits, err, r.Scale())
		}
		early := r.NewSequence()
		if err := early.Append(Part{Text: "a"}); err != nil {
			t.Fatal(err)
		}
		if _, err := early.Generate(ctx, opt, nil, nil); err == nil || !strings.Contains(err.Error(), "not loaded yet") {
			t.Errorf("Generate before the language model is there: %v, want that said", err)
		}
		early.Close()
		if _, err := r.Heads(); err == nil || !strings.Contains(err.Error(), "not loaded yet") {
			t.Errorf("Heads before all of them are there: %v, want that said", err)
		}

		from.before = map[string]func(){
			"never":     nil,
			"before":    func() {},
			"meanwhile": func() { dev.left = 0 },
			"heard of elsewhere": func() {
				dev.left = 0
				if images, err := r.Embed(ctx, pixels, nil); err != nil || !reflect.DeepEqual(images, wantImages) {
					t.Errorf("lost %s: Embed: %v", lost, err)
				}
			},
		}[lost]
		if lost == "before" {
			dev.left = 0
		}
		if err := r.LoadRest(ctx, from, nil); err != nil {
			t.Errorf("lost %s: LoadRest: %v", lost, err)
		}
		if got := say(r); !slices.Equal(got, wantIDs) {
			t.Errorf("lost %s: after LoadRest the model says %v, want %v", lost, got, wantIDs)
		}
		if (reopened == 1) != (lost != "never") {
			t.Errorf("lost %s: the device was opened %d times anew", lost, reopened)
		}
		seen := map[string]bool{}
		for _, n := range slices.Compact(from.names) {
			if seen[n] {
				t.Errorf("%s was uploaded twice", n)
			}
			seen[n] = true
		}
		if len(seen) != len(b.Manifest().Tensors) {
			t.Errorf("%d tensors were uploaded, want %d", len(seen), len(b.Manifest().Tensors))
		}
	}
}

// TestLoadRestFails wants a source's error as it is, and heads that were set meanwhile to outlast what comes later.
func TestLoadRestFails(t *testing.T) {
	ctx, b := context.Background(), compiled(t, shaders.F32)
	from := &watched{Chunks: machine.Chunks{Open: b.File, Each: b.Chunks}}
	r, err := LoadPictures(ctx, cpu.New(), b.Manifest(), from, nil)
	if err != nil {
		t.Fatal(err)
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if err := r.LoadRest(stopped, from, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("LoadRest, stopped: %v, want context.Canceled", err)
	}
	w, err := b.Manifest().Model.Weight("added_tokens")
	if err != nil {
		t.Fatal(err)
	}
	other := make([]float32, w.Rows*w.Cols)
	other[0] = 42
	from.before = func() {
		if err := r.SetHeads(map[string][]float32{"added_tokens": other}); err != nil {
			t.Error(err)
		}
	}
	if err := r.LoadRest(ctx, from, nil); err != nil {
		t.Fatal(err)
	}
	if heads, err := r.Heads(); err != nil || !slices.Equal(heads["added_tokens"], other) {
		t.Errorf("heads set while the rest came: %v, want them to stay", err)
	}
}
