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

// paperNote says what the numbers of the paper's model are of.
const paperNote = "paper: FROMAGe with OPT-6.7b and ViT-L/14 on all of the set, where the paper or its code tells the number."

func (a *app) evalVISTCommand() *cobra.Command {
	var f evalFlags
	sis := ""
	c := &cobra.Command{
		Use:   "vist --sis val.story-in-sequence.json --images FOLDER|TAR",
		Short: "contextual image retrieval: the last picture of a story (Visual Storytelling)",
		Long: `Measure contextual image retrieval on Visual Storytelling, as the paper does: given a story's captions, and the pictures before the last, its last picture
must be found among all pictures that the stories use. Pictures are files named by their number (100.jpg) in any folder under --images. A story of which a
picture is missing or cannot be read is left out, counted and listed.`,
		Args: takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return a.evalVIST(c.Context(), &f, sis) },
	}
	c.Flags().StringVar(&sis, "sis", "", "the stories, a story-in-sequence `FILE`")
	f.add(a, c.Flags())
	return c
}

func (a *app) evalVIST(ctx context.Context, f *evalFlags, sis string) error {
	if err := needFile("eval vist", "sis", sis); err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
	data, err := eval.ReadVIST(sis, f.limit)
	if err != nil {
		return err
	}
	if f.images == "" {
		f.images = filepath.Dir(sis)
	}
	sums, err := hashed(sis)
	if err != nil {
		return err
	}
	files := map[string]string{}
	e, err := a.openEvaluation(ctx, "vist", f, true, []any{sums, f.limit}, func(stems map[string]string) []string {
		return choose(data.Images, stems, func(id string) string { return id }, files)
	})
	if err != nil {
		return err
	}
	s, err := eval.Stories(ctx, e.r, data, e.options(files))
	if err != nil {
		return e.stopped(err)
	}
	a.endProgress()
	return e.write(storyResult(e, s, data, files))
}

// choose enters the files of pictures by their numbers, given how their names are made of these, and returns the files.
func choose(ids []string, stems map[string]string, stem func(id string) string, files map[string]string) (names []string) {
	for _, id := range ids {
		if name, ok := stems[stem(id)]; ok {
			files[id] = name
			names = append(names, name)
		}
	}
	return names
}

func storyResult(e *evaluation, s *eval.VISTScores, data *eval.VIST, files map[string]string) *result {
	r := &result{
		scores: s, skipped: s.Skipped, notes: []string{paperNote},
		head: fmt.Sprintf("%d stories over %d pictures, %d left out", s.Stories, s.Candidates, len(s.Skipped)),
	}
	t := report.Table{Columns: []string{"asked by", "R@1", "R@5", "R@10", "CLIP R@1", "R@5", "R@10", "paper R@1", "R@5", "R@10"}}
	for i, x := range s.Settings {
		paper := cells(nil)
		if i == eval.FiveWithImages {
			paper = numbers(18.2, 42.7, 51.8)
		}
		row := append([]string{x.Name}, cells(&x.Fromage)...)
		t.Rows = append(t.Rows, append(append(row, cells(x.CLIP)...), paper...))
	}
	r.tables = []report.Table{t}
	for _, x := range s.Each {
		r.each = append(r.each, x)
	}
	if e.f.out == "" {
		return r
	}
	stories := map[string]eval.Story{}
	for _, story := range data.Stories {
		stories[story.ID] = story
	}
	for _, i := range spread(len(s.Each)) {
		x := s.Each[i]
		story := stories[x.Story]
		example := report.Example{Title: "story " + x.Story}
		for n, caption := range story.Captions {
			example.Given = append(example.Given, report.Piece{Text: caption})
			if n < len(story.Images)-1 {
				example.Given = append(example.Given, report.Piece{Picture: e.picture(files[story.Images[n]])})
			}
		}
		for setting, found := range x.Found {
			var names []string
			for _, id := range found {
				names = append(names, files[id])
			}
			pictures := e.found(names, func(n int) bool { return found[n] == x.Truth })
			example.Answers = append(example.Answers, report.Answer{Name: eval.SettingNames[setting], Pictures: pictures})
		}
		r.examples = append(r.examples, example)
	}
	return r
}
