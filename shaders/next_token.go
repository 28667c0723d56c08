// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"

	"fromage/gpu"
)

// NextTokenHead is how many words of NextToken's control come before its tokens.
const NextTokenHead = 4

// NextTokenControl is the head of NextToken's control for an answer: [RET]'s logit counts times factor, and not at all for the first `early` tokens. A ret
// below 0 is none.
func NextTokenControl(early, ret int, factor float32) []uint32 {
	return []uint32{0, uint32(max(0, early)), uint32(max(ret, -1)), math.Float32bits(factor)}
}

// NextToken appends the most likely next token to control and makes it row 0 of the token table: logits (V) f32, control (4+n) u32, tokens (T,4) u32,
// rows u32. Greedy search of FromageModel.generate in fromage/models.py, with its treatment of [RET].
func NextToken(_ gpu.Info, p NextTokenParams) Dispatch {
	return Dispatch{kernel(variant{file: "next_token"}, nextTokenKernel(nextTokenTwin)), p.encode(), grid(1)}
}

func nextTokenTwin(p NextTokenParams, b nextTokenBuffers) {
	count, early, ret, factor := b.Control[0], b.Control[1], b.Control[2], math.Float32frombits(b.Control[3])
	id, largest := uint32(0), float32(math.NaN())
	for i, bits := range b.Logits[:p.V] {
		v := math.Float32frombits(bits)
		if uint32(i) == ret {
			if count < early {
				continue
			}
			v *= factor
		}
		if v > largest || largest != largest && v == v {
			id, largest = uint32(i), v
		}
	}
	b.Control[0]++
	if at := NextTokenHead + int(count); at < len(b.Control) {
		b.Control[at] = id
	}
	from := b.Tokens[4*p.Row:][:4]
	copy(b.Tokens, []uint32{id, from[1] + 1, from[2], from[3] + 1})
	b.Rows[0] = 0
}

func (p NextTokenParams) reach() []uint64 {
	return []uint64{uint64(p.V), NextTokenHead, 4 * (uint64(p.Row) + 1), 1}
}

func nextTokenCases() []Case {
	return []Case{
		NextTokenCase(NextTokenParams{V: 1000, Row: 2}, 3, NextTokenControl(0, 17, 9)),
		NextTokenCase(NextTokenParams{V: 300}, 1, NextTokenControl(1, 4, 1e30)),
	}
}

// NextTokenCase makes a case of NextToken with random logits, made coarse so that some are equal, over T tokens with room for 3.
func NextTokenCase(p NextTokenParams, T int, control []uint32) Case {
	logits := floats(Random(1, int(p.V)))
	for i := range logits {
		logits[i] = float32(math.Round(2 * float64(logits[i])))
	}
	tokens := make([]uint32, 4*T)
	for i := range tokens {
		tokens[i] = uint32(5 * i)
	}
	return Case{
		Name:     "next_token",
		Dispatch: func(info gpu.Info) Dispatch { return NextToken(info, p) },
		Buffers:  [][]uint32{wordsOf(logits), append(control, 0, 0, 0), tokens, {9, 9}},
	}
}
