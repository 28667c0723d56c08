// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"

	"fromage/gpu"
)

// LinearWeightBack is the gradient of Linear's sums for one shard of its weights, added to what is there:
// dy (T,Stride) f32, x (T,K) f32 → dw (F,K) f32, db (F) f32,
//
//	dw[f,k] += Σ_t dy[t, F0+f]·x[t,k] and, where p.Bias is 1, db[f] += Σ_t dy[t, F0+f].
//
// The sums are taken in an order that depends on the sizes alone.
func LinearWeightBack(info gpu.Info, p LinearWeightBackParams) Dispatch {
	v, groups := linearWeightBackVariant(info, p)
	return Dispatch{kernel(v, linearWeightBackKernel(linearWeightBackTwin, linearWeightBackFast)), p.encode(), grid(groups)}
}

// linearWeightBackFew is how many features are still faster with the tokens shared out among lanes than in nearly empty tiles.
const linearWeightBackFew = 16

// linearWeightBackVariant chooses the text and the number of workgroups.
func linearWeightBackVariant(info gpu.Info, p LinearWeightBackParams) (variant, int) {
	K, F := int(p.K), int(p.F)
	if p.K%4 != 0 {
		return variant{file: "linear_weight_back"}, ceil(F*K, linearWeightBackWG)
	}
	if info.Software {
		return variant{file: "linear_weight_back_block", text: linearWeightBackBlockText}, ceil(ceil(F, 4)*K/4, linearWeightBackBlockWG)
	}
	if F <= linearWeightBackFew {
		return variant{file: "linear_weight_back_few", text: linearWeightBackFewText}, ceil(F, 2) * ceil(K/4, linearWeightBackFewCOLUMNS)
	}
	if n := ceil(F, linearWeightBackTileSIDE) * ceil(K, linearWeightBackTileSIDE); F > linearWeightBackTile64SIDE && n >= linearFill {
		return variant{file: "linear_weight_back_tile", text: linearWeightBackTileText}, n
	}
	return variant{file: "linear_weight_back_tile64", text: linearWeightBackTile64Text}, ceil(F, linearWeightBackTile64SIDE) * ceil(K, linearWeightBackTile64SIDE)
}

func linearWeightBackTwin(p LinearWeightBackParams, b linearWeightBackBuffers) {
	K := int(p.K)
	sums := make([]float64, K)
	for f := range int(p.F) {
		clear(sums)
		bias := 0.0
		for t := range int(p.T) {
			dy := float64(b.Dy[t*int(p.Stride)+int(p.F0)+f])
			bias += dy
			for k, v := range b.X[t*K : (t+1)*K] {
				sums[k] += dy * float64(v)
			}
		}
		for k, sum := range sums {
			b.Dw[f*K+k] = float32(float64(b.Dw[f*K+k]) + sum)
		}
		if p.Bias == 1 {
			b.Db[f] = float32(float64(b.Db[f]) + bias)
		}
	}
}

// linearWeightBackFast computes in f32, like a GPU.
func linearWeightBackFast(p LinearWeightBackParams, b linearWeightBackBuffers) {
	T, K, F := int(p.T), int(p.K), int(p.F)
	dy := func(t, first, last int) []float32 {
		at := t*int(p.Stride) + int(p.F0)
		return b.Dy[at+first : at+last]
	}
	product{
		M: F, N: K, K: T,
		a: operand{row: func(t, first, last int, dst []float32) { copy(dst, dy(t, first, last)) }},
		b: operand{row: func(t, first, last int, dst []float32) { copy(dst, b.X[t*K+first:t*K+last]) }},
		store: func(f, k int, c []float32) {
			for i, v := range c {
				b.Dw[f*K+k+i] += v
			}
		},
	}.run()
	if p.Bias == 0 {
		return
	}
	parallel(F, func(first, last int) {
		sums := make([]float32, last-first)
		for t := range T {
			for i, v := range dy(t, first, last) {
				sums[i] += v
			}
		}
		for i, v := range sums {
			b.Db[first+i] += v
		}
	})
}

func linearWeightBackCases() []Case {
	return []Case{
		LinearWeightBackCase(LinearWeightBackParams{T: 71, K: 52, F: 2, F0: 5, Stride: 9, Bias: 1}),
		LinearWeightBackCase(LinearWeightBackParams{T: 33, K: 68, F: 67, F0: 1, Stride: 70, Bias: 1}),
		LinearWeightBackCase(LinearWeightBackParams{T: 17, K: 3068, F: 130, Stride: 130, Bias: 1}),
		LinearWeightBackCase(LinearWeightBackParams{T: 5, K: 7, F: 3, Stride: 3}),
	}
}

// LinearWeightBackCase makes a case of LinearWeightBack with random contents; dy is scaled so that sums are about 1.
func LinearWeightBackCase(p LinearWeightBackParams) Case {
	T, K, F := int(p.T), int(p.K), int(p.F)
	dy := floats(Random(1, T*int(p.Stride)))
	for i := range dy {
		dy[i] /= float32(math.Sqrt(float64(T)))
	}
	return Case{
		Name:     "linear_weight_back",
		Dispatch: func(info gpu.Info) Dispatch { return LinearWeightBack(info, p) },
		Buffers:  [][]uint32{wordsOf(dy), Random(2, T*K), Random(3, F*K), Random(4, F)},
		Abs:      2e-5, Rel: 2e-5,
	}
}
