// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"fmt"
	"maps"
	"slices"

	"fromage/gpu"
	"fromage/machine"
	"fromage/plan"
	"fromage/shaders"
)

// kvCache is rows of keys and values, one state buffer a layer, in which every sequence has a run of rows.
type kvCache struct {
	m         *machine.Machine
	format    shaders.Format // F32 or F16
	states    []plan.Value   // kv.0 … kv.L−1
	capacity  int            // rows of each buffer
	sequences []*Sequence    // those with rows, by first row
}

// minRows is the fewest KV rows given to a sequence.
const minRows = 64

func newKVCache(m *machine.Machine, format shaders.Format) *kvCache {
	c := &kvCache{m: m, format: format}
	if p, err := m.Manifest.Model.Program("lm"); err == nil {
		for _, v := range p.Values {
			if v.Kind == plan.State {
				c.states = append(c.states, v)
			}
		}
		keep(m.Layouts, p, format)
	}
	return c
}

// keep adds to layouts that a program's states are kept in a format.
func keep(layouts map[string]plan.Layout, p *plan.Program, format shaders.Format) {
	for _, v := range p.Values {
		if v.Kind == plan.State {
			layouts[v.Name] = plan.Layout{Format: format}
		}
	}
}

// SetKV has keys and values kept in f16, or in f32 as at first. F16 is half the memory, and half of what a token after a long past reads, for values of 11
// bits. What sequences have computed is computed anew when it is next needed.
func (r *Runner) SetKV(format shaders.Format) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch format {
	case r.kv.format:
		return nil
	case shaders.F32, shaders.F16:
	default:
		return fmt.Errorf("runner: keys and values: want f32 or f16, have %v", format)
	}
	p, err := r.m.Manifest.Model.Program("lm")
	if err != nil {
		return err
	}
	layouts := maps.Clone(r.m.Layouts)
	keep(layouts, p, format)
	if _, err := p.Lower(r.m.Info, layouts, plan.Run(2, 1, 0)); err != nil {
		return fmt.Errorf("runner: keys and values in %v: %w", format, err)
	}
	r.kv.forget()
	for _, v := range r.kv.states {
		if b, ok := r.m.States[v.Name]; ok {
			_ = r.m.Dev.Free(b)
			delete(r.m.States, v.Name)
		}
	}
	r.m.Forget()
	r.kv = newKVCache(r.m, format)
	return nil
}

// forget takes all rows from all sequences.
func (c *kvCache) forget() {
	for _, s := range c.sequences {
		s.first, s.rows, s.computed = 0, 0, 0
	}
}

// rowBytes is the size of a row of a state.
func (c *kvCache) rowBytes(v plan.Value) int { return c.format.RowBytes(v.Cols) }

func (c *kvCache) drop(s *Sequence) {
	c.sequences = slices.DeleteFunc(c.sequences, func(o *Sequence) bool { return o == s })
	s.rows, s.computed = 0, 0
}

// reserve makes room for all tokens of the batch's sequences: in place, in a gap, or by moving everything to larger buffers. A sequence's rows
// double until they reach the model's positions.
func (c *kvCache) reserve(batch []*Sequence) error {
	limit := c.m.Manifest.Settings.MaxPositions
	var short []*Sequence
	for _, s := range batch {
		if len(s.tokens) > limit {
			return fmt.Errorf("runner: a sequence of %d tokens is longer than the model's %d positions; reset or shorten it", len(s.tokens), limit)
		}
		if s.rows < len(s.tokens) && !c.fill(s, c.wanted(s)) {
			short = append(short, s)
		}
	}
	if short == nil {
		return nil
	}
	return c.relayout(short)
}

// wanted is the number of rows that a sequence should have next.
func (c *kvCache) wanted(s *Sequence) int {
	rows := max(minRows, s.rows)
	for rows < len(s.tokens) {
		rows *= 2
	}
	return min(rows, c.m.Manifest.Settings.MaxPositions)
}

// fill gives a sequence that has nothing computed the first gap of that many rows, if there is one.
func (c *kvCache) fill(s *Sequence, rows int) bool {
	if s.computed > 0 {
		return false
	}
	c.drop(s)
	first := 0
	for i, o := range c.sequences {
		if o.first-first >= rows {
			c.put(i, s, first, rows)
			return true
		}
		first = o.first + o.rows
	}
	if c.capacity-first < rows {
		return false
	}
	c.put(len(c.sequences), s, first, rows)
	return true
}

func (c *kvCache) put(i int, s *Sequence, first, rows int) {
	s.first, s.rows = first, rows
	c.sequences = slices.Insert(c.sequences, i, s)
}

// relayout makes new buffers in which the short sequences have the rows they want and every other those it has, and copies what was computed.
// Where the device has no room for them, everything stays as it was.
func (c *kvCache) relayout(short []*Sequence) error {
	all := slices.Clone(c.sequences)
	for _, s := range short {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	first, rows, total := make([]int, len(all)), make([]int, len(all)), 0
	for i, s := range all {
		first[i], rows[i] = total, s.rows
		if slices.Contains(short, s) {
			rows[i] = c.wanted(s)
		}
		total += rows[i]
	}
	fresh := map[string]gpu.Buffer{}
	var list gpu.List
	for _, v := range c.states {
		row := c.rowBytes(v)
		b, err := c.m.Dev.NewBuffer(v.Name, total*row)
		if err != nil {
			c.m.Free(fresh)
			return fmt.Errorf("runner: KV cache of %d tokens: %w", total, err)
		}
		fresh[v.Name] = b
		for i, s := range all {
			list.Copy(b, first[i]*row, c.m.States[v.Name], s.first*row, s.computed*row)
		}
	}
	if err := c.m.Dev.Submit(&list); err != nil {
		return err
	}
	c.m.Forget()
	for name, b := range fresh {
		if old, ok := c.m.States[name]; ok {
			_ = c.m.Dev.Free(old)
		}
		c.m.States[name] = b
	}
	c.capacity, c.sequences = total, all
	for i, s := range all {
		s.first, s.rows = first[i], rows[i]
	}
	return nil
}

// copyRows copies rows [from, to) of a sequence to the same places of others; all have them reserved.
func (c *kvCache) copyRows(source *Sequence, targets []*Sequence, from, to int) error {
	if from >= to || len(targets) == 0 {
		return nil
	}
	widest := 0
	for _, v := range c.states {
		widest = max(widest, c.rowBytes(v))
	}
	// A copy within one buffer is not a command.
	between, err := c.m.Dev.NewBuffer("kv rows", widest*(to-from))
	if err != nil {
		return err
	}
	defer func() { _ = c.m.Dev.Free(between) }()
	var list gpu.List
	for _, v := range c.states {
		state, row := c.m.States[v.Name], c.rowBytes(v)
		list.Copy(between, 0, state, (source.first+from)*row, (to-from)*row)
		for _, t := range targets {
			list.Copy(state, (t.first+from)*row, between, 0, (to-from)*row)
		}
	}
	return c.m.Dev.Submit(&list)
}

// fit returns how many sequences of n tokens so many bytes have room for, within the device's limits beside all sequences but those; at least 1.
func (c *kvCache) fit(n, bytes int, but []*Sequence) int {
	rows := c.wanted(&Sequence{tokens: make([]Token, n)})
	taken, rowBytes, widest := 0, 0, 0
	for _, s := range c.sequences {
		if !slices.Contains(but, s) {
			taken += s.rows
		}
	}
	for _, v := range c.states {
		rowBytes += c.rowBytes(v)
		widest = max(widest, c.rowBytes(v))
	}
	return max(1, min(bytes/rowBytes, c.m.Info.Limits.MaxBinding/widest-taken)/rows)
}
