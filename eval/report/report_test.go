// SPDX-License-Identifier: Apache-2.0

package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fromage/trainer/report"
)

// TestSave: everything that is told is on the page, nothing of it as markup, and the page loads nothing.
func TestSave(t *testing.T) {
	png, err := os.ReadFile("../../testdata/golden/clip/vision/images/exact_32x32.png")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "report.html")
	err = Save(file, Page{
		Title: "eval <vist>", Facts: []report.Fact{{Name: "model", Value: "a & b"}},
		Tables: []Table{{Columns: []string{"setting", "R@1"}, Rows: [][]string{{"1 caption", "11.3"}, {"5 captions", "<b>"}}}}, Notes: []string{"mind this"},
		Examples: []Example{{
			Title: "story 7", Given: []Piece{{Text: "a <cat>\nsat"}, {Picture: report.Picture{Path: "c.png", Data: png}}, {Picture: report.Picture{Path: "gone.png"}}},
			Answers: []Answer{{Name: "found", Pictures: []report.Found{{Picture: report.Picture{Path: "d.png", Data: png}, Right: true}, {Picture: report.Picture{Path: "e.png"}}}}, {Name: "said", Text: "yes", Right: true}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	for _, want := range []string{
		"eval &lt;vist&gt;", "a &amp; b", "<th>R@1</th>", "<th>1 caption</th><td>11.3</td>", "&lt;b&gt;", "mind this", "story 7", "a &lt;cat&gt;\nsat",
		"data:image/png;base64,", "gone.png", `<figure class="right">`, "right: d.png", `<p class="right">yes</p>`, "default-src &#39;none&#39;",
	} {
		if !strings.Contains(page, want) && !strings.Contains(page, strings.ReplaceAll(want, "&#39;", "'")) {
			t.Errorf("the page has no %q", want)
		}
	}
	for _, bad := range []string{"<script", "http:", "https:", "<cat>"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if n := strings.Count(page, "<img "); n != 2 {
		t.Errorf("%d pictures, want the 2 that have data", n)
	}
	if err := Save(filepath.Join(t.TempDir(), "none", "a.html"), Page{}); err == nil {
		t.Error("Save into a folder that is not there: no error")
	}
}
