// SPDX-License-Identifier: Apache-2.0

package index

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
)

func TestReadCredits(t *testing.T) {
	f, err := os.Open("testdata/credits.tsv")
	must(t, err)
	defer f.Close()
	credits, err := ReadCredits(f)
	must(t, err)
	want := Credit{"az-lizard", "reptile, animal", "Public domain"}
	if have := credits["openclipart/00002.webp"]; len(credits) != 5 || have != want {
		t.Errorf("ReadCredits(credits.tsv): %d, of the third %q, want 5, %q", len(credits), have, want)
	}
	const header = "image\tconcept\tkeywords\tlicence"
	for in, want := range map[string]int{
		header: 0, header + "\n": 0, header + "\na\t\t\tx\n": 1, "\ufeff" + header + "\r\na\t\"b\"\t\t\r\n\r\nc\t\t\td\r\n\n": 2, header + "\na\t\t\t\r\r\n": 1,
	} {
		if have, err := ReadCredits(strings.NewReader(in)); err != nil || len(have) != want {
			t.Errorf("ReadCredits(%q) = %v, %v, want %d", in, have, err, want)
		}
	}
	for in, want := range map[string]string{
		header + "\na\t\t\t\na\t\t\t\n": "line 3: want each image once",
		header + "\n\tx\t\t\n":          "line 2: want an image",
		header + "\nx\n":                "line 2: want 4 fields, have 1",
		header + "\na\t\t\t\n\na\tb\n":  "line 4: want 4 fields, have 2",
		header + "\na\xff\t\t\t\n":      "line 2: want UTF-8",
		"caption\timage\n":              "line 1: want the header",
		"":                              "line 1: want the header",
	} {
		if _, err := ReadCredits(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ReadCredits(%q) = %v, want %q", in, err, want)
		}
	}
	broken := errors.New("broken")
	if _, err := ReadCredits(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("ReadCredits of a broken reader = %v, want %v", err, broken)
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

func FuzzReadCredits(f *testing.F) {
	b, err := os.ReadFile("testdata/credits.tsv")
	must(f, err)
	f.Add(string(b))
	f.Add("\ufeffimage\tconcept\tkeywords\tlicence\r\na\tb\t\t\r\n")
	f.Fuzz(func(t *testing.T, in string) {
		credits, err := ReadCredits(strings.NewReader(in))
		if err != nil {
			return
		}
		out := "image\tconcept\tkeywords\tlicence\n"
		for image, c := range credits {
			out += image + "\t" + c.Concept + "\t" + c.Keywords + "\t" + c.Licence + "\n"
		}
		again, err := ReadCredits(strings.NewReader(out))
		if err != nil || !maps.Equal(again, credits) {
			t.Fatalf("ReadCredits of what was read = %q, %v, want %q", again, err, credits)
		}
	})
}
