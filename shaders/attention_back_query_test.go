// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestAttentionBackQuery(t *testing.T) {
	var cases []shaders.Case
	for _, Dh := range []uint32{1, 3, 8, 12, 20, 64, 80, 128, 131, 252, 256} {
		const heads = 2
		cases = append(cases,
			shaders.AttentionBackQueryCase(shaders.F32, shaders.AttentionBackQueryParams{
				Heads: heads, Dh: Dh, QStride: heads * Dh, KVStride: 2 * heads * Dh, VOffset: heads * Dh, Scale: 0.3, DStride: heads * Dh,
			}, 1, 7, 8, 9, 63, 64, 65, 131),
			// Strides and offsets that rule vec4 loads out.
			shaders.AttentionBackQueryCase(shaders.F32, shaders.AttentionBackQueryParams{
				Heads: heads, Dh: Dh, QStride: heads*Dh + 1, KVStride: 2*heads*Dh + 5, KOffset: heads*Dh + 3, VOffset: 2, Scale: 0.3, DStride: 3*heads*Dh + 1,
			}, 0, 13, 67))
	}
	for _, Dh := range []uint32{4, 64, 128, 256} {
		cases = append(cases, shaders.AttentionBackQueryCase(shaders.F16, shaders.AttentionBackQueryParams{
			Heads: 2, Dh: Dh, QStride: 2*Dh + 4, KVStride: 4*Dh + 8, KOffset: 2*Dh + 4, VOffset: 4, Scale: 0.3, DStride: 6 * Dh,
		}, 1, 0, 9, 64, 131))
	}
	// Scores of some hundreds, whose f32 are 3e-5 apart.
	steep := shaders.AttentionBackQueryCase(shaders.F32, shaders.AttentionBackQueryParams{
		Heads: 1, Dh: 64, QStride: 64, KVStride: 128, VOffset: 64, Scale: 20, DStride: 64,
	}, 1, 100)
	steep.Abs = 5e-2
	kerneltest.Run(t, append(cases, steep))
}
