// SPDX-License-Identifier: Apache-2.0

//go:build js && wasm

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall/js"
	"time"

	"fromage/index"
	"fromage/runner"
)

const retMark = "[RET]"

// options are runner.Options under their names in JavaScript.
type options struct {
	NumWords       int     `json:"numWords"`
	RetScaleFactor float64 `json:"retScaleFactor"`
	MinWordTokens  int     `json:"minWordTokens"`
	Temperature    float64 `json:"temperature"`
	TopP           float64 `json:"topP"`
	MaxNumRets     int     `json:"maxNumRets"`
	MaxImgPerRet   int     `json:"maxImgPerRet"`
	Seed           uint64  `json:"seed"`
	IgnoreEOS      bool    `json:"ignoreEOS"`
}

func optionsOf(c *call) (runner.Options, error) {
	o := options(runner.DefaultOptions())
	d := json.NewDecoder(bytes.NewReader([]byte(text(c.args.Get("options")))))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		return runner.Options{}, coded("input", fmt.Errorf("options: %w", err))
	}
	if err := runner.Options(o).Check(); err != nil {
		return runner.Options{}, coded("input", err)
	}
	return runner.Options(o), nil
}

// parts reads a prompt: a list of {text}, {bytes} of a picture file, and {picture} that embed kept.
func (s *session) parts(ctx context.Context, v js.Value) (parts []runner.Part, err error) {
	if v.Type() != js.TypeObject || v.Length() == 0 {
		return nil, coded("input", errors.New("the prompt is empty: want a text or a picture"))
	}
	for i := range v.Length() {
		p := runner.Part{}
		switch v := v.Index(i); {
		case v.Get("text").Type() == js.TypeString:
			p.Text = v.Get("text").String()
		case v.Get("picture").Type() == js.TypeNumber:
			if p.Image = s.pictures[v.Get("picture").Int()]; p.Image == nil {
				return nil, coded("input", fmt.Errorf("there is no picture with the id %d", v.Get("picture").Int()))
			}
		default:
			if p.Image, _, err = s.embedBytes(ctx, v.Get("bytes")); err != nil {
				return nil, err
			}
		}
		parts = append(parts, p)
	}
	return parts, nil
}

func isText(p runner.Part) bool { return p.Image == nil }

// begun puts an empty text after pictures alone: an answer begins after the leading </s> that every text has; without it the model would have to
// begin its answer with one.
func begun(parts []runner.Part) []runner.Part {
	if slices.ContainsFunc(parts, isText) {
		return parts
	}
	return append(parts, runner.Part{})
}

// embed keeps a picture, {bytes}, and returns its id.
func (s *session) embed(ctx context.Context, c *call) (any, error) {
	image, _, err := s.embedBytes(ctx, c.args.Get("bytes"))
	if err != nil {
		return nil, err
	}
	s.last++
	s.pictures[s.last] = image
	return js.ValueOf(s.last), nil
}

// generate continues a prompt: {parts, options}.
func (s *session) generate(ctx context.Context, c *call) (any, error) {
	o, err := optionsOf(c)
	if err != nil {
		return nil, err
	}
	parts, err := s.parts(ctx, c.args.Get("parts"))
	if err != nil {
		return nil, err
	}
	seq := s.r.NewSequence()
	defer seq.Close()
	return nil, s.answer(ctx, c, seq, begun(parts), o)
}

// done is the last piece of an answer.
type done struct {
	Stop    string  `json:"stop"`
	Tokens  int     `json:"tokens"`
	MSFirst float64 `json:"msFirst"` // from the call to the first token
	TokPerS float64 `json:"tokPerS"` // of the tokens after it
	IDs     []int32 `json:"ids"`
	Version uint64  `json:"version,omitempty"` // whose heads and pictures answered
}

// answer appends parts to seq and streams what the model says. If that fails, the sequence is as before; an answer that is aborted stays.
func (s *session) answer(ctx context.Context, c *call, seq *runner.Sequence, parts []runner.Part, o runner.Options) error {
	before := seq.Len()
	if err := seq.Append(parts...); err != nil {
		seq.Truncate(before)
		return coded("input", err)
	}
	if most := s.r.Settings().MaxPositions; seq.Len() >= most {
		n := seq.Len()
		seq.Truncate(before)
		return coded("input", fmt.Errorf("this is too long: it would be %d tokens, the model reads %d: take a turn back, begin anew, or say it shorter", n, most-1))
	}
	began := time.Now()
	var first, last time.Time
	var failed error
	answer, err := seq.Generate(ctx, o, s.album, func(e runner.Event) {
		if last = time.Now(); first.IsZero() {
			first = last
		}
		if e.Text != "" {
			c.emit(map[string]any{"text": e.Text})
		}
		if e.Piece == nil {
			return
		}
		hits, err := s.album.describe(e.Piece.Images)
		if err != nil {
			failed = err
			return
		}
		c.emit(map[string]any{"images": hits})
	})
	if err == nil {
		err = failed
	}
	aborted := errors.Is(err, context.Canceled) && answer != nil
	if err != nil && !aborted {
		seq.Truncate(before)
		return err
	}
	d := done{Version: s.seq(), Stop: answer.Stop, Tokens: len(answer.IDs), IDs: append([]int32{}, answer.IDs...)}
	if aborted {
		d.Stop = "aborted"
	}
	if !first.IsZero() {
		d.MSFirst = first.Sub(began).Seconds() * 1000
	}
	if span := last.Sub(first).Seconds(); span > 0 && d.Tokens > 1 {
		d.TokPerS = float64(d.Tokens-1) / span
	}
	c.emit(map[string]any{"done": d})
	return nil
}

// retrieve returns the k best pictures for a prompt: {parts, k, look}. A [RET] is put at its end if it has none; of several, each adds its own. look is how
// much the look of the prompt's first picture counts beside what the model says.
func (s *session) retrieve(ctx context.Context, c *call) (any, error) {
	k := number(c.args.Get("k"))
	if k < 1 {
		return nil, coded("input", fmt.Errorf("k: want 1 or more, have %d", k))
	}
	parts, err := s.parts(ctx, c.args.Get("parts"))
	if err != nil {
		return nil, err
	}
	o := runner.RetrieveOptions{MaxImgPerRet: k}
	for _, p := range parts {
		o.MaxNumRets += strings.Count(p.Text, retMark)
	}
	if o.MaxNumRets == 0 {
		o.MaxNumRets = 1
		// Without a space, as in training.
		if last := &parts[len(parts)-1]; isText(*last) {
			last.Text += retMark
		} else {
			parts = append(parts, runner.Part{Text: retMark})
		}
	}
	var search runner.Searcher = s.album
	if first := slices.IndexFunc(parts, func(p runner.Part) bool { return !isText(p) }); first >= 0 {
		if search, err = s.album.leaning(c.args.Get("look"), parts[first].Image); err != nil {
			return nil, err
		}
	}
	answer, err := s.r.Retrieve(ctx, parts, o, search)
	if err != nil {
		return nil, err
	}
	var hits []index.Hit
	for _, p := range answer.Pieces {
		hits = append(hits, p.Images...)
	}
	return s.album.describe(hits)
}

// caption says what a picture shows: {parts}.
func (s *session) caption(ctx context.Context, c *call) (any, error) {
	parts, err := s.parts(ctx, c.args.Get("parts"))
	if err != nil {
		return nil, err
	}
	seq := s.r.NewSequence()
	defer seq.Close()
	if err := seq.Append(begun(parts)...); err != nil {
		return nil, coded("input", err)
	}
	// The model learned to end a caption with [RET]; what it would retrieve is not asked for.
	o := runner.DefaultOptions()
	o.MaxNumRets, o.MaxImgPerRet = 1, 0
	answer, err := seq.Generate(ctx, o, nil, nil)
	if err != nil {
		return nil, err
	}
	return strings.TrimSpace(answer.Pieces[0].Text), nil
}

// score says how likely a prompt's text is: {parts}.
func (s *session) score(ctx context.Context, c *call) (any, error) {
	parts, err := s.parts(ctx, c.args.Get("parts"))
	if err != nil {
		return nil, err
	}
	l, err := s.r.Score(ctx, parts)
	if err != nil {
		return nil, err
	}
	return map[string]any{"logLikelihood": l[0].Mean, "sum": l[0].Sum, "tokens": append([]float32{}, l[0].Tokens...)}, nil
}

// conversation is a dialogue: its sequence, and where its turns begin.
type conversation struct {
	mu    sync.Mutex // held by say and retry, which may wait
	seq   *runner.Sequence
	raw   bool
	turns []turn
}

// turn is one exchange: the tokens before it, and what was put to the model.
type turn struct {
	at   int
	sent []runner.Part
}

// converse begins a dialogue, {raw}, and returns its id.
func (s *session) converse(_ context.Context, c *call) (any, error) {
	s.last++
	s.conversations[s.last] = &conversation{seq: s.r.NewSequence(), raw: c.args.Get("raw").Truthy()}
	return js.ValueOf(s.last), nil
}

// conversation takes the dialogue of a call, which is to unlock it.
func (s *session) conversation(c *call) (*conversation, error) {
	d, ok := s.conversations[number(c.args.Get("conversation"))]
	if !ok {
		return nil, coded("input", errors.New("there is no such conversation"))
	}
	if !d.mu.TryLock() {
		return nil, coded("input", errors.New("the conversation's last answer is still being made: wait for its end, or abort it"))
	}
	return d, nil
}

// say puts a turn: {conversation, parts, options}.
func (s *session) say(ctx context.Context, c *call) (any, error) {
	d, err := s.conversation(c)
	if err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	parts, err := s.parts(ctx, c.args.Get("parts"))
	if err != nil {
		return nil, err
	}
	return nil, s.turn(ctx, c, d, turn{d.seq.Len(), d.dress(parts)})
}

func (s *session) turn(ctx context.Context, c *call, d *conversation, t turn) error {
	o, err := optionsOf(c)
	if err != nil {
		return err
	}
	sent := t.sent
	if t.at > 0 && !d.raw {
		sent = append([]runner.Part{{Text: "\n"}}, sent...)
	}
	if err := s.answer(ctx, c, d.seq, sent, o); err != nil {
		return err
	}
	d.turns = append(d.turns, t)
	return nil
}

// dress puts the dialogue's "Q: " and "\nA:" around a turn, after the pictures that begin it, as `fromage chat` does. Pictures alone stay as they are.
func (d *conversation) dress(parts []runner.Part) []runner.Part {
	first := slices.IndexFunc(parts, isText)
	if d.raw || first < 0 {
		return begun(parts)
	}
	out := slices.Clone(parts)
	for i := range out {
		switch {
		case i == first:
			out[i].Text = "Q: " + out[i].Text
		case i > first && isText(out[i]):
			out[i].Text = " " + out[i].Text
		}
	}
	if last := &out[len(out)-1]; isText(*last) {
		last.Text += "\nA:"
		return out
	}
	return append(out, runner.Part{Text: "\nA:"})
}

// back takes the last turn back.
func (d *conversation) back() (turn, error) {
	if len(d.turns) == 0 {
		return turn{}, coded("input", errors.New("there is no turn to take back"))
	}
	last := d.turns[len(d.turns)-1]
	d.turns = d.turns[:len(d.turns)-1]
	d.seq.Truncate(last.at)
	return last, nil
}

// undo takes the last turn of a dialogue back: {conversation}.
func (s *session) undo(_ context.Context, c *call) (any, error) {
	d, err := s.conversation(c)
	if err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	_, err = d.back()
	return nil, err
}

// retry answers the last turn again: {conversation, options}.
func (s *session) retry(ctx context.Context, c *call) (any, error) {
	d, err := s.conversation(c)
	if err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	last, err := d.back()
	if err != nil {
		return nil, err
	}
	return nil, s.turn(ctx, c, d, last)
}

// reset begins a dialogue anew: {conversation}.
func (s *session) reset(_ context.Context, c *call) (any, error) {
	d, err := s.conversation(c)
	if err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	d.seq.Close()
	d.seq, d.turns = s.r.NewSequence(), nil
	return nil, nil
}
