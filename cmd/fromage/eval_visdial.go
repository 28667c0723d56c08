// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"fromage/eval"
	"fromage/eval/report"
)

func (a *app) evalVisDialCommand() *cobra.Command {
	var f evalFlags
	dialogs, dense := "", ""
	c := &cobra.Command{
		Use:   "visdial --dialogs visdial_1.0_val.json --dense visdial_1.0_val_dense_annotations.json --images FOLDER|TAR",
		Short: "dialogue about pictures: rank answers, find pictures (Visual Dialog)",
		Long: `Measure dialogue on Visual Dialog 1.0, as the paper does: rank a hundred candidate answers of every question by their loss after the picture and the
dialogue before it, and find the picture for a whole dialogue. What the candidates of a question have in common runs once. Pictures are files named as in
the data set's archives (VisualDialog_val2018_000000185565.jpg) in any folder under --images. A dialogue whose picture is missing is left out.

The paper's numbers come from scripts that take each token's loss at the token's own place (a language model's prediction of it stands one place before),
look for NDCG at the round after the annotated one, and find the dialogue for a picture rather than the picture for a dialogue. "as published" are these;
the others are told beside.`,
		Args: takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return a.evalVisDial(c.Context(), &f, dialogs, dense) },
	}
	c.Flags().StringVar(&dialogs, "dialogs", "", "the dialogues, a `FILE`")
	c.Flags().StringVar(&dense, "dense", "", "their dense annotations, a `FILE`; without it there is no NDCG")
	f.add(a, c.Flags())
	return c
}

func (a *app) evalVisDial(ctx context.Context, f *evalFlags, dialogs, dense string) error {
	if err := needFile("eval visdial", "dialogs", dialogs); err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
	data, err := eval.ReadVisDial(dialogs, dense, f.limit)
	if err != nil {
		return err
	}
	if f.images == "" {
		f.images = filepath.Dir(dialogs)
	}
	sums, err := hashed(dialogs, dense)
	if err != nil {
		return err
	}
	var ids []string
	for _, d := range data.Dialogs {
		ids = append(ids, d.Image)
	}
	files := map[string]string{}
	e, err := a.openEvaluation(ctx, "visdial", f, true, []any{sums, f.limit}, func(stems map[string]string) []string {
		return choose(ids, stems, data.Picture, files)
	})
	if err != nil {
		return err
	}
	s, err := eval.Dialogs(ctx, e.r, data, e.options(files))
	if err != nil {
		return e.stopped(err)
	}
	a.endProgress()
	return e.write(dialogResult(e, s, data, files))
}

func dialogResult(e *evaluation, s *eval.DialogScores, data *eval.VisDial, files map[string]string) *result {
	r := &result{
		scores: s, skipped: s.Skipped, notes: []string{paperNote},
		head: fmt.Sprintf("%d dialogues of %d rounds, %d left out", s.Dialogs, s.Rounds, len(s.Skipped)),
	}
	answers := report.Table{Columns: []string{"answers", "NDCG", "MRR", "R@1", "R@5", "R@10", "mean rank"}}
	add := func(name string, x eval.AnswerScores, ndcg float64) {
		row := append([]string{name}, numbers(ndcg, x.MRR)...)
		answers.Rows = append(answers.Rows, append(append(row, cells(&x.Recall)...), fmt.Sprintf("%.2f", x.MeanRank)))
	}
	add("as published", s.Published, s.Published.NDCGPublished)
	add("as a language model predicts", s.Predicted, s.Predicted.NDCG)
	pictures := report.Table{Columns: []string{"pictures", "R@1", "R@5", "R@10"}, Rows: [][]string{
		append([]string{"picture → dialogue, as published"}, cells(&s.PictureToDialog)...), append([]string{"dialogue → picture"}, cells(&s.DialogToPicture)...),
	}}
	if s.CLIP != nil {
		add("CLIP", s.CLIP.Answers, s.CLIP.Answers.NDCG)
		pictures.Rows = append(pictures.Rows, append([]string{"CLIP: picture → dialogue"}, cells(&s.CLIP.PictureToDialog)...),
			append([]string{"CLIP: dialogue → picture"}, cells(&s.CLIP.DialogToPicture)...))
	}
	answers.Rows = append(answers.Rows, []string{"paper", "16.6", "22.0", "17.6", "20.0", "24.4", "–"})
	pictures.Rows = append(pictures.Rows, []string{"paper", "20.8", "44.9", "56.0"})
	r.tables = []report.Table{answers, pictures}
	for _, x := range s.Each {
		r.each = append(r.each, x)
	}
	if e.f.out == "" {
		return r
	}
	dialogs := map[string]eval.Dialog{}
	for _, d := range data.Dialogs {
		dialogs[d.Image] = d
	}
	for _, i := range spread(len(s.Each)) {
		x := s.Each[i]
		d := dialogs[x.Image]
		example := report.Example{Title: "picture " + x.Image, Given: []report.Piece{{Picture: e.picture(files[x.Image])}}}
		for n, round := range d.Rounds {
			example.Answers = append(example.Answers, report.Answer{
				Name: fmt.Sprintf("Q: %s? A: %s (rank %d of %d)", round.Question, round.Answer, x.Predicted[n]+1, len(round.Options)),
				Text: x.Best[n], Right: x.Best[n] == round.Answer,
			})
		}
		var names []string
		for _, j := range x.Found {
			names = append(names, files[s.Each[j].Image])
		}
		pictures := e.found(names, func(n int) bool { return x.Found[n] == i })
		example.Answers = append(example.Answers, report.Answer{Name: "pictures found for the dialogue", Pictures: pictures})
		r.examples = append(r.examples, example)
	}
	return r
}
