// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"fmt"
	"math"
)

// Retrievals returns the retrieval embedding (S), not normalised, of each sequence's last place. The sequences run packed together.
func (r *Runner) Retrievals(ctx context.Context, sequences ...*Sequence) ([][]float32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var feeds []feed
	for _, s := range sequences {
		if len(s.tokens) == 0 {
			return nil, fmt.Errorf("runner: retrieval embeddings: a sequence is empty")
		}
		if s.computed == len(s.tokens) {
			s.computed--
		}
		feeds = append(feeds, feed{s, []int{len(s.tokens) - 1}})
	}
	res, err := r.forward(ctx, feeds, want{retrieval: true})
	if err != nil {
		return nil, err
	}
	return res.retrieval, nil
}

// Greedy continues each sequence by its most likely tokens, never one of the banned, until done says that it has enough or n are generated. The
// sequences run packed together; what they generate stays in them and is returned.
func (r *Runner) Greedy(ctx context.Context, sequences []*Sequence, n int, banned []int, done func(generated []int32) bool) ([][]int32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([][]int32, len(sequences))
	going := make([]int, 0, len(sequences))
	for i, s := range sequences {
		if len(s.tokens) == 0 {
			return nil, fmt.Errorf("runner: nothing to continue: sequence %d is empty", i)
		}
		if s.computed == len(s.tokens) {
			s.computed--
		}
		going = append(going, i)
	}
	for range n {
		var feeds []feed
		for _, i := range going {
			feeds = append(feeds, feed{sequences[i], []int{len(sequences[i].tokens) - 1}})
		}
		if len(feeds) == 0 {
			break
		}
		res, err := r.forward(ctx, feeds, want{logits: true})
		if err != nil {
			return nil, err
		}
		still := going[:0]
		for row, i := range going {
			for _, id := range banned {
				res.logits[row][id] = float32(math.Inf(-1))
			}
			id := argmax(res.logits[row])
			sequences[i].tokens = append(sequences[i].tokens, Token{ID: id})
			if out[i] = append(out[i], int32(id)); !done(out[i]) {
				still = append(still, i)
			}
		}
		going = still
	}
	return out, nil
}
