// SPDX-License-Identifier: Apache-2.0

package plan

import "slices"

// Slots assigns the program's activations to few buffers: two activations share a slot when the last operation that reads the one comes before
// the operation that makes the other. slot[id−1] is the slot of an activation and −1 for other values; size[slot] is the bytes it needs for
// runs of up to most. The largest come first, each into the smallest slot that is free for as long as it lives: what waits in few bytes for the end of a
// long program has no large buffer for itself (Pisarchyk and Lee 2020, greedy by size).
func (p *Program) Slots(most Dims) (slot []int, size []int) {
	lives := p.lives()
	var order []int
	slot = make([]int, len(p.Values))
	for i, l := range lives {
		if slot[i] = -1; l.made >= 0 && p.Values[i].Kind == Activation {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return p.Values[b].Bytes(most) - p.Values[a].Bytes(most) })
	var held [][]life // by slot: of those that it was given to
	for _, i := range order {
		best := len(held) - 1
		for best >= 0 && slices.ContainsFunc(held[best], lives[i].meets) {
			best--
		}
		if best < 0 {
			best = len(held)
			held, size = append(held, nil), append(size, p.Values[i].Bytes(most))
		}
		slot[i], held[best] = best, append(held[best], lives[i])
	}
	return slot, size
}

// life is from the operation that makes a value, −1 if none does, to the last that reads it.
type life struct{ made, last int }

func (a life) meets(b life) bool { return a.made <= b.last && b.made <= a.last }

func (p *Program) lives() []life {
	lives, pairs := make([]life, len(p.Values)), p.pairs()
	for i := range lives {
		lives[i].made = -1
	}
	for i, op := range p.Ops {
		makes, _ := op.writes()
		for _, id := range makes {
			if id > 0 && lives[id-1].made < 0 {
				lives[id-1].made = i
			}
		}
		for _, id := range append(op.reads(), makes...) {
			if id > 0 {
				lives[id-1].last = i
				if pairs[i] {
					lives[id-1].last = i + 1 // the next may be what reads it
				}
			}
		}
	}
	return lives
}

// Bytes returns the size of an f32 or u32 value in a run.
func (v *Value) Bytes(dims Dims) int { return 4 * v.Rows.In(dims) * v.Cols }
