// SPDX-License-Identifier: Apache-2.0

package plan

// Slots assigns the program's activations to few buffers: two activations share a slot when the last operation that reads the one comes before
// the operation that makes the other. slot[id−1] is the slot of an activation and −1 for other values; size[slot] is the bytes it needs for
// runs of up to most.
func (p *Program) Slots(most Dims) (slot []int, size []int) {
	last, pairs := make([]int, len(p.Values)), p.pairs()
	for i, op := range p.Ops {
		makes, _ := op.writes()
		for _, id := range append(op.reads(), makes...) {
			if id > 0 {
				last[id-1] = max(last[id-1], i)
				if pairs[i] {
					last[id-1] = i + 1 // the next may be what reads it
				}
			}
		}
	}
	slot = make([]int, len(p.Values))
	for i := range slot {
		slot[i] = -1
	}
	var freeFrom []int // by slot: the first operation that may write it anew
	for i, op := range p.Ops {
		makes, _ := op.writes()
		for _, made := range makes {
			id := made - 1
			if made == 0 || p.Values[id].Kind != Activation || slot[id] >= 0 {
				continue
			}
			bytes := p.Values[id].Bytes(most)
			best := -1
			for s, from := range freeFrom {
				if from <= i && (best < 0 || closer(size[s], size[best], bytes)) {
					best = s
				}
			}
			if best < 0 {
				best = len(size)
				size, freeFrom = append(size, 0), append(freeFrom, 0)
			}
			slot[id] = best
			size[best] = max(size[best], bytes)
			freeFrom[best] = last[id] + 1
		}
	}
	return slot, size
}

// closer says whether a slot of size a suits want bytes better than one of size b: the smallest that is large enough, else the largest.
func closer(a, b, want int) bool {
	if (a >= want) != (b >= want) {
		return a >= want
	}
	if a >= want {
		return a < b
	}
	return a > b
}

// Bytes returns the size of an f32 or u32 value in a run.
func (v *Value) Bytes(dims Dims) int { return 4 * v.Rows.In(dims) * v.Cols }
