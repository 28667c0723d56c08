// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
)

func TestSample(t *testing.T) {
	devices(t, func(t *testing.T, r *Runner) {
		ctx := context.Background()
		var last Progress
		all, err := r.Sample(ctx, sampleBatch+3, 9, 1, 1, func(p Progress) { last = p })
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != sampleBatch+3 || last.Total != 9*(sampleBatch+3) {
			t.Fatalf("Sample = %d sequences, progress %+v; want %d", len(all), last, sampleBatch+3)
		}
		for _, s := range all {
			if len(s) != 9 || s[0] != int32(r.Settings().BOS) {
				t.Fatalf("Sample = %v, want 9 tokens from </s> on", s)
			}
		}
		different := map[string]bool{}
		for _, s := range all {
			different[fmt.Sprint(s)] = true
		}
		if len(different) < 20 {
			t.Errorf("Sample wrote %d different sequences, want 20 or more", len(different))
		}
		again, err := r.Sample(ctx, 2, 9, 1, 1, nil)
		if err != nil || !reflect.DeepEqual(again, all[:2]) {
			t.Errorf("Sample again = %v, %v, want %v", again, err, all[:2])
		}
		if _, err := r.Sample(ctx, 1, r.Settings().MaxPositions+1, 1, 1, nil); err == nil {
			t.Error("Sample beyond the model's positions gave no error")
		}
		if _, err := r.Sample(ctx, 1, 9, 0, 1, nil); err == nil {
			t.Error("Sample at temperature 0 gave no error")
		}
		if len(r.kv.sequences) > 0 {
			t.Errorf("%d sequences keep rows of the KV cache", len(r.kv.sequences))
		}
	})
}

func TestDraw(t *testing.T) {
	logits := []float32{float32(math.Log(1)), float32(math.Log(2)), float32(math.Inf(-1)), float32(math.Log(5))}
	for _, c := range []struct {
		temperature, u float64
		want           int
	}{{1, 0, 0}, {1, 0.124, 0}, {1, 0.126, 1}, {1, 0.374, 1}, {1, 0.376, 3}, {1, 0.999999, 3}, {0.5, 0.032, 0}, {0.5, 0.035, 1}, {0.5, 0.165, 1}, {0.5, 0.168, 3}} {
		if got := draw(logits, c.temperature, c.u); got != c.want {
			t.Errorf("draw(1:2:0:5, %g, %g) = %d, want %d", c.temperature, c.u, got, c.want)
		}
	}
}

// TestInputs holds what the output layer reads to the hidden states, and every run to the same taps.
func TestInputs(t *testing.T) {
	devices(t, func(t *testing.T, r *Runner) {
		ctx := context.Background()
		samples, err := r.Sample(ctx, 5, 7, 1, 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		var want [][]float32
		for _, ids := range samples {
			s := r.NewSequence()
			for _, id := range ids {
				s.AppendTokens(Token{ID: int(id)})
			}
			out, err := r.Outputs(ctx, s)
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			want = append(want, out.Hidden...)
		}
		for _, maxTokens := range []int{3, 15, 512} {
			r.maxTokens = maxTokens
			rows := map[string]int{}
			var got [][]float32
			err := r.Inputs(ctx, samples, func(weights []string, K int, x []float32) error {
				for _, w := range weights {
					spec, err := r.m.Manifest.Model.Weight(w)
					if err != nil || spec.Cols != K {
						t.Errorf("%s: %d columns, want those of %+v", w, K, spec)
					}
					rows[w] += len(x) / K
				}
				if slices.Contains(weights, "model.decoder.embed_tokens.weight") {
					for ; len(x) > 0; x = x[K:] {
						got = append(got, x[:K])
					}
				}
				return nil
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			for w, n := range rows {
				if n != 35 {
					t.Errorf("%s: %d rows, want 35", w, n)
				}
			}
			for i, row := range got {
				for k, v := range row {
					if math.Abs(float64(v-want[i][k])) > 1e-4 {
						t.Fatalf("runs of %d: hidden[%d,%d] = %g, want %g", maxTokens, i, k, v, want[i][k])
					}
				}
			}
			if len(got) != 35 || len(rows) < 8 {
				t.Errorf("runs of %d: %d hidden states and %d weights, want 35 and every linear layer", maxTokens, len(got), len(rows))
			}
		}
		if _, err := r.m.Program("lm tapped"); err == nil {
			t.Error("the tapped program is kept")
		}
	})
}
