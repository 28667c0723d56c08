// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"fromage/runner"
)

// scored is the likelihood of a prompt, or of a candidate after a prompt.
type scored struct {
	Text   string        `json:"text,omitempty"` // the candidate
	Mean   float64       `json:"mean"`           // of the logarithms of the tokens' probabilities
	Sum    float64       `json:"sum"`            // the logarithm of the text's probability
	N      int           `json:"n"`              // tokens predicted
	Tokens []scoredToken `json:"tokens,omitempty"`
}

type scoredToken struct {
	ID   int     `json:"id"`
	Text string  `json:"text"`
	Log  float32 `json:"log_probability"`
}

func (a *app) scoreCommand() *cobra.Command {
	var candidates []string
	var tokens bool
	var p *promptFlags
	c := &cobra.Command{
		Use:   "score [--image FILE | TEXT]…",
		Short: "say how likely a prompt's text is, or rank candidates that follow it",
		Long: `Say how well the model predicts the text of a prompt: natural logarithms, of the text's probability and per token. Pictures are read, not predicted.
With --candidate each candidate is put after the prompt, and they are ranked by the logarithm of their probability given the prompt.
` + promptHelp,
		RunE: func(c *cobra.Command, args []string) error {
			items, err := p.items(c.Context(), args, a.stdin)
			if err != nil {
				return fmt.Errorf("score: %w", err)
			}
			if !p.raw {
				for i := range candidates {
					candidates[i] = unescape(candidates[i])
				}
			}
			r, err := a.load(c.Context())
			if err != nil {
				return err
			}
			in, err := parts(c.Context(), r, items)
			if err != nil {
				return err
			}
			results, err := score(c.Context(), r, in, candidates)
			if err != nil {
				return err
			}
			return a.writeScores(results, tokens)
		},
	}
	p = newPromptFlags(c)
	c.Flags().StringArrayVar(&candidates, "candidate", nil, "a `TEXT` that may follow the prompt; may come again")
	c.Flags().BoolVar(&tokens, "tokens", false, "list every token with its logarithm")
	a.modelFlag(c.Flags())
	a.kvFlag(c.Flags())
	return c
}

// score returns the likelihood of the prompt's text, or of each candidate after the prompt, the likeliest first.
func score(ctx context.Context, r *runner.Runner, prompt []runner.Part, candidates []string) ([]scored, error) {
	if candidates == nil {
		one, err := scoreAll(ctx, r, prompt, []string{""}, 0)
		return one, err
	}
	seq := r.NewSequence()
	if err := seq.Append(prompt...); err != nil {
		return nil, err
	}
	out, err := scoreAll(ctx, r, prompt, candidates, seq.Len())
	slices.SortStableFunc(out, func(a, b scored) int {
		switch {
		case a.Sum > b.Sum:
			return -1
		case a.Sum < b.Sum:
			return 1
		}
		return 0
	})
	return out, err
}

// scoreAll scores prompt + text for each text, counting the tokens from place first on.
func scoreAll(ctx context.Context, r *runner.Runner, prompt []runner.Part, texts []string, first int) ([]scored, error) {
	var sequences []*runner.Sequence
	var places [][]runner.Token
	for _, text := range texts {
		seq := r.NewSequence()
		if err := seq.Append(prompt...); err != nil {
			return nil, err
		}
		if text != "" {
			if err := seq.Append(runner.Part{Text: text}); err != nil {
				return nil, err
			}
		}
		sequences, places = append(sequences, seq), append(places, slices.Clone(seq.Tokens()))
	}
	likelihoods, err := r.ScoreSequences(ctx, sequences)
	if err != nil {
		return nil, err
	}
	var out []scored
	for i, l := range likelihoods {
		s := scored{Text: texts[i]}
		n := 0
		for at := 1; at < len(places[i]); at++ {
			if places[i][at].Visual != nil {
				continue
			}
			log := l.Tokens[n]
			n++
			if at < first {
				continue
			}
			id := places[i][at].ID
			s.Tokens = append(s.Tokens, scoredToken{id, r.Tokenizer().Text(int32(id)), log})
			s.Sum += float64(log)
		}
		if s.N = len(s.Tokens); s.N == 0 {
			return nil, fmt.Errorf("score: want a text to predict, have none in %q", texts[i])
		}
		s.Mean = s.Sum / float64(s.N)
		out = append(out, s)
	}
	return out, nil
}

func (a *app) writeScores(results []scored, tokens bool) error {
	if !tokens {
		for i := range results {
			results[i].Tokens = nil
		}
	}
	if a.json {
		return a.writeJSON(results)
	}
	for i, s := range results {
		if s.Text != "" {
			fmt.Fprintf(a.stdout, "%d\t", i+1)
		}
		fmt.Fprintf(a.stdout, "sum %.4f\tmean %.4f\ttokens %d", s.Sum, s.Mean, s.N)
		if s.Text != "" {
			fmt.Fprintf(a.stdout, "\t%q", s.Text)
		}
		fmt.Fprintln(a.stdout)
		for _, t := range s.Tokens {
			fmt.Fprintf(a.stdout, "  %9.4f  %6d  %q\n", t.Log, t.ID, t.Text)
		}
	}
	return nil
}
