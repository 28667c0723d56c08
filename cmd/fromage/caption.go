// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"fromage/runner"
)

// caption is a picture and what the model says it shows.
type caption struct {
	Image   string `json:"image"`
	Caption string `json:"caption,omitempty"`
	Error   string `json:"error,omitempty"`
}

func (a *app) captionCommand() *cobra.Command {
	o := runner.DefaultOptions()
	prompt := ""
	c := &cobra.Command{
		Use:   "caption FILE…",
		Short: "say what pictures show",
		Long: `Say what each picture shows, a line each. The model sees the picture and nothing else, as it did when it learned captions; --prompt puts a text
after the picture. A file that is not a readable picture is reported on its line, and the program exits with 2 when it has done the others.`,
		Args: takes(1, many),
		RunE: func(c *cobra.Command, files []string) error {
			if err := o.Check(); err != nil {
				return err
			}
			r, err := a.load(c.Context())
			if err != nil {
				return err
			}
			return a.captions(c.Context(), r, files, unescape(prompt), o)
		},
	}
	c.Flags().StringVar(&prompt, "prompt", "", "a text after the picture, such as \"Q: What is this image?\\nA:\"")
	optionFlags(c.Flags(), &o)
	a.modelFlag(c.Flags())
	a.kvFlag(c.Flags())
	return c
}

func (a *app) captions(ctx context.Context, r *runner.Runner, files []string, prompt string, o runner.Options) error {
	bad := 0
	// The model learned to end a caption with [RET]; what it would retrieve is not asked for.
	o.MaxNumRets, o.MaxImgPerRet = 1, 0
	for _, name := range files {
		out := caption{Image: name}
		text, err := captionOf(ctx, r, name, prompt, o)
		var unreadable pictureError
		switch {
		case errors.As(err, &unreadable) && len(files) == 1 && !a.json:
			return err
		case errors.As(err, &unreadable):
			bad++
			out.Error = err.Error()
		case err != nil:
			return err
		default:
			out.Caption = text
		}
		if err := a.writeCaption(out); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("caption: %d of %d files are not pictures that can be read", bad, len(files))
	}
	return nil
}

func (a *app) writeCaption(c caption) error {
	if a.json {
		return a.writeLine(c)
	}
	if c.Error != "" {
		_, err := fmt.Fprintf(a.stderr, "fromage: %s\n", c.Error)
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "%s\t%s\n", c.Image, c.Caption)
	return err
}

func captionOf(ctx context.Context, r *runner.Runner, name, prompt string, o runner.Options) (string, error) {
	items := []item{{Image: name}}
	if prompt != "" {
		items = append(items, item{Text: prompt})
	}
	e, err := exchangeOnce(ctx, r, nil, items, o, nil)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(e.Answer[0].Text), nil
}
