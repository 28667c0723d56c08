// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"

	"fromage/gpu"
)

// Similarities compares every row with every row: a (B,S), b (B,S), scale (1) → y (B,B) = exp(scale) · a·bᵀ, all f32. With rows of length 1
// it makes the logits of CLIP's contrastive loss.
func Similarities(_ gpu.Info, p SimilaritiesParams) Dispatch {
	blocks := ceil(int(p.B), 4)
	return Dispatch{kernel(variant{file: "similarities"}, similaritiesKernel(similaritiesTwin)), p.encode(), grid(ceil(blocks*blocks, similaritiesWG))}
}

func similaritiesTwin(p SimilaritiesParams, b similaritiesBuffers) {
	B, S := int(p.B), int(p.S)
	factor := math.Exp(float64(b.Scale[0]))
	for i := range B {
		for j := range B {
			sum := 0.0
			for s, v := range b.A[i*S : (i+1)*S] {
				sum += float64(v) * float64(b.B[j*S+s])
			}
			b.Y[i*B+j] = float32(factor * sum)
		}
	}
}

func similaritiesCases() []Case {
	return []Case{SimilaritiesCase(SimilaritiesParams{B: 9, S: 65})}
}

// SimilaritiesCase makes a case of Similarities with random contents.
func SimilaritiesCase(p SimilaritiesParams) Case {
	B, S := int(p.B), int(p.S)
	return Case{
		Name:     "similarities",
		Dispatch: func(info gpu.Info) Dispatch { return Similarities(info, p) },
		Buffers:  [][]uint32{Random(1, B*S), Random(2, B*S), wordsOf([]float32{0.7}), Random(3, B*B)},
		Abs:      1e-4, Rel: 1e-5,
	}
}
