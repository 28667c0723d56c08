// SPDX-License-Identifier: Apache-2.0

package eval

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"fromage/assets"
	"fromage/gpu/cpu"
	"fromage/machine"
	"fromage/runner"
)

// BenchmarkDialogue scores one dialogue of Visual Dialog's shape (10 rounds, 100 candidate answers, tokens as many as there on average) with the embedded
// model on the Go twins, first with the dialogue shared by its answers and then with every candidate run whole, twenty at a time as
// in the reference's script, and reports how many times longer that takes.
func BenchmarkDialogue(b *testing.B) {
	file, err := assets.Bundle()
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	r, err := runner.LoadFrom(ctx, cpu.New(), file.Manifest(), machine.Chunks{Open: file.File, Each: file.Chunks}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	const rounds, candidates, batch, question, answer = 10, 100, 20, 9, 4
	rng := rand.New(rand.NewPCG(1, 2))
	token := func() runner.Token { return runner.Token{ID: 4 + rng.IntN(r.Settings().Vocabulary-8)} }
	var shared, straight time.Duration
	for b.Loop() {
		branches := r.NewBranches()
		trunk := []runner.Token{{Visual: make([]float32, r.Settings().EmbedDim)}, {ID: r.Settings().BOS}}
		for range rounds {
			for range question {
				trunk = append(trunk, token())
			}
			var options [][]int
			var whole []*runner.Sequence
			for range candidates {
				ids := []int{r.Settings().BOS}
				s := r.NewSequence()
				s.AppendTokens(trunk...)
				for range 1 + rng.IntN(2*answer-1) {
					ids = append(ids, token().ID)
				}
				for _, id := range ids {
					s.AppendTokens(runner.Token{ID: id})
				}
				options, whole = append(options, ids), append(whole, s)
			}
			began := time.Now()
			if _, err := branches.Score(ctx, trunk, options); err != nil {
				b.Fatal(err)
			}
			middle := time.Now()
			for at := 0; at < candidates; at += batch {
				if _, err := r.ScoreSequences(ctx, whole[at:at+batch]); err != nil {
					b.Fatal(err)
				}
			}
			shared, straight = shared+middle.Sub(began), straight+time.Since(middle)
			for range answer {
				trunk = append(trunk, token())
			}
		}
		branches.Close()
	}
	b.ReportMetric(shared.Seconds()/float64(b.N), "s/shared")
	b.ReportMetric(straight.Seconds()/float64(b.N), "s/straight")
	b.ReportMetric(straight.Seconds()/shared.Seconds(), "straight/shared")
}
