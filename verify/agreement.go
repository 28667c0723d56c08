// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"fmt"
	"math"

	"fromage/runner"
)

// Agreement is how often two models choose the same next token when both read the same text.
type Agreement struct {
	Positions int     `json:"positions"`
	Same      int     `json:"same"`
	Share     float64 `json:"share"`  // Same / Positions
	LossA     float64 `json:"loss_a"` // mean cross-entropy of the text under each
	LossB     float64 `json:"loss_b"`
}

// Agree forces text through a and b, in windows of up to length tokens that each begin with </s>, and compares the most likely next token at every
// position. Both must have the same tokenizer.
func Agree(ctx context.Context, a, b *runner.Runner, text string, length int) (*Agreement, error) {
	if a.Tokenizer() == nil || b.Tokenizer() == nil || a.Settings().Vocabulary != b.Settings().Vocabulary {
		return nil, fmt.Errorf("verify: agreement: want two models with one tokenizer, have vocabularies of %d and %d", a.Settings().Vocabulary, b.Settings().Vocabulary)
	}
	ids := a.Tokenizer().Encode(text, false)
	length = min(length, a.Settings().MaxPositions) - 1
	out := &Agreement{}
	for len(ids) > 1 {
		n := min(length, len(ids))
		window := append([]int32{int32(a.Settings().BOS)}, ids[:n]...)
		ids = ids[n:]
		la, err := forced(ctx, a, window)
		if err != nil {
			return nil, err
		}
		lb, err := forced(ctx, b, window)
		if err != nil {
			return nil, err
		}
		for i := range la {
			out.Positions++
			if argmax(la[i]) == argmax(lb[i]) {
				out.Same++
			}
			out.LossA -= logProbability(la[i], window[i+1])
			out.LossB -= logProbability(lb[i], window[i+1])
		}
	}
	if out.Positions == 0 {
		return nil, fmt.Errorf("verify: agreement: the text has no two tokens")
	}
	n := float64(out.Positions)
	out.Share, out.LossA, out.LossB = float64(out.Same)/n, out.LossA/n, out.LossB/n
	return out, nil
}

// forced returns the logits at every position of ids that a next token follows.
func forced(ctx context.Context, r *runner.Runner, ids []int32) ([][]float32, error) {
	s := r.NewSequence()
	defer s.Close()
	for _, id := range ids[:len(ids)-1] {
		s.AppendTokens(runner.Token{ID: int(id)})
	}
	out, err := r.Outputs(ctx, s)
	if err != nil {
		return nil, err
	}
	return out.Logits, nil
}

func argmax(x []float32) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}

// logProbability is log softmax(logits)[id].
func logProbability(logits []float32, id int32) float64 {
	largest, sum := float64(logits[argmax(logits)]), 0.0
	for _, l := range logits {
		sum += math.Exp(float64(l) - largest)
	}
	return float64(logits[id]) - largest - math.Log(sum)
}
