// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// Contrast takes the statistics of CLIP's contrastive loss: logits (B,B) f32, of images (rows) with texts (columns), of which the diagonal are
// the pairs → stats (2B,4) f32. Row i, and row B+j for column j, hold the logarithm of the sum of exponentials, the negative log-likelihood of
// the pair, its rank (0 where it is the most likely; of equal logits the lower place counts as more likely), and 0. The loss is the mean of all
// 2B negative log-likelihoods.
func Contrast(_ gpu.Info, p ContrastParams) Dispatch {
	return Dispatch{kernel(variant{file: "contrast"}, contrastKernel(contrastTwin)), p.encode(), grid(2 * int(p.B))}
}

func contrastTwin(p ContrastParams, b contrastBuffers) {
	B := int(p.B)
	for n := range 2 * B {
		i, stride := n%B, 1
		line := b.Logits[i*B : (i+1)*B]
		if n >= B {
			stride, line = B, b.Logits[i:B*B]
		}
		lse := logSumExp(line, stride)
		s := b.Stats[4*n : 4*n+4]
		s[0], s[1], s[2], s[3] = float32(lse), float32(lse-float64(line[i*stride])), float32(rankIn(line, stride, i)), 0
	}
}

func contrastCases() []Case {
	return []Case{ContrastCase(ContrastParams{B: 67})}
}

// ContrastCase makes a case of Contrast: logits in steps of ½, so that many are equal.
func ContrastCase(p ContrastParams) Case {
	B := p.B
	return Case{
		Name:     "contrast",
		Dispatch: func(info gpu.Info) Dispatch { return Contrast(info, p) },
		Buffers:  [][]uint32{NLLCase(NLLParams{R: B, V: B}).Buffers[0], Random(2, int(8*B))},
		Abs:      1e-5, Rel: 1e-5,
	}
}
