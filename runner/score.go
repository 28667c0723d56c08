// SPDX-License-Identifier: Apache-2.0

package runner

import "context"

// Likelihood is how well the model predicts a prompt's text.
type Likelihood struct {
	Mean   float64   `json:"log_likelihood"` // −(mean cross-entropy): what the reference's get_log_lik_scores returns
	Sum    float64   `json:"sum"`            // natural logarithm of the text's probability
	Tokens []float32 `json:"tokens"`         // logarithm of each predicted token's probability, in order
	Top1   int       `json:"top1"`           // how many of them were the most likely
	Top5   int       `json:"top5"`           // how many were among the five most likely
}

// Score returns the likelihood of each prompt: get_log_lik_scores. Pictures are read but not predicted. All prompts run packed together.
func (r *Runner) Score(ctx context.Context, prompts ...[]Part) ([]Likelihood, error) {
	sequences := make([]*Sequence, len(prompts))
	for i, p := range prompts {
		sequences[i] = r.NewSequence()
		if err := sequences[i].Append(p...); err != nil {
			return nil, err
		}
	}
	return r.ScoreSequences(ctx, sequences)
}

// ScoreSequences is Score for sequences of which nothing was computed yet. It closes them.
func (r *Runner) ScoreSequences(ctx context.Context, sequences []*Sequence) ([]Likelihood, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := want{labels: [][]int{}}
	var feeds []feed
	for _, s := range sequences {
		defer s.Close()
		f := feed{s: s}
		var labels []int
		for at := range len(s.tokens) - 1 {
			if next := s.tokens[at+1]; next.Visual == nil {
				f.want, labels = append(f.want, at), append(labels, next.ID)
			}
		}
		feeds, w.labels = append(feeds, f), append(w.labels, labels)
	}
	res, err := r.forward(ctx, feeds, w)
	if err != nil {
		return nil, err
	}
	out := make([]Likelihood, len(sequences))
	n := 0
	for i, f := range feeds {
		l := &out[i]
		for range f.want {
			l.Tokens = append(l.Tokens, -res.nll[n][0])
			l.Sum -= float64(res.nll[n][0])
			if res.nll[n][1] < 1 {
				l.Top1++
			}
			if res.nll[n][1] < 5 {
				l.Top5++
			}
			n++
		}
		if len(l.Tokens) > 0 {
			l.Mean = l.Sum / float64(len(l.Tokens))
		}
	}
	return out, nil
}
