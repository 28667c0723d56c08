// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"
	"slices"

	"fromage/gpu"
	"fromage/internal/simd"
)

// CrossEntropy is the loss and its gradient in one: labels (·) u32 and weights (·) f32, of which those from place R0 on belong to the rows;
// logits (R,V) f32 become weight · ∂(−log softmax at the label)/∂logits in place; y (·,2) f32 gets the unweighted loss and the label's rank, as
// NLL, from row R0 on. A label that is no column, such as IgnoreLabel, gives a row of zeros and (0,0). With weight 1/n it is the gradient of
// torch's cross_entropy with reduction="mean" over n labelled rows; R0 lets a batch's rows go through in parts.
func CrossEntropy(_ gpu.Info, p CrossEntropyParams) Dispatch {
	return Dispatch{kernel(variant{file: "cross_entropy"}, crossEntropyKernel(crossEntropyTwin, crossEntropyFast)), p.encode(), grid(int(p.R))}
}

func crossEntropyTwin(p CrossEntropyParams, b crossEntropyBuffers) {
	V := int(p.V)
	for r := range int(p.R) {
		at := int(p.R0) + r
		row, y := b.Logits[r*V:(r+1)*V], b.Y[2*at:2*at+2]
		y[0], y[1] = 0, 0
		if b.Labels[at] >= p.V {
			clear(row)
			continue
		}
		label, weight := int(b.Labels[at]), float64(b.Weights[at])
		lse := logSumExp(row, 1)
		y[0], y[1] = float32(lse-float64(row[label])), float32(rankIn(row, 1, label))
		for v, x := range row {
			d := math.Exp(float64(x) - lse)
			if v == label {
				d--
			}
			row[v] = float32(weight * d)
		}
	}
}

// crossEntropyFast computes in f32, like a GPU.
func crossEntropyFast(p CrossEntropyParams, b crossEntropyBuffers) {
	V := int(p.V)
	parallel(int(p.R), func(first, last int) {
		for r := first; r < last; r++ {
			at := int(p.R0) + r
			row, y := b.Logits[r*V:(r+1)*V], b.Y[2*at:2*at+2]
			y[0], y[1] = 0, 0
			if b.Labels[at] >= p.V {
				clear(row)
				continue
			}
			label, weight, largest := int(b.Labels[at]), b.Weights[at], slices.Max(row)
			rank, below := rankIn(row, 1, label), largest-row[label]
			sum := simd.Exp(row, row, 1, largest)
			y[0], y[1] = float32(math.Log(float64(sum)))+below, float32(rank)
			factor := weight / sum
			for v := range row {
				row[v] *= factor
			}
			row[label] -= weight
		}
	})
}

func crossEntropyCases() []Case {
	return []Case{CrossEntropyCase(CrossEntropyParams{R: 6, V: 1021, R0: 2})}
}

// CrossEntropyCase makes a case of CrossEntropy with NLLCase's logits and labels.
func CrossEntropyCase(p CrossEntropyParams) Case {
	n := NLLCase(NLLParams{R: p.R, V: p.V})
	labels := append(make([]uint32, p.R0), n.Buffers[1]...)
	return Case{
		Name:     "cross_entropy",
		Dispatch: func(info gpu.Info) Dispatch { return CrossEntropy(info, p) },
		Buffers:  [][]uint32{labels, Random(2, len(labels)), n.Buffers[0], Random(3, 2*len(labels)+3)},
		Abs:      1e-5, Rel: 1e-5,
	}
}
