// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"fromage/compiler"
	"fromage/compiler/calibrate"
	"fromage/runner"
	"fromage/shaders"
)

func (a *app) compileCommand() *cobra.Command {
	var o compiler.Options
	dtype := "f16"
	var notes []string
	tokens := 0
	c := &cobra.Command{
		Use:   "compile --opt DIR --clip DIR --heads DIR -o FILE",
		Short: "make a bundle of an OPT, a CLIP and FROMAGe's heads",
		Long: `Make a bundle of checkpoints: folders as Hugging Face lays them out (safetensors or PyTorch files, whole or in shards), and the heads as FROMAGe's
release has them (model_args.json and pretrained_ckpt.pth.tar), or as safetensors. No code in a checkpoint is run. Without --heads, OPT or CLIP can be
compiled alone. Nothing is left behind when it fails, and a bundle that is there stays until the new one is complete. What a
kill -9 leaves (.NAME.….part) is removed when the same bundle is compiled again.

With --calibrate, q8 and q4 bundles stay nearer to the original: the model writes some text of its own on the device, and its matrices are rounded for what
they multiply there. This needs the language model as f16 on the device and in a temporary file, and memory for each linear layer (8 bytes times its inputs
squared, up to 2 GiB in all; what is beyond is rounded plainly).`,
		Args: takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if o.Out == "" {
				return errors.New("compile: want -o FILE")
			}
			if o.OPT == "" && o.CLIP == "" {
				return errors.New("compile: want --opt DIR or --clip DIR or both")
			}
			if o.DType, err = shaders.ParseFormat(dtype); err != nil {
				return fmt.Errorf("--dtype: %w", err)
			}
			if o.Notes, err = parseNotes(notes); err != nil {
				return err
			}
			if err := a.compile(c.Context(), o, tokens); err != nil {
				return err
			}
			return a.compiled(o.Out)
		},
	}
	flags := c.Flags()
	flags.StringVar(&o.OPT, "opt", "", "the `FOLDER` of an OPT checkpoint, with its tokenizer")
	flags.StringVar(&o.CLIP, "clip", "", "the `FOLDER` of a CLIP checkpoint; its text tower is left out but for --clip-text")
	flags.BoolVar(&o.Text, "clip-text", false, "keep CLIP's text tower as well: fromage eval compares with it")
	flags.StringVar(&o.TextTokenizer, "clip-tokenizer", "", "the `FOLDER` of the text tower's tokenizer (default: CLIP's own, else OPT's)")
	flags.StringVar(&o.Heads, "heads", "", "FROMAGe's trained heads, a `FOLDER` or a .pth.tar or .safetensors file")
	flags.StringVar(&dtype, "dtype", dtype, "of the weight matrices: f32, f16, q8 (8 bits and a scale) or q4")
	flags.IntVar(&tokens, "calibrate", 0, "round q8 or q4 matrices for what the model computes while it writes this many `TOKENS`; 8192 suit a small model")
	flags.StringVarP(&o.Out, "output", "o", "", "the bundle, a `FILE`")
	flags.StringArrayVar(&notes, "note", nil, "a `NAME=TEXT` to keep in the bundle, such as a licence; may come again")
	return c
}

// compile makes the bundle, calibrated where tokens is above 0, and shows how far it is.
func (a *app) compile(ctx context.Context, o compiler.Options, tokens int) error {
	defer a.endProgress()
	var line *progressLine
	o.Progress = func(p compiler.Progress) {
		if line == nil || line.unit != "B" {
			line = a.startProgress("compiling "+o.Out, "B")
		}
		line.set(p.Done, p.Total)
	}
	if tokens == 0 {
		return compiler.Compile(ctx, o)
	}
	dev, err := a.openDevice()
	if err != nil {
		return err
	}
	return calibrate.Compile(ctx, o, calibrate.Options{Device: dev, Tokens: tokens, Log: a.log, Progress: func(p runner.Progress) {
		if line == nil || line.what != p.What {
			line = a.startProgress(p.What, "tokens")
		}
		line.set(p.Done, p.Total)
	}})
}

// parseNotes reads NAME=TEXT.
func parseNotes(notes []string) (map[string]string, error) {
	out := map[string]string{}
	for _, n := range notes {
		name, text, ok := strings.Cut(n, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--note: want NAME=TEXT, have %q", n)
		}
		out[name] = text
	}
	return out, nil
}

// compiled says what was made.
func (a *app) compiled(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if a.json {
		return a.writeJSON(map[string]any{"bundle": name, "bytes": info.Size()})
	}
	_, err = fmt.Fprintf(a.stdout, "%s: %s\n", name, byteSize(info.Size()))
	return err
}
