// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"fromage/dataset"
	"fromage/eval"
	"fromage/eval/report"
)

func (a *app) evalComposeCommand() *cobra.Command {
	var f evalFlags
	data := ""
	c := &cobra.Command{
		Use:   "compose --data FILE.tsv --images FOLDER|TAR",
		Short: "find what a picture shows in another style that a text names",
		Long: `Measure composition of pictures and texts. Of captions "STYLE of CONCEPT" every picture whose concept the set has in another style makes a question:
given the picture and "as a black icon", a black icon of the same concept must be found among all pictures but the one that is given. It is asked with the
picture and the text, with either alone, and with what the model says the picture would be in that style.`,
		Args: takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return a.evalCompose(c.Context(), &f, data) },
	}
	c.Flags().StringVar(&data, "data", "", "the examples, a TSV `FILE` with the columns caption and image")
	f.add(a, c.Flags())
	return c
}

func (a *app) evalCompose(ctx context.Context, f *evalFlags, data string) error {
	if err := needFile("eval compose", "data", data); err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
	examples, err := readExamples(data, f.limit)
	if err != nil {
		return err
	}
	if f.images == "" {
		f.images = filepath.Dir(data)
	}
	e, err := a.openEvaluation(ctx, "compose", f, false, examples, func(map[string]string) []string { return imagesOf(examples) })
	if err != nil {
		return err
	}
	s, err := eval.Compose(ctx, e.r, examples, e.options(nil))
	if err != nil {
		return e.stopped(err)
	}
	a.endProgress()
	return e.write(composeResult(e, s, e.features.Usable(examples)))
}

func composeResult(e *evaluation, s *eval.ComposeScores, usable []dataset.Example) *result {
	r := &result{scores: s, head: fmt.Sprintf("%d compositions over %d pictures, %d left out", s.Questions, s.Candidates, s.Skipped)}
	t := report.Table{Columns: []string{"asked by", "R@1", "R@5", "R@10"}}
	for _, w := range s.Ways {
		t.Rows = append(t.Rows, append([]string{w.Name}, cells(&w.Recall)...))
	}
	r.tables = []report.Table{t}
	for _, x := range s.Each {
		r.each = append(r.each, x)
	}
	if e.f.out == "" {
		return r
	}
	captions := map[string]string{}
	for _, x := range usable {
		captions[x.Image] = x.Caption
	}
	for _, i := range spread(len(s.Each)) {
		x := s.Each[i]
		example := report.Example{Given: []report.Piece{{Picture: e.picture(x.Image)}, {Text: "as " + x.Style}}}
		example.Answers = append(example.Answers, report.Answer{Name: "the model says", Text: x.Said, Right: x.Said == x.Right})
		for way, found := range x.Found {
			example.Answers = append(example.Answers, report.Answer{Name: s.Ways[way].Name, Pictures: e.found(found, func(n int) bool { return strings.EqualFold(captions[found[n]], x.Right) })})
		}
		r.examples = append(r.examples, example)
	}
	return r
}
