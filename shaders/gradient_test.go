// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"math"
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

// wide makes float64 of words of f32 values.
func wide(words []uint32) []float64 {
	x := make([]float64, len(words))
	for i, w := range words {
		x[i] = float64(math.Float32frombits(w))
	}
	return x
}

// runTwin runs a dispatch's twin on buffers, in binding order.
func runTwin(d shaders.Dispatch, buffers ...[]uint32) {
	d.Kernel.Twin(gpu.Call{Groups: [3]uint32{uint32(d.Groups[0]), uint32(d.Groups[1]), uint32(d.Groups[2])}, Params: d.Params, Buffers: buffers})
}

// same compares f32 words with numbers that are exact but for their rounding.
func same(t *testing.T, name string, got []uint32, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: have %d values, want %d", name, len(got), len(want))
	}
	for i, g := range wide(got) {
		if !(math.Abs(g-want[i]) <= 1e-6*(1+math.Abs(want[i]))) {
			t.Errorf("%s[%d] = %v, want %v", name, i, g, want[i])
		}
	}
}

// linear is y[t,f] = Σ_k x[t,k]·w[f,k] + bias[f] in float64.
func linear(T, K, F int, x, w, bias []float64) []float64 {
	y := make([]float64, T*F)
	for t := range T {
		for f := range F {
			y[t*F+f] = bias[f]
			for k := range K {
				y[t*F+f] += x[t*K+k] * w[f*K+k]
			}
		}
	}
	return y
}

// TestLinearGradient holds the twins of LinearBack, over two shards of the weights, and LinearWeightBack to central differences of Linear.
func TestLinearGradient(t *testing.T) {
	const T, K, F, first = 3, 4, 7, 3 // the second shard begins with feature 3
	x, w, bias, dy := shaders.Random(1, T*K), shaders.Random(2, F*K), shaders.Random(3, F), shaders.Random(4, T*F)
	y := make([]uint32, T*F)
	runTwin(shaders.Linear(gpu.Info{}, shaders.F32, shaders.LinearParams{T: T, K: K, F: F, Stride: F, Bias: 1}), x, w, nil, bias, nil, y)
	same(t, "y", y, linear(T, K, F, wide(x), wide(w), wide(bias)))

	wantX := kerneltest.Gradient(func(x []float64) []float64 { return linear(T, K, F, x, wide(w), wide(bias)) }, wide(x), wide(dy))
	wantW := kerneltest.Gradient(func(w []float64) []float64 { return linear(T, K, F, wide(x), w, wide(bias)) }, wide(w), wide(dy))
	wantB := kerneltest.Gradient(func(bias []float64) []float64 { return linear(T, K, F, wide(x), wide(w), bias) }, wide(bias), wide(dy))

	add, dx := shaders.Random(5, T*K), shaders.Random(6, T*K)
	runTwin(shaders.LinearBack(gpu.Info{}, shaders.F32, shaders.LinearBackParams{T: T, K: K, F: first, Stride: F, Add: shaders.AddTensor}), dy, w, nil, add, dx)
	runTwin(shaders.LinearBack(gpu.Info{}, shaders.F32, shaders.LinearBackParams{T: T, K: K, F: F - first, F0: first, Stride: F, Add: shaders.AddSelf}), dy, w[first*K:], nil, nil, dx)
	for i, v := range wide(add) {
		wantX[i] += v
	}
	same(t, "dx", dx, wantX)

	dw, db := shaders.Random(7, F*K), shaders.Random(8, F)
	for i, v := range wide(dw) {
		wantW[i] += v
	}
	for i, v := range wide(db) {
		wantB[i] += v
	}
	runTwin(shaders.LinearWeightBack(gpu.Info{}, shaders.LinearWeightBackParams{T: T, K: K, F: first, Stride: F, Bias: 1}), dy, x, dw[:first*K], db[:first])
	runTwin(shaders.LinearWeightBack(gpu.Info{}, shaders.LinearWeightBackParams{T: T, K: K, F: F - first, F0: first, Stride: F, Bias: 1}), dy, x, dw[first*K:], db[first:])
	same(t, "dw", dw, wantW)
	same(t, "db", db, wantB)
	kept := append([]uint32(nil), db...)
	runTwin(shaders.LinearWeightBack(gpu.Info{}, shaders.LinearWeightBackParams{T: T, K: K, F: F, Stride: F}), dy, x, dw, db)
	same(t, "db without bias", db, wide(kept))
}

// TestActGradient holds ActBack's twin to central differences of what Linear applies to its sums.
func TestActGradient(t *testing.T) {
	x := words(-9, -3, -1, -0.3, -0.01, 0.01, 0.2, 1, 2.5, 12)
	dy := shaders.Random(1, len(x))
	for act, f := range map[uint32]func(float64) float64{
		shaders.ActNone:      func(v float64) float64 { return v },
		shaders.ActReLU:      func(v float64) float64 { return max(v, 0) },
		shaders.ActQuickGELU: func(v float64) float64 { return v / (1 + math.Exp(-1.702*v)) },
		shaders.ActGELU:      func(v float64) float64 { return v * (1 + math.Erf(v/math.Sqrt2)) / 2 },
	} {
		all := func(x []float64) []float64 {
			y := make([]float64, len(x))
			for i, v := range x {
				y[i] = f(v)
			}
			return y
		}
		n := uint32(len(x))
		y, dx := make([]uint32, n), make([]uint32, n)
		runTwin(shaders.Linear(gpu.Info{}, shaders.F32, shaders.LinearParams{T: n, K: 1, F: 1, Stride: 1, Act: act}), x, words(1), nil, nil, nil, y)
		same(t, "y", y, all(wide(x)))
		runTwin(shaders.ActBack(gpu.Info{}, shaders.ActBackParams{N: n, Act: act}), x, dy, dx)
		same(t, "dx", dx, kerneltest.Gradient(all, wide(x), wide(dy)))
	}
}

// TestLayerNormGradient holds LayerNormBack's twin to central differences of LayerNorm.
func TestLayerNormGradient(t *testing.T) {
	const T, D, eps = 2, 9, 0.25 // large enough to be seen
	x, weight, bias, dy, add := shaders.Random(1, T*D), shaders.Random(2, D), shaders.Random(3, D), shaders.Random(4, T*D), shaders.Random(5, T*D)
	norm := func(x []float64) []float64 {
		y := make([]float64, T*D)
		for t := range T {
			mean, variance := 0.0, 0.0
			for _, v := range x[t*D : (t+1)*D] {
				mean += v / D
			}
			for _, v := range x[t*D : (t+1)*D] {
				variance += (v - mean) * (v - mean) / D
			}
			for d, v := range x[t*D : (t+1)*D] {
				y[t*D+d] = (v-mean)/math.Sqrt(variance+eps)*wide(weight)[d] + wide(bias)[d]
			}
		}
		return y
	}
	y, dx := make([]uint32, T*D), shaders.Random(6, T*D)
	runTwin(shaders.LayerNorm(gpu.Info{}, shaders.LayerNormParams{T: T, D: D, Eps: eps}), x, weight, bias, y)
	same(t, "y", y, norm(wide(x)))
	want := kerneltest.Gradient(norm, wide(x), wide(dy))
	runTwin(shaders.LayerNormBack(gpu.Info{}, shaders.LayerNormBackParams{T: T, D: D, Eps: eps}), x, weight, dy, nil, dx)
	same(t, "dx", dx, want)
	for i, v := range wide(add) {
		want[i] += v
	}
	runTwin(shaders.LayerNormBack(gpu.Info{}, shaders.LayerNormBackParams{T: T, D: D, Eps: eps, Add: shaders.AddTensor}), x, weight, dy, add, dx)
	same(t, "dx with add", dx, want)
}

// attend is Attention in float64 over one buffer of queries, keys and values side by side: qkv (T,3·heads·Dh) → y (T,heads·Dh).
func attend(heads, Dh int, scale float64, tokens []uint32, qkv []float64) []float64 {
	E := heads * Dh
	y := make([]float64, len(tokens)/4*E)
	for t := range len(tokens) / 4 {
		first, count := int(tokens[4*t+2]), int(tokens[4*t+3])
		for h := range heads {
			total, weights := 0.0, make([]float64, count)
			for j := range weights {
				score := 0.0
				for d := range Dh {
					score += qkv[t*3*E+h*Dh+d] * qkv[(first+j)*3*E+E+h*Dh+d]
				}
				weights[j] = math.Exp(scale * score)
				total += weights[j]
			}
			for j, w := range weights {
				for d := range Dh {
					y[t*E+h*Dh+d] += w / total * qkv[(first+j)*3*E+2*E+h*Dh+d]
				}
			}
		}
	}
	return y
}

// TestAttentionGradient holds the twins of AttentionBackQuery and AttentionBackRows together to central differences of Attention over two
// sequences, the first of which has a token that attends to nothing before it.
func TestAttentionGradient(t *testing.T) {
	const heads, Dh, E, scale, T = 2, 3, 6, 0.75, 6
	tokens := []uint32{
		0, 0, 0, 0, // row 0 is nobody's
		0, 0, 1, 1, 0, 1, 1, 2, 0, 2, 1, 3,
		0, 0, 4, 1, 0, 1, 4, 2,
	}
	qkv, dy := shaders.Random(1, T*3*E), shaders.Random(2, T*E)
	y, stats, dqkv := make([]uint32, T*E), make([]uint32, T*heads*2), shaders.Random(3, T*3*E)
	runTwin(shaders.Attention(gpu.Info{}, shaders.F32, shaders.AttentionParams{
		T: T, Heads: heads, Dh: Dh, QStride: 3 * E, KVStride: 3 * E, KOffset: E, VOffset: 2 * E, Scale: scale,
	}), qkv, qkv, tokens, y)
	same(t, "y", y, attend(heads, Dh, scale, tokens, wide(qkv)))
	runTwin(shaders.AttentionBackQuery(gpu.Info{}, shaders.F32, shaders.AttentionBackQueryParams{
		T: T, Heads: heads, Dh: Dh, QStride: 3 * E, KVStride: 3 * E, KOffset: E, VOffset: 2 * E, Scale: scale, DStride: 3 * E,
	}), qkv, qkv, tokens, dy, stats, dqkv)
	runTwin(shaders.AttentionBackRows(gpu.Info{}, shaders.F32, shaders.AttentionBackRowsParams{
		T: T, Heads: heads, Dh: Dh, QStride: 3 * E, KVStride: 3 * E, KOffset: E, VOffset: 2 * E, Scale: scale, DStride: 3 * E, DKOffset: E, DVOffset: 2 * E,
	}), qkv, qkv, tokens, dy, stats, dqkv)
	same(t, "dqkv", dqkv, kerneltest.Gradient(func(qkv []float64) []float64 { return attend(heads, Dh, scale, tokens, qkv) }, wide(qkv), wide(dy)))
}
