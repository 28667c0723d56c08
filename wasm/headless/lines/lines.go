// SPDX-License-Identifier: Apache-2.0

// Package lines is a conversation with FROMAGe in lines of JSON: prompts come in, tokens and pictures go out.
//
// What enters is a loaded model, an index and a stream of Requests, a line each; what leaves is a stream of Lines. Every request is answered by lines
// that end with one that has Done or Error, and a request that cannot be read or answered ends with Error and leaves the stream. The package refuses to
// know where it runs: in a WebAssembly guest its files are what the host mounts.
package lines

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"fromage/runner"
)

// Request is a prompt.
type Request struct {
	// ID comes back in every line of the answer, as it is.
	ID json.RawMessage `json:"id,omitempty"`
	// Prompt is read in order.
	Prompt []Item `json:"prompt"`
	// Options are the sampling's, nil for runner.DefaultOptions. With NumWords 0 the [RET]s of the prompt are answered and nothing is generated; a
	// request that does not say num_words has 0 if there is a [RET] in its prompt.
	*runner.Options
}

// Item is one piece of a prompt: a text, or a picture by its file's name or its file's bytes. A text is also written as a string alone.
type Item struct {
	Text  string `json:"text,omitempty"`
	Image string `json:"image,omitempty"`
	Bytes []byte `json:"bytes,omitempty"` // base64
}

func (i Item) isPicture() bool { return i.Image != "" || i.Bytes != nil }

// UnmarshalJSON implements json.Unmarshaler.
func (i *Item) UnmarshalJSON(data []byte) error {
	*i = Item{}
	if bytes.HasPrefix(data, []byte{'"'}) {
		return json.Unmarshal(data, &i.Text)
	}
	type plain Item // without this method
	if err := strict(data, (*plain)(i)); err != nil {
		return err
	}
	if n := len(i.Text) + len(i.Image) + len(i.Bytes); n != len(i.Text) && n != len(i.Image) && n != len(i.Bytes) {
		return errors.New("prompt: want a text or a picture in an item, have both")
	}
	return nil
}

// MarshalJSON implements json.Marshaler.
func (i Item) MarshalJSON() ([]byte, error) {
	if !i.isPicture() {
		return json.Marshal(i.Text)
	}
	type plain Item
	return json.Marshal(plain(i))
}

// Line is one line of an answer: one of Ready, Token, Pictures, Done and Error is there, or Text alone, which was held back until it was whole.
type Line struct {
	ID json.RawMessage `json:"id,omitempty"`
	// Ready is the first line of all, before any request.
	Ready *Ready `json:"ready,omitempty"`
	// Token is the next token, and Text what it adds to the text that is shown, which may be nothing. The token of a [RET] that pictures answer comes before
	// them, be it generated or of the prompt.
	Token *int32 `json:"token,omitempty"`
	Text  string `json:"text,omitempty"`
	// Pictures are those that answer a [RET], the best first; there may be none.
	Pictures *[]Picture `json:"pictures,omitempty"`
	Done     *Done      `json:"done,omitempty"`
	Error    string     `json:"error,omitempty"`
}

// Last says whether the line ends an answer.
func (l Line) Last() bool { return l.Done != nil || l.Error != "" }

// Ready says what is going to answer.
type Ready struct {
	Model    string `json:"model"`
	Adapter  string `json:"adapter"`  // of the device
	Pictures int    `json:"pictures"` // in the index
}

// Done says how an answer ended: runner.Answer's Stop, or "retrieved" where nothing was to be generated.
type Done struct {
	Stop   string `json:"stop"`
	Tokens int    `json:"tokens"` // generated
}

// Picture is a retrieved picture with what the index knows of it.
type Picture struct {
	Path    string  `json:"path"`
	Caption string  `json:"caption,omitempty"`
	Licence string  `json:"licence,omitempty"`
	Score   float32 `json:"score"` // exp(logit_scale) · cosine
	Row     int     `json:"row"`
}

// strict decodes one JSON value, all of it, into v, and knows every field.
func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if rest := bytes.TrimSpace(data[d.InputOffset():]); len(rest) > 0 {
		return fmt.Errorf("want one JSON value in a line, have %d bytes after it", len(rest))
	}
	return nil
}

// Parse reads a request. What it returns with an error has the request's ID where that could be read.
func Parse(line []byte) (Request, error) {
	o := runner.DefaultOptions()
	usual := o.NumWords
	o.NumWords = -1
	q := Request{Options: &o}
	if err := strict(line, &q); err != nil {
		var id struct{ ID json.RawMessage }
		_ = json.Unmarshal(line, &id) // whatever is wrong with the line has been said
		return Request{ID: id.ID}, fmt.Errorf("lines: request: %w", err)
	}
	if len(q.Prompt) == 0 {
		return q, errors.New("lines: request: want a prompt of texts and pictures, have none")
	}
	rets := q.rets()
	switch {
	case o.NumWords == -1 && rets > 0:
		o.NumWords = 0
	case o.NumWords == -1:
		o.NumWords = usual
	case o.NumWords == 0 && rets == 0:
		return q, errors.New("lines: request: want a [RET] in the prompt or num_words above 0")
	}
	if err := o.Check(); err != nil {
		return q, fmt.Errorf("lines: request: %w", err)
	}
	return q, nil
}
