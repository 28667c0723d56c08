// SPDX-License-Identifier: Apache-2.0

// Package report shows a training run as one page of HTML: what it was asked for, its numbers as curves and tables, and what the model says and
// finds for some pictures.
//
// What enters is plain data, pictures as the bytes of their files; what leaves is a page that holds everything, loads nothing and runs no script.
// The package refuses to know training, models and where the numbers come from.
package report

import (
	"bufio"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"

	"fromage/internal/atomicfile"
)

// Run is what a page tells.
type Run struct {
	Title   string
	Facts   []Fact // settings, sizes, times, in the order in which they are shown
	Rows    []Row  // by ascending step
	Samples []Sample
}

// Fact is one line of what there is to know.
type Fact struct{ Name, Value string }

// Row is what was measured at a step. Names have the form "train/loss": numbers whose names differ before the first slash only share a chart, and
// those under "val/" make the table of evaluations as well. What is not finite is left out of charts.
type Row struct {
	Step    int
	Scalars map[string]float64
}

// Sample is a picture with what the model made of it, and what it found by the caption.
type Sample struct {
	Picture   Picture
	Caption   string // as in the data
	Generated string // the model's
	Retrieved []Found
}

// Found is a picture found by a sample's caption, the best first.
type Found struct {
	Picture Picture
	Score   float64
	Right   bool // whether it is the sample's picture, or as good
}

// Picture is a file that browsers can show; without data the page shows its path alone.
type Picture struct {
	Path string
	Data []byte
}

//go:embed report.html
var page string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{"source": Source, "number": number}).Parse(page))

// Save writes the page to a file, which appears when it is complete.
func Save(path string, run Run) error {
	f, err := atomicfile.Create(path)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	w := bufio.NewWriter(f)
	if err = Write(w, run); err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Commit()
	}
	if err != nil {
		f.Abort()
		return fmt.Errorf("report: %s: %w", path, err)
	}
	return nil
}

// Write writes the page.
func Write(w io.Writer, run Run) error {
	return pageTemplate.Execute(w, struct {
		Run
		Charts      []chart
		Evaluations table
		Extremes    []extreme
	}{run, charts(run.Rows), evaluations(run.Rows), extremes(run.Rows)})
}

// table has a column for each name and a row for each step.
type table struct {
	Names []string
	Rows  []tableRow
}

type tableRow struct {
	Step  int
	Cells []string
}

const evaluated = "val/"

// evaluations are the rows that have numbers under "val/".
func evaluations(rows []Row) table {
	var t table
	for _, name := range names(rows) {
		if strings.HasPrefix(name, evaluated) {
			t.Names = append(t.Names, strings.TrimPrefix(name, evaluated))
		}
	}
	for _, r := range rows {
		line, any := tableRow{Step: r.Step}, false
		for _, name := range t.Names {
			v, ok := r.Scalars[evaluated+name]
			any = any || ok
			line.Cells = append(line.Cells, cell(v, ok))
		}
		if any {
			t.Rows = append(t.Rows, line)
		}
	}
	return t
}

func cell(v float64, ok bool) string {
	if !ok {
		return ""
	}
	return number(v)
}

// extreme is how far a number went, and where.
type extreme struct {
	Name                string
	First, Last         float64
	Lowest, Highest     float64
	LowestAt, HighestAt int // steps
}

// extremes leaves out what is not finite, unless it came last or there is nothing else.
func extremes(rows []Row) []extreme {
	var all []extreme
	for _, name := range names(rows) {
		e := extreme{Name: name, First: math.NaN(), Last: math.NaN(), Lowest: math.Inf(1), Highest: math.Inf(-1)}
		for _, r := range rows {
			v, ok := r.Scalars[name]
			if !ok {
				continue
			}
			e.Last = v
			if !finite(v) {
				continue
			}
			if math.IsNaN(e.First) {
				e.First = v
			}
			if v < e.Lowest {
				e.Lowest, e.LowestAt = v, r.Step
			}
			if v > e.Highest {
				e.Highest, e.HighestAt = v, r.Step
			}
		}
		if math.IsNaN(e.First) {
			e.Lowest, e.Highest = math.NaN(), math.NaN()
		}
		all = append(all, e)
	}
	return all
}

// names are the names of all numbers, sorted.
func names(rows []Row) []string {
	seen := map[string]bool{}
	var all []string
	for _, r := range rows {
		for name := range r.Scalars {
			if !seen[name] {
				seen[name] = true
				all = append(all, name)
			}
		}
	}
	slices.Sort(all)
	return all
}

// number is a value for people: four digits.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v), math.IsInf(v, 0):
		return fmt.Sprint(v)
	case v == math.Trunc(v) && a < 1e7:
		return fmt.Sprintf("%.0f", v)
	case a >= 1e-3 && a < 1e4:
		return fmt.Sprintf("%.*f", min(4, 3-int(math.Floor(math.Log10(a)))), v)
	}
	return fmt.Sprintf("%.3g", v)
}

// finite leaves room for sums and differences.
func finite(v float64) bool { return math.Abs(v) <= 1e300 }
