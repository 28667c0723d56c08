// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fromage/dataset"
	"fromage/eval"
	"fromage/eval/report"
)

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
	flags.IntVar(&f.words, "words", eval.DefaultWords, "`TOKENS` of a generated caption; 0 leaves generation and BLEU out, which takes most of the time")
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
		Args: takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return a.evalCaptions(c.Context(), &f) },
	}
	f.add(a, c.Flags(), "data")
	return c
}

func (a *app) evalCaptions(ctx context.Context, f *captionFlags) error {
	if err := needFile("eval captions", "data", f.data); err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
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
	e, err := a.openEvaluation(ctx, "captions", &f.evalFlags, false, []any{examples, f.maxLen, f.words}, func(map[string]string) []string { return imagesOf(examples) })
	if err != nil {
		return err
	}
	s, err := eval.Captions(ctx, e.r, examples, e.features, eval.CaptionOptions{
		MaxLen: f.maxLen, Words: f.words, Train: train, CLIP: e.clip, Journal: e.journal, Progress: a.watch(""),
	})
	if err != nil {
		return e.stopped(err)
	}
	a.endProgress()
	return e.write(captionResult(e, s))
}

func imagesOf(examples []dataset.Example) (names []string) {
	for _, e := range examples {
		names = append(names, e.Image)
	}
	return names
}

func captionResult(e *evaluation, s *eval.CaptionScores) *result {
	r := &result{scores: s, head: fmt.Sprintf("%d captioned pictures, %d left out", s.Examples, s.Skipped)}
	captioning := report.Table{Columns: []string{"captioning", "cross-entropy", "top-1 %", "top-5 %", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"}}
	row := append([]string{fmt.Sprintf("%d tokens", s.Tokens), fmt.Sprintf("%.4f", s.CE)}, numbers(s.Top1, s.Top5)...)
	if s.BLEU == [4]float64{} {
		captioning.Columns = captioning.Columns[:4]
		captioning.Rows = [][]string{row}
	} else {
		captioning.Rows = [][]string{append(row, numbers(s.BLEU[:]...)...), append([]string{"captions ended at </s>", "", "", ""}, numbers(s.BLEUEnded[:]...)...)}
	}
	retrieval := report.Table{Columns: []string{"retrieval", "R@1", "R@5", "R@10"}}
	add := func(name string, x eval.Recall) {
		retrieval.Rows = append(retrieval.Rows, append([]string{name}, cells(&x)...))
	}
	both := func(who string, x *eval.Retrieval) {
		add(who+"text → image", x.TextToImage)
		add(who+"image → text", x.ImageToText)
		if x.Unseen != nil {
			add(fmt.Sprintf("%stext → image, %d captions never trained on", who, x.Unseen.N), *x.Unseen)
		}
	}
	both("", &s.Retrieval)
	if s.CLIP != nil {
		both("CLIP: ", s.CLIP)
	}
	r.tables = []report.Table{captioning, retrieval}
	for _, x := range s.Each {
		r.each = append(r.each, x)
	}
	if e.f.out == "" {
		return r
	}
	for _, i := range spread(len(s.Each)) {
		x := s.Each[i]
		pictures := func(name string, found []int) report.Answer {
			var files []string
			for _, j := range found {
				files = append(files, s.Each[j].Image)
			}
			return report.Answer{Name: name, Pictures: e.found(files, func(n int) bool { return s.Each[found[n]].Caption == x.Caption })}
		}
		example := report.Example{Given: []report.Piece{{Picture: e.picture(x.Image)}, {Text: x.Caption}}}
		if x.Generated != "" {
			example.Answers = append(example.Answers, report.Answer{Name: "said of the picture", Text: x.Ended, Right: x.Ended == x.Caption})
		}
		example.Answers = append(example.Answers, pictures("found for the caption", x.Found))
		if x.CLIP != nil {
			example.Answers = append(example.Answers, pictures("found by CLIP", x.CLIP.Found))
		}
		r.examples = append(r.examples, example)
	}
	return r
}
