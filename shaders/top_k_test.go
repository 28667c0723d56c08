// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"math"
	"slices"
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestTopK(t *testing.T) {
	var cases []shaders.Case
	for _, indexed := range []uint32{0, 1} {
		for _, N := range []uint32{1, 13, 255, 256, 257, 1031} {
			for _, K := range []uint32{1, 3, 64} {
				cases = append(cases,
					shaders.TopKCase(shaders.TopKParams{N: N, K: K, Block: 256, Indexed: indexed}),
					shaders.TopKCase(shaders.TopKParams{N: N, K: K, Block: 2048, Indexed: indexed}))
			}
		}
	}
	rising := shaders.TopKCase(shaders.TopKParams{N: 4100, K: 14, Block: 4096})
	for i := range rising.Buffers[0] {
		rising.Buffers[0][i] = math.Float32bits(float32(i))
	}
	kerneltest.Run(t, append(cases, rising, shaders.TopKCase(shaders.TopKParams{N: 3001, K: 1024, Block: 2048})))
}

func TestTopKTwin(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, c := range []struct {
		p      shaders.TopKParams
		scores []float32
		index  []uint32
		want   []float32
		rows   []uint32
	}{
		{shaders.TopKParams{N: 6, K: 2, Block: 3}, []float32{1, 3, 3, nan, -2, nan}, nil, []float32{3, 3, -2, -inf}, []uint32{1, 2, 4, 0xffffffff}},
		{shaders.TopKParams{N: 4, K: 3, Block: 8, Indexed: 1}, []float32{5, inf, 5, 9}, []uint32{7, 2, 4, 0xffffffff}, []float32{inf, 5, 5}, []uint32{2, 4, 7}},
		{shaders.TopKParams{N: 3, K: 4, Block: 8}, []float32{-inf, float32(math.Copysign(0, -1)), 0}, nil, []float32{0, 0, -inf, -inf}, []uint32{1, 2, 0, 0xffffffff}},
		{shaders.TopKParams{N: 0, K: 1, Block: 8}, []float32{3}, nil, []float32{-inf}, []uint32{0xffffffff}},
	} {
		rows := make([]uint32, len(c.rows))
		twin(t, shaders.TopK(gpu.Info{}, c.p), 2, c.want, words(c.scores...), c.index, make([]uint32, len(c.want)), rows)
		if !slices.Equal(rows, c.rows) {
			t.Errorf("TopK(%+v): rows are %v, want %v", c.p, rows, c.rows)
		}
	}
}

func TestTopKPasses(t *testing.T) {
	for _, c := range []struct {
		n, k int
		want []uint32 // N of each pass
	}{
		{0, 5, []uint32{0}},
		{1, 1, []uint32{1}},
		{4096, 10, []uint32{4096}},
		{4097, 10, []uint32{4097, 20}},
		{1_000_000, 10, []uint32{1_000_000, 2450}},
		{4097, 1024, []uint32{4097, 2048}},
		{1_000_000, 1024, []uint32{1_000_000, 250880, 63488, 16384, 4096}},
	} {
		var got []uint32
		for i, p := range shaders.TopKPasses(c.n, c.k) {
			got = append(got, p.N)
			if (p.Indexed == 1) != (i > 0) || p.K != uint32(c.k) {
				t.Errorf("TopKPasses(%d, %d)[%d] = %+v", c.n, c.k, i, p)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("TopKPasses(%d, %d) reads %v scores, want %v", c.n, c.k, got, c.want)
		}
	}
}

// TestTopKAll runs all passes over many scores, most of them equal to others, and compares with a stable sort.
func TestTopKAll(t *testing.T) {
	const n = 50021
	scores := shaders.Random(5, n)
	order := make([]uint32, n)
	value := make([]float64, n)
	for i := range scores {
		value[i] = math.Round(100*float64(math.Float32frombits(scores[i]))) / 128
		scores[i] = math.Float32bits(float32(value[i]))
		order[i] = uint32(i)
	}
	slices.SortStableFunc(order, func(a, b uint32) int {
		switch {
		case value[a] > value[b]:
			return -1
		case value[a] < value[b]:
			return 1
		}
		return 0
	})
	kerneltest.Devices(t, func(t *testing.T, dev gpu.Device) {
		for _, k := range []int{1, 10, 257} {
			passes := shaders.TopKPasses(n, k)
			in, index := upload(t, dev, scores), upload(t, dev, nil)
			for _, p := range passes {
				s, r := upload(t, dev, make([]uint32, p.Results())), upload(t, dev, make([]uint32, p.Results()))
				dispatch(t, dev, shaders.TopK(dev.Info(), p), in, index, s, r)
				in, index = s, r
			}
			rows, best := download(t, dev, index, k), download(t, dev, in, k)
			for i, row := range rows {
				if row != order[i] || math.Float32frombits(best[i]) != float32(value[row]) {
					t.Fatalf("k = %d: place %d is row %d with %v, want row %d with %v", k, i, row, math.Float32frombits(best[i]), order[i], value[order[i]])
				}
			}
		}
	})
}

// BenchmarkTopK runs the first pass over a million scores; GB/s counts the scores.
func BenchmarkTopK(b *testing.B) {
	const n = 1_000_000
	p := shaders.TopKPasses(n, 10)[0]
	c := shaders.TopKCase(p)
	c.Buffers[0] = shaders.Random(1, n)
	kerneltest.Bench(b, "10", c, 0, 4*n)
}
