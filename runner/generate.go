// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"fmt"
	"math"
	"strings"

	"fromage/index"
)

// Part is one piece of an interleaved prompt: a picture, or a text where Image is nil.
type Part struct {
	Text  string
	Image *Image
}

// Searcher finds the k rows of an index that score highest against a normalised embedding (S), where rows already seen come last.
type Searcher interface {
	Search(e []float32, k int, seen []int) ([]index.Hit, error)
}

// Piece is a part of an answer: text, then the pictures that the [RET] after it returned.
type Piece struct {
	Text   string      `json:"text"`
	Images []index.Hit `json:"-"`
	RET    bool        `json:"ret"` // the text was followed by [RET]
}

// Answer is what the model said.
type Answer struct {
	Pieces []Piece
	IDs    []int32 // all generated tokens, those included that Pieces leave out
	Stop   string  // why generation ended: "newline", "eos", "length", "rets", "context" (the model's positions are used up)
}

// Event is something that happened while an answer was made. Text events come in order and never split a character.
type Event struct {
	Text  string // more of the piece's text
	Token int32  // the token that was just generated
	Piece *Piece // a finished piece with its pictures, after [RET]
}

// NewSequence starts an empty sequence. Close it to give its memory back.
func (r *Runner) NewSequence() *Sequence { return &Sequence{r: r} }

// Append adds parts of a prompt. The first text of a sequence gets the leading </s>, as in the reference. Nothing is computed yet.
func (s *Sequence) Append(parts ...Part) error {
	for _, p := range parts {
		if p.Image != nil {
			for _, row := range p.Image.Prefix {
				s.tokens = append(s.tokens, Token{Visual: row})
			}
			continue
		}
		if s.r.tok == nil {
			return fmt.Errorf("runner: the bundle has no tokenizer")
		}
		for _, id := range s.r.tok.Encode(p.Text, !s.hasText()) {
			s.tokens = append(s.tokens, Token{ID: int(id)})
		}
	}
	return nil
}

// AppendTokens adds tokens as they are.
func (s *Sequence) AppendTokens(tokens ...Token) { s.tokens = append(s.tokens, tokens...) }

func (s *Sequence) hasText() bool {
	for _, t := range s.tokens {
		if t.Visual == nil {
			return true
		}
	}
	return false
}

// last feeds what was not computed and wants the newest place.
func (s *Sequence) last(ctx context.Context, w want) (*results, error) {
	if s.computed == len(s.tokens) {
		s.computed--
	}
	return s.r.forward(ctx, []feed{{s, []int{len(s.tokens) - 1}}}, w)
}

// Generate continues the sequence and returns the answer; what it generated stays in the sequence, so that a conversation goes on by Append. Every
// [RET] is answered by search with the embedding at its position; without a search, pictures stay empty. emit, if any, hears of it as it happens.
// The source is generate_for_images_and_texts with num_words > 0. Unlike there, generation ends where the output would be cut anyway: at a newline
// after the first token, after max-num-rets [RET]s, and (unless IgnoreEOS) at </s>.
func (s *Sequence) Generate(ctx context.Context, opt Options, search Searcher, emit func(Event)) (*Answer, error) {
	if err := opt.Check(); err != nil {
		return nil, fmt.Errorf("runner: %w", err)
	}
	if len(s.tokens) == 0 {
		return nil, fmt.Errorf("runner: nothing to continue: the prompt is empty")
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	g := &generation{s: s, opt: opt, search: search, emit: emit, sampler: NewSampler(opt, s.r.RET()), answer: &Answer{}}
	if emit == nil {
		g.emit = func(Event) {}
	}
	if s.r.tok != nil {
		g.newline = -1
		if ids := s.r.tok.Encode("\n", false); len(ids) > 0 {
			g.newline = ids[0]
		}
	}
	err := g.run(ctx)
	g.finish()
	return g.answer, err
}

// Continue generates exactly n most likely tokens, whatever they are: what a benchmark measures.
func (s *Sequence) Continue(ctx context.Context, n int) error {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	a := ahead{s: s, sampler: NewSampler(Options{}, -1)}
	for done := 0; done < n; {
		ids, err := a.next(ctx, done, n-done)
		if err != nil {
			return err
		}
		done += len(ids)
	}
	return nil
}

// generation is one answer in the making.
type generation struct {
	s       *Sequence
	opt     Options
	search  Searcher
	emit    func(Event)
	sampler *Sampler
	newline int32
	answer  *Answer
	piece   []int32 // tokens of the piece in the making
	shown   int     // bytes of the piece's text that were emitted
	seen    []int   // rows already returned
}

func (g *generation) run(ctx context.Context) error {
	room := g.s.r.Settings().MaxPositions - len(g.s.tokens)
	a := ahead{s: g.s, sampler: g.sampler}
	for i := 0; i < g.opt.NumWords; {
		if i >= room {
			g.answer.Stop = "context"
			return nil
		}
		start := len(g.s.tokens)
		ids, err := a.next(ctx, i, min(room, g.opt.NumWords)-i)
		if err != nil {
			return err
		}
		for n, id := range ids {
			if g.answer.Stop = g.stops(id, i); g.answer.Stop != "" {
				g.s.Truncate(start + n)
				return nil
			}
			i++
			g.answer.IDs = append(g.answer.IDs, id)
			if int(id) != g.s.r.RET() || g.opt.MaxNumRets == 0 {
				g.piece = append(g.piece, id)
				g.show(id)
				continue
			}
			g.s.Truncate(start + n + 1)
			if err := g.retrieve(ctx); err != nil {
				return err
			}
			if len(g.answer.Pieces) == g.opt.MaxNumRets {
				g.answer.Stop = "rets"
				return nil
			}
			break
		}
	}
	g.answer.Stop = "length"
	return nil
}

// stops says why the answer ends before id, its i-th token, if it does.
func (g *generation) stops(id int32, i int) string {
	switch {
	case id == g.newline && i > 0:
		return "newline"
	case int(id) == g.s.r.Settings().EOS && !g.opt.IgnoreEOS:
		return "eos"
	}
	return ""
}

// retrieve ends the piece with the pictures for the [RET] that was just generated.
func (g *generation) retrieve(ctx context.Context) error {
	res, err := g.s.last(ctx, want{retrieval: true})
	if err != nil {
		return err
	}
	p := Piece{Text: truncateCaption(g.s.r.decode(g.piece)), RET: true}
	g.flush(p.Text)
	if p.Images, err = find(g.search, res.retrieval[0], g.opt.MaxImgPerRet, &g.seen); err != nil {
		return err
	}
	g.piece, g.shown = nil, 0
	g.answer.Pieces = append(g.answer.Pieces, p)
	g.emit(Event{Token: int32(g.s.r.RET()), Piece: &p})
	return nil
}

// find searches with a raw embedding and notes what it returns as seen.
func find(search Searcher, e []float32, k int, seen *[]int) ([]index.Hit, error) {
	if search == nil || k == 0 {
		return nil, nil
	}
	hits, err := search.Search(Normalised(e), k, *seen)
	for _, h := range hits {
		*seen = append(*seen, h.Row)
	}
	return hits, err
}

// Normalised returns e divided by its L2 norm.
func Normalised(e []float32) []float32 {
	sum := 0.0
	for _, v := range e {
		sum += float64(v) * float64(v)
	}
	out := make([]float32, len(e))
	for i, v := range e {
		out[i] = float32(float64(v) / math.Sqrt(sum))
	}
	return out
}

// show emits what the token adds to the piece's text as it will be cut. A character whose bytes are not all there yet waits.
func (g *generation) show(id int32) {
	text := truncateCaption(g.s.r.decode(g.piece))
	if trimmed := strings.TrimRight(text, "\uFFFD"); len(trimmed) > g.shown {
		g.emit(Event{Text: trimmed[g.shown:], Token: id})
		g.shown = len(trimmed)
		return
	}
	g.emit(Event{Token: id})
}

// flush emits what is left of a piece that is complete.
func (g *generation) flush(text string) {
	if len(text) > g.shown {
		g.emit(Event{Text: text[g.shown:]})
		g.shown = len(text)
	}
}

// finish makes the last piece. As in the reference, text after the last [RET] is dropped.
func (g *generation) finish() {
	if len(g.answer.Pieces) > 0 {
		return
	}
	p := Piece{Text: truncateCaption(g.s.r.decode(g.piece))}
	g.flush(p.Text)
	g.answer.Pieces = append(g.answer.Pieces, p)
}

func (r *Runner) decode(ids []int32) string {
	if r.tok == nil {
		return ""
	}
	return r.tok.Decode(ids, true)
}

// truncateCaption cuts a text after its first newline, else after its first full stop: truncate_caption in fromage/utils.py.
func truncateCaption(s string) string {
	s = strings.Trim(s, "\n")
	for _, stop := range []string{"\n", "."} {
		if before, _, ok := strings.Cut(s, stop); ok {
			return before + stop
		}
	}
	return s
}

// String writes the answer as the reference does, each text followed by " [RET]" where pictures follow.
func (p Piece) String() string {
	if p.RET {
		return p.Text + " [RET]"
	}
	return p.Text
}

// RetrieveOptions are the arguments of Retrieve.
type RetrieveOptions struct {
	MaxNumRets   int
	MaxImgPerRet int
	// ReferencePositions reads each [RET]'s embedding where the reference's code does, at its place among the text tokens alone: k places too early
	// for every picture before it. For comparing with published outputs.
	ReferencePositions bool
}

// Retrieve answers the [RET]s within a prompt: generate_for_images_and_texts with num_words = 0. The prompt's text up to each [RET] is its piece.
func (r *Runner) Retrieve(ctx context.Context, prompt []Part, opt RetrieveOptions, search Searcher) (*Answer, error) {
	s := r.NewSequence()
	defer s.Close()
	if err := s.Append(prompt...); err != nil {
		return nil, err
	}
	var text []int32    // the text tokens alone
	var rets, ats []int // places of [RET] among them, and the places whose embeddings answer them
	for at, t := range s.tokens {
		if t.Visual != nil {
			continue
		}
		if t.ID == r.RET() && len(rets) < opt.MaxNumRets {
			rets = append(rets, len(text))
			if opt.ReferencePositions {
				ats = append(ats, len(text))
			} else {
				ats = append(ats, at)
			}
		}
		text = append(text, int32(t.ID))
	}
	if len(rets) == 0 {
		return &Answer{Pieces: []Piece{{Text: truncateCaption(r.decode(text))}}, IDs: text}, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	res, err := r.forward(ctx, []feed{{s, ats}}, want{retrieval: true})
	if err != nil {
		return nil, err
	}
	answer := &Answer{IDs: text}
	var seen []int
	from := 0
	for i, ret := range rets {
		p := Piece{Text: truncateCaption(r.decode(text[from:ret])), RET: true}
		if p.Images, err = find(search, res.retrieval[i], opt.MaxImgPerRet, &seen); err != nil {
			return nil, err
		}
		answer.Pieces = append(answer.Pieces, p)
		from = ret + 1
	}
	return answer, nil
}
