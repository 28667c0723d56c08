// SPDX-License-Identifier: Apache-2.0

package headless

import (
	"io/fs"
	"testing"
	"time"

	"fromage/assets"
	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/gpu/native"
	"fromage/runner"
	"fromage/wasm/headless/lines"
)

// BenchmarkTokens decodes 64 tokens by turns in this process and in a guest, on one device, and says what part of the speed is left.
func BenchmarkTokens(b *testing.B) {
	devices := []gpu.Device{cpu.New()}
	if dev, err := native.Open(native.Options{}); err == nil {
		devices = append(devices, dev)
	}
	for _, dev := range devices {
		b.Run(dev.Info().Host, func(b *testing.B) {
			s, g := here(b, dev), start(b, instantiate(b, dev, Config{}))
			var inside, outside time.Duration
			tokens := 0
			turn := func() {
				outside += decodeHere(b, s)
				n, took := decodeInside(b, g)
				inside, tokens = inside+took, tokens+n
			}
			turn() // lists are made and kernels compiled
			inside, outside, tokens = 0, 0, 0
			for b.Loop() {
				turn()
			}
			b.ReportMetric(float64(tokens)/outside.Seconds(), "here-tok/s")
			b.ReportMetric(float64(tokens)/inside.Seconds(), "guest-tok/s")
			b.ReportMetric(100*outside.Seconds()/inside.Seconds(), "%")
		})
	}
}

const benchWords = 64

func benchOptions() runner.Options {
	o := runner.DefaultOptions()
	o.NumWords, o.IgnoreEOS, o.MaxNumRets = benchWords, true, 0
	return o
}

// decodeHere times the answer but for its first token, which the prompt is read for.
func decodeHere(b *testing.B, s *lines.Server) time.Duration {
	seq := s.Runner.NewSequence()
	defer seq.Close()
	if err := seq.Append(runner.Part{Text: "Once upon a time"}); err != nil {
		b.Fatal(err)
	}
	var first time.Time
	_, err := seq.Generate(b.Context(), benchOptions(), nil, func(runner.Event) {
		if first.IsZero() {
			first = time.Now()
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(first)
}

func decodeInside(b *testing.B, g *Guest) (tokens int, took time.Duration) {
	var first time.Time
	o := benchOptions()
	err := g.Ask(b.Context(), lines.Request{Prompt: []lines.Item{{Text: "Once upon a time"}}, Options: &o}, func(l lines.Line) {
		if l.Token == nil {
			return
		}
		if first.IsZero() {
			first = time.Now()
			return
		}
		tokens++
	})
	if err != nil {
		b.Fatal(err)
	}
	return tokens, time.Since(first)
}

// BenchmarkPicture reads a picture and captions it with one token.
func BenchmarkPicture(b *testing.B) {
	g := start(b, instantiate(b, cpu.New(), Config{}))
	data, err := fs.ReadFile(assets.Files(), "twemoji/00321.webp")
	if err != nil {
		b.Fatal(err)
	}
	o := runner.DefaultOptions()
	o.NumWords = 1
	for b.Loop() {
		if err := g.Ask(b.Context(), lines.Request{Prompt: []lines.Item{{Bytes: data}}, Options: &o}, func(lines.Line) {}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStart makes the runtime, the model and a guest: with an empty cache of compiled programs and with a full one, and a guest alone.
func BenchmarkStart(b *testing.B) {
	wasm, err := program()
	if err != nil {
		b.Fatal(err)
	}
	all := func(b *testing.B) {
		r := NewRuntime(b.Context())
		m, err := Instantiate(b.Context(), r, cpu.New(), Config{Files: assets.Files(), Model: assets.BundleFile, Index: assets.IndexFile, Wasm: wasm})
		if err != nil {
			b.Fatal(err)
		}
		start(b, m)
		if err := m.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := r.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			b.Setenv("XDG_CACHE_HOME", b.TempDir())
			all(b)
		}
	})
	b.Run("cached", func(b *testing.B) {
		for b.Loop() {
			all(b)
		}
	})
	b.Run("guest", func(b *testing.B) {
		m := instantiate(b, cpu.New(), Config{})
		for b.Loop() {
			if err := start(b, m).Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
