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

// BenchmarkDialogue scores one dialogue of Visual Dialog's shape with the embedded model on the CPU: 10 rounds of 100 candidates, and about as many tokens
// as there. First the dialogue is shared by its answers; then every candidate runs whole, padded to the longest and twenty at a time, as in the reference's
// script. It reports how many times longer that takes.
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
	const rounds, candidates, batch, question, answer = 10, 100, 20, 12, 4 // a question with its marks; a mean answer
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
				for range 1 + rng.IntN(2*answer-1) {
					ids = append(ids, token().ID)
				}
				options = append(options, ids)
				s := r.NewSequence()
				s.AppendTokens(trunk...)
				for i := range 2 * answer {
					id := r.Settings().Pad
					if i < len(ids) {
						id = ids[i]
					}
					s.AppendTokens(runner.Token{ID: id})
				}
				whole = append(whole, s)
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
