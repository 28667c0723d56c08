// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// LayerNormBack is the gradient of LayerNorm for x: x (T,D), weight (D), dy (T,D), add (T,D) → dx (T,D), all f32; mean and deviation of the rows
// are computed anew. add is added where p.Add is AddTensor, and not read otherwise. dy and add may be one buffer.
func LayerNormBack(_ gpu.Info, p LayerNormBackParams) Dispatch {
	return Dispatch{kernel(variant{file: "layer_norm_back"}, layerNormBackKernel(byRows(func(p LayerNormBackParams) int { return int(p.T) }, layerNormBackRows))), p.encode(), grid(int(p.T))}
}

func layerNormBackRows(p LayerNormBackParams, b layerNormBackBuffers, first, last int) {
	D := int(p.D)
	for t := first; t < last; t++ {
		x, dy, dx := b.X[t*D:(t+1)*D], b.Dy[t*D:(t+1)*D], b.Dx[t*D:(t+1)*D]
		mean, rstd := rowMoments(x, float64(p.Eps))
		slope, product := 0.0, 0.0
		for d, v := range x {
			g := float64(dy[d]) * float64(b.Weight[d])
			slope += g / float64(D)
			product += g * (float64(v) - mean) * rstd / float64(D)
		}
		for d, v := range x {
			g := float64(dy[d]) * float64(b.Weight[d])
			sum := rstd * (g - slope - (float64(v)-mean)*rstd*product)
			if p.Add == AddTensor {
				sum += float64(b.Add[t*D+d])
			}
			dx[d] = float32(sum)
		}
	}
}

func layerNormBackCases() []Case {
	return []Case{
		LayerNormBackCase(LayerNormBackParams{T: 3, D: 65, Eps: 1e-5, Add: AddTensor}),
		LayerNormBackCase(LayerNormBackParams{T: 2, D: 60, Eps: 1e-5}),
	}
}

// LayerNormBackCase makes a case of LayerNormBack with random contents.
func LayerNormBackCase(p LayerNormBackParams) Case {
	T, D := int(p.T), int(p.D)
	return Case{
		Name:     "layer_norm_back",
		Dispatch: func(info gpu.Info) Dispatch { return LayerNormBack(info, p) },
		Buffers:  [][]uint32{Random(1, T*D), Random(2, D), Random(3, T*D), Random(4, T*D), Random(5, T*D)},
		Abs:      2e-5, Rel: 2e-5,
	}
}
