// SPDX-License-Identifier: Apache-2.0

package index

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
)

func TestReadTSV(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []Entry
		err  string
	}{
		{"caption\timage\n", nil, ""},
		{"caption\timage", nil, ""},
		{"caption\timage\na dog\td.png\n", []Entry{{"a dog", "d.png"}}, ""},
		{"caption\timage\na dog\td.png", []Entry{{"a dog", "d.png"}}, ""},
		{"\ufeffcaption\timage\r\na\tb\r\n\r\nc\td\r\n\n", []Entry{{"a", "b"}, {"c", "d"}}, ""},
		{"caption\timage\n\"a\" dog, \"\t\"b\n", []Entry{{`"a" dog, "`, `"b`}}, ""},
		{"caption\timage\na\tb\r\r\n", []Entry{{"a", "b"}}, ""},
		{"", nil, "line 1: want the header"},
		{"image\tcaption\n", nil, "line 1: want the header"},
		{"caption\timage\nx\n", nil, "line 2: want 2 fields, have 1"},
		{"caption\timage\na\tb\n\na\tb\tc\n", nil, "line 4: want 2 fields, have 3"},
		{"caption\timage\n\tb\n", nil, "line 2: want a caption and an image"},
		{"caption\timage\na\t\n", nil, "line 2: want a caption and an image"},
		{"caption\timage\na\xff\tb\n", nil, "line 2: want UTF-8"},
	} {
		have, err := ReadTSV(strings.NewReader(c.in))
		if !slices.Equal(have, c.want) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("ReadTSV(%q) = %q, %v, want %q, %q", c.in, have, err, c.want, c.err)
		}
	}
	broken := errors.New("broken")
	if _, err := ReadTSV(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("ReadTSV of a broken reader = %v, want %v", err, broken)
	}
}

func TestListingFiles(t *testing.T) {
	f, err := os.Open("testdata/train.tsv")
	must(t, err)
	defer f.Close()
	entries, err := ReadTSV(f)
	must(t, err)
	if want := (Entry{"a clipart drawing of AZ lizard", "openclipart/00002.webp"}); len(entries) != 5 || entries[2] != want {
		t.Errorf("ReadTSV(train.tsv) = %q, want 5 entries, the third %q", entries, want)
	}
	g, err := os.Open("testdata/credits.tsv")
	must(t, err)
	defer g.Close()
	credits, err := ReadCredits(g)
	must(t, err)
	want := Credit{"az-lizard", "reptile, animal", "Public domain"}
	if have := credits["openclipart/00002.webp"]; len(credits) != 5 || have != want {
		t.Errorf("ReadCredits(credits.tsv): %d, of the third %q, want 5, %q", len(credits), have, want)
	}
	for in, want := range map[string]string{
		"image\tconcept\tkeywords\tlicence\na\t\t\t\na\t\t\t\n": "line 3: want each image once",
		"image\tconcept\tkeywords\tlicence\n\tx\t\t\n":          "line 2: want an image",
		"caption\timage\n": "line 1",
	} {
		if _, err := ReadCredits(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ReadCredits(%q) = %v, want %q", in, err, want)
		}
	}
}

func TestWalk(t *testing.T) {
	folder := fstest.MapFS{}
	for _, name := range []string{"b.png", "a/z.JPG", "a/notes.txt", "a/.hidden.png", ".git/x.png", "a.webp", "a/b/c.jpeg", "png", "d.gif"} {
		folder[name] = &fstest.MapFile{}
	}
	folder["folder.png/x.gif"] = &fstest.MapFile{}
	have, err := Walk(folder)
	want := []string{"a.webp", "a/b/c.jpeg", "a/z.JPG", "b.png", "d.gif", "folder.png/x.gif"}
	if err != nil || !slices.Equal(have, want) {
		t.Errorf("Walk = %q, %v, want %q", have, err, want)
	}
	if _, err := Walk(os.DirFS("testdata/none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Walk of no folder = %v, want %v", err, os.ErrNotExist)
	}
}

func FuzzReadTSV(f *testing.F) {
	for _, name := range []string{"testdata/train.tsv", "testdata/credits.tsv"} {
		b, err := os.ReadFile(name)
		must(f, err)
		f.Add(string(b))
	}
	f.Add("\ufeffcaption\timage\r\na\tb\r\n")
	f.Fuzz(func(t *testing.T, in string) {
		_, _ = ReadCredits(strings.NewReader(in))
		entries, err := ReadTSV(strings.NewReader(in))
		if err != nil {
			return
		}
		out := "caption\timage\n"
		for _, e := range entries {
			out += e.Caption + "\t" + e.Image + "\n"
		}
		again, err := ReadTSV(strings.NewReader(out))
		if err != nil || !slices.Equal(again, entries) {
			t.Fatalf("ReadTSV of what was read = %q, %v, want %q", again, err, entries)
		}
	})
}
