// SPDX-License-Identifier: Apache-2.0

// Package dataset reads captioned pictures: the reference's TSV files, the pictures that they name, and what CLIP's vision tower makes of them.
//
// What enters is a TSV, a folder or tar archive of pictures, and a loaded model; what leaves is examples, bytes of pictures, and the pooled state v of
// every distinct picture, computed once and kept on disk. The package refuses to know tokens, heads, losses and measures.
//
// A picture that is missing or cannot be read is never replaced by another, as the reference does: it is left out, counted and listed.
package dataset

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// Example is a row of a TSV.
type Example struct {
	Caption string
	Image   string // path within the folder or archive of pictures
}

// maxField is the most bytes of a field: a quote that is never closed would take in the rest of the file.
const maxField = 1 << 20

// Read reads a TSV file with the columns caption and image, in any order and among others, as the reference's pandas.read_csv(sep="\t") does: a field
// that begins with a quote ends at the next single one and may hold tabs and line ends, with "" for a quote; lines end in LF, CRLF or CR; a byte order
// mark and blank lines are passed over. Unlike there a field is always text ("NA" stays as it is, and an empty caption is empty, not "nan"), and a row
// with too few fields is an error.
func Read(file string) ([]Example, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("dataset: %w", err)
	}
	defer f.Close()
	examples, err := parse(f)
	if err != nil {
		return nil, fmt.Errorf("dataset: %s: %w", file, err)
	}
	return examples, nil
}

// parse is Read for an open file.
func parse(r io.Reader) ([]Example, error) {
	t := &table{in: bufio.NewReaderSize(r, 1<<16), line: 1}
	if head, _ := t.in.Peek(3); string(head) == "\ufeff" {
		t.in.Discard(3)
	}
	header, err := t.record()
	if err != nil && err != io.EOF {
		return nil, err
	}
	caption, image := slices.Index(header, "caption"), slices.Index(header, "image")
	if caption < 0 || image < 0 {
		return nil, fmt.Errorf("line %d: want a header with the columns caption and image, have %.200q", max(1, t.start), header)
	}
	var examples []Example
	for {
		fields, err := t.record()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(fields) != len(header) {
			return nil, fmt.Errorf("line %d: want %d fields (%s), have %d: %.200q", t.start, len(header), strings.Join(header, ", "), len(fields), fields)
		}
		for i, field := range fields {
			if !utf8.ValidString(field) {
				return nil, fmt.Errorf("line %d: column %s: want UTF-8, have %.80q", t.start, header[i], field)
			}
		}
		examples = append(examples, Example{Caption: fields[caption], Image: fields[image]})
	}
	if examples == nil {
		return nil, errors.New("want at least one row after the header, have none")
	}
	return examples, nil
}

// table reads records of fields.
type table struct {
	in    *bufio.Reader
	line  int // of the next byte
	start int // where the last record began
	field []byte
}

// record returns the fields of the next record that is not blank, io.EOF after the last.
func (t *table) record() ([]string, error) {
	for {
		t.start = t.line
		var fields []string
		for last := false; !last; {
			quoted, err := t.next()
			if err != nil && err != io.EOF {
				return nil, err
			}
			if last = err == io.EOF; last && fields == nil && !quoted && len(t.field) == 0 {
				return nil, io.EOF
			}
			end, err := t.end()
			if err != nil {
				return nil, err
			}
			last = last || end
			blank := fields == nil && last && !quoted && len(bytes.Trim(t.field, " ")) == 0
			if !blank {
				fields = append(fields, string(t.field))
			}
		}
		if fields != nil {
			return fields, nil
		}
	}
}

// next reads a field into t.field, up to the tab or line end after it, and says whether it began with a quote; io.EOF where the file ends with it.
func (t *table) next() (quoted bool, err error) {
	t.field = t.field[:0]
	inside := false
	for {
		c, err := t.in.ReadByte()
		if err == io.EOF && inside {
			return quoted, fmt.Errorf("line %d: a quote is opened and never closed", t.start)
		}
		if err != nil {
			return quoted, err
		}
		switch {
		case c == '"' && !quoted && len(t.field) == 0:
			quoted, inside = true, true
			continue
		case c == '"' && inside:
			if following, _ := t.in.Peek(1); string(following) != `"` {
				inside = false
				continue
			}
			t.in.Discard(1)
		case !inside && (c == '\t' || c == '\n' || c == '\r'):
			return quoted, t.in.UnreadByte()
		case c == '\n':
			t.line++
		}
		if len(t.field) == maxField {
			return quoted, fmt.Errorf("line %d: want fields of at most %d bytes, have a longer one (is a quote not closed?)", t.start, maxField)
		}
		t.field = append(t.field, c)
	}
}

// end passes over the tab or line end that next stopped at, and says whether the record ends there.
func (t *table) end() (bool, error) {
	c, err := t.in.ReadByte()
	switch {
	case err == io.EOF:
		return true, nil
	case err != nil || c == '\t':
		return false, err
	}
	if following, _ := t.in.Peek(1); c == '\r' && string(following) == "\n" {
		t.in.Discard(1)
	}
	t.line++
	return true, nil
}
