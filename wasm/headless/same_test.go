// SPDX-License-Identifier: Apache-2.0

package headless

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"fromage/assets"
	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/runner"
	"fromage/shaders"
	"fromage/wasm/headless/lines"
)

// here is what a guest has, in this process: the same model and gallery on the same device.
func here(t testing.TB, dev gpu.Device) *lines.Server {
	t.Helper()
	b, err := assets.Bundle()
	if err != nil {
		t.Fatal(err)
	}
	r, err := runner.Load(t.Context(), dev, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	x, err := assets.Gallery()
	if err != nil {
		t.Fatal(err)
	}
	search, err := runner.NewGallery(r, x)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(search.Close)
	return &lines.Server{Runner: r, Index: x, Search: search, File: func(name string) ([]byte, error) { return fs.ReadFile(assets.Files(), name) }}
}

// requests are 20 prompts with pictures, greedy and sampled, and some that ask for pictures.
func requests(t *testing.T) (all []lines.Request) {
	t.Helper()
	texts := []string{"Q: What is this image?\nA:", "This is", "a drawing of", "Once upon a time there was", "as a black icon [RET]"}
	for i, picture := range []string{"twemoji/00321.webp", "noto/00578.webp", "gameicons/00883.webp", "openclipart/00052.webp"} {
		for j, text := range texts {
			o := runner.DefaultOptions()
			o.NumWords, o.IgnoreEOS, o.Seed, o.MaxImgPerRet = 16, true, uint64(i), 3
			if j == 3 {
				o.Temperature, o.TopP, o.RetScaleFactor, o.MinWordTokens = 0.8, 0.9, 1.5, 4
			}
			prompt := []lines.Item{{Image: picture}, {Text: text}}
			if j == 1 {
				data, err := assets.Picture("fxemoji/00090.webp")
				if err != nil {
					t.Fatal(err)
				}
				prompt = append(prompt, lines.Item{Bytes: data}, lines.Item{Text: "beside"})
			}
			q := lines.Request{ID: json.RawMessage(`"` + picture + `"`), Prompt: prompt, Options: &o}
			if j == 4 {
				o.NumWords = 0
			}
			all = append(all, q)
		}
	}
	return all
}

// TestSame wants a guest to say what the same code says in this process, token for token, on every device.
func TestSame(t *testing.T) {
	all := requests(t)
	if testing.Short() {
		t.Logf("short: 5 of %d prompts", len(all))
		all = all[:5]
	}
	devices(t, func(t *testing.T, dev gpu.Device) {
		s := here(t, dev)
		g := start(t, instantiate(t, dev, Config{}))
		tokens := 0
		for _, q := range all {
			data, err := json.Marshal(q)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := s.Serve(t.Context(), bytes.NewReader(data), &out); err != nil {
				t.Fatal(err)
			}
			want := decoded(t, &out)
			var got []lines.Line
			if err := g.Send(t.Context(), data, func(l lines.Line) error { got = append(got, l); return nil }); err != nil {
				t.Fatal(err)
			}
			if a, b := text(t, got), text(t, want); a != b {
				t.Errorf("%s\n%.200s\nguest: %s\nhere:  %s", q.ID, data, a, b)
			}
			if slices.ContainsFunc(got, func(l lines.Line) bool { return l.Error != "" }) || !got[len(got)-1].Last() {
				t.Errorf("%s: %s", q.ID, text(t, got))
			}
			for _, l := range got {
				if l.Token != nil {
					tokens++
				}
			}
		}
		t.Logf("%d prompts, %d tokens are the same", len(all), tokens)
		if tokens < 10*len(all) {
			t.Errorf("%d tokens from %d prompts, want more", tokens, len(all))
		}
	})
}

// TestKV: a guest keeps keys and values as its configuration says, and says so where it cannot.
func TestKV(t *testing.T) {
	g := start(t, instantiate(t, cpu.New(), Config{KV: shaders.F16}))
	o := runner.DefaultOptions()
	o.NumWords = 4
	data, err := json.Marshal(lines.Request{Prompt: []lines.Item{{Text: "Once upon a time"}}, Options: &o})
	if err != nil {
		t.Fatal(err)
	}
	var got []lines.Line
	if err := g.Send(t.Context(), data, func(l lines.Line) error { got = append(got, l); return nil }); err != nil || len(got) < 2 || got[len(got)-1].Error != "" {
		t.Errorf("in f16: %s, %v, want an answer", text(t, got), err)
	}
	if _, err := instantiate(t, cpu.New(), Config{KV: shaders.Q8}).Guest(t.Context()); err == nil || !strings.Contains(err.Error(), "want f32 or f16, have q8") {
		t.Errorf("in q8: %v, want an error of the guest", err)
	}
}

func decoded(t *testing.T, from *bytes.Buffer) (all []lines.Line) {
	t.Helper()
	for d := json.NewDecoder(from); d.More(); {
		var l lines.Line
		if err := d.Decode(&l); err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

func text(t *testing.T, all []lines.Line) string {
	t.Helper()
	data, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
