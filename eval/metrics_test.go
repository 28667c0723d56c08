// SPDX-License-Identifier: Apache-2.0

package eval

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
)

// TestBLEU: the first are the examples of torchmetrics' own documentation and tests (functional/text/bleu.py, tests/unittests/text), the others counted
// by hand.
func TestBLEU(t *testing.T) {
	for _, c := range []struct {
		name string
		text []string
		refs [][]string
		want [4]float64
	}{
		{"documentation", []string{"the cat is on the mat"}, [][]string{{"there is a cat on the mat", "a cat is on the mat"}},
			[4]float64{5.0 / 6, math.Sqrt(5.0 / 6 * 4 / 5), math.Cbrt(5.0 / 6 * 4 / 5 * 3 / 4), 0.7598356856515925}},
		{"equal", []string{"a b c d e"}, [][]string{{"a b c d e"}}, [4]float64{1, 1, 1, 1}},
		{"nothing in common", []string{"a b"}, [][]string{{"c d"}}, [4]float64{}},
		{"no bigram", []string{"a"}, [][]string{{"a"}}, [4]float64{1, 0, 0, 0}},
		{"clipped", []string{"the the the the"}, [][]string{{"the cat", "the the dog cat"}}, [4]float64{0.5, math.Sqrt(0.5 / 3), 0, 0}},
		{"short", []string{"a b"}, [][]string{{"a b c d"}}, [4]float64{math.Exp(-1), math.Exp(-1), 0, 0}},
		{"closest length, the first of equal ones", []string{"a b c"}, [][]string{{"a b c d", "a b"}}, [4]float64{math.Exp(1 - 4.0/3), math.Exp(1 - 4.0/3), math.Exp(1 - 4.0/3), 0}},
		{"empty text", []string{"", "a"}, [][]string{{"b"}, {"a"}}, [4]float64{math.Exp(-1), 0, 0, 0}},
		{"corpus, not mean", []string{"a b", "c x"}, [][]string{{"a b"}, {"c d"}}, [4]float64{0.75, math.Sqrt(0.75 * 0.5), 0, 0}},
	} {
		var b bleu
		for i, text := range c.text {
			b.add(text, c.refs[i])
		}
		got := b.scores()
		for n := range got {
			if d := got[n] - 100*c.want[n]; !(math.Abs(d) < 1e-9) {
				t.Errorf("%s: BLEU-%d = %v, want %v", c.name, n+1, got[n], 100*c.want[n])
			}
		}
	}
}

// TestRanks holds ranks of made-up scores with many ties against sorting.
func TestRanks(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := 1; n < 40; n++ {
		scores := make([]float64, n)
		for i := range scores {
			scores[i] = float64(rng.IntN(1 + n/2))
			if rng.IntN(9) == 0 {
				scores[i] = math.NaN()
			}
		}
		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		sort.SliceStable(order, func(a, b int) bool {
			x, y := scores[order[a]], scores[order[b]]
			return x > y || y != y && x == x
		})
		ranks := make([]int, n)
		for i := range scores {
			ranks[i] = rankOf(scores, i)
			if want := slices.Index(order, i); ranks[i] != want {
				t.Errorf("rankOf(%v, %d) = %d, want %d", scores, i, ranks[i], want)
			}
			even := func(j int) bool { return j%2 == i%2 }
			want := order[slices.IndexFunc(order, even)]
			if got := bestOf(scores, even); got != want {
				t.Errorf("bestOf(%v, those like %d) = %d, want %d", scores, i, got, want)
			}
		}
		for _, k := range []int{0, 1, 3, 100} {
			if got := topOf(scores, k); !slices.Equal(got, order[:min(k, n)]) {
				t.Errorf("topOf(%v, %d) = %v, want %v", scores, k, got, order[:min(k, n)])
			}
		}
		r := recall(ranks)
		if want := 100.0 / float64(n); r.N != n || !near64(r.At1, want) || !near64(r.At5, want*float64(min(n, 5))) || !near64(r.At10, want*float64(min(n, 10))) {
			t.Errorf("recall of the ranks 0 … %d = %+v", n-1, r)
		}
	}
	if bestOf([]float64{1}, func(int) bool { return false }) != -1 || (recall(nil) != Recall{}) {
		t.Error("nothing to choose from: want −1 and no recall")
	}
}

func near64(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestEach(t *testing.T) {
	queries, candidates := [][]float32{{1, 2}, {3, 4}, {0, -1}}, [][]float32{{1, 0}, {0.5, 2}}
	got := make([][]float64, 3)
	err := each(context.Background(), queries, candidates, func(q int, scores []float64) { got[q] = slices.Clone(scores) })
	for q, want := range [][]float64{{1, 4.5}, {3, 9.5}, {0, -2}} {
		if err != nil || !slices.Equal(got[q], want) {
			t.Errorf("scores of query %d = %v, %v, want %v", q, got[q], err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := each(ctx, queries, candidates, func(int, []float64) {}); err != context.Canceled {
		t.Errorf("cancelled: %v, want context.Canceled", err)
	}
}
