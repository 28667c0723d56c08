// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"fromage/runner"
)

func (a *app) askCommand() *cobra.Command {
	o := runner.DefaultOptions()
	var p *promptFlags
	c := &cobra.Command{
		Use:   "ask [--image FILE | TEXT]…",
		Short: "continue a prompt of pictures and text once",
		Long: `Continue a prompt of pictures and text, and retrieve pictures for every [RET] that the model answers with.
The text goes to the model as it is; a question is asked as it was trained on questions:

    fromage ask --image gallery:fxemoji/00252.webp "Q: What is this image?\nA:"
` + promptHelp,
		RunE: func(c *cobra.Command, args []string) error {
			items, err := p.items(c.Context(), args, a.stdin)
			if err != nil {
				return fmt.Errorf("ask: %w", err)
			}
			if err := o.Check(); err != nil {
				return err
			}
			r, x, err := a.loadWithAlbum(c.Context())
			if err != nil {
				return err
			}
			return a.ask(c.Context(), r, x, items, o)
		},
	}
	p = newPromptFlags(c)
	optionFlags(c.Flags(), &o)
	a.modelFlag(c.Flags())
	a.kvFlag(c.Flags())
	a.galleryFlag(c.Flags())
	return c
}

func (a *app) ask(ctx context.Context, r *runner.Runner, x *album, items []item, o runner.Options) error {
	if a.json {
		e, err := exchangeOnce(ctx, r, x, items, o, nil)
		if err != nil {
			return err
		}
		return a.writeJSON(e)
	}
	began := time.Now()
	s := &stream{w: a.stdout, album: x}
	e, err := exchangeOnce(ctx, r, x, items, o, s.emit)
	s.endLine()
	if err != nil {
		return err
	}
	a.log.Info("answered", "tokens", e.Tokens, "stop", e.Stop, "seconds", time.Since(began).Seconds())
	if e.Stop == "context" {
		fmt.Fprintf(a.stderr, "fromage: the answer was cut: prompt and answer fill the model's %d positions\n", r.Settings().MaxPositions)
	}
	return s.err
}

// exchangeOnce continues a prompt in a sequence of its own.
func exchangeOnce(ctx context.Context, r *runner.Runner, x *album, items []item, o runner.Options, emit func(runner.Event)) (*exchange, error) {
	in, err := parts(ctx, r, items)
	if err != nil {
		return nil, err
	}
	seq := r.NewSequence()
	defer seq.Close()
	if err := seq.Append(in...); err != nil {
		return nil, err
	}
	if err := checkLength(r, seq.Len()); err != nil {
		return nil, err
	}
	answer, err := seq.Generate(ctx, o, x.searcher(), emit)
	if err != nil {
		return nil, err
	}
	return newExchange(x, items, answer)
}

func newExchange(x *album, items []item, answer *runner.Answer) (*exchange, error) {
	shown, err := x.pieces(answer.Pieces)
	if err != nil {
		return nil, err
	}
	return &exchange{Prompt: items, Answer: shown, Stop: answer.Stop, Tokens: len(answer.IDs)}, nil
}

// checkLength refuses a prompt that leaves the model no room for an answer.
func checkLength(r *runner.Runner, tokens int) error {
	if most := r.Settings().MaxPositions; tokens >= most {
		return fmt.Errorf("the prompt is too long: want at most %d tokens, have %d", most-1, tokens)
	}
	return nil
}
