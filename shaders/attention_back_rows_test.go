// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/internal/kerneltest"
	"fromage/shaders"
)

// upTo returns the counts of a sequence of n tokens, all of them in the table.
func upTo(n int) []int {
	counts := make([]int, n)
	for i := range counts {
		counts[i] = i + 1
	}
	return counts
}

func TestAttentionBackRows(t *testing.T) {
	var cases []shaders.Case
	for _, Dh := range []uint32{1, 3, 8, 12, 20, 64, 80, 128, 131, 252, 256} {
		const heads = 2
		cases = append(cases,
			shaders.AttentionBackRowsCase(shaders.F32, shaders.AttentionBackRowsParams{
				Heads: heads, Dh: Dh, QStride: heads * Dh, KVStride: 2 * heads * Dh, VOffset: heads * Dh, Scale: 0.3,
				DStride: 3 * heads * Dh, DKOffset: heads * Dh, DVOffset: 2 * heads * Dh,
			}, upTo(13), []int{7}, []int{2, 3, 9}, []int{0}, upTo(66)),
			// Strides and offsets that rule vec4 loads out.
			shaders.AttentionBackRowsCase(shaders.F32, shaders.AttentionBackRowsParams{
				Heads: heads, Dh: Dh, QStride: heads*Dh + 1, KVStride: 2*heads*Dh + 5, KOffset: heads*Dh + 3, VOffset: 2, Scale: 0.3,
				DStride: 2*heads*Dh + 3, DKOffset: heads*Dh + 1, DVOffset: 1,
			}, upTo(3), upTo(1), upTo(9)))
	}
	for _, Dh := range []uint32{4, 64, 128, 256} {
		cases = append(cases, shaders.AttentionBackRowsCase(shaders.F16, shaders.AttentionBackRowsParams{
			Heads: 2, Dh: Dh, QStride: 2*Dh + 4, KVStride: 4*Dh + 8, KOffset: 2*Dh + 4, VOffset: 4, Scale: 0.3, DStride: 6 * Dh, DKOffset: 2 * Dh, DVOffset: 4 * Dh,
		}, upTo(13), []int{2, 3, 9}, []int{0}, upTo(66)))
	}
	kerneltest.Run(t, cases)
}

// BenchmarkAttentionBack runs both halves for a layer of OPT-125m on a batch of captions of 24 tokens.
func BenchmarkAttentionBack(b *testing.B) {
	const sequences, n, heads, Dh = 32, 24, 12, 64
	var counts [][]int
	var all []int
	for range sequences {
		counts = append(counts, upTo(n))
		all = append(all, upTo(n)...)
	}
	pairs := float64(sequences * n * (n + 1) / 2)
	kerneltest.Bench(b, "query", shaders.AttentionBackQueryCase(shaders.F32, shaders.AttentionBackQueryParams{
		Heads: heads, Dh: Dh, QStride: 768, KVStride: 1536, VOffset: 768, Scale: 0.125, DStride: 2304,
	}, all...), 6*768*pairs, 8*768*pairs)
	kerneltest.Bench(b, "rows", shaders.AttentionBackRowsCase(shaders.F32, shaders.AttentionBackRowsParams{
		Heads: heads, Dh: Dh, QStride: 768, KVStride: 1536, VOffset: 768, Scale: 0.125, DStride: 2304, DKOffset: 768, DVOffset: 1536,
	}, counts...), 8*768*pairs, 8*768*pairs)
}
