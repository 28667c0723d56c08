// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"fromage/runner"
)

// retMark is how [RET] is written in a prompt.
const retMark = "[RET]"

func (a *app) retrieveCommand() *cobra.Command {
	o := runner.RetrieveOptions{MaxImgPerRet: 5}
	var with clipSearch
	var p *promptFlags
	c := &cobra.Command{
		Use:   "retrieve [--image FILE | TEXT]…",
		Short: "find the pictures that a prompt of pictures and text asks for",
		Long: `Find pictures for every [RET] of a prompt; one is put at its end if it has none. No text is generated.

    fromage retrieve "an emoji of violin"

The embedded model learned captions with [RET] after them, without a space, such as "a flat icon of alarm clock[RET]": it finds most by these.

With --with clip CLIP's own two towers search the same pictures for the prompt's text, to compare. Pictures go through CLIP the first time.
` + promptHelp,
		RunE: func(c *cobra.Command, args []string) error {
			items, err := p.items(c.Context(), args, a.stdin)
			if err != nil {
				return fmt.Errorf("retrieve: %w", err)
			}
			if err := with.check(); err != nil {
				return err
			}
			if o.MaxImgPerRet < 1 {
				return fmt.Errorf("-k: want 1 or more, have %d", o.MaxImgPerRet)
			}
			r, x, err := a.loadWithAlbum(c.Context())
			if err != nil {
				return err
			}
			if x == nil {
				return fmt.Errorf("retrieve: want -i with an index of %s", a.modelName())
			}
			var e *exchange
			if with.name == "" {
				e, err = retrieve(c.Context(), r, x, items, o)
			} else {
				e, err = a.retrieveByCLIP(c.Context(), r, x, items, o.MaxImgPerRet, &with)
			}
			if err != nil {
				return err
			}
			return a.writeRetrieved(e)
		},
	}
	p = newPromptFlags(c)
	c.Flags().IntVarP(&o.MaxImgPerRet, "top", "k", o.MaxImgPerRet, "pictures for each [RET]")
	c.Flags().BoolVar(&o.ReferencePositions, "reference-positions", false, "read each [RET]'s embedding where the reference's code does, too early by the pictures before it (to compare with published outputs)")
	with.add(c.Flags())
	a.modelFlag(c.Flags())
	a.kvFlag(c.Flags())
	a.galleryFlag(c.Flags())
	return c
}

// retrieve answers the [RET]s of a prompt, all of them.
func retrieve(ctx context.Context, r *runner.Runner, x *album, items []item, o runner.RetrieveOptions) (*exchange, error) {
	for _, it := range items {
		o.MaxNumRets += strings.Count(it.Text, retMark)
	}
	if o.MaxNumRets == 0 {
		items = withRET(items)
		o.MaxNumRets = 1
	}
	in, err := parts(ctx, r, items)
	if err != nil {
		return nil, err
	}
	answer, err := r.Retrieve(ctx, in, o, x.searcher())
	if err != nil {
		return nil, err
	}
	return newExchange(x, items, answer)
}

// withRET puts a [RET] at the prompt's end, without a space, as in training.
func withRET(items []item) []item {
	out := append([]item{}, items...)
	if last := &out[len(out)-1]; last.Image == "" {
		last.Text += retMark
		return out
	}
	return append(out, item{Text: retMark})
}

func (a *app) writeRetrieved(e *exchange) error {
	e.Stop, e.Tokens = "", 0
	if a.json {
		return a.writeJSON(e)
	}
	for _, p := range e.Answer {
		if len(e.Answer) > 1 {
			fmt.Fprintln(a.stdout, printable(strings.TrimSpace(p.Text)), retMark)
		}
		for i, pic := range p.Pictures {
			_, err := fmt.Fprintf(a.stdout, "%d\t%.3f\t%s\t%s\t%s\n", i+1, pic.Score, printable(pic.Path), printable(pic.Caption), printable(pic.Licence))
			if err != nil {
				return err
			}
		}
	}
	return nil
}
