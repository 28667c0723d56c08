// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"fromage/bundle"
	"fromage/trainer"
)

// exportCommand makes heads or bundles of runs.
func (a *app) exportCommand() *cobra.Command {
	var out, reference, bundleOut, opt, clip string
	last := false
	c := &cobra.Command{
		Use:   "export DIR -o FILE.safetensors | --bundle FILE | --reference FILE.pth.tar",
		Short: "make heads or a bundle of a training run",
		Long: `Make files of what a run learnt: its best parameters where it was measured, else its last. Heads are for fromage compile --heads and fromage push; a bundle is the run's
frozen model with the new heads in it; --reference is the released layout, with model_args.json beside it, for the reference's own load_fromage.`,
		Args: takes(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" && reference == "" && bundleOut == "" {
				return errors.New("export: want -o FILE.safetensors, --bundle FILE or --reference FILE.pth.tar")
			}
			e, err := a.openRun(args[0], last)
			if err != nil {
				return err
			}
			if err := e.heads(out); err != nil {
				return err
			}
			if err := e.reference(reference, opt, clip); err != nil {
				return err
			}
			if err := e.bundle(c.Context(), bundleOut); err != nil {
				return err
			}
			return e.tell(out, reference, bundleOut)
		},
	}
	flags := c.Flags()
	flags.StringVarP(&out, "output", "o", "", "heads, a `FILE.safetensors`")
	flags.StringVar(&reference, "reference", "", "heads as the reference releases them, a `FILE.pth.tar`")
	flags.StringVar(&bundleOut, "bundle", "", "the whole model with the heads in it, a `BUNDLE`")
	flags.BoolVar(&last, "last", false, "the latest parameters, also where others were better")
	flags.StringVar(&opt, "opt-version", "", "for --reference: the `NAME` of the OPT on the hub (default: facebook/ and the folder's name)")
	flags.StringVar(&clip, "visual-encoder", "", "for --reference: the `NAME` of the CLIP on the hub (default: openai/ and the folder's name)")
	return c
}

// exporting is a run's parameters with the model that they are of.
type exporting struct {
	a     *app
	args  trainArgs
	base  *bundle.Bundle
	path  string
	state *trainer.State
	step  string
}

func (a *app) openRun(dir string, last bool) (*exporting, error) {
	e := &exporting{a: a, path: filepath.Join(dir, trainer.BestFile)}
	var err error
	if e.args, err = readTrainArgs(dir); err != nil {
		return nil, err
	}
	if _, err := os.Stat(e.path); last || errors.Is(err, fs.ErrNotExist) {
		e.path = filepath.Join(dir, trainer.CheckpointFile)
	}
	var meta map[string]string
	if e.state, meta, err = trainer.ReadState(e.path); err != nil {
		return nil, err
	}
	e.step = meta["step"]
	if a.model = e.args.Model; a.model == "" {
		a.model = filepath.Join(dir, baseFile)
	}
	e.base, err = a.openBundle()
	return e, err
}

func (e *exporting) heads(path string) error {
	if path == "" {
		return nil
	}
	return writeFile(path, func(w io.Writer) error { return trainer.WriteHeads(w, e.base.Manifest(), e.state.Weights) })
}

func (e *exporting) reference(path, opt, clip string) error {
	if path == "" {
		return nil
	}
	if e.args.Model != "" && (opt == "" || clip == "") {
		return errors.New("--reference: want --opt-version and --visual-encoder, since a run on a bundle does not know whose checkpoints are in it")
	}
	if opt == "" {
		opt = "facebook/" + filepath.Base(e.args.OPT)
	}
	if clip == "" {
		clip = "openai/" + filepath.Base(e.args.CLIP)
	}
	var args []byte
	err := writeFile(path, func(w io.Writer) (err error) {
		args, err = trainer.WriteReference(w, e.base.Manifest(), e.state.Weights, opt, clip)
		return err
	})
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(filepath.Dir(path), "model_args.json"), func(w io.Writer) error {
		_, err := w.Write(args)
		return err
	})
}

func (e *exporting) bundle(ctx context.Context, path string) error {
	if path == "" {
		return nil
	}
	w, err := bundle.Create(path)
	if err != nil {
		return err
	}
	defer w.Abort()
	line := e.a.startProgress("writing "+path, "B")
	defer e.a.endProgress()
	return bundle.Replace(ctx, w, e.base, e.state.Weights, line.set)
}

func (e *exporting) tell(paths ...string) error {
	var made []string
	for _, p := range paths {
		if p != "" {
			made = append(made, p)
		}
	}
	if e.a.json {
		return e.a.writeJSON(map[string]any{"files": made, "from": e.path, "step": e.step})
	}
	_, err := fmt.Fprintf(e.a.stdout, "%s: of %s, step %s\n", strings.Join(made, ", "), e.path, e.step)
	return err
}
