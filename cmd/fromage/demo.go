// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"fromage/runner"
)

// What the demonstration shows. The pictures are of the validation set: the model was not trained on them.
var (
	demoCaptions  = []string{"noto/01518.webp", "fxemoji/00090.webp", "fluent3d/00564.webp", "noto/01229.webp"}
	demoDialogues = [][]string{
		{galleryPrefix + "fluent3d/00564.webp", "What is a monkey?"},
		{galleryPrefix + "fluentflat/01437.webp", "What is a volcano?", "What is a mountain?"},
	}
	demoPrompts    = []string{"an emoji of microscope", "a flat emoji of monkey", "an emoji of violin", "an emoji of volcano"}
	demoRetrievals = []string{"a flat emoji of penguin", "a 3d emoji of flamingo"}
)

func (a *app) demoCommand() *cobra.Command {
	html, once := "fromage-demo.html", false
	c := &cobra.Command{
		Use:   "demo",
		Short: "show what the embedded model does with the embedded gallery",
		Long: `Caption pictures, talk about some, and retrieve pictures, with the embedded model and gallery, and write all of it with its pictures to a page of HTML.
On a terminal a conversation follows, unless --once.`,
		Args: takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			r, x, err := a.loadWithAlbum(c.Context())
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
			return a.chat(c.Context(), r, x, runner.DefaultOptions(), false)
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
	for _, part := range []func(context.Context) error{d.captions, d.dialogues, d.answers, d.retrievals} {
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
	fmt.Fprintln(d.w, "Captions of pictures that the model was not trained on:")
	o := runner.DefaultOptions()
	o.MaxImgPerRet = 0
	for _, path := range demoCaptions {
		name := galleryPrefix + path
		e, err := exchangeOnce(ctx, d.r, d.album, []item{{Image: name}}, o, nil)
		if err != nil {
			return err
		}
		fmt.Fprintf(d.w, "  %s  %s\n", name, strings.TrimSpace(e.Answer[0].Text))
		d.add("Caption", *e)
	}
	return nil
}

func (d *demo) dialogues(ctx context.Context) error {
	fmt.Fprintln(d.w, "Conversations about a picture:")
	for _, lines := range demoDialogues {
		if err := d.dialogue(ctx, lines); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) dialogue(ctx context.Context, lines []string) error {
	ch := &chat{a: d.a, r: d.r, album: d.album, w: d.w, seq: d.r.NewSequence(), opt: runner.DefaultOptions()}
	defer ch.close()
	for _, line := range lines {
		fmt.Fprintf(d.w, "> %s\n", line)
		if err := ch.say(ctx, line); err != nil {
			return err
		}
		d.add("Conversation", ch.turns[len(ch.turns)-1].exchange)
	}
	return nil
}

// answers has the model go on with texts; that it answers with [RET], and so with pictures, is its own choice.
func (d *demo) answers(ctx context.Context) error {
	fmt.Fprintln(d.w, "Answers with pictures, where the model chose to say [RET]:")
	o := runner.DefaultOptions()
	o.MaxImgPerRet = 4
	for _, text := range demoPrompts {
		fmt.Fprintf(d.w, "> %s\n", text)
		s := &stream{w: d.w, album: d.album}
		e, err := exchangeOnce(ctx, d.r, d.album, []item{{Text: text}}, o, s.emit)
		s.endLine()
		if err != nil {
			return err
		}
		d.add("Answer with pictures", *e)
	}
	return nil
}

func (d *demo) retrievals(ctx context.Context) error {
	for _, text := range demoRetrievals {
		e, err := retrieve(ctx, d.r, d.album, []item{{Text: text}}, runner.RetrieveOptions{MaxImgPerRet: 4})
		if err != nil {
			return err
		}
		fmt.Fprintf(d.w, "Pictures for %q:\n", e.Prompt[0].Text)
		writePictures(d.w, e.Answer[0])
		d.add("Retrieval", *e)
	}
	return nil
}

// write makes the page, and with --json the document.
func (d *demo) write(html string) error {
	if html != "" {
		if err := os.MkdirAll(filepath.Dir(html), 0o777); err != nil {
			return err
		}
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
