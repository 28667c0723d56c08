// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fromage/dataset"
	"fromage/eval"
	"fromage/eval/report"
	"fromage/runner"
	trainreport "fromage/trainer/report"
)

func (a *app) evalCommand() *cobra.Command {
	var f captionFlags
	c := &cobra.Command{
		Use:   "eval captions | vist | visdial | compose | --val FILE.tsv",
		Short: "measure a model on pictures and texts with known answers",
		Long: `Measure a model as FROMAGe's reference and paper do. With --val this is "eval captions --data".

With -o DIR the folder gets scores.json, examples.jsonl (what was said and found for every example), report.html (the scores beside the paper's, and
examples with pictures) and journal.jsonl: what was done is in it, and the same command goes on from there after Ctrl-C or a kill. What CLIP makes of
pictures is kept in a cache that all runs share. --baseline clip tells what CLIP's own text tower finds among the same candidates; it is in bundles made
with fromage compile --clip-text.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.data == "" {
				return c.Help()
			}
			return a.evalCaptions(c.Context(), &f)
		},
	}
	f.add(a, c.Flags(), "val")
	c.AddCommand(a.evalCaptionsCommand(), a.evalVISTCommand(), a.evalVisDialCommand(), a.evalComposeCommand())
	return c
}

// evalFlags are those of every evaluation.
type evalFlags struct {
	images         string
	cache          string
	limit          int
	out            string
	baseline, clip string
}

func (f *evalFlags) add(a *app, flags *pflag.FlagSet) {
	flags.StringVar(&f.images, "images", "", "where the pictures are: a `FOLDER`, .tar or .tar.gz (default: the folder of the data)")
	flags.StringVar(&f.cache, "feature-cache", "", "the `FOLDER` for what CLIP made of pictures (default: fromage/features in the user's cache folder)")
	flags.IntVar(&f.limit, "limit", 0, "take the first `N` examples alone")
	flags.StringVarP(&f.out, "output", "o", "", "the `FOLDER` for scores, examples, report and journal; a run that was stopped goes on in it")
	flags.StringVar(&f.baseline, "baseline", "", "clip: tell what CLIP's two towers find as well")
	flags.StringVar(&f.clip, "clip", "", "a `BUNDLE` with CLIP's text tower for --baseline clip (default: the model's own)")
	a.modelFlag(flags)
	a.kvFlag(flags)
}

func (f *evalFlags) check() error {
	if f.limit < 0 {
		return fmt.Errorf("--limit: want 0 or more, have %d", f.limit)
	}
	if f.clip != "" {
		f.baseline = "clip"
	}
	if f.baseline != "" && f.baseline != "clip" {
		return fmt.Errorf("--baseline: want clip, have %q", f.baseline)
	}
	return nil
}

// evaluation is what a run of any kind works with.
type evaluation struct {
	a        *app
	f        *evalFlags
	what     string
	r        *runner.Runner
	pictures *dataset.Pictures
	features *dataset.Features
	clip     *eval.CLIP
	journal  *eval.Journal
}

// openEvaluation opens everything: the pictures that pick chooses (of all that there are, by their names without folder and extension), the model, what
// its vision tower makes of the pictures, CLIP, the journal. of is the data and options, which the journal is bound to.
func (a *app) openEvaluation(ctx context.Context, what string, f *evalFlags, squash bool, of any, pick func(stems map[string]string) []string) (*evaluation, error) {
	e := &evaluation{a: a, f: f, what: what}
	var err error
	e.pictures, err = dataset.OpenPictures(ctx, f.images, a.watch("B"))
	a.endProgress()
	if err != nil {
		return nil, err
	}
	a.atEnd(e.pictures.Close)
	stems, err := e.pictures.Stems()
	if err != nil {
		return nil, err
	}
	names := pick(stems)
	if e.r, err = a.load(ctx); err != nil {
		return nil, err
	}
	e.features, err = dataset.Embed(ctx, e.r, names, e.pictures, dataset.FeatureOptions{Cache: f.cache, Squash: squash, Progress: a.watch("")})
	a.endProgress()
	if err != nil {
		return nil, err
	}
	a.atEnd(e.features.Close)
	for _, s := range e.features.Skipped {
		fmt.Fprintln(a.stderr, "fromage: left out:", s)
	}
	if f.baseline != "" {
		if e.clip, err = a.openCLIP(ctx, e.r, f.clip, names, e.pictures, dataset.FeatureOptions{Cache: f.cache, Squash: squash}); err != nil {
			return nil, err
		}
	}
	return e, e.openJournal(of)
}

// openJournal opens the folder's journal, which is of this model, data and options alone.
func (e *evaluation) openJournal(of any) error {
	if e.f.out == "" {
		return nil
	}
	if err := os.MkdirAll(e.f.out, 0o777); err != nil {
		return err
	}
	key, err := json.Marshal([]any{e.r.Manifest(), e.clip.Manifest(), of})
	if err != nil {
		return err
	}
	if e.journal, err = eval.OpenJournal(filepath.Join(e.f.out, "journal.jsonl"), e.what, sha256.Sum256(key)); err != nil {
		return err
	}
	e.a.atEnd(func() { e.journal.Close() })
	return nil
}

// options are those of the evaluations whose pictures have numbers.
func (e *evaluation) options(names map[string]string) eval.Options {
	return eval.Options{Names: names, Features: e.features, CLIP: e.clip, Journal: e.journal, Progress: e.a.watch("")}
}

// result is what an evaluation found, in every form that it is told in.
type result struct {
	scores   any
	head     string // one line
	tables   []report.Table
	notes    []string
	skipped  []eval.Skip
	each     []any
	examples []report.Example
}

// write tells the result on standard output and in the folder.
func (e *evaluation) write(r *result) error {
	a := e.a
	for _, s := range r.skipped {
		fmt.Fprintf(a.stderr, "fromage: left out: %s: %s\n", s.Example, s.Reason)
	}
	if err := e.save(r); err != nil {
		return err
	}
	if a.json {
		return a.writeJSON(r.scores)
	}
	fmt.Fprintln(a.stdout, r.head)
	for _, t := range r.tables {
		writeTable(a.stdout, t)
	}
	for _, n := range r.notes {
		fmt.Fprintln(a.stdout, n)
	}
	return nil
}

// save writes the folder's files.
func (e *evaluation) save(r *result) error {
	if e.f.out == "" {
		return nil
	}
	err := writeFile(filepath.Join(e.f.out, "scores.json"), func(w io.Writer) error { return indented(w, r.scores) })
	if err != nil {
		return err
	}
	err = writeFile(filepath.Join(e.f.out, "examples.jsonl"), func(w io.Writer) error {
		b := bufio.NewWriter(w)
		lines := json.NewEncoder(b)
		lines.SetEscapeHTML(false)
		for _, x := range r.each {
			if err := lines.Encode(x); err != nil {
				return err
			}
		}
		return b.Flush()
	})
	if err != nil {
		return err
	}
	info := e.r.Device().Info()
	return report.Save(filepath.Join(e.f.out, "report.html"), report.Page{
		Title: "fromage eval " + e.what,
		Facts: []trainreport.Fact{
			{Name: "what", Value: r.head}, {Name: "model", Value: e.r.Manifest().Name}, {Name: "weights", Value: e.r.Manifest().DType.String()},
			{Name: "visual tokens", Value: strconv.Itoa(e.r.Settings().VisualTokens)}, {Name: "device", Value: info.Host + ": " + info.Adapter},
		},
		Tables: r.tables, Notes: r.notes, Examples: r.examples,
	})
}

// writeTable writes a table in columns.
func writeTable(w io.Writer, t report.Table) {
	wide := make([]int, len(t.Columns))
	rows := append([][]string{t.Columns}, t.Rows...)
	for _, row := range rows {
		for i, cell := range row {
			wide[i] = max(wide[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		for i, cell := range row {
			pad := fmt.Sprintf("%*s", wide[i]-utf8.RuneCountInString(cell), "")
			if i == 0 {
				fmt.Fprint(w, cell, pad)
			} else {
				fmt.Fprint(w, "  ", pad, cell)
			}
		}
		fmt.Fprintln(w)
	}
}

// cells are a recall's three numbers, or dashes for none.
func cells(r *eval.Recall) []string {
	if r == nil {
		return []string{"–", "–", "–"}
	}
	return numbers(r.At1, r.At5, r.At10)
}

func numbers(all ...float64) (out []string) {
	for _, x := range all {
		out = append(out, fmt.Sprintf("%.1f", x))
	}
	return out
}

// sampleCount is how many examples a report shows.
const sampleCount = 12

// spread are the numbers of a few of n examples, over all of them.
func spread(n int) (out []int) {
	for i := range min(sampleCount, n) {
		out = append(out, i*n/min(sampleCount, n))
	}
	return out
}

// picture is a picture's bytes for the report, which can do without.
func (e *evaluation) picture(name string) trainreport.Picture {
	data, err := e.pictures.Read(name)
	if err != nil {
		e.a.log.Warn("report", "picture", name, "error", err)
	}
	return trainreport.Picture{Path: name, Data: data}
}

// found are pictures that were found, by file; right says which are.
func (e *evaluation) found(files []string, right func(i int) bool) (out []trainreport.Found) {
	for i, name := range files {
		out = append(out, trainreport.Found{Picture: e.picture(name), Right: right(i)})
	}
	return out
}

// stopped is the error of an evaluation; where it was interrupted, what to do is said.
func (e *evaluation) stopped(err error) error {
	e.a.endProgress()
	if errors.Is(err, context.Canceled) && e.journal != nil {
		fmt.Fprintf(e.a.stderr, "fromage: stopped: the same command goes on in %s\n", e.f.out)
	}
	return err
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

// needFile says which flag names the data, where it does not.
func needFile(command, flag, value string) error {
	if value == "" {
		return errors.New(command + ": want --" + flag + " FILE")
	}
	return nil
}

// hashed is a file's SHA-256, for a journal's key.
func hashed(files ...string) (sums []string, err error) {
	for _, name := range files {
		if name == "" {
			sums = append(sums, "")
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return nil, err
		}
		sums = append(sums, fmt.Sprintf("%x", h.Sum(nil)))
	}
	return sums, nil
}
