// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"

	"fromage/gpu"
)

// What a backward kernel adds to the gradient that it computes: LinearBackParams.Add, LayerNormBackParams.Add.
const (
	AddNothing uint32 = iota
	AddTensor         // the tensor add: what comes to the same place by another way
	AddSelf           // what the result holds already: further shards of a weight
)

// LinearBack is the gradient of Linear's sums for x, over one shard of the features: dy (T,Stride) f32, w (F,K) in format, add (T,K) f32
// → dx (T,K) f32,
//
//	dx[t,k] = Σ_f dy[t, F0+f]·w[f,k] + (add[t,k] or dx[t,k] or nothing, as p.Add says).
//
// The format must fit K. add is read only where p.Add is AddTensor.
func LinearBack(info gpu.Info, format Format, p LinearBackParams) Dispatch {
	v, groups := linearBackVariant(info, format, p)
	twin := func(p LinearBackParams, b linearBackBuffers) { linearBackTwin(format, p, b) }
	fast := func(p LinearBackParams, b linearBackBuffers) { linearBackFast(format, p, b) }
	return Dispatch{kernel(v, linearBackKernel(twin, fast)), p.encode(), grid(groups)}
}

// linearBackVariant chooses the text and the number of workgroups, as linearVariant does.
func linearBackVariant(info gpu.Info, format Format, p LinearBackParams) (variant, int) {
	T, K := int(p.T), int(p.K)
	if p.K%4 != 0 {
		return variant{file: "linear_back"}, ceil(T*K, linearBackWG)
	}
	if info.Software {
		tokens := 4
		if T == 1 {
			tokens = 1
		}
		v := variant{file: "linear_back_block", text: linearBackBlockText, imports: format.imports(), consts: map[string]int{"TOKENS": tokens}}
		return v, ceil(ceil(T, tokens)*ceil(K/4, linearBackBlockNEAR)*linearBackBlockNEAR, linearBackBlockWG)
	}
	if T <= linearFew {
		return variant{file: "linear_back_few", text: linearBackFewText, imports: format.imports()}, ceil(T, 4) * ceil(K/4, linearBackFewCOLUMNS)
	}
	if n := ceil(T, linearBackTileSIDE) * ceil(K, linearBackTileSIDE); T > linearBackTile64SIDE && n >= linearFill {
		return variant{file: "linear_back_tile", text: linearBackTileText, imports: format.imports()}, n
	}
	return variant{file: "linear_back_tile64", text: linearBackTile64Text, imports: format.imports()}, ceil(T, linearBackTile64SIDE) * ceil(K, linearBackTile64SIDE)
}

func linearBackTwin(format Format, p LinearBackParams, b linearBackBuffers) {
	T, K := int(p.T), int(p.K)
	sums, row := make([]float64, T*K), make([]float32, K)
	for f := range int(p.F) {
		format.decodeRow(b.W, b.S, f, row)
		for t := range T {
			dy, sum := float64(b.Dy[t*int(p.Stride)+int(p.F0)+f]), sums[t*K:(t+1)*K]
			for k, w := range row {
				sum[k] += dy * float64(w)
			}
		}
	}
	for i, sum := range sums {
		switch p.Add {
		case AddTensor:
			sum += float64(b.Add[i])
		case AddSelf:
			sum += float64(b.Dx[i])
		}
		b.Dx[i] = float32(sum)
	}
}

// linearBackFast computes in f32, like a GPU.
func linearBackFast(format Format, p LinearBackParams, b linearBackBuffers) {
	K := int(p.K)
	product{
		M: int(p.T), N: K, K: int(p.F),
		a: operand{deep: true, row: func(t, first, last int, dst []float32) {
			at := t*int(p.Stride) + int(p.F0)
			copy(dst, b.Dy[at+first:at+last])
		}},
		b: operand{row: func(f, first, last int, dst []float32) { format.decodePart(b.W, b.S, K, f, first, last, dst) }},
		store: func(t, k int, c []float32) {
			dx := b.Dx[t*K+k:][:len(c)]
			switch p.Add {
			case AddTensor:
				for i, v := range b.Add[t*K+k:][:len(c)] {
					dx[i] = c[i] + v
				}
			case AddSelf:
				for i, v := range c {
					dx[i] += v
				}
			default:
				copy(dx, c)
			}
		},
	}.run()
}

func linearBackCases() []Case {
	var cases []Case
	for f, K := range [...]uint32{F32: 52, F16: 104, Q8: 128, Q4: 96} {
		for i, size := range []LinearBackParams{{T: 1, F: 7}, {T: 6, F: 71}, {T: 70, F: 33}} {
			size.K, size.F0, size.Stride, size.Add = K, 3, size.F+5, uint32(i)%3
			cases = append(cases, LinearBackCase(Format(f), size))
		}
	}
	return append(cases,
		LinearBackCase(F32, LinearBackParams{T: 5, K: 7, F: 33, Stride: 33, Add: AddTensor}),
		LinearBackCase(F16, LinearBackParams{T: 129, K: 3072, F: 17, Stride: 17, Add: AddSelf}))
}

// LinearBackCase makes a case of LinearBack with random contents; dy is scaled so that sums are about 1.
func LinearBackCase(f Format, p LinearBackParams) Case {
	T, K, F := int(p.T), int(p.K), int(p.F)
	dy := floats(Random(1, T*int(p.Stride)))
	for i := range dy {
		dy[i] /= float32(math.Sqrt(float64(F)))
	}
	w, s := RandomWeight(2, f, F, K)
	return Case{
		Name:     "linear_back",
		Dispatch: func(info gpu.Info) Dispatch { return LinearBack(info, f, p) },
		Buffers:  [][]uint32{wordsOf(dy), w, s, Random(3, T*K), Random(4, T*K)},
		Abs:      2e-5, Rel: 2e-5,
	}
}
