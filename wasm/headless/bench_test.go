// SPDX-License-Identifier: Apache-2.0

//go:build unix

package headless

import (
	"io/fs"
	"maps"
	"slices"
	"syscall"
	"testing"
	"time"

	"fromage/assets"
	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/gpu/native"
	"fromage/runner"
	"fromage/wasm/headless/lines"
)

// BenchmarkOverhead is what a guest costs beside the same work in this process, for the table in README.md:
//
//	go test ./wasm/headless -run - -bench Overhead -benchtime 20x
//
// decode takes turns on one device and reports medians and what part of the speed is left, on the clock and in processor time, which says more on a
// machine that has other work; start makes the runtime, the model and a guest, with an empty
// cache of compiled programs and with a full one, and a guest alone; guests is the memory of a guest where there are many, five a turn.
func BenchmarkOverhead(b *testing.B) {
	devices := map[string]gpu.Device{"cpu": cpu.New()}
	if dev, err := native.Open(native.Options{}); err == nil {
		devices["gpu"] = dev
	}
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		b.Run("decode/"+name, func(b *testing.B) { benchmarkDecode(b, devices[name]) })
	}
	b.Run("start", benchmarkStart)
	b.Run("guests", benchmarkGuests)
}

func benchmarkDecode(b *testing.B, dev gpu.Device) {
	s, g := here(b, dev), start(b, instantiate(b, dev, Config{}))
	var outside, inside, outsideCPU, insideCPU []float64 // tokens a second; seconds a token
	turn := func() {
		began := processorTime(b)
		tokens, took := decodeHere(b, s)
		between := processorTime(b)
		outside = append(outside, float64(tokens)/took.Seconds())
		outsideCPU = append(outsideCPU, (between-began).Seconds()/float64(tokens+1))
		tokens, took = decodeInside(b, g)
		inside = append(inside, float64(tokens)/took.Seconds())
		insideCPU = append(insideCPU, (processorTime(b)-between).Seconds()/float64(tokens+1))
	}
	turn() // lists are made and kernels compiled
	outside, inside, outsideCPU, insideCPU = nil, nil, nil, nil
	for b.Loop() {
		turn()
	}
	b.ReportMetric(median(outside), "here-tok/s")
	b.ReportMetric(median(inside), "guest-tok/s")
	b.ReportMetric(100*median(inside)/median(outside), "%")
	b.ReportMetric(1000*median(outsideCPU), "here-cpu-ms/tok")
	b.ReportMetric(1000*median(insideCPU), "guest-cpu-ms/tok")
	b.ReportMetric(100*median(outsideCPU)/median(insideCPU), "cpu-%")
}

// processorTime is what this process has taken so far, on all cores.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(x []float64) float64 {
	slices.Sort(x)
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}

// benchmarkGuests starts guests, each of which answers, five a turn, and reports what all of them take for one.
func benchmarkGuests(b *testing.B) {
	m := instantiate(b, cpu.New(), Config{Files: assets.Files(), Model: assets.BundleFile})
	say(b, start(b, m), "Once upon a time")
	settled()
	before, memory, n := resident(b), 0, 0
	for b.Loop() {
		for range 5 {
			g := start(b, m) // the model closes it
			say(b, g, "Once upon a time")
			memory += g.Memory()
			n++
		}
	}
	settled()
	b.ReportMetric(float64(memory)/float64(n)/1e6, "wasm-MB/guest")
	b.ReportMetric(float64(resident(b)-before)/float64(n)/1e6, "resident-MB/guest")
	b.ReportMetric(float64(n), "guests")
}

const benchWords = 64

func benchOptions() runner.Options {
	o := runner.DefaultOptions()
	o.NumWords, o.IgnoreEOS, o.MaxNumRets = benchWords, true, 0
	return o
}

// decodeHere times the answer but for its first token, which the prompt is read for.
func decodeHere(b *testing.B, s *lines.Server) (tokens int, took time.Duration) {
	seq := s.Runner.NewSequence()
	defer seq.Close()
	if err := seq.Append(runner.Part{Text: "Once upon a time"}); err != nil {
		b.Fatal(err)
	}
	var first time.Time
	answer, err := seq.Generate(b.Context(), benchOptions(), nil, func(runner.Event) {
		if first.IsZero() {
			first = time.Now()
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	return len(answer.IDs) - 1, time.Since(first)
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

func benchmarkStart(b *testing.B) {
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
	measure := func(b *testing.B, f func()) {
		began := processorTime(b)
		for b.Loop() {
			f()
		}
		b.ReportMetric(1000*(processorTime(b)-began).Seconds()/float64(b.N), "cpu-ms/op")
	}
	b.Run("cold", func(b *testing.B) {
		measure(b, func() {
			b.Setenv("XDG_CACHE_HOME", b.TempDir())
			all(b)
		})
	})
	b.Run("cached", func(b *testing.B) {
		all(b)
		measure(b, func() { all(b) })
	})
	b.Run("guest", func(b *testing.B) {
		m := instantiate(b, cpu.New(), Config{})
		measure(b, func() {
			if err := start(b, m).Close(); err != nil {
				b.Fatal(err)
			}
		})
	})
}
