// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"fromage/machine"
	"fromage/plan"
)

// sampleBatch is how many sequences Sample writes side by side.
const sampleBatch = 64

// Sample lets the model write n sequences of length tokens on its own: each begins with </s>, and every next token is drawn from softmax(logits /
// temperature). The same seed draws the same sequences on devices that compute the same. progress, if any, counts tokens.
func (r *Runner) Sample(ctx context.Context, n, length int, temperature float64, seed uint64, progress func(Progress)) ([][]int32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if most := r.m.Manifest.Settings.MaxPositions; length < 1 || length > most {
		return nil, fmt.Errorf("runner: sample: want sequences of 1 to %d tokens, have %d", most, length)
	}
	if !(temperature > 0) {
		return nil, fmt.Errorf("runner: sample: want a temperature above 0, have %g", temperature)
	}
	var out [][]int32
	for len(out) < n {
		batch, err := r.sampleBatch(ctx, min(sampleBatch, n-len(out)), length, temperature, seed+uint64(len(out)), func(tokens int) {
			if progress != nil {
				progress(Progress{Done: int64(len(out)*length + tokens), Total: int64(n * length), What: "tokens"})
			}
		})
		if err != nil {
			return nil, err
		}
		out = append(out, batch...)
	}
	return out, nil
}

func (r *Runner) sampleBatch(ctx context.Context, n, length int, temperature float64, seed uint64, progress func(tokens int)) ([][]int32, error) {
	out := make([][]int32, n)
	feeds, draws := make([]feed, n), make([]*rand.Rand, n)
	for i := range feeds {
		s := r.NewSequence()
		defer s.Close()
		feeds[i].s, draws[i] = s, rand.New(rand.NewPCG(seed+uint64(i), 0))
	}
	next := make([]int, n)
	for i := range next {
		next[i] = r.m.Manifest.Settings.BOS
	}
	for at := range length {
		for i := range feeds {
			feeds[i].s.AppendTokens(Token{ID: next[i]})
			feeds[i].want = []int{at}
			out[i] = append(out[i], int32(next[i]))
		}
		if at == length-1 {
			break
		}
		res, err := r.forward(ctx, feeds, want{logits: true})
		if err != nil {
			return nil, err
		}
		for i, logits := range res.logits {
			next[i] = draw(logits, temperature, draws[i].Float64())
		}
		progress(n * (at + 1))
	}
	return out, nil
}

// draw returns the token at the share u, in [0,1), of softmax(logits/temperature) laid out in the order of the vocabulary.
func draw(logits []float32, temperature, u float64) int {
	largest, sum := float64(logits[argmax(logits)]), 0.0
	weights := make([]float64, len(logits))
	for i, l := range logits {
		weights[i] = math.Exp((float64(l) - largest) / temperature)
		sum += weights[i]
	}
	u *= sum
	for i, w := range weights {
		if u -= w; u < 0 {
			return i
		}
	}
	return argmax(logits)
}

// maxTapped bounds the bytes of inputs that one run of Inputs keeps, unless one sequence has more.
const maxTapped = 256 << 20

// Inputs runs sequences of up to 512 tokens through the language model and hands f what its linear layers read: x (T,K) rows, one for every token, and
// the names of the weights that x is multiplied with. x is f's for the time of the call. progress, if any, counts tokens.
func (r *Runner) Inputs(ctx context.Context, sequences [][]int32, f func(weights []string, K int, x []float32) error, progress func(Progress)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	lm, err := r.m.Manifest.Model.Program("lm")
	if err != nil {
		return err
	}
	tapped, taps := lm.Tapped()
	prog := r.m.Add(tapped)
	defer r.m.Drop(tapped.Name)
	perToken := 0
	for _, t := range taps {
		perToken += 4 * lm.Value(t.Value).Cols
	}
	most := max(1, min(r.maxTokens, maxTapped/perToken))
	p := Progress{What: "tokens"}
	for _, s := range sequences {
		p.Total += int64(len(s))
	}
	for len(sequences) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, tokens := 1, len(sequences[0])
		for n < len(sequences) && tokens+len(sequences[n]) <= most {
			tokens += len(sequences[n])
			n++
		}
		if err := r.tap(prog, tapped, taps, sequences[:n], f); err != nil {
			return err
		}
		sequences = sequences[n:]
		if p.Done += int64(tokens); progress != nil {
			progress(p)
		}
	}
	return nil
}

// tap is one run of Inputs.
func (r *Runner) tap(prog *machine.Program, lm *plan.Program, taps []plan.Tap, sequences [][]int32, f func(weights []string, K int, x []float32) error) error {
	var batch []*Sequence
	var places []place
	for _, ids := range sequences {
		s := r.NewSequence()
		defer s.Close()
		for at, id := range ids {
			s.AppendTokens(Token{ID: int(id)})
			places = append(places, place{s: s, at: at, labels: []uint32{ignored}})
		}
		batch = append(batch, s)
	}
	if err := r.kv.reserve(batch); err != nil {
		return err
	}
	in := r.pack(places)
	T := len(places)
	if err := prog.Run(plan.Run(T, T, 0), map[string][]byte{"tokens": machine.Bytes(in.tokens), "rows": machine.Bytes(in.rows)}); err != nil {
		return err
	}
	for _, t := range taps {
		K := lm.Value(t.Value).Cols
		x := make([]float32, T*K)
		if err := r.m.Dev.Read(prog.Buffer(t.Output), 0, machine.Bytes(x)); err != nil {
			return err
		}
		if err := f(t.Weights, K, x); err != nil {
			return err
		}
	}
	return nil
}
