// SPDX-License-Identifier: Apache-2.0

package lines

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"fromage/index"
	"fromage/runner"
)

// MaxLine is the most bytes of a line: a prompt with a picture's bytes in it may be long.
const MaxLine = 128 << 20

// retMark is how [RET] is written in a prompt.
const retMark = "[RET]"

// rets counts the [RET]s of the prompt.
func (q *Request) rets() (n int) {
	for _, it := range q.Prompt {
		n += strings.Count(it.Text, retMark)
	}
	return n
}

// Server answers requests.
type Server struct {
	Runner *runner.Runner
	Index  *index.Index    // nil: there are no pictures
	Search runner.Searcher // over Index
	// File returns the bytes of a picture that a prompt names.
	File func(name string) ([]byte, error)
}

// CheckIndex says whether x is an index of the model's embeddings.
func CheckIndex(r *runner.Runner, x *index.Index) error {
	raw, err := hex.DecodeString(r.Settings().HeadsHash)
	if err != nil || len(raw) != 32 {
		return errors.New("lines: the model has no heads: it knows no pictures")
	}
	return x.CheckModel(r.Settings().SharedDim, [32]byte(raw))
}

// Serve answers the requests of in until it ends; empty lines are left out. The error is one of reading in or writing out.
func (s *Server) Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	w := &writer{w: bufio.NewWriter(out)}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, MaxLine)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		q, err := Parse(line)
		w.id = q.ID
		if err == nil {
			err = s.answer(ctx, q, w)
		}
		if err != nil {
			w.put(Line{Error: err.Error()})
		}
		if err := w.flush(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("lines: read: %w", err)
	}
	return nil
}

// writer writes the lines of one answer after another and remembers the first error.
type writer struct {
	w   *bufio.Writer
	id  json.RawMessage
	err error
}

func (w *writer) put(l Line) {
	l.ID = w.id
	e := json.NewEncoder(w.w)
	e.SetEscapeHTML(false)
	if err := e.Encode(l); w.err == nil {
		w.err = err
	}
}

func (w *writer) flush() error {
	if err := w.w.Flush(); w.err == nil {
		w.err = err
	}
	if w.err != nil {
		return fmt.Errorf("lines: write: %w", w.err)
	}
	return nil
}

// answer writes the lines of an answer but for the one that an error ends it with.
func (s *Server) answer(ctx context.Context, q Request, w *writer) error {
	prompt, err := s.parts(ctx, q.Prompt)
	if err != nil {
		return err
	}
	if q.NumWords == 0 {
		return s.retrieve(ctx, q, prompt, w)
	}
	seq := s.Runner.NewSequence()
	defer seq.Close()
	if err := seq.Append(prompt...); err != nil {
		return err
	}
	if most := s.Runner.Settings().MaxPositions; seq.Len() >= most {
		return fmt.Errorf("lines: the prompt is too long: want at most %d tokens, have %d", most-1, seq.Len())
	}
	var failed error
	answer, err := seq.Generate(ctx, *q.Options, s.Search, func(e runner.Event) {
		if e.Token == 0 && e.Text != "" { // <s> has no text
			w.put(Line{Text: e.Text})
		} else {
			w.token(e.Token, e.Text)
		}
		if e.Piece != nil && failed == nil {
			failed = s.pictures(e.Piece.Images, w)
		}
		_ = w.flush() // the error stays
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	w.put(Line{Done: &Done{answer.Stop, len(answer.IDs)}})
	return nil
}

func (w *writer) token(id int32, text string) { w.put(Line{Token: &id, Text: text}) }

// retrieve answers the [RET]s of the prompt.
func (s *Server) retrieve(ctx context.Context, q Request, prompt []runner.Part, w *writer) error {
	answer, err := s.Runner.Retrieve(ctx, prompt, runner.RetrieveOptions{MaxNumRets: q.rets(), MaxImgPerRet: q.MaxImgPerRet}, s.Search)
	if err != nil {
		return err
	}
	for _, p := range answer.Pieces {
		if !p.RET {
			continue
		}
		w.token(int32(s.Runner.RET()), retMark)
		if err := s.pictures(p.Images, w); err != nil {
			return err
		}
	}
	w.put(Line{Done: &Done{Stop: "retrieved"}})
	return nil
}

// pictures writes what is known about hits.
func (s *Server) pictures(hits []index.Hit, w *writer) error {
	found := []Picture{}
	for _, h := range hits {
		m, err := s.Index.Row(h.Row)
		if err != nil {
			return err
		}
		found = append(found, Picture{m.Path, m.Caption, m.Licence, h.Score, h.Row})
	}
	w.put(Line{Pictures: &found})
	return nil
}

// parts reads the prompt's pictures and makes what the runner takes.
func (s *Server) parts(ctx context.Context, items []Item) ([]runner.Part, error) {
	var pixels [][]float32
	texts := 0
	for i, it := range items {
		if !it.isPicture() {
			texts++
			continue
		}
		x, err := s.pixels(it)
		if err != nil {
			return nil, fmt.Errorf("lines: prompt: item %d: %w", i, err)
		}
		pixels = append(pixels, x)
	}
	images, err := s.Runner.Embed(ctx, pixels, nil)
	if err != nil {
		return nil, err
	}
	var out []runner.Part
	for _, it := range items {
		if !it.isPicture() {
			out = append(out, runner.Part{Text: it.Text})
			continue
		}
		out = append(out, runner.Part{Image: &images[0]})
		images = images[1:]
	}
	if texts == 0 {
		// A caption begins with the leading </s> that every text has; without it the model would have to begin its answer with one.
		out = append(out, runner.Part{})
	}
	return out, nil
}

// pixels decodes a picture to what the model's vision tower reads.
func (s *Server) pixels(it Item) ([]float32, error) {
	p := s.Runner.Vision()
	if p == nil {
		return nil, errors.New("the model cannot read pictures")
	}
	data, name := it.Bytes, "picture"
	if it.Image != "" {
		name = it.Image
		var err error
		if data, err = s.File(name); err != nil {
			return nil, err
		}
	}
	h, w := p.Shape()
	x := make([]float32, 3*h*w)
	if err := p.Process(data, x); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return x, nil
}
