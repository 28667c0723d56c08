// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"fmt"
	"math"
	"slices"

	"fromage/gpu"
	"fromage/internal/simd"
)

// attentionMaxDh is the most columns that a head may have.
const attentionMaxDh = 4 * attentionQUADS

// Attention is scaled dot product attention over rows of keys and values: q (T,QStride) f32, kv (rows,KVStride) in format kept, tokens (T,4) u32
// → y (T,Heads·Dh) f32. Token t attends to the count rows of kv from first on, both from the token table (causal: count = position+1; all:
// count = length of the sequence); count 0 gives zeros. q and kv may be one buffer. Dh is at most 256.
func Attention(info gpu.Info, kept Format, p AttentionParams) Dispatch {
	checkHead("attention", p.Dh)
	v, fours := attentionAlone(kept, p)
	groups := int(p.T) * int(p.Heads)
	switch near := sharedLanes(info); {
	case info.Software && near > 0 && p.T > 1 && fours:
		v.file, v.text, v.consts = "attention_near", attentionNearText, map[string]int{"NEAR": near}
		groups = ceil(int(p.T), near) * int(p.Heads)
	case info.Software:
		v.file, v.text = "attention_software", attentionSoftwareText
		groups = ceil(groups, attentionSoftwareWG)
	case p.T > 1 && fours && attentionHeld(p) <= attentionTileHELD:
		v.file, v.text, v.consts = "attention_tile", attentionTileText, map[string]int{"HELD": attentionHeld(p)}
	}
	rule := attentionDispatch(v, kept, p, groups)
	if !withChoices {
		return rule
	}
	return choose(info, func() string { return attentionClass(p) }, func() []Dispatch { return attentionForms(info, kept, p) }, rule)
}

// attentionAlone is the text with a workgroup for each token and head, and whether everything is in fours.
func attentionAlone(kept Format, p AttentionParams) (v variant, inFours bool) {
	sizes := []uint32{p.Dh, p.QStride, p.KVStride, p.KOffset, p.VOffset}
	v = variant{file: "attention", imports: map[string]string{"rows": "rows_any"}}
	if inFours = fours(sizes...); inFours {
		v.imports["rows"] = "rows_vec4"
	}
	return v.keeping(kept, sizes...), inFours
}

func attentionDispatch(v variant, kept Format, p AttentionParams, groups int) Dispatch {
	k := attentionInterface()
	if withTwins {
		k.Twin, k.Fast = attentionCall(attentionOver(kept, attentionTwin)), attentionCall(attentionOver(kept, attentionFast))
	}
	return Dispatch{kernel(v, keptIn(kept, 1, k)), p.encode(), grid(groups)}
}

// attentionOver attends to keys and values in a format.
func attentionOver(kept Format, attend func(AttentionParams, attentionBuffers)) func(AttentionParams, attentionBuffers) {
	return func(p AttentionParams, b attentionBuffers) {
		b.Kv, b.Tokens = kept.attended(b.Kv, int(p.KVStride), int(p.T), b.Tokens)
		attend(p, b)
	}
}

// attentionHeld is how many vec4s of a token's result each of its lanes holds in attention_tile, a power of two.
func attentionHeld(p AttentionParams) int {
	held := 1
	for 4*attentionTilePARTS*held < int(p.Dh) {
		held *= 2
	}
	return held
}

func checkHead(kernel string, Dh uint32) {
	if Dh > attentionMaxDh {
		panic(fmt.Sprintf("shaders: %s: want heads of at most %d columns, have %d", kernel, attentionMaxDh, Dh))
	}
}

func attentionTwin(p AttentionParams, b attentionBuffers) {
	Dh := int(p.Dh)
	var weights []float64
	sums := make([]float64, Dh)
	for t := range int(p.T) {
		first, count := int(b.Tokens[4*t+2]), int(b.Tokens[4*t+3])
		if count > 0 {
			_ = b.Kv[:(count-1)*int(p.KVStride)] // a wild count shows before there is made room for it
		}
		if len(weights) < count {
			weights = make([]float64, max(count, 2*len(weights)))
		}
		for h := range int(p.Heads) {
			q := b.Q[t*int(p.QStride)+h*Dh:][:Dh]
			largest := math.Inf(-1)
			for j := range count {
				score := 0.0
				for d, k := range b.Kv[(first+j)*int(p.KVStride)+int(p.KOffset)+h*Dh:][:Dh] {
					score += float64(q[d]) * float64(k)
				}
				weights[j] = float64(p.Scale) * score
				largest = max(largest, weights[j])
			}
			total := 0.0
			clear(sums)
			for j := range count {
				w := math.Exp(weights[j] - largest)
				total += w
				for d, v := range b.Kv[(first+j)*int(p.KVStride)+int(p.VOffset)+h*Dh:][:Dh] {
					sums[d] += w * float64(v)
				}
			}
			y := b.Y[(t*int(p.Heads)+h)*Dh:][:Dh]
			for d := range y {
				y[d] = 0
				if count > 0 {
					y[d] = float32(sums[d] / total)
				}
			}
		}
	}
}

func (p AttentionParams) reach() []uint64 {
	if p.Dh == 0 || p.Dh > attentionMaxDh || p.KVStride == 0 {
		return nil
	}
	T, width := uint64(p.T), words(uint64(p.Heads), uint64(p.Dh))
	return []uint64{words(T, max(uint64(p.QStride), width)), uint64(max(p.KOffset, p.VOffset)) + width, words(T, 4), words(T, width)}
}

// attentionFast computes in f32, like a GPU, tokens and heads at once.
func attentionFast(p AttentionParams, b attentionBuffers) {
	heads, Dh, stride := int(p.Heads), int(p.Dh), int(p.KVStride)
	parallel(int(p.T)*heads, func(from, to int) {
		var weights []float32
		for n := from; n < to; n++ {
			t, h := n/heads, n%heads
			y := b.Y[n*Dh:][:Dh]
			clear(y)
			first, count := int(b.Tokens[4*t+2]), int(b.Tokens[4*t+3])
			if count == 0 {
				continue
			}
			_ = b.Kv[:(count-1)*stride] // a wild count shows before there is made room for it
			weights = slices.Grow(weights[:0], count)[:count]
			rows := b.Kv[first*stride+h*Dh:]
			simd.Dots(weights, b.Q[t*int(p.QStride)+h*Dh:][:Dh], rows[p.KOffset:], stride)
			sum := simd.Exp(weights, weights, p.Scale, largestScaled(weights, p.Scale))
			simd.Mix(y, weights, rows[p.VOffset:], stride)
			for d := range y {
				y[d] /= sum
			}
		}
	})
}

// largestScaled is the largest of factor·x.
func largestScaled(x []float32, factor float32) float32 {
	return max(factor*slices.Max(x), factor*slices.Min(x))
}

func attentionCases() []Case {
	return []Case{
		AttentionCase(F32, AttentionParams{Heads: 3, Dh: 20, QStride: 60, KVStride: 120, VOffset: 60, Scale: 0.22}, 5, 0, 131),
		AttentionCausalCase(F32, AttentionParams{Heads: 3, Dh: 20, QStride: 180, KVStride: 120, VOffset: 60, Scale: 0.22}, 3, 12, 1),
		AttentionCase(F32, AttentionParams{Heads: 2, Dh: 7, QStride: 15, KVStride: 31, KOffset: 1, VOffset: 16, Scale: 0.38}, 9, 140),
		AttentionCausalCase(F32, AttentionParams{Heads: 2, Dh: 64, QStride: 384, KVStride: 256, VOffset: 128, Scale: 0.12}, 35, 1, 6),
		AttentionCausalCase(F32, AttentionParams{Heads: 1, Dh: 128, QStride: 384, KVStride: 256, VOffset: 128, Scale: 0.09}, 33),
		AttentionCase(F16, AttentionParams{Heads: 3, Dh: 20, QStride: 60, KVStride: 120, VOffset: 60, Scale: 0.22}, 5, 0, 131),
		AttentionCausalCase(F16, AttentionParams{Heads: 2, Dh: 64, QStride: 384, KVStride: 256, VOffset: 128, Scale: 0.12}, 35, 1, 6),
		AttentionCausalCase(F16, AttentionParams{Heads: 1, Dh: 128, QStride: 384, KVStride: 256, VOffset: 128, Scale: 0.09}, 33),
		AttentionCausalCase(F16, AttentionParams{Heads: 3, Dh: 20, QStride: 180, KVStride: 120, VOffset: 60, Scale: 0.22}, 3, 12, 1),
	}
}

// AttentionCausalCase makes a case of Attention with random contents: sequences of the given lengths, each token of which attends to those before it and
// itself. It sets p.T.
func AttentionCausalCase(kept Format, p AttentionParams, lengths ...int) Case {
	var tokens []uint32
	rows := 0
	for _, n := range lengths {
		for t := range uint32(n) {
			tokens = append(tokens, t, t, uint32(rows), t+1)
		}
		rows += n
	}
	p.T = uint32(rows)
	c := AttentionCase(kept, p, rows)
	c.Dispatch = func(info gpu.Info) Dispatch { return Attention(info, kept, p) }
	c.Buffers = [][]uint32{Random(1, rows*int(p.QStride)), c.Buffers[1], tokens, Random(3, rows*int(p.Heads*p.Dh))}
	return c
}

// AttentionCase makes a case of Attention with random contents: one token for each of counts, whose rows follow one another in kv after one
// row that nobody attends to. It sets p.T.
func AttentionCase(kept Format, p AttentionParams, counts ...int) Case {
	p.T = uint32(len(counts))
	rows := 1
	var tokens []uint32
	for t, n := range counts {
		tokens = append(tokens, uint32(t), uint32(max(0, n-1)), uint32(rows), uint32(n))
		rows += n
	}
	return Case{
		Name:     "attention",
		Dispatch: func(info gpu.Info) Dispatch { return Attention(info, kept, p) },
		Buffers: [][]uint32{
			Random(1, int(p.T*p.QStride)), kept.random(2, rows*int(p.KVStride)), tokens, Random(3, int(p.T*p.Heads*p.Dh)),
		},
		Abs: 2e-5, Rel: 2e-5,
	}
}
