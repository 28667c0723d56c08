// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"slices"
	"testing"
)

// TestScoreRanks scores a sequence of which every token was chosen by its rank among all.
func TestScoreRanks(t *testing.T) {
	const n = 16
	devices(t, func(t *testing.T, r *Runner) {
		ctx := context.Background()
		grown := r.NewSequence()
		defer grown.Close()
		tokens := []Token{{ID: 2}}
		top1, top5 := 0, 0
		for i := range n {
			grown.AppendTokens(tokens[i])
			out, err := r.Outputs(ctx, grown)
			if err != nil {
				t.Fatal(err)
			}
			logits := out.Logits[0]
			order := make([]int, len(logits))
			for id := range order {
				order[id] = id
			}
			slices.SortFunc(order, func(a, b int) int {
				if logits[a] > logits[b] {
					return -1
				}
				return 1
			})
			rank := i % 7
			tokens = append(tokens, Token{ID: order[rank]})
			if rank < 1 {
				top1++
			}
			if rank < 5 {
				top5++
			}
		}
		s := r.NewSequence()
		s.AppendTokens(tokens...)
		got, err := r.ScoreSequences(ctx, []*Sequence{s})
		if err != nil {
			t.Fatal(err)
		}
		if l := got[0]; len(l.Tokens) != n || l.Top1 != top1 || l.Top5 != top5 {
			t.Errorf("ScoreSequences: have %d tokens, %d most likely, %d among five, want %d, %d, %d", len(l.Tokens), l.Top1, l.Top5, n, top1, top5)
		}
	})
}
