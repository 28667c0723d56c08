// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"

	"fromage/gpu"
)

// AdamW makes one step of torch.optim.AdamW for the N values from place First on of w, with their gradients g and running means m of g and v of
// g², all f32 and changed in place but g. norms (Norms) are the square sums of all gradients, as SquareSums makes them: where Clip is above 0, g
// counts as scaled by min(1, Clip/(√Σ norms + 1e-6)), torch's clip_grad_norm_.
func AdamW(_ gpu.Info, p AdamWParams) Dispatch {
	return Dispatch{kernel(variant{file: "adam_w"}, adamWKernel(adamWTwin)), p.encode(), grid(ceil(int(p.N), adamWWG))}
}

func adamWTwin(p AdamWParams, b adamWBuffers) {
	factor := 1.0
	if p.Clip > 0 {
		squares := 0.0
		for _, v := range b.Norms[:p.Norms] {
			squares += float64(v)
		}
		factor = min(1, float64(p.Clip)/(math.Sqrt(squares)+1e-6))
	}
	rate, beta1, beta2 := float64(p.LR), float64(p.Beta1), float64(p.Beta2)
	for i := p.First; i < p.First+p.N; i++ {
		g := factor * float64(b.G[i])
		mean := beta1*float64(b.M[i]) + (1-beta1)*g
		square := beta2*float64(b.V[i]) + (1-beta2)*g*g
		b.M[i], b.V[i] = float32(mean), float32(square)
		denominator := math.Sqrt(square/float64(p.Correction2)) + float64(p.Eps)
		b.W[i] = float32(float64(b.W[i])*(1-rate*float64(p.Decay)) - rate/float64(p.Correction1)*mean/denominator)
	}
}

func adamWCases() []Case {
	p := AdamWParams{First: 3, N: 300, Norms: 5, LR: 3e-3, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, Decay: 0.1, Correction1: 0.271, Correction2: 0.142625}
	free := AdamWCase(p)
	p.Clip = 1
	return []Case{free, AdamWCase(p)}
}

// AdamWCase makes a case of AdamW with random contents.
func AdamWCase(p AdamWParams) Case {
	n := int(p.First+p.N) + 3
	v, norms := Random(4, n), Random(5, int(p.Norms))
	for _, squares := range [][]float32{floats(v), floats(norms)} {
		for i := range squares {
			squares[i] *= squares[i]
		}
	}
	return Case{
		Name:     "adam_w",
		Dispatch: func(info gpu.Info) Dispatch { return AdamW(info, p) },
		Buffers:  [][]uint32{Random(1, n), norms, Random(2, n), Random(3, n), v},
		Abs:      1e-6, Rel: 1e-5,
	}
}
