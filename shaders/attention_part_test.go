// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestAttentionPart(t *testing.T) {
	var cases []shaders.Case
	for _, count := range []int{1, 2, 9, 128, 300, 1025} {
		for _, splits := range []uint32{1, 2, 7, 16} {
			cases = append(cases,
				shaders.AttentionPartCase(shaders.F32, shaders.AttentionPartParams{Heads: 2, Dh: 64, QStride: 384, Source: 128, KVStride: 256, VOffset: 128, Splits: splits, Scale: 0.125}, count),
				shaders.AttentionPartCase(shaders.F32, shaders.AttentionPartParams{Heads: 9, Dh: 4, QStride: 120, Source: 40, KVStride: 80, KOffset: 4, VOffset: 44, Splits: splits, Scale: 0.5}, count),
			)
		}
	}
	for _, count := range []int{1, 128, 300} {
		cases = append(cases, shaders.AttentionPartCase(shaders.F16, shaders.AttentionPartParams{Heads: 2, Dh: 64, QStride: 384, Source: 128, KVStride: 256, VOffset: 128, Splits: 7, Scale: 0.125}, count))
	}
	// A token that does not attend to itself.
	apart := shaders.AttentionPartCase(shaders.F32, shaders.AttentionPartParams{Heads: 2, Dh: 8, QStride: 48, Source: 16, KVStride: 32, VOffset: 16, Splits: 3, Scale: 0.3}, 20)
	apart.Buffers[1][3] = 11
	kerneltest.Run(t, append(cases, apart))
}

// TestAttentionHalves: parts and what they make together are what AttentionStep makes in one.
func TestAttentionHalves(t *testing.T) {
	for _, count := range []int{1, 5, 200} {
		p := shaders.AttentionPartParams{Heads: 3, Dh: 20, QStride: 180, Source: 60, KVStride: 120, VOffset: 60, Splits: 6, Scale: 0.22}
		whole := shaders.AttentionStepCase(shaders.F32, shaders.AttentionStepParams{Heads: 3, Dh: 20, QStride: 180, Source: 60, KVStride: 120, VOffset: 60, Scale: 0.22}, count)
		half := shaders.AttentionPartCase(shaders.F32, p, count)
		y := make([]uint32, p.Heads*p.Dh)
		run := func(d shaders.Dispatch, buffers ...[]uint32) {
			d.Kernel.Twin(gpu.Call{Params: d.Params, Buffers: buffers})
		}
		run(whole.Dispatch(gpu.Info{}), whole.Buffers...)
		run(half.Dispatch(gpu.Info{}), half.Buffers...)
		run(shaders.AttentionMerge(gpu.Info{}, shaders.AttentionMergeParams{Heads: p.Heads, Dh: p.Dh, Splits: p.Splits}), half.Buffers[3], y)
		near(t, "attention in halves", y, whole.Buffers[3])
		near(t, "kv", half.Buffers[2], whole.Buffers[2])
	}
}

func TestAttentionSplits(t *testing.T) {
	cpu, hardware := gpu.Info{Software: true}, gpu.Info{}
	played := gpu.Info{Software: true, Features: gpu.Features{Subgroups: true, SubgroupMin: 8, SubgroupMax: 8}}
	for _, c := range []struct {
		info       gpu.Info
		past, want int
	}{{cpu, 1 << 20, 1}, {played, 64, 1}, {played, 128, 8}, {hardware, 0, 1}, {hardware, 512, 1}, {hardware, 1024, 8}, {hardware, 2048, 16}, {hardware, 1 << 20, 16}} {
		if got := shaders.AttentionSplits(c.info, c.past); got != c.want {
			t.Errorf("AttentionSplits(%+v, %d) = %d, want %d", c.info, c.past, got, c.want)
		}
	}
}
