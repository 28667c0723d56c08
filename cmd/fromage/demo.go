// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"fromage/runner"
)

// demoCaptions are pictures of the gallery to be captioned.
var demoCaptions = []string{"gallery:noto/00500.webp", "gallery:fluent3d/00500.webp"}

// demoDialogue is lines of a conversation.
var demoDialogue = []string{"gallery:noto/00500.webp", "What is a fox?", "Show me a fox."}

// demoRetrievals are prompts that pictures are found for.
var demoRetrievals = [][]item{
	{{Text: "an emoji of a cat"}},
}

func (a *app) demoCommand() *cobra.Command {
	html, once := "fromage-demo.html", false
	c := &cobra.Command{
		Use:   "demo",
		Short: "show what the embedded model does with the embedded gallery",
		Long: `Caption pictures, talk about one, and retrieve pictures, with the embedded model and gallery, and write all of it with its pictures to a page of HTML.
On a terminal a conversation follows, unless --once.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, _, err := a.load(c.Context())
			if err != nil {
				return err
			}
			x, err := a.openAlbum(r)
			if err != nil {
				return err
			}
			d := &demo{a: a, r: r, album: x, w: a.stdout}
			if a.json {
				d.w = io.Discard
			}
			if err := d.run(c.Context()); err != nil {
				return err
			}
			if err := d.write(html); err != nil {
				return err
			}
			if once || a.json || !isTerminal(a.stdin) || !isTerminal(a.stdout) {
				return nil
			}
			fmt.Fprintln(a.stdout)
			return a.chat(c.Context(), r, x, chatOptions(), false)
		},
	}
	c.Flags().StringVar(&html, "html", html, "write a page with all of it to this `FILE`; empty for none")
	c.Flags().BoolVar(&once, "once", false, "end after the demonstration")
	return c
}

// demo is a demonstration going on.
type demo struct {
	a     *app
	r     *runner.Runner
	album *album
	w     io.Writer
	done  []exchange
}

func (d *demo) run(ctx context.Context) error {
	for _, part := range []func(context.Context) error{d.captions, d.dialogue, d.retrievals} {
		if err := part(ctx); err != nil {
			return err
		}
		fmt.Fprintln(d.w)
	}
	return nil
}

// add notes an exchange under a title.
func (d *demo) add(title string, e exchange) {
	e.Title = title
	d.done = append(d.done, e)
}

func (d *demo) captions(ctx context.Context) error {
	fmt.Fprintln(d.w, "What do these pictures show?")
	o := runner.DefaultOptions()
	o.MaxImgPerRet = 0
	for _, name := range demoCaptions {
		e, err := exchangeOnce(ctx, d.r, d.album, []item{{Image: name}}, o, nil)
		if err != nil {
			return err
		}
		fmt.Fprintf(d.w, "  %s  %s\n", name, strings.TrimSpace(e.Answer[0].Text))
		d.add("Caption", *e)
	}
	return nil
}

func (d *demo) dialogue(ctx context.Context) error {
	fmt.Fprintln(d.w, "A conversation about a picture, with pictures in the answers:")
	ch := &chat{a: d.a, r: d.r, album: d.album, w: d.w, seq: d.r.NewSequence(), opt: chatOptions()}
	defer ch.close()
	for _, line := range demoDialogue {
		fmt.Fprintf(d.w, "> %s\n", line)
		if err := ch.say(ctx, line); err != nil {
			return err
		}
		d.add("Conversation", ch.turns[len(ch.turns)-1].exchange)
	}
	return nil
}

func (d *demo) retrievals(ctx context.Context) error {
	for _, items := range demoRetrievals {
		e, err := retrieve(ctx, d.r, d.album, items, runner.RetrieveOptions{MaxImgPerRet: 4})
		if err != nil {
			return err
		}
		fmt.Fprint(d.w, "Pictures for:")
		for _, it := range e.Prompt {
			fmt.Fprint(d.w, " ", strings.TrimSpace(it.Image+it.Text))
		}
		fmt.Fprintln(d.w)
		writePictures(d.w, e.Answer[0])
		d.add("Retrieval", *e)
	}
	return nil
}

// write makes the page, and with --json the document.
func (d *demo) write(html string) error {
	if html != "" {
		err := writeFile(html, func(w io.Writer) error {
			return writeSheet(w, "FROMAGe: pictures and text in, text and pictures out", d.done)
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(d.w, "With the pictures, to look at: %s\n", html)
	}
	if d.a.json {
		return d.a.writeJSON(d.done)
	}
	return nil
}
