// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fromage/dataset"
	"fromage/eval"
	"fromage/runner"
)

func (a *app) evalCommand() *cobra.Command {
	var f captionFlags
	c := &cobra.Command{
		Use:   "eval --val FILE.tsv | eval captions",
		Short: "measure a model on pictures and texts with known answers",
		Long: `Measure a model as FROMAGe's reference and paper do. With --val this is "eval captions --data".
What CLIP makes of pictures is kept in a cache (--cache) and shared by all runs.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.data == "" {
				return c.Help()
			}
			return a.evalCaptions(c.Context(), &f)
		},
	}
	f.add(a, c.Flags(), "val")
	c.AddCommand(a.evalCaptionsCommand())
	return c
}

// evalFlags are those of every evaluation.
type evalFlags struct {
	images string
	cache  string
	limit  int
}

func (f *evalFlags) add(a *app, flags *pflag.FlagSet) {
	flags.StringVar(&f.images, "images", "", "where the pictures are: a `FOLDER`, .tar or .tar.gz (default: the folder of the data)")
	flags.StringVar(&f.cache, "cache", "", "the `FOLDER` for what CLIP made of pictures (default: fromage/features in the user's cache folder)")
	flags.IntVar(&f.limit, "limit", 0, "take the first `N` examples alone")
	a.modelFlag(flags)
}

// captionFlags are those of eval captions.
type captionFlags struct {
	evalFlags
	data, train   string
	maxLen, words int
}

func (f *captionFlags) add(a *app, flags *pflag.FlagSet, data string) {
	flags.StringVar(&f.data, data, "", "the examples, a TSV `FILE` with the columns caption and image")
	flags.StringVar(&f.train, "train", "", "the TSV `FILE` that the model was trained on: tells retrieval of captions that it has not, too")
	flags.IntVar(&f.maxLen, "max-len", eval.DefaultMaxLen, "cut captions to so many `TOKENS`, the leading </s> and [RET] included")
	flags.IntVar(&f.words, "words", eval.DefaultWords, "`TOKENS` of a generated caption; 0 leaves generation and BLEU out")
	f.evalFlags.add(a, flags)
}

func (a *app) evalCaptionsCommand() *cobra.Command {
	var f captionFlags
	c := &cobra.Command{
		Use:   "captions --data FILE.tsv --images FOLDER|TAR",
		Short: "captioning loss, accuracy and BLEU, and retrieval between captions and pictures",
		Long: `Measure captioning and retrieval on captioned pictures, as the reference's validation does: cross-entropy and accuracy of the captions' tokens after
their pictures, BLEU of greedy captions, and how often a picture is among the first for its caption and a caption for its picture. A picture with the
same caption counts as the right one; --json tells the strict numbers as well. Pictures that are missing or cannot be read are left out and listed.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.evalCaptions(c.Context(), &f) },
	}
	f.add(a, c.Flags(), "data")
	return c
}

func (a *app) evalCaptions(ctx context.Context, f *captionFlags) error {
	if f.data == "" {
		return errors.New("eval captions: want --data FILE.tsv")
	}
	examples, err := readExamples(f.data, f.limit)
	if err != nil {
		return err
	}
	var train []dataset.Example
	if f.train != "" {
		if train, err = dataset.Read(f.train); err != nil {
			return err
		}
	}
	if f.images == "" {
		f.images = filepath.Dir(f.data)
	}
	var names []string
	for _, e := range examples {
		names = append(names, e.Image)
	}
	r, features, err := a.loadWithFeatures(ctx, &f.evalFlags, names, false)
	if err != nil {
		return err
	}
	scores, err := eval.Captions(ctx, r, examples, features, eval.CaptionOptions{
		MaxLen: f.maxLen, Words: f.words, Train: train, Progress: a.watch("captions"),
	})
	a.endProgress()
	if err != nil {
		return err
	}
	return a.writeCaptionScores(scores)
}

func readExamples(file string, limit int) ([]dataset.Example, error) {
	if limit < 0 {
		return nil, fmt.Errorf("--limit: want 0 or more, have %d", limit)
	}
	examples, err := dataset.Read(file)
	if err == nil && limit > 0 {
		examples = examples[:min(limit, len(examples))]
	}
	return examples, err
}

// loadWithFeatures loads the model and what its vision tower makes of pictures. Those that it cannot read are listed.
func (a *app) loadWithFeatures(ctx context.Context, f *evalFlags, names []string, squash bool) (*runner.Runner, *dataset.Features, error) {
	pictures, err := dataset.OpenPictures(ctx, f.images, a.watch("B"))
	a.endProgress()
	if err != nil {
		return nil, nil, err
	}
	a.atEnd(pictures.Close)
	r, err := a.load(ctx)
	if err != nil {
		return nil, nil, err
	}
	features, err := dataset.Embed(ctx, r, names, pictures, dataset.FeatureOptions{Cache: f.cache, Squash: squash, Progress: a.watch("pictures")})
	a.endProgress()
	if err != nil {
		return nil, nil, err
	}
	a.atEnd(features.Close)
	for _, e := range features.Skipped {
		fmt.Fprintln(a.stderr, "fromage: left out:", e)
	}
	return r, features, nil
}

func (a *app) writeCaptionScores(s *eval.CaptionScores) error {
	if a.json {
		return a.writeJSON(s)
	}
	fmt.Fprintf(a.stdout, "%d captioned pictures, %d left out\n", s.Examples, s.Skipped)
	fmt.Fprintf(a.stdout, "captioning      cross-entropy %.4f, top-1 %.1f %%, top-5 %.1f %% of %d tokens\n", s.CE, s.Top1, s.Top5, s.Tokens)
	if s.BLEU != [4]float64{} {
		fmt.Fprintf(a.stdout, "greedy captions BLEU-1 %.1f, BLEU-2 %.1f, BLEU-3 %.1f, BLEU-4 %.1f\n", s.BLEU[0], s.BLEU[1], s.BLEU[2], s.BLEU[3])
	}
	rows := []recallRow{{"text → image", s.TextToImage}, {"image → text", s.ImageToText}}
	if s.Unseen != nil {
		rows = append(rows, recallRow{fmt.Sprintf("text → image, %d captions never trained on", s.Unseen.N), *s.Unseen})
	}
	return a.writeRecalls(rows)
}

// recallRow is a line of a table of recalls.
type recallRow struct {
	name string
	eval.Recall
}

func (a *app) writeRecalls(rows []recallRow) error {
	wide := 0
	for _, r := range rows {
		wide = max(wide, len([]rune(r.name)))
	}
	fmt.Fprintf(a.stdout, "%*s    R@1    R@5   R@10\n", wide, "")
	var err error
	for _, r := range rows {
		_, err = fmt.Fprintf(a.stdout, "%-*s %6.1f %6.1f %6.1f\n", wide, r.name, r.At1, r.At5, r.At10)
	}
	return err
}
