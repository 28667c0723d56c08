// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"math"
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestAdamW(t *testing.T) {
	p := shaders.AdamWParams{LR: 3e-4, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, Correction1: 0.1, Correction2: 0.05}
	var cases []shaders.Case
	for _, N := range []uint32{1, 63, 64, 65, 1021} {
		for _, clip := range []float32{0, 0.5, 100} {
			for _, norms := range []uint32{1, 43} {
				p.First, p.N, p.Norms, p.Clip, p.Decay = N%7, N, norms, clip, float32(N%2)/10
				cases = append(cases, shaders.AdamWCase(p))
			}
		}
	}
	kerneltest.Run(t, cases)
}

// TestAdamWTwin makes three steps whose results are known: with gradients that stay the same, every step is the rate, less decay, whatever the
// clipping, and the running mean of g shows the clipping.
func TestAdamWTwin(t *testing.T) {
	const rate, decay = 0.01, 0.5
	g, w, m, v := words(9, 3, -4), words(9, 1, 2), words(0, 0, 0), words(0, 0, 0)
	want := []float64{9, 1, 2}
	for step := 1; step <= 3; step++ {
		p := shaders.AdamWParams{First: 1, N: 2, Norms: 2, LR: rate, Beta1: 0.9, Beta2: 0.95, Decay: decay, Clip: 1}
		p.Correction1, p.Correction2 = float32(1-math.Pow(0.9, float64(step))), float32(1-math.Pow(0.95, float64(step)))
		run(shaders.AdamW(gpu.Info{}, p), g, words(9, 16), w, m, v)
		want[1] = want[1]*(1-rate*decay) - rate
		want[2] = want[2]*(1-rate*decay) + rate
		for i, got := range values(w) {
			if math.Abs(got-want[i]) > 1e-6 {
				t.Errorf("step %d: w[%d] = %v, want %v", step, i, got, want[i])
			}
		}
	}
	kept := 1 - math.Pow(0.9, 3)
	for i, want := range []float64{0, 0.6 * kept, -0.8 * kept} {
		if got := values(m)[i]; math.Abs(got-want) > 1e-6 {
			t.Errorf("m[%d] = %v, want %v", i, got, want)
		}
	}
}
