// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"
	"sort"

	"fromage/gpu"
)

// noRow is the row number of a place in TopK's results that no score fills.
const noRow = math.MaxUint32

// TopK finds the K best of each block of scores: scores (N) f32, index (N) u32 → out_scores (blocks,K) f32, out_rows (blocks,K) u32, best first.
// The larger score is better, of equal scores the lower row number; NaN never counts; places that remain get −∞ and row 0xffffffff.
// index holds the scores' row numbers where p.Indexed is 1, and is not read otherwise. TopKPasses says how to get from blocks to all scores.
func TopK(info gpu.Info, p TopKParams) Dispatch {
	v, groups := variant{file: "top_k"}, p.blocks()
	// In the worst case, rising scores, the software text goes through K rounds a score, and lavapipe ends an invocation's loops after 65535.
	if info.Software && int(p.Block)*(int(p.K)+1)+int(p.K) < 1<<16 {
		v.file, v.text, groups = "top_k_software", topKSoftwareText, ceil(groups, topKSoftwareWG)
	}
	return Dispatch{kernel(v, topKKernel(topKTwin, topKFast)), p.encode(), grid(groups)}
}

func (p TopKParams) blocks() int { return max(1, ceil(int(p.N), int(p.Block))) }

// Results returns how many scores and rows a pass writes.
func (p TopKParams) Results() int { return p.blocks() * int(p.K) }

// topKBlock is how many scores a workgroup takes where k is small: enough that two passes do for a million scores.
const topKBlock = 4096

// topKMost is the largest k.
const topKMost = 1024

// TopKPasses returns the passes of TopK that find the k best of n scores, 1 ≤ k ≤ 1024. The first reads the scores; each later one reads the
// results of the one before as scores and index; the last leaves the k best. Two pairs of buffers for Results() of the first pass are enough.
func TopKPasses(n, k int) []TopKParams {
	p := TopKParams{N: uint32(n), K: uint32(k), Block: uint32(max(topKBlock, 2*k))}
	passes := []TopKParams{p}
	for p.blocks() > 1 {
		p.N, p.Indexed = uint32(p.Results()), 1
		passes = append(passes, p)
	}
	return passes
}

type scored struct {
	score float32
	row   uint32
}

func (s scored) before(t scored) bool {
	return s.score > t.score || s.score == t.score && s.row < t.row
}

func topKTwin(p TopKParams, b topKBuffers) {
	for n := range p.blocks() {
		var found []scored
		p.each(b, n, func(s scored) { found = append(found, s) })
		sort.Slice(found, func(i, j int) bool { return found[i].before(found[j]) })
		p.store(b, n, found)
	}
}

// topKFast keeps the K best so far in order: most scores are compared with the last of them alone.
func topKFast(p TopKParams, b topKBuffers) {
	parallel(p.blocks(), func(first, last int) {
		best := make([]scored, 0, p.K)
		for n := first; n < last; n++ {
			best = best[:0]
			p.each(b, n, func(s scored) {
				switch {
				case len(best) < cap(best):
					best = append(best, s)
				case s.before(best[len(best)-1]):
				default:
					return
				}
				at := sort.Search(len(best)-1, func(i int) bool { return s.before(best[i]) })
				copy(best[at+1:], best[at:])
				best[at] = s
			})
			p.store(b, n, best)
		}
	})
}

// each calls f for the scores of block n that count.
func (p TopKParams) each(b topKBuffers, n int, f func(scored)) {
	for i := n * int(p.Block); i < min(int(p.N), (n+1)*int(p.Block)); i++ {
		s := scored{math.Float32frombits(b.Scores[i]) + 0, uint32(i)} // + 0 makes −0 to 0
		if p.Indexed == 1 {
			s.row = b.Index[i]
		}
		if s.score == s.score && s.row != noRow {
			f(s)
		}
	}
}

// store writes the results of block n: the first K of found, or what fills the places that remain.
func (p TopKParams) store(b topKBuffers, n int, found []scored) {
	K := int(p.K)
	for k := range K {
		s := scored{float32(math.Inf(-1)), noRow}
		if k < len(found) {
			s = found[k]
		}
		b.OutScores[n*K+k], b.OutRows[n*K+k] = math.Float32bits(s.score), s.row
	}
}

func (p TopKParams) reach() []uint64 {
	if p.K == 0 || p.K > topKMost || p.Block == 0 {
		return nil
	}
	n, out := words(uint64(p.N)), words(uint64(p.blocks()), uint64(p.K))
	return []uint64{n, where(p.Indexed, n), out, out}
}

func topKCases() []Case {
	return []Case{
		TopKCase(TopKParams{N: 700, K: 7, Block: 300}),
		TopKCase(TopKParams{N: 700, K: 7, Block: 512, Indexed: 1}),
	}
}

// TopKCase makes a case of TopK: scores in steps of ½ so that many are equal, some of them infinite, NaN or −0, and where p.Indexed is 1 row
// numbers that fall, with every eleventh missing.
func TopKCase(p TopKParams) Case {
	scores, index := Random(1, int(p.N)), make([]uint32, p.N)
	for i := range scores {
		v := float32(math.Round(float64(2*math.Float32frombits(scores[i])))) / 2
		switch i % 29 {
		case 3:
			v = float32(math.Inf(-1))
		case 5:
			v = float32(math.NaN())
		case 7:
			v = float32(math.Copysign(0, -1))
		case 11:
			v = -float32(math.NaN())
		}
		scores[i] = math.Float32bits(v)
		index[i] = 5 * (p.N - uint32(i))
		if i%11 == 0 {
			index[i] = noRow
		}
	}
	n := p.Results()
	return Case{
		Name:     "top_k",
		Dispatch: func(info gpu.Info) Dispatch { return TopK(info, p) },
		Buffers:  [][]uint32{scores, index, make([]uint32, n), make([]uint32, n)},
	}
}
