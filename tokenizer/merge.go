// SPDX-License-Identifier: Apache-2.0

package tokenizer

import "math/bits"

// merge joins two tokens that stand side by side into a third.
type merge struct{ left, right, product int32 }

// pairTable finds the merge of two tokens: open addressing, at most half full.
type pairTable struct {
	slots []pairSlot
	shift uint
}

type pairSlot struct {
	pair    uint64 // left<<32 | right
	rank    int32  // from 1; 0 in an empty slot
	product int32
}

func newPairTable(merges []merge) pairTable {
	log := bits.Len(uint(2 * len(merges)))
	p := pairTable{make([]pairSlot, 1<<log), uint(64 - log)}
	for rank, m := range merges {
		*p.slot(m.left, m.right) = pairSlot{pairKey(m.left, m.right), int32(rank + 1), m.product}
	}
	return p
}

func pairKey(left, right int32) uint64 { return uint64(left)<<32 | uint64(right) }

// slot returns where the pair is, or the empty slot where it would be. There is
// always one: 2·m+1 ≤ 2^log.
func (p *pairTable) slot(left, right int32) *pairSlot {
	pair := pairKey(left, right)
	mask := uint64(len(p.slots) - 1)
	for i := pair * 0x9e3779b97f4a7c15 >> p.shift; ; i++ {
		s := &p.slots[i&mask]
		if s.rank == 0 || s.pair == pair {
			return s
		}
	}
}

// noRank is worse than every rank.
const noRank = 1<<31 - 1

// rank returns the rank of merging the pair, from 1, or noRank.
func (p *pairTable) rank(left, right int32) int32 {
	if r := p.slot(left, right).rank; r > 0 {
		return r
	}
	return noRank
}

// shortPiece is the length in bytes up to which scanning for the best merge
// beats keeping a heap of them.
const shortPiece = 64

// AppendPiece appends the token ids of one of the pieces that Pieces gives. Time
// is O(n log n) for a piece of n bytes.
func (t *Tokenizer) AppendPiece(ids []int32, piece string) []int32 {
	if len(piece) > shortPiece {
		return t.appendLong(ids, piece)
	}
	start := len(ids)
	var ranks [shortPiece]int32 // ranks[i] of merging tokens i and i+1
	for i := range len(piece) {
		ids = append(ids, t.byteID[piece[i]])
		if i > 0 {
			ranks[i-1] = t.pairs.rank(ids[start+i-1], ids[start+i])
		}
	}
	word := ids[start:]
	for len(word) > 1 {
		best := 0
		for i := 1; i < len(word)-1; i++ {
			if ranks[i] < ranks[best] {
				best = i
			}
		}
		if ranks[best] == noRank {
			break
		}
		word[best] = t.pairs.slot(word[best], word[best+1]).product
		copy(word[best+1:], word[best+2:])
		copy(ranks[best:], ranks[best+1:len(word)-1])
		word = word[:len(word)-1]
		if best > 0 {
			ranks[best-1] = t.pairs.rank(word[best-1], word[best])
		}
		if best+1 < len(word) {
			ranks[best] = t.pairs.rank(word[best], word[best+1])
		}
	}
	return ids[:start+len(word)]
}

// appendLong is AppendPiece with a heap of candidate merges over a linked list
// of tokens.
func (t *Tokenizer) appendLong(ids []int32, piece string) []int32 {
	n := int32(len(piece))
	word := make([]int32, n) // −1 where a token went into the one before it
	next := make([]int32, n) // n after the last
	prev := make([]int32, n) // −1 before the first
	var todo mergeHeap
	push := func(at int32) {
		if at < 0 || next[at] == n {
			return
		}
		if r := t.pairs.rank(word[at], word[next[at]]); r != noRank {
			todo.push(uint64(r)<<32 | uint64(at))
		}
	}
	for i := range n {
		word[i], next[i], prev[i] = t.byteID[piece[i]], i+1, i-1
	}
	for i := range n {
		push(i)
	}
	for len(todo) > 0 {
		best := todo.pop()
		rank, at := int32(best>>32), int32(uint32(best))
		if word[at] < 0 || next[at] == n {
			continue
		}
		gone := next[at]
		s := t.pairs.slot(word[at], word[gone])
		if s.rank != rank {
			continue // an earlier merge changed this pair
		}
		word[at], word[gone] = s.product, -1
		next[at] = next[gone]
		if next[at] < n {
			prev[next[at]] = at
		}
		push(prev[at])
		push(at)
	}
	for at := int32(0); at < n; at = next[at] {
		ids = append(ids, word[at])
	}
	return ids
}

// mergeHeap is a binary heap of rank<<32 | position, the least on top: lowest
// rank first, leftmost among equals.
type mergeHeap []uint64

func (h *mergeHeap) push(x uint64) {
	*h = append(*h, x)
	a := *h
	for i := len(a) - 1; i > 0 && a[i] < a[(i-1)/2]; i = (i - 1) / 2 {
		a[i], a[(i-1)/2] = a[(i-1)/2], a[i]
	}
}

func (h *mergeHeap) pop() uint64 {
	a := *h
	top, last := a[0], len(a)-1
	a[0] = a[last]
	a = a[:last]
	*h = a
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return top
		}
		if child+1 < last && a[child+1] < a[child] {
			child++
		}
		if a[i] <= a[child] {
			return top
		}
		a[i], a[child] = a[child], a[i]
		i = child
	}
}
