// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestAttentionStep(t *testing.T) {
	var cases []shaders.Case
	for _, count := range []int{1, 2, 9, 128, 300} {
		cases = append(cases,
			shaders.AttentionStepCase(shaders.F32, shaders.AttentionStepParams{Heads: 6, Dh: 64, QStride: 1152, Source: 384, KVStride: 768, VOffset: 384, Scale: 0.125}, count),
			shaders.AttentionStepCase(shaders.F16, shaders.AttentionStepParams{Heads: 6, Dh: 64, QStride: 1152, Source: 384, KVStride: 768, VOffset: 384, Scale: 0.125}, count),
			shaders.AttentionStepCase(shaders.F16, shaders.AttentionStepParams{Heads: 9, Dh: 4, QStride: 120, Source: 40, KVStride: 80, KOffset: 4, VOffset: 44, Scale: 0.5}, count),
			shaders.AttentionStepCase(shaders.F32, shaders.AttentionStepParams{Heads: 9, Dh: 4, QStride: 120, Source: 40, KVStride: 80, KOffset: 4, VOffset: 44, Scale: 0.5}, count),
		)
	}
	kerneltest.Run(t, cases)
}
