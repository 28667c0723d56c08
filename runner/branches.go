// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"fromage/gpu"
)

// Branches scores many continuations of one beginning, the trunk, which runs once: each continuation runs on a copy of the trunk's keys and values. What
// two trunks in a row have in common is not run again either. Close it to give its memory back.
type Branches struct {
	r     *Runner
	trunk *Sequence
	forks []*Sequence
	most  int // forks that there was memory for, 0 where that is not known
}

// Branch is how well the model predicts a continuation: sums of −log likelihood over its tokens.
type Branch struct {
	Next float64 // of each token under what the model says at the place before it
	Own  float64 // of each token under what the model says at its own place, as the reference's script for VisDial takes them
}

// NewBranches makes room for trunks and continuations.
func (r *Runner) NewBranches() *Branches { return &Branches{r: r, trunk: r.NewSequence()} }

// Close gives the rows of the KV cache back.
func (b *Branches) Close() {
	b.trunk.Close()
	for _, f := range b.forks {
		f.Close()
	}
}

// maxForks is how many continuations run at once, and forkBytes bounds their keys and values, unless one needs more. More forks fill a device no better,
// and each has the trunk copied to it.
const (
	maxForks  = 32
	forkBytes = 2 << 30
)

// Score returns a Branch for each continuation of the trunk, which has at least one token. Continuations run packed together.
func (b *Branches) Score(ctx context.Context, trunk []Token, continuations [][]int) ([]Branch, error) {
	if len(trunk) == 0 {
		return nil, fmt.Errorf("runner: branches: want a trunk of at least one token, have none")
	}
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	var out []Branch
	err := b.r.mend(ctx, func() (err error) {
		out, err = b.score(ctx, trunk, continuations)
		return err
	})
	return out, err
}

func (b *Branches) score(ctx context.Context, trunk []Token, continuations [][]int) ([]Branch, error) {
	out := make([]Branch, len(continuations))
	if len(out) == 0 {
		return out, nil
	}
	shared := sharedBeginning(continuations)
	if err := b.runTrunk(ctx, trunk, continuations, shared, out); err != nil {
		return nil, err
	}
	var todo []int
	longest := 0
	for i, c := range continuations {
		if len(c) > shared {
			todo, longest = append(todo, i), max(longest, len(c)-shared)
		}
	}
	for len(todo) > 0 {
		n, err := b.fork(len(todo), longest)
		if err != nil {
			return nil, err
		}
		if err := b.runForks(ctx, continuations, shared, todo[:n], out); err != nil {
			return nil, err
		}
		todo = todo[n:]
	}
	return out, nil
}

// sharedBeginning is how many tokens all continuations begin with.
func sharedBeginning(all [][]int) int {
	n := len(all[0])
	for _, c := range all[1:] {
		for i := range n {
			if i == len(c) || c[i] != all[0][i] {
				n = i
				break
			}
		}
	}
	return n
}

// counted are rows of a feed, and where their likelihoods are added.
type counted struct {
	feed
	labels []int
	add    []*float64
}

func (c *counted) want(at, label int, add *float64) {
	c.feed.want, c.labels, c.add = append(c.feed.want, at), append(c.labels, label), append(c.add, add)
}

// run runs feeds and adds what their rows say.
func (b *Branches) run(ctx context.Context, all []counted) error {
	w := want{labels: [][]int{}}
	var feeds []feed
	for _, c := range all {
		feeds, w.labels = append(feeds, c.feed), append(w.labels, c.labels)
	}
	res, err := b.r.forwardOnce(ctx, feeds, w)
	if err != nil {
		return err
	}
	row := 0
	for _, c := range all {
		for _, add := range c.add {
			*add += float64(res.nll[row][0])
			row++
		}
	}
	return nil
}

// runTrunk runs the trunk and the tokens that all continuations begin with, and scores these and every continuation's next.
func (b *Branches) runTrunk(ctx context.Context, trunk []Token, continuations [][]int, shared int, out []Branch) error {
	full := slices.Clone(trunk)
	for _, id := range continuations[0][:shared] {
		full = append(full, Token{ID: id})
	}
	b.take(full)
	// The places from the trunk's last on have rows to give: they run again if they ran before.
	b.trunk.computed = min(b.trunk.computed, len(trunk)-1)
	var common Branch
	c := counted{feed: feed{s: b.trunk}}
	for i := range shared + 1 {
		at := len(trunk) - 1 + i
		if i > 0 {
			c.want(at, continuations[0][i-1], &common.Own)
		}
		if i < shared {
			c.want(at, continuations[0][i], &common.Next)
		}
	}
	for i := range continuations {
		if len(continuations[i]) > shared {
			c.want(len(full)-1, continuations[i][shared], &out[i].Next)
		}
	}
	err := b.run(ctx, []counted{c})
	for i := range out {
		out[i].Own += common.Own
		out[i].Next += common.Next
	}
	return err
}

// take makes tokens the trunk, and keeps what was computed as far as they are those of before.
func (b *Branches) take(tokens []Token) {
	n := 0
	for n < len(tokens) && n < len(b.trunk.tokens) && same(tokens[n], b.trunk.tokens[n]) {
		n++
	}
	b.trunk.Truncate(n)
	b.trunk.tokens = append(b.trunk.tokens, tokens[n:]...)
	for _, f := range b.forks {
		f.Truncate(min(n, len(f.tokens)))
	}
}

func same(a, b Token) bool { return a.ID == b.ID && slices.Equal(a.Visual, b.Visual) }

// fork makes up to n forks that hold the trunk's keys and values and have room for so many tokens more, and returns how many there is memory for.
func (b *Branches) fork(n, tokens int) (int, error) {
	length := len(b.trunk.tokens) + tokens
	if n = min(n, maxForks, b.r.kv.fit(length, forkBytes, b.forks)); b.most > 0 {
		n = min(n, b.most)
	}
	for {
		err := b.makeForks(n, length)
		if !errors.Is(err, gpu.ErrMemory) || n == 1 {
			return n, err
		}
		n /= 2
		b.most = n
	}
}

func (b *Branches) makeForks(n, length int) error {
	for len(b.forks) > n {
		last := len(b.forks) - 1
		b.forks[last].Close()
		b.forks = b.forks[:last]
	}
	for len(b.forks) < n {
		b.forks = append(b.forks, b.r.NewSequence())
	}
	trunk := b.trunk.tokens
	for _, f := range b.forks {
		f.tokens = append(append(f.tokens[:0], trunk...), make([]Token, length-len(trunk))...)
	}
	if err := b.r.kv.reserve(b.forks); err != nil {
		return err
	}
	// Forks differ in how much of the trunk they hold only where some are new.
	behind := map[int][]*Sequence{}
	for _, f := range b.forks {
		f.computed = min(f.computed, len(trunk))
		behind[f.computed] = append(behind[f.computed], f)
	}
	for from, forks := range behind {
		if err := b.r.kv.copyRows(b.trunk, forks, from, len(trunk)); err != nil {
			return err
		}
	}
	for _, f := range b.forks {
		f.tokens, f.computed = f.tokens[:len(trunk)], len(trunk)
	}
	return nil
}

// runForks runs what continuations have beyond their shared beginning, each on a fork.
func (b *Branches) runForks(ctx context.Context, continuations [][]int, shared int, numbers []int, out []Branch) error {
	var all []counted
	for n, i := range numbers {
		f, rest := b.forks[n], continuations[i][shared:]
		c := counted{feed: feed{s: f}}
		for j, id := range rest {
			at := len(f.tokens)
			f.tokens = append(f.tokens, Token{ID: id})
			c.want(at, id, &out[i].Own)
			if j+1 < len(rest) {
				c.want(at, rest[j+1], &out[i].Next)
			}
		}
		all = append(all, c)
	}
	err := b.run(ctx, all)
	for _, f := range b.forks {
		f.Truncate(len(b.trunk.tokens))
	}
	return err
}
