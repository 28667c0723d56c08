// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("x", 10000)
	for _, c := range []struct {
		name, in string
		want     []Example
	}{
		{"plain", "caption\timage\na cat\tc.png\na dog\td/e.png\n", []Example{{"a cat", "c.png"}, {"a dog", "d/e.png"}}},
		{"no last line end", "caption\timage\na\tb", []Example{{"a", "b"}}},
		{"order and more columns", "id\timage\tcaption\n7\tb\ta\n", []Example{{"a", "b"}}},
		{"CRLF", "caption\timage\r\na\tb\r\n", []Example{{"a", "b"}}},
		{"CR", "caption\timage\ra\tb\rc\td", []Example{{"a", "b"}, {"c", "d"}}},
		{"byte order mark", "\ufeff\"caption\"\timage\na\tb\n", []Example{{"a", "b"}}},
		{"blank lines", "\n  \ncaption\timage\n\r\n   \na\tb\n\n", []Example{{"a", "b"}}},
		{"leading spaces stay", "caption\timage\n  a \tb\n", []Example{{"  a ", "b"}}},
		{"quotes", "caption\timage\n\"a \"\"big\"\"\tcat\r\nsat\"\tb\n", []Example{{"a \"big\"\tcat\r\nsat", "b"}}},
		{"quotes within", "caption\timage\na 5\" nail\tb\n", []Example{{"a 5\" nail", "b"}}},
		{"text after quotes", "caption\timage\n\"a\"b\"c\tb\n", []Example{{"ab\"c", "b"}}},
		{"quoted and empty", "caption\timage\n\"\"\tb\n", []Example{{"", "b"}}},
		{"empty", "caption\timage\n\tb\na\t\n\t", []Example{{"", "b"}, {"a", ""}, {"", ""}}},
		{"not a number", "caption\timage\nNA\t12\n", []Example{{"NA", "12"}}},
		{"long", "caption\timage\n" + long + "\tb\n", []Example{{long, "b"}}},
	} {
		got, err := parse(strings.NewReader(c.in))
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: parse = %.200q, %v, want %.200q", c.name, got, err, c.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "", `line 1: want a header with the columns caption and image, have []`},
		{"header", "text\turl\na\tb\n", `line 1: want a header with the columns caption and image, have ["text" "url"]`},
		{"commas", "caption,image\na,b\n", `have ["caption,image"]`},
		{"no rows", "caption\timage\n\n", "want at least one row after the header, have none"},
		{"too few", "caption\timage\na\tb\na\n", `line 3: want 2 fields (caption, image), have 1: ["a"]`},
		{"too many", "caption\timage\n\"a\nb\"\tb\n\na\tb\tc\n", `line 5: want 2 fields (caption, image), have 3`},
		{"UTF-8", "caption\timage\na\tb\nc\t\xff\n", `line 3: column image: want UTF-8, have "\xff"`},
		{"open quote", "caption\timage\na\tb\n\"c\td\n", "line 3: a quote is opened and never closed"},
		{"too long", "caption\timage\n" + strings.Repeat("x", maxField+1) + "\tb", "line 2: want fields of at most 1048576 bytes"},
	} {
		got, err := parse(strings.NewReader(c.in))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: parse = %.200q, %v, want an error with %q", c.name, got, err, c.want)
		}
	}
	file := filepath.Join(t.TempDir(), "a.tsv")
	if err := os.WriteFile(file, []byte("a\tb\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, filepath.Join(t.TempDir(), "none.tsv"), t.TempDir()} {
		if _, err := Read(name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("Read(%s): error %v, want one that names the file", name, err)
		}
	}
}

// FuzzParse: what is read can be written with every field in quotes, and read again as the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte("caption\timage\na\tb\n"))
	f.Add([]byte("\ufeffimage\tx\tcaption\r\n\"a\"\"\t\"\tb\tc\r\r\n \n"))
	f.Add([]byte("caption\timage\n\"a"))
	f.Fuzz(func(t *testing.T, in []byte) {
		examples, err := parse(strings.NewReader(string(in)))
		if err != nil {
			return
		}
		quote := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
		out := "caption\timage\n"
		for _, e := range examples {
			if !utf8.ValidString(e.Caption) || !utf8.ValidString(e.Image) {
				t.Fatalf("parse(%q) = %q, which is not UTF-8", in, e)
			}
			out += quote(e.Caption) + "\t" + quote(e.Image) + "\n"
		}
		again, err := parse(strings.NewReader(out))
		if err != nil || !slices.Equal(again, examples) {
			t.Errorf("parse(%q) = %q, %v, want %q", out, again, err, examples)
		}
	})
}
