// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"
	"slices"

	"fromage/gpu"
	"fromage/internal/simd"
)

// AttentionBackRows is the second half of Attention's gradient: q, kv, tokens and dy as in AttentionBackQuery, and the stats that it made → dk and
// dv of each token's own row of kv, in columns DKOffset to DKOffset+Heads·Dh and DVOffset to DVOffset+Heads·Dh of dqkv (T,DStride) f32.
//
// A token's own row is the last that it attends to. The tokens of a sequence, those with the same first row, follow one another with rising
// counts, so that those who attend to a token's row are it and what follows it; a table that leaves tokens out counts only those it has.
func AttentionBackRows(info gpu.Info, kept Format, p AttentionBackRowsParams) Dispatch {
	v := attentionBackVariant("attention_back_rows", attentionBackRowsSoftwareText, info, kept, p.Dh, p.QStride, p.KVStride, p.KOffset, p.VOffset)
	groups := int(p.T) * int(p.Heads)
	if info.Software {
		groups = ceil(groups, attentionBackRowsSoftwareWG)
	}
	over := func(back func(AttentionBackRowsParams, attentionBackRowsBuffers)) func(AttentionBackRowsParams, attentionBackRowsBuffers) {
		return func(p AttentionBackRowsParams, b attentionBackRowsBuffers) {
			b.Kv, b.Tokens = kept.attended(b.Kv, int(p.KVStride), int(p.T), b.Tokens)
			back(p, b)
		}
	}
	k := attentionBackRowsKernel(over(attentionBackRowsTwin), over(attentionBackRowsFast))
	return Dispatch{kernel(v, keptIn(kept, 1, k)), p.encode(), grid(groups)}
}

func attentionBackRowsTwin(p AttentionBackRowsParams, b attentionBackRowsBuffers) {
	T, Dh, heads := int(p.T), int(p.Dh), int(p.Heads)
	dk, dv := make([]float64, Dh), make([]float64, Dh)
	for r := range T {
		first, count := b.Tokens[4*r+2], b.Tokens[4*r+3]
		row := (int(first) + int(count) - 1) * int(p.KVStride)
		for h := range heads {
			clear(dk)
			clear(dv)
			for i := r; count > 0 && i < T && b.Tokens[4*i+2] == first; i++ {
				k, v := b.Kv[row+int(p.KOffset)+h*Dh:][:Dh], b.Kv[row+int(p.VOffset)+h*Dh:][:Dh]
				q, dy, stats := b.Q[i*int(p.QStride)+h*Dh:][:Dh], b.Dy[(i*heads+h)*Dh:][:Dh], b.Stats[2*(i*heads+h):][:2]
				weight := math.Exp(float64(p.Scale)*dot(q, k) - float64(stats[0]))
				slope := float64(p.Scale) * weight * (dot(dy, v) - float64(stats[1]))
				for d := range Dh {
					dk[d] += slope * float64(q[d])
					dv[d] += weight * float64(dy[d])
				}
			}
			to := b.Dqkv[r*int(p.DStride)+h*Dh:]
			for d := range Dh {
				to[int(p.DKOffset)+d], to[int(p.DVOffset)+d] = float32(dk[d]), float32(dv[d])
			}
		}
	}
}

// attentionBackRowsFast computes in f32, like a GPU, tokens and heads at once.
func attentionBackRowsFast(p AttentionBackRowsParams, b attentionBackRowsBuffers) {
	T, heads, Dh := int(p.T), int(p.Heads), int(p.Dh)
	parallel(T*heads, func(from, to int) {
		var weights, slopes []float32
		for n := from; n < to; n++ {
			r, h := n/heads, n%heads
			grad := b.Dqkv[r*int(p.DStride)+h*Dh:]
			dk, dv := grad[p.DKOffset:][:Dh], grad[p.DVOffset:][:Dh]
			clear(dk)
			clear(dv)
			first, count := b.Tokens[4*r+2], b.Tokens[4*r+3]
			if count == 0 {
				continue
			}
			end := r + 1
			for end < T && b.Tokens[4*end+2] == first {
				end++
			}
			weights, slopes = slices.Grow(weights[:0], end-r)[:end-r], slices.Grow(slopes[:0], end-r)[:end-r]
			row := b.Kv[(int(first)+int(count)-1)*int(p.KVStride)+h*Dh:]
			q, dy := b.Q[r*int(p.QStride)+h*Dh:], b.Dy[n*Dh:]
			simd.Dots(weights, row[p.KOffset:][:Dh], q, int(p.QStride))
			simd.Dots(slopes, row[p.VOffset:][:Dh], dy, heads*Dh)
			for i, score := range weights {
				weights[i] = p.Scale*score - b.Stats[2*(n+i*heads)]
			}
			simd.Exp(weights, weights, 1, 0)
			for i, w := range weights {
				slopes[i] = p.Scale * w * (slopes[i] - b.Stats[2*(n+i*heads)+1])
			}
			simd.Mix(dk, slopes, q, int(p.QStride))
			simd.Mix(dv, weights, dy, heads*Dh)
		}
	})
}

func attentionBackRowsCases() []Case {
	return []Case{
		AttentionBackRowsCase(F32, AttentionBackRowsParams{
			Heads: 3, Dh: 20, QStride: 60, KVStride: 120, VOffset: 60, Scale: 0.22, DStride: 180, DKOffset: 60, DVOffset: 120,
		}, []int{1, 2, 3}, []int{0}, []int{1, 4, 67}),
		AttentionBackRowsCase(F32, AttentionBackRowsParams{
			Heads: 2, Dh: 7, QStride: 15, KVStride: 31, KOffset: 1, VOffset: 16, Scale: 0.38, DStride: 33, DKOffset: 17, DVOffset: 1,
		}, []int{9}, []int{2, 3, 4, 5, 6, 7}),
		AttentionBackRowsCase(F16, AttentionBackRowsParams{
			Heads: 3, Dh: 20, QStride: 60, KVStride: 120, VOffset: 60, Scale: 0.22, DStride: 180, DKOffset: 60, DVOffset: 120,
		}, []int{1, 2, 3}, []int{0}, []int{1, 4, 67}),
	}
}

// AttentionBackRowsCase makes a case of AttentionBackRows with random contents: for each sequence the counts of its tokens, rising; their rows
// follow one another in kv after one row that nobody attends to. It sets p.T. The statistics are those that AttentionBackQuery's twin makes.
func AttentionBackRowsCase(kept Format, p AttentionBackRowsParams, sequences ...[]int) Case {
	rows := 1
	var tokens []uint32
	for number, counts := range sequences {
		for _, n := range counts {
			tokens = append(tokens, uint32(number), uint32(max(0, n-1)), uint32(rows), uint32(n))
		}
		rows += max(1, counts[len(counts)-1])
	}
	p.T = uint32(len(tokens) / 4)
	T := int(p.T)
	q, kv, dy := Random(1, T*int(p.QStride)), kept.random(2, rows*int(p.KVStride)), Random(3, T*int(p.Heads*p.Dh))
	stats := make([]uint32, T*int(p.Heads)*2)
	wide, moved := kept.attended(floats(kv), int(p.KVStride), T, tokens)
	attentionBackQueryTwin(AttentionBackQueryParams{
		T: p.T, Heads: p.Heads, Dh: p.Dh, QStride: p.QStride, KVStride: p.KVStride, KOffset: p.KOffset, VOffset: p.VOffset, Scale: p.Scale, DStride: p.Heads * p.Dh,
	}, attentionBackQueryBuffers{floats(q), wide, moved, floats(dy), floats(stats), make([]float32, T*int(p.Heads*p.Dh))})
	return Case{
		Name:     "attention_back_rows",
		Dispatch: func(info gpu.Info) Dispatch { return AttentionBackRows(info, kept, p) },
		Buffers:  [][]uint32{q, kv, tokens, dy, stats, Random(4, T*int(p.DStride))},
		Abs:      5e-5, Rel: 5e-5,
	}
}
