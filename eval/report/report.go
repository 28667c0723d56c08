// SPDX-License-Identifier: Apache-2.0

// Package report shows an evaluation as one page of HTML: its scores beside those that they are compared with, and examples with pictures.
//
// What enters is plain data, pictures as the bytes of their files; what leaves is a page that holds everything, loads nothing and runs no script. The
// package refuses to know models, data sets and measures.
package report

import (
	"bufio"
	_ "embed"
	"fmt"
	"html/template"
	"io"

	"fromage/internal/atomicfile"
	"fromage/trainer/report"
)

// Page is what is told.
type Page struct {
	Title    string
	Facts    []report.Fact
	Tables   []Table
	Notes    []string // what readers of the tables have to know
	Examples []Example
}

// Table has a name and numbers by row; every row has a cell for each column, the first of which names it.
type Table struct {
	Columns []string
	Rows    [][]string
}

// Example is what the model was given, and what it made of it.
type Example struct {
	Title   string
	Given   []Piece
	Answers []Answer
}

// Piece is a text or a picture.
type Piece struct {
	Text    string
	Picture report.Picture // where it has a path
}

// Answer is a text, pictures, or both, under a name.
type Answer struct {
	Name     string
	Text     string
	Right    bool // the text is right
	Pictures []report.Found
}

//go:embed report.html
var page string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{"source": report.Source}).Parse(page))

// Save writes the page to a file, which appears when it is complete.
func Save(path string, p Page) error {
	f, err := atomicfile.Create(path)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	w := bufio.NewWriter(f)
	if err = Write(w, p); err == nil {
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
func Write(w io.Writer, p Page) error { return pageTemplate.Execute(w, p) }
