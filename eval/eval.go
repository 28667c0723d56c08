// SPDX-License-Identifier: Apache-2.0

// Package eval measures a loaded model as the reference and the paper do: captions, retrieval, stories and dialogues.
//
// What enters is a runner, examples and the features of their pictures; what leaves is scores, and what the model said and found for every example. The
// package refuses to know how models are trained, where files come from, and how results are shown.
package eval

import (
	"context"
	"runtime"
	"sync"

	"fromage/runner"
)

// Recall is the share of questions, in percent, whose answer is among the 1, 5 and 10 best. N is how many questions there are.
type Recall struct {
	N    int     `json:"n"`
	At1  float64 `json:"r1"`
	At5  float64 `json:"r5"`
	At10 float64 `json:"r10"`
}

// recall counts ranks, of which 0 is the best.
func recall(ranks []int) Recall {
	r := Recall{N: len(ranks)}
	for _, c := range []struct {
		k  int
		at *float64
	}{{1, &r.At1}, {5, &r.At5}, {10, &r.At10}} {
		hits := 0
		for _, rank := range ranks {
			if rank < c.k {
				hits++
			}
		}
		if r.N > 0 {
			*c.at = 100 * float64(hits) / float64(r.N)
		}
	}
	return r
}

// before says whether score i comes before score j: the larger first, of equal ones the one that stands first, and last what is not a number.
func before(scores []float64, i, j int) bool {
	a, b := scores[i], scores[j]
	switch {
	case a > b:
		return true
	case a < b:
		return false
	case (a != a) != (b != b):
		return b != b
	}
	return i < j
}

// rankOf returns how many scores come before the one at i.
func rankOf(scores []float64, i int) int {
	rank := 0
	for j := range scores {
		if before(scores, j, i) {
			rank++
		}
	}
	return rank
}

// bestOf returns the index of the first score among those that are meant, −1 if there are none.
func bestOf(scores []float64, meant func(i int) bool) int {
	best := -1
	for i := range scores {
		if meant(i) && (best < 0 || before(scores, i, best)) {
			best = i
		}
	}
	return best
}

// topOf returns the indices of the first k scores, in order.
func topOf(scores []float64, k int) []int {
	var top []int
	for i := range scores {
		at := len(top)
		for at > 0 && before(scores, i, top[at-1]) {
			at--
		}
		if at >= k {
			continue
		}
		if len(top) < k {
			top = append(top, 0)
		}
		copy(top[at+1:], top[at:])
		top[at] = i
	}
	return top
}

// each calls f with the scores of every query against all candidates, ⟨query, candidate⟩ of rows (S), from several goroutines. The scores are f's for
// the time of the call.
func each(ctx context.Context, queries, candidates [][]float32, f func(query int, scores []float64)) error {
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			scores := make([]float64, len(candidates))
			for q := w; q < len(queries) && ctx.Err() == nil; q += workers {
				for c, row := range candidates {
					scores[c] = dot(queries[q], row)
				}
				f(q, scores)
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

func dot(a, b []float32) float64 {
	sum := 0.0
	b = b[:len(a)]
	for i, x := range a {
		sum += float64(x) * float64(b[i])
	}
	return sum
}

// progress is how far an evaluation is, in its own unit.
type progress func(runner.Progress)

func (p progress) say(what string, done, total int) {
	if p != nil {
		p(runner.Progress{Done: int64(done), Total: int64(total), What: what})
	}
}
