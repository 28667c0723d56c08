// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// Credit is what a credits file says of a picture.
type Credit struct {
	Concept  string // what it shows
	Keywords string // separated by commas
	Licence  string
}

// ReadCredits reads a credits file, by image: the header line "image<TAB>concept<TAB>keywords<TAB>licence", then one picture a line, of which only
// the image must be there, UTF-8. Quotes are letters like others. A byte order mark, CRLF and empty lines are tolerated; anything else, and an image that
// comes twice, is an error with its line.
func ReadCredits(r io.Reader) (map[string]Credit, error) {
	credits := make(map[string]Credit)
	err := readTable(r, []string{"image", "concept", "keywords", "licence"}, func(line int, f []string) error {
		if f[0] == "" {
			return fmt.Errorf("index: listing line %d: want an image, have none", line)
		}
		if _, ok := credits[f[0]]; ok {
			return fmt.Errorf("index: listing line %d: want each image once, have %q again", line, f[0])
		}
		credits[f[0]] = Credit{Concept: f[1], Keywords: f[2], Licence: f[3]}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return credits, nil
}

// readTable calls row with the fields of every line after the header, which must be the columns.
func readTable(r io.Reader, columns []string, row func(line int, fields []string) error) error {
	in := bufio.NewReader(r)
	header := strings.Join(columns, "\t")
	for line := 1; ; line++ {
		text, err := in.ReadString('\n')
		if err != nil && err != io.EOF {
			return fmt.Errorf("index: listing line %d: %w", line, err)
		}
		end := err == io.EOF
		text = strings.TrimRight(text, "\r\n")
		if line == 1 {
			if text = strings.TrimPrefix(text, "\ufeff"); text != header {
				return fmt.Errorf("index: listing line 1: want the header %q, have %.80q", header, text)
			}
		} else if text != "" {
			fields := strings.Split(text, "\t")
			if len(fields) != len(columns) {
				return fmt.Errorf("index: listing line %d: want %d fields, have %d", line, len(columns), len(fields))
			}
			if !utf8.ValidString(text) {
				return fmt.Errorf("index: listing line %d: want UTF-8, have %.80q", line, text)
			}
			if err := row(line, fields); err != nil {
				return err
			}
		}
		if end {
			return nil
		}
	}
}

// pictureExtensions are those of the formats that browsers and Go's decoders both read.
var pictureExtensions = []string{".gif", ".jpeg", ".jpg", ".png", ".webp"}

// Walk lists the picture files of a folder and the folders in it, by extension in any case, as slash-separated paths
// from the folder, sorted. Names that begin with a dot are skipped, links to folders are not followed. For a folder on
// disk pass os.DirFS.
func Walk(folder fs.FS) ([]string, error) {
	var files []string
	err := fs.WalkDir(folder, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("index: walk: %w", err)
		}
		if name != "." && strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() || !slices.Contains(pictureExtensions, strings.ToLower(path.Ext(name))) {
			return nil
		}
		info, err := fs.Stat(folder, name)
		if err != nil {
			return fmt.Errorf("index: walk: %w", err)
		}
		if info.Mode().IsRegular() {
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	return files, nil
}
