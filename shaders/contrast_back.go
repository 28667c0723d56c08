// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"

	"fromage/gpu"
)

// ContrastBack is the gradient of Weight · ½ · (mean cross-entropy over rows + over columns) of logits = exp(scale) · a·bᵀ with the diagonal
// as labels: logits (B,B) as Similarities made them, stats (2B,4) as Contrast did, other (B,S), scale (1) → dx (B,S), all f32. With Transposed
// 0, other is b and dx the gradient for a, and dscale (B) gets what each row adds to the gradient for scale; with Transposed 1, other is a, dx
// the gradient for b, and dscale is left alone.
func ContrastBack(_ gpu.Info, p ContrastBackParams) Dispatch {
	groups := ceil(int(p.B), contrastBackROWS) * ceil(int(p.S), 4*contrastBackWG)
	return Dispatch{kernel(variant{file: "contrast_back"}, contrastBackKernel(contrastBackTwin)), p.encode(), grid(groups)}
}

func contrastBackTwin(p ContrastBackParams, b contrastBackBuffers) {
	B, S := int(p.B), int(p.S)
	factor := math.Exp(float64(b.Scale[0]))
	sums := make([]float64, S)
	for i := range B {
		clear(sums)
		products := 0.0
		for j := range B {
			row, column := i, j
			if p.Transposed == 1 {
				row, column = j, i
			}
			l := float64(b.Logits[row*B+column])
			g := math.Exp(l-float64(b.Stats[4*row])) + math.Exp(l-float64(b.Stats[4*(B+column)]))
			if i == j {
				g -= 2
			}
			g *= float64(p.Weight) / float64(2*B)
			products += g * l
			for s, v := range b.Other[j*S : (j+1)*S] {
				sums[s] += g * float64(v)
			}
		}
		for s, v := range sums {
			b.Dx[i*S+s] = float32(factor * v)
		}
		if p.Transposed == 0 {
			b.Dscale[i] = float32(products)
		}
	}
}

func contrastBackCases() []Case {
	return []Case{
		ContrastBackCase(ContrastBackParams{B: 67, S: 65, Weight: 1}),
		ContrastBackCase(ContrastBackParams{B: 67, S: 65, Weight: 0.5, Transposed: 1}),
	}
}

// ContrastBackCase makes a case of ContrastBack from random embeddings of length 1, of which every third pair is alike, at scale ln 14.
func ContrastBackCase(p ContrastBackParams) Case {
	B, S := int(p.B), int(p.S)
	x, y, scale := Random(1, B*S), Random(2, B*S), wordsOf([]float32{2.6390573})
	for i := 0; i < B; i += 3 {
		copy(y[i*S:(i+1)*S], x[i*S:(i+1)*S])
	}
	a, b := make([]float32, B*S), make([]float32, B*S)
	normalizeTwin(NormalizeParams{T: p.B, D: p.S}, normalizeBuffers{X: floats(x), Y: a})
	normalizeTwin(NormalizeParams{T: p.B, D: p.S}, normalizeBuffers{X: floats(y), Y: b})
	logits, stats := make([]float32, B*B), make([]float32, 8*B)
	similaritiesTwin(SimilaritiesParams{B: p.B, S: p.S}, similaritiesBuffers{A: a, B: b, Scale: floats(scale), Y: logits})
	contrastTwin(ContrastParams{B: p.B}, contrastBuffers{Logits: logits, Stats: stats})
	other := b
	if p.Transposed == 1 {
		other = a
	}
	return Case{
		Name:     "contrast_back",
		Dispatch: func(info gpu.Info) Dispatch { return ContrastBack(info, p) },
		Buffers:  [][]uint32{wordsOf(logits), wordsOf(stats), wordsOf(other), scale, Random(3, B*S), Random(4, B)},
		Abs:      1e-5, Rel: 1e-5,
	}
}
