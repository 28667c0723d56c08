// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"math"
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestContrastBack(t *testing.T) {
	var cases []shaders.Case
	for _, B := range []uint32{1, 2, 3, 63, 64, 65, 180} {
		for _, S := range []uint32{1, 64, 255, 257} {
			cases = append(cases,
				shaders.ContrastBackCase(shaders.ContrastBackParams{B: B, S: S, Weight: 1.5}),
				shaders.ContrastBackCase(shaders.ContrastBackParams{B: B, S: S, Weight: 0.5, Transposed: 1}))
		}
	}
	kerneltest.Run(t, cases)
}

// TestContrastBackTwin goes through Similarities, Contrast and ContrastBack and compares with differences of the loss.
func TestContrastBackTwin(t *testing.T) {
	const B, S, weight = 5, 3, 1.5
	a, b, scale := shaders.Random(1, B*S), shaders.Random(2, B*S), words(0.3)
	logits, stats := make([]uint32, B*B), make([]uint32, 8*B)
	da, db, dscale := make([]uint32, B*S), make([]uint32, B*S), make([]uint32, B)
	p := shaders.ContrastBackParams{B: B, S: S, Weight: weight}
	run(shaders.Similarities(gpu.Info{}, shaders.SimilaritiesParams{B: B, S: S}), a, b, scale, logits)
	run(shaders.Contrast(gpu.Info{}, shaders.ContrastParams{B: B}), logits, stats)
	run(shaders.ContrastBack(gpu.Info{}, p), logits, stats, b, scale, da, dscale)
	p.Transposed = 1
	run(shaders.ContrastBack(gpu.Info{}, p), logits, stats, a, scale, db, dscale)

	loss := func(a, b []float64, scale float64) float64 {
		rows, columns, pairs := make([]float64, B), make([]float64, B), 0.0
		for i := range B {
			for j := range B {
				l := math.Exp(scale) * dot(a[i*S:(i+1)*S], b[j*S:(j+1)*S])
				rows[i] += math.Exp(l)
				columns[j] += math.Exp(l)
				if i == j {
					pairs += l
				}
			}
		}
		sum := -2 * pairs
		for i := range B {
			sum += math.Log(rows[i]) + math.Log(columns[i])
		}
		return weight * sum / (2 * B)
	}
	x, y, s := values(a), values(b), values(scale)
	derivative(t, "da", da, x, func(x []float64) float64 { return loss(x, y, s[0]) })
	derivative(t, "db", db, y, func(y []float64) float64 { return loss(x, y, s[0]) })
	sum := make([]uint32, 1)
	run(shaders.Sum(gpu.Info{}, shaders.SumParams{N: B}), dscale, sum)
	derivative(t, "dscale", sum, s, func(s []float64) float64 { return loss(x, y, s[0]) })
}
