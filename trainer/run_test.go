// SPDX-License-Identifier: Apache-2.0

package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fromage/bundle"
	"fromage/compiler"
	"fromage/gpu"
	"fromage/gpu/cpu"
)

func TestSchedule(t *testing.T) {
	s := Schedule{Rate: 0.003, WarmupSteps: 2, StepsPerEpoch: 1000, Decay: 3, Gamma: 0.1}
	for step, want := range []float64{0, 0.0015, 0.003, 0.003, 0.003, 0.003, 0.0003, 0.0003, 0.0003, 0.00003} {
		if got := s.At(step); math.Abs(got-want) > 1e-12 {
			t.Errorf("At(%d) = %g, want %g", step, got, want)
		}
	}
	// An epoch's last step does not advance the schedule.
	s.StepsPerEpoch = 2
	if a, b := s.At(1), s.At(2); a != b {
		t.Errorf("At(1), At(2) = %g, %g, want the same", a, b)
	}
	if got := (Schedule{Rate: 1, StepsPerEpoch: 5, Decay: 10, Gamma: 0.1}).At(0); got != 1 {
		t.Errorf("At(0) without warm-up = %g, want 1", got)
	}
}

func TestSampler(t *testing.T) {
	s := &Sampler{N: 10, Batch: 3, Seed: 7, ConcatProb: 0.5}
	seen, concats := map[int]int{}, 0
	var third []int
	for i := range 300 {
		batch, concat := s.Next(i)
		if len(batch) != 3 {
			t.Fatalf("batch %d has %d examples", i, len(batch))
		}
		if i == 2 {
			third = slices.Clone(batch)
		}
		if concat {
			concats++
		}
		if i%3 == 0 {
			seen = map[int]int{}
		}
		for _, n := range batch {
			if seen[n]++; seen[n] > 1 {
				t.Fatalf("example %d comes twice in a pass", n)
			}
		}
	}
	if again, _ := (&Sampler{N: 10, Batch: 3, Seed: 7}).Next(2); !slices.Equal(again, third) {
		t.Errorf("batch 2 = %v, and %v for a sampler that begins there", third, again)
	}
	if concats < 120 || concats > 180 {
		t.Errorf("%d of 300 batches are concatenated, want about half", concats)
	}
	if batch, _ := (&Sampler{N: 2, Batch: 180}).Next(5); len(batch) != 2 {
		t.Errorf("a batch of a small set has %d examples, want all 2", len(batch))
	}
}

// newRun makes a short run in dir on a fresh model.
func newRun(t *testing.T, dir string, b *bundle.Bundle, r Recipe) *Run {
	t.Helper()
	return newRunOn(t, cpu.New(), dir, b, r)
}

func newRunOn(t *testing.T, dev gpu.Device, dir string, b *bundle.Bundle, r Recipe) *Run {
	t.Helper()
	l, model := learner(t, dev, b, r.Config())
	examples := made(model.Settings(), 12, 9)
	return &Run{
		Dir: dir, Recipe: r, Trainer: l, N: len(examples), Name: func(i int) string { return fmt.Sprint("example ", i) },
		Batch: func(numbers []int) ([]Example, error) {
			var out []Example
			for _, n := range numbers {
				out = append(out, examples[n])
			}
			return out, nil
		},
		Evaluate: func(_ context.Context, step int) (map[string]float64, float64, error) {
			return map[string]float64{"val/top1_acc": float64(10 - step)}, float64(10 - step), nil
		},
	}
}

func shortRecipe() Recipe {
	r := DefaultRecipe()
	r.Epochs, r.StepsPerEpoch, r.BatchSize, r.WarmupSteps, r.PrintFreq, r.CheckpointEvery = 2, 4, 5, 2, 1, 1
	return r
}

// TestResume: a run that is stopped after any step, by a signal or a kill, and goes on ends with the bits of one that was left alone.
func TestResume(t *testing.T) {
	b := compiled(t, compiler.Options{})
	for _, accumulation := range []int{1, 3} {
		recipe := shortRecipe()
		recipe.Accumulation = accumulation
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
		for stop := 1; ; stop += 2 {
			run := newRun(t, dir, b, recipe)
			if _, err := run.Start(); err != nil {
				t.Fatal(err)
			}
			killed := errors.New("killed")
			ctx, cancel := context.WithCancel(context.Background())
			run.Scalars = func(m Metrics) error {
				switch {
				case m.Step != stop || m.Scalars["train/loss"] == 0:
				case stop%4 == 1:
					cancel()
				default:
					return killed
				}
				return nil
			}
			err := run.Loop(ctx)
			cancel()
			if err == nil {
				got, err := run.Trainer.Snapshot()
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("accumulation %d: a run that was stopped again and again ends with other parameters", accumulation)
				}
				break
			}
			if !errors.Is(err, context.Canceled) && !errors.Is(err, killed) {
				t.Fatal(err)
			}
		}
		compareMetrics(t, filepath.Join(whole.Dir, MetricsFile), filepath.Join(dir, MetricsFile))
		best, _, err := ReadState(filepath.Join(dir, BestFile))
		if err != nil || best.Updates != 0 {
			t.Errorf("the best parameters are of update %d, want 0: %v", best.Updates, err)
		}
	}
}

// compareMetrics wants the same rows but for times.
func compareMetrics(t *testing.T, a, b string) {
	t.Helper()
	var rows [2][]Metrics
	for i, path := range []string{a, b} {
		var err error
		if rows[i], err = ReadMetrics(path); err != nil {
			t.Fatal(err)
		}
		for _, r := range rows[i] {
			for _, name := range r.Names() {
				if strings.HasPrefix(name, "metrics/") {
					delete(r.Scalars, name)
				}
			}
		}
	}
	if !reflect.DeepEqual(rows[0], rows[1]) {
		t.Errorf("metrics differ:\n%v\n%v", rows[0], rows[1])
	}
}

// TestNaN: a loss that is no number ends the run, names the step and its examples, and leaves the checkpoint good.
func TestNaN(t *testing.T) {
	b := compiled(t, compiler.Options{})
	run := newRun(t, t.TempDir(), b, shortRecipe())
	batch, calls := run.Batch, 0
	run.Batch = func(numbers []int) ([]Example, error) {
		examples, err := batch(numbers)
		if calls++; calls == 3 {
			examples[1].V[0] = float32(math.NaN())
		}
		return examples, err
	}
	if _, err := run.Start(); err != nil {
		t.Fatal(err)
	}
	err := run.Loop(context.Background())
	if err == nil || !strings.Contains(err.Error(), "step 3") || !strings.Contains(err.Error(), FailedFile) {
		t.Fatalf("Loop = %v, want an error that names step 3 and %s", err, FailedFile)
	}
	if data, err := os.ReadFile(filepath.Join(run.Dir, FailedFile)); err != nil || strings.Count(string(data), "example ") != 5 {
		t.Errorf("%s = %s, %v, want 5 examples", FailedFile, data, err)
	}
	s, meta, err := ReadState(filepath.Join(run.Dir, CheckpointFile))
	if err != nil || meta["step"] != "2" || s.Updates != 2 {
		t.Errorf("the checkpoint is of step %s, %v, want 2", meta["step"], err)
	}
}

// TestDamage: a checkpoint with any byte changed, or cut anywhere, is refused.
func TestDamage(t *testing.T) {
	s := &State{Updates: 3, Weights: map[string][]float32{"a": {1, 2}, "b": {3}}, M: map[string][]float32{"a": {4, 5}, "b": {6}}, V: map[string][]float32{"a": {7, 8}, "b": {9}}}
	path := filepath.Join(t.TempDir(), "c")
	if err := s.Write(path, map[string]string{"step": "5"}); err != nil {
		t.Fatal(err)
	}
	got, meta, err := ReadState(path)
	if err != nil || !reflect.DeepEqual(got, s) || meta["step"] != "5" {
		t.Fatalf("ReadState = %+v, %v, %v, want %+v", got, meta, err, s)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		bad := slices.Clone(data)
		bad[i] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ReadState(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Fatalf("byte %d changed, %q to %q: ReadState = %v, want an error that names the file", i, data[i], bad[i], err)
		}
		if err := os.WriteFile(path, data[:i], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ReadState(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Fatalf("the first %d bytes: ReadState = %v, want an error that names the file", i, err)
		}
	}
}
