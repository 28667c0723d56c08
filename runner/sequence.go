// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"fmt"
	"slices"

	"fromage/machine"
	"fromage/plan"
)

// Token is one place of a sequence: a number of the vocabulary, or a row of a picture's visual embeddings.
type Token struct {
	ID     int
	Visual []float32 // (E); nil for a number
}

// Sequence is a growing run of tokens whose keys and values are kept on the device.
type Sequence struct {
	r        *Runner
	tokens   []Token // those that were run, then those that wait
	computed int     // how many of tokens have their rows in the KV cache
	first    int     // KV row of token 0
	rows     int     // KV rows kept for the sequence
}

// Len returns how many tokens the sequence has.
func (s *Sequence) Len() int { return len(s.tokens) }

// Tokens returns the sequence's tokens; the slice is its own.
func (s *Sequence) Tokens() []Token { return s.tokens }

// Truncate takes the sequence back to its first n tokens.
func (s *Sequence) Truncate(n int) {
	s.tokens = s.tokens[:n]
	s.computed = min(s.computed, n)
}

// Close gives the sequence's rows of the KV cache back.
func (s *Sequence) Close() {
	s.r.kv.drop(s)
}

// feed is the part of a sequence that one forward pass runs: its tokens from computed on, and which of them results are wanted of.
type feed struct {
	s    *Sequence
	want []int // places in the sequence, ascending, each ≥ s.computed; a place may come again, for another label
}

// want says what a forward pass hands back.
type want struct {
	logits, retrieval, hidden bool
	labels                    [][]int // by feed, one for each wanted place: run program "score" and hand back the likelihoods instead
}

// results are rows for every wanted place, feed after feed.
type results struct {
	logits, retrieval, hidden [][]float32
	nll                       [][]float32 // (2): −log likelihood of the label, and how many tokens were more likely
}

// output is where the rows of a program's output go.
type output struct {
	name   string
	cols   int
	wanted bool
	rows   *[][]float32
}

// maxTokens is the most tokens of one run, but for tests; longer prompts go in several.
const maxTokens = 512

// place is one token of a packed run.
type place struct {
	s      *Sequence
	at     int
	labels []uint32 // of the rows that are wanted of it
}

// forward runs what the feeds' sequences have not computed yet, packed without padding, in as few runs as the device's limits allow.
func (r *Runner) forward(ctx context.Context, feeds []feed, w want) (out *results, err error) {
	err = r.mend(ctx, func() error {
		out, err = r.forwardOnce(ctx, feeds, w)
		return err
	})
	return out, err
}

func (r *Runner) forwardOnce(ctx context.Context, feeds []feed, w want) (*results, error) {
	var batch []*Sequence
	var places []place
	for i, f := range feeds {
		batch = append(batch, f.s)
		next := 0
		for at := f.s.computed; at < len(f.s.tokens); at++ {
			p := place{s: f.s, at: at}
			for ; next < len(f.want) && f.want[next] == at; next++ {
				label := uint32(ignored)
				if w.labels != nil {
					label = uint32(w.labels[i][next])
				}
				p.labels = append(p.labels, label)
			}
			places = append(places, p)
		}
		if next < len(f.want) {
			return nil, fmt.Errorf("runner: results are wanted of place %d, which was computed before", f.want[next])
		}
	}
	if err := r.kv.reserve(batch); err != nil {
		return nil, err
	}
	out := &results{}
	for len(places) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := r.runLength(places)
		if err := r.runPlaces(places[:n], w, out); err != nil {
			return nil, err
		}
		places = places[n:]
	}
	return out, nil
}

// ignored is the label of a place whose likelihood nobody asked for.
const ignored = 0xFFFFFFFF

// runLength says how many of the places go into the next run: bounded by maxTokens and by wanted rows whose logits still fit a buffer.
func (r *Runner) runLength(places []place) int {
	maxRows := r.m.Info.Limits.MaxBinding / (4 * r.m.Manifest.Settings.Vocabulary)
	rows := 0
	for i, p := range places {
		rows += len(p.labels)
		if i == r.maxTokens || rows > maxRows && i > 0 {
			return i
		}
	}
	return len(places)
}

// packed is the inputs of one run.
type packed struct {
	tokens, rows, labels []uint32
	prefix               []float32
}

func (r *Runner) pack(places []place) packed {
	var in packed
	V, E := uint32(r.m.Manifest.Settings.Vocabulary), r.m.Manifest.Settings.EmbedDim
	for t, p := range places {
		token := p.s.tokens[p.at]
		id := uint32(token.ID)
		if token.Visual != nil {
			id = V + uint32(len(in.prefix)/E)
			in.prefix = append(in.prefix, token.Visual...)
		}
		in.tokens = append(in.tokens, id, uint32(p.at), uint32(p.s.first), uint32(p.at+1))
		for _, label := range p.labels {
			in.rows = append(in.rows, uint32(t))
			in.labels = append(in.labels, label)
		}
	}
	return in
}

func (r *Runner) runPlaces(places []place, w want, out *results) error {
	name := "lm"
	if w.labels != nil {
		name = "score"
	}
	prog, err := r.m.Program(name)
	if err != nil {
		return err
	}
	in := r.pack(places)
	inputs := map[string][]byte{"tokens": machine.Bytes(in.tokens), "prefix": machine.Bytes(in.prefix), "rows": machine.Bytes(in.rows)}
	if w.labels != nil {
		inputs["labels"] = machine.Bytes(in.labels)
	}
	R, s := len(in.rows), r.m.Manifest.Settings
	read := []output{{"logits", s.Vocabulary, w.logits, &out.logits}, {"retrieval", s.SharedDim, w.retrieval, &out.retrieval}, {"hidden", s.EmbedDim, w.hidden, &out.hidden}}
	if w.labels != nil {
		read = []output{{"nll", 2, true, &out.nll}}
	}
	read = slices.DeleteFunc(read, func(o output) bool { return !o.wanted })
	var names []string
	for _, o := range read {
		names = append(names, o.name)
	}
	dims := plan.Run(len(places), R, len(in.prefix)/s.EmbedDim)
	if len(places) == 1 {
		dims[plan.Past] = places[0].s.rows
	}
	if err := prog.Run(dims, inputs, names...); err != nil {
		return err
	}
	for _, p := range places {
		p.s.computed = p.at + 1
	}
	for _, o := range read {
		rows, err := prog.Rows(o.name, R, o.cols)
		if err != nil {
			return err
		}
		*o.rows = append(*o.rows, rows...)
	}
	return nil
}

// Outputs are rows for places of sequences, sequence after sequence.
type Outputs struct {
	Hidden    [][]float32 // (E): the state after the final norm and project_out
	Logits    [][]float32 // (V)
	Retrieval [][]float32 // (S): Σ text_hidden_fcs, not normalised; nil without heads
}

// Outputs computes what the sequences have not computed yet, packed, and returns what the model says at each of those places.
func (r *Runner) Outputs(ctx context.Context, sequences ...*Sequence) (*Outputs, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var feeds []feed
	for _, s := range sequences {
		f := feed{s: s}
		for at := s.computed; at < len(s.tokens); at++ {
			f.want = append(f.want, at)
		}
		feeds = append(feeds, f)
	}
	res, err := r.forward(ctx, feeds, want{hidden: true, logits: true, retrieval: r.m.Manifest.Settings.SharedDim > 0})
	if err != nil {
		return nil, err
	}
	return &Outputs{res.hidden, res.logits, res.retrieval}, nil
}
