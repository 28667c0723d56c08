// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"
	"slices"

	"fromage/gpu"
	"fromage/internal/simd"
)

// AttentionBackQuery is the first half of Attention's gradient: q (T,QStride) f32, kv (rows,KVStride) in format kept, tokens (T,4) u32 and
// dy (T,Heads·Dh) f32 → dq, in columns 0 to Heads·Dh of dqkv (T,DStride) f32, and stats (T,Heads,2) f32, which AttentionBackRows needs: of each
// token and head the logarithm of the sum of the exponentials of its scores, and the mean of dy·v under its weights. A token that attends to
// nothing gives zeros. q and kv may be one buffer. Dh is at most 256.
func AttentionBackQuery(info gpu.Info, kept Format, p AttentionBackQueryParams) Dispatch {
	v := attentionBackVariant("attention_back_query", attentionBackQuerySoftwareText, info, kept, p.Dh, p.QStride, p.KVStride, p.KOffset, p.VOffset)
	groups := int(p.T) * int(p.Heads)
	if info.Software {
		groups = ceil(groups, attentionBackQuerySoftwareWG)
	}
	over := func(back func(AttentionBackQueryParams, attentionBackQueryBuffers)) func(AttentionBackQueryParams, attentionBackQueryBuffers) {
		return func(p AttentionBackQueryParams, b attentionBackQueryBuffers) {
			b.Kv, b.Tokens = kept.attended(b.Kv, int(p.KVStride), int(p.T), b.Tokens)
			back(p, b)
		}
	}
	k := attentionBackQueryKernel(over(attentionBackQueryTwin), over(attentionBackQueryFast))
	return Dispatch{kernel(v, keptIn(kept, 1, k)), p.encode(), grid(groups)}
}

// attentionBackVariant chooses between the kernel's own text and the one for software. The sizes are the columns of a head, and all strides and offsets of
// q and kv.
func attentionBackVariant(file, software string, info gpu.Info, kept Format, sizes ...uint32) variant {
	checkHead(file, sizes[0])
	v := variant{file: file, imports: map[string]string{"rows": "rows_any", "upstream": "upstream_any"}}
	if info.Software {
		v.file, v.text = file+"_software", software
	}
	if fours(sizes...) {
		v.imports = map[string]string{"rows": "rows_vec4", "upstream": "upstream_vec4"}
	}
	return v.keeping(kept, sizes...)
}

func attentionBackQueryTwin(p AttentionBackQueryParams, b attentionBackQueryBuffers) {
	Dh, heads := int(p.Dh), int(p.Heads)
	sums := make([]float64, Dh)
	for t := range int(p.T) {
		first, count := int(b.Tokens[4*t+2]), int(b.Tokens[4*t+3])
		scores, products := make([]float64, count), make([]float64, count)
		for h := range heads {
			q, dy := b.Q[t*int(p.QStride)+h*Dh:][:Dh], b.Dy[(t*heads+h)*Dh:][:Dh]
			largest := math.Inf(-1)
			for j := range count {
				row := (first + j) * int(p.KVStride)
				scores[j] = float64(p.Scale) * dot(q, b.Kv[row+int(p.KOffset)+h*Dh:][:Dh])
				products[j] = dot(dy, b.Kv[row+int(p.VOffset)+h*Dh:][:Dh])
				largest = max(largest, scores[j])
			}
			total, mean := 0.0, 0.0
			for j, s := range scores {
				total += math.Exp(s - largest)
				mean += math.Exp(s-largest) * products[j]
			}
			logSum := largest + math.Log(total)
			mean /= total
			clear(sums)
			for j, s := range scores {
				slope := float64(p.Scale) * math.Exp(s-logSum) * (products[j] - mean)
				for d, k := range b.Kv[(first+j)*int(p.KVStride)+int(p.KOffset)+h*Dh:][:Dh] {
					sums[d] += slope * float64(k)
				}
			}
			if count == 0 {
				logSum, mean = 0, 0
			}
			b.Stats[2*(t*heads+h)], b.Stats[2*(t*heads+h)+1] = float32(logSum), float32(mean)
			for d, sum := range sums {
				b.Dqkv[t*int(p.DStride)+h*Dh+d] = float32(sum)
			}
		}
	}
}

// dot is the product of two rows, in float64.
func dot(a, b []float32) float64 {
	sum := 0.0
	for i, v := range a {
		sum += float64(v) * float64(b[i])
	}
	return sum
}

// attentionBackQueryFast computes in f32, like a GPU, tokens and heads at once.
func attentionBackQueryFast(p AttentionBackQueryParams, b attentionBackQueryBuffers) {
	heads, Dh, stride := int(p.Heads), int(p.Dh), int(p.KVStride)
	parallel(int(p.T)*heads, func(from, to int) {
		var weights, products []float32
		for n := from; n < to; n++ {
			t, h := n/heads, n%heads
			dq, stats := b.Dqkv[t*int(p.DStride)+h*Dh:][:Dh], b.Stats[2*n:2*n+2]
			clear(dq)
			clear(stats)
			first, count := int(b.Tokens[4*t+2]), int(b.Tokens[4*t+3])
			if count == 0 {
				continue
			}
			weights, products = slices.Grow(weights[:0], count)[:count], slices.Grow(products[:0], count)[:count]
			rows := b.Kv[first*stride+h*Dh:]
			simd.Dots(weights, b.Q[t*int(p.QStride)+h*Dh:][:Dh], rows[p.KOffset:], stride)
			simd.Dots(products, b.Dy[n*Dh:][:Dh], rows[p.VOffset:], stride)
			largest := largestScaled(weights, p.Scale)
			sum, mean := simd.Exp(weights, weights, p.Scale, largest), float32(0)
			for j, w := range weights {
				weights[j] = w / sum
				mean += weights[j] * products[j]
			}
			for j, v := range products {
				weights[j] *= p.Scale * (v - mean)
			}
			simd.Mix(dq, weights, rows[p.KOffset:], stride)
			stats[0], stats[1] = largest+float32(math.Log(float64(sum))), mean
		}
	})
}

func attentionBackQueryCases() []Case {
	return []Case{
		AttentionBackQueryCase(F32, AttentionBackQueryParams{Heads: 3, Dh: 20, QStride: 60, KVStride: 120, VOffset: 60, Scale: 0.22, DStride: 180}, 5, 0, 67),
		AttentionBackQueryCase(F32, AttentionBackQueryParams{Heads: 2, Dh: 7, QStride: 15, KVStride: 31, KOffset: 1, VOffset: 16, Scale: 0.38, DStride: 17}, 9, 70),
		AttentionBackQueryCase(F16, AttentionBackQueryParams{Heads: 3, Dh: 20, QStride: 60, KVStride: 120, VOffset: 60, Scale: 0.22, DStride: 180}, 5, 0, 67),
	}
}

// AttentionBackQueryCase makes a case of AttentionBackQuery with random contents: one token for each of counts, whose rows follow one another in
// kv after one row that nobody attends to. It sets p.T.
func AttentionBackQueryCase(kept Format, p AttentionBackQueryParams, counts ...int) Case {
	p.T = uint32(len(counts))
	rows := 1
	var tokens []uint32
	for t, n := range counts {
		tokens = append(tokens, uint32(t), uint32(max(0, n-1)), uint32(rows), uint32(n))
		rows += n
	}
	return Case{
		Name:     "attention_back_query",
		Dispatch: func(info gpu.Info) Dispatch { return AttentionBackQuery(info, kept, p) },
		Buffers: [][]uint32{
			Random(1, int(p.T*p.QStride)), kept.random(2, rows*int(p.KVStride)), tokens, Random(3, int(p.T*p.Heads*p.Dh)),
			Random(4, int(p.T*p.Heads*2)), Random(5, int(p.T*p.DStride)),
		},
		Abs: 5e-5, Rel: 5e-5,
	}
}
