// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"fromage/compiler"
	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/model"
	"fromage/plan"
	"fromage/runner"
	"fromage/shaders"
)

// tiny loads a model of two layers with made-up weights.
func tiny(t *testing.T, dev gpu.Device, f shaders.Format) *runner.Runner {
	t.Helper()
	opt, clip := model.OPTShapes()["125m"], model.CLIPShapes()["b32"]
	opt.HiddenSize, opt.WordEmbedProjDim, opt.Layers, opt.FFN, opt.Heads, opt.VocabSize, opt.MaxPositions = 64, 64, 2, 128, 2, 608, 64
	clip.HiddenSize, clip.Intermediate, clip.Layers, clip.Heads, clip.ImageSize, clip.PatchSize = 64, 256, 2, 2, 32, 8
	manifest, err := compiler.Blank(model.Config{OPT: &opt, CLIP: &clip, Heads: &model.Heads{VisualTokens: 1, SharedDim: 32, TextLayers: []int{-1}}, Vocabulary: 602}, f)
	if err != nil {
		t.Fatal(err)
	}
	r, err := runner.LoadRandom(context.Background(), dev, manifest, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// noClock is a device that cannot time dispatches.
type noClock struct{ gpu.Device }

// TestBench runs every measurement once: they must run on every device and give numbers. How large they are is nobody's business here.
func TestBench(t *testing.T) {
	budget = time.Millisecond
	ctx := context.Background()
	kerneltest.Devices(t, func(t *testing.T, dev gpu.Device) {
		c, err := Measure(dev)
		if err != nil || !(c.CopyGBps > 0 && c.MatmulTFLOPs > 0 && c.MatmulSize > 0 && c.DispatchUS > 0 && c.SubmitUS > 0) {
			t.Fatalf("Measure = %+v, %v", c, err)
		}
		s, err := SearchOf(ctx, tiny(t, dev, shaders.F16), 5000, c, nil)
		if err != nil || s.Rows != 5000 || s.D != 32 || !(s.MS > 0 && s.GBps > 0 && s.CopyShare > 0) {
			t.Errorf("SearchOf = %+v, %v", s, err)
		}
		for _, f := range []shaders.Format{shaders.F16, shaders.Q4} {
			last := int64(0)
			m, err := Of(ctx, tiny(t, dev, f), c, Options{Tokens: 4, Kernels: true, Progress: func(p runner.Progress) {
				if p.Done <= last || p.Done > p.Total {
					t.Errorf("progress from %d to %+v", last, p)
				}
				last = p.Done
			}})
			if err != nil {
				t.Fatal(err)
			}
			checkModel(t, m)
		}
		m, err := Of(ctx, tiny(t, noClock{dev}, shaders.Q8), c, Options{Tokens: 1, Kernels: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range m.Programs {
			if p.Clock != ClockRepeats {
				t.Errorf("%s on a device without a clock is timed by %s, want %s", p.Name, p.Clock, ClockRepeats)
			}
		}
		checkModel(t, m)
	})
}

func checkModel(t *testing.T, m *Model) {
	t.Helper()
	if !(m.Decode > 0 && m.DecodeGBps > 0 && m.CopyShare > 0 && m.Prefill > 0 && m.FirstMS > 0 && m.Images > 0 && m.WeightBytes > 0) {
		t.Errorf("speeds: %+v", m)
	}
	if m.PrefillLen != 32 || m.FirstLen != 32 || m.Dispatches < 10 || m.Submits < 1 || m.Reads < 1 {
		t.Errorf("counts: %+v", m)
	}
	want := []string{"lm, a prompt of 32 tokens", "lm, a token after 32", "vision, 16 pictures", "maps, 16 pictures"}
	if len(m.Programs) != len(want) {
		t.Fatalf("%d programs, want %q", len(m.Programs), want)
	}
	for i, p := range m.Programs {
		if p.Name+", "+p.Work != want[i] {
			t.Errorf("program %d is %s, %s, want %s", i, p.Name, p.Work, want[i])
		}
		dispatches, share := 0, 0.0
		for _, k := range p.Kernels {
			dispatches, share = dispatches+k.Dispatches, share+k.Share
			if !(k.Micros > 0 && k.Bytes > 0 && k.GBps > 0) || strings.HasPrefix(k.Kernel, "linear") != (k.FLOPs > 0 && !strings.HasPrefix(k.Kernel, "attention")) {
				t.Errorf("%s: kernel %+v", p.Name, k)
			}
		}
		if dispatches != p.Dispatches || math.Abs(share-1) > 1e-9 || !(p.MS > 0 && p.Bytes > 0 && p.FLOPs > 0 && p.GBps > 0 && p.TFLOPs > 0) {
			t.Errorf("%s: %d of %d dispatches, shares of %g: %+v", p.Name, dispatches, p.Dispatches, share, p)
		}
	}
	// A token of the model computes 2 operations for every value of its matrices but the tables, and reads every one of them.
	token := m.Programs[1]
	if token.Dispatches != m.Dispatches || token.Bytes <= m.WeightBytes {
		t.Errorf("a token is %d dispatches and %d bytes, want %d and more than the weights' %d", token.Dispatches, token.Bytes, m.Dispatches, m.WeightBytes)
	}
	if values := 2*(4*64*64+2*64*128) + 602*64 + 64*32; token.FLOPs < 2*float64(values) || token.FLOPs > 2.2*float64(values)+4*33*64*2 {
		t.Errorf("a token computes %g operations, want twice the %d values of the matrices, and attention", token.FLOPs, values)
	}
}

func TestOfRefuses(t *testing.T) {
	dev := kerneltest.All(t)[1]
	r := tiny(t, dev, shaders.F32)
	if _, err := Of(context.Background(), r, Ceilings{}, Options{}); err == nil {
		t.Error("Of no tokens: want an error, have none")
	}
	if _, err := SearchOf(context.Background(), r, 3, Ceilings{}, nil); err == nil {
		t.Error("SearchOf 3 rows: want an error, have none")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Of(ctx, r, Ceilings{}, Options{Tokens: 1}); err != context.Canceled {
		t.Errorf("Of after an interrupt: %v, want %v", err, context.Canceled)
	}
}

func TestAttended(t *testing.T) {
	for _, c := range []struct {
		name  string
		table []uint32
		want  plan.Attended
	}{
		{"none", nil, plan.Attended{}},
		{"a prompt of 3", []uint32{9, 0, 0, 1, 9, 1, 0, 2, 9, 2, 0, 3}, plan.Attended{Pairs: 6, Rows: 3}},
		{"a token after 7", []uint32{9, 7, 64, 8}, plan.Attended{Pairs: 8, Rows: 8}},
		{"two pictures of 2", []uint32{0, 0, 0, 2, 0, 1, 0, 2, 0, 0, 2, 2, 0, 1, 2, 2}, plan.Attended{Pairs: 8, Rows: 4}},
		{"sequences out of order", []uint32{1, 4, 100, 5, 1, 2, 0, 3, 1, 3, 0, 4}, plan.Attended{Pairs: 12, Rows: 9}},
	} {
		if got := attendedBy(c.table); got != c.want {
			t.Errorf("attendedBy(%s) = %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestCompare(t *testing.T) {
	report := func(version, adapter string, decode, ms, us float64) *Report {
		return &Report{
			Version: version, Device: gpu.Info{Adapter: adapter}, Ceilings: Ceilings{CopyGBps: 10},
			Models: []Model{{Name: "m", DType: shaders.Q8, Decode: decode, FirstMS: ms, FirstLen: 64, Programs: []Program{{
				Name: "lm", Work: "a token after 64", Clock: ClockDevice, MS: ms, Kernels: []Kernel{{Kernel: "add", Micros: us}, {Kernel: version, Micros: 1}},
			}}}},
			Searches: []Search{{Rows: 1000, D: 8, MS: ms}}, Sandbox: &Sandbox{Model: "m", Decode: decode, FirstMS: ms},
		}
	}
	changes, warnings := Compare(report("1", "a", 100, 8, 3), report("1", "a", 150, 4, 2))
	want := []Change{
		{"copy", "GB/s", 10, 10, 1}, {"m q8: decode", "tok/s", 100, 150, 1.5}, {"m q8: first token after 64", "ms", 8, 4, 2},
		{"m q8: lm, a token after 64", "ms", 8, 4, 2}, {"m q8: lm, a token after 64: add", "µs", 3, 2, 1.5}, {"m q8: lm, a token after 64: 1", "µs", 1, 1, 1},
		{"search of 1000 rows", "ms", 8, 4, 2}, {"sandbox: decode", "tok/s", 100, 150, 1.5}, {"sandbox: first token", "ms", 8, 4, 2},
	}
	if len(changes) != len(want) || len(warnings) != 0 {
		t.Fatalf("Compare = %+v, %q, want %+v and no warnings", changes, warnings, want)
	}
	for i, c := range changes {
		if c != want[i] {
			t.Errorf("Compare: change %d = %+v, want %+v", i, c, want[i])
		}
	}
	changes, warnings = Compare(report("1", "a", 100, 8, 3), report("2", "b", 100, 8, 3))
	if len(changes) != len(want)-1 || len(warnings) != 2 || !strings.Contains(warnings[0], "adapter") || !strings.Contains(warnings[1], "version") {
		t.Errorf("Compare of two adapters and versions = %+v, %q", changes, warnings)
	}
	other := report("1", "a", 100, 8, 3)
	other.Models[0].DType, other.Searches[0].Rows, other.Sandbox = shaders.F16, 7, nil
	if changes, _ := Compare(report("1", "a", 100, 8, 3), other); len(changes) != 1 {
		t.Errorf("Compare of different models = %+v, want the copy alone", changes)
	}
	// A report is the same after a trip through JSON, which is how an earlier run comes.
	data, err := json.Marshal(report("1", "a", 100, 8, 3))
	if err != nil {
		t.Fatal(err)
	}
	back := new(Report)
	if err := json.Unmarshal(data, back); err != nil {
		t.Fatal(err)
	}
	if changes, warnings := Compare(back, report("1", "a", 100, 8, 3)); len(changes) != len(want) || warnings != nil {
		t.Errorf("Compare with what JSON kept = %+v, %q", changes, warnings)
	}
}
