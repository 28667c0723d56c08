// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"
	"slices"

	"fromage/gpu"
	"fromage/internal/simd"
)

// NLL scores labels: logits (R,V) f32, labels (R) u32 → y (R,2) f32, the negative log-likelihood of each label under softmax and the label's
// rank, the number of columns that are more likely (0 where the label is the most likely; of equal logits the lower column counts as more
// likely). A label that is no column, such as IgnoreLabel, gives (0,0). It is torch's cross_entropy with reduction="none", and rank < k says
// whether the label is in topk(k).
func NLL(_ gpu.Info, p NLLParams) Dispatch {
	return Dispatch{kernel(variant{file: "nll"}, nllKernel(nllTwin, nllFast)), p.encode(), grid(int(p.R))}
}

// IgnoreLabel marks a row that NLL leaves out.
const IgnoreLabel = 0xffffffff

func nllTwin(p NLLParams, b nllBuffers) {
	V := int(p.V)
	for r := range int(p.R) {
		y := b.Y[2*r : 2*r+2]
		y[0], y[1] = 0, 0
		if b.Labels[r] >= p.V {
			continue
		}
		row, label := b.Logits[r*V:(r+1)*V], int(b.Labels[r])
		y[0], y[1] = float32(logSumExp(row, 1)-float64(row[label])), float32(rankIn(row, 1, label))
	}
}

// logSumExp is the logarithm of the sum of exponentials of x[0], x[stride], …
func logSumExp(x []float32, stride int) float64 {
	largest := math.Inf(-1)
	for i := 0; i < len(x); i += stride {
		largest = max(largest, float64(x[i]))
	}
	sum := 0.0
	for i := 0; i < len(x); i += stride {
		sum += math.Exp(float64(x[i]) - largest)
	}
	return math.Log(sum) + largest
}

// rankIn is how many of x[0], x[stride], … are larger than x[label·stride], or equal to it and before it.
func rankIn(x []float32, stride, label int) int {
	mark, rank := x[label*stride], 0
	for i := 0; i < len(x); i += stride {
		if x[i] > mark || x[i] == mark && i < label*stride {
			rank++
		}
	}
	return rank
}

func (p NLLParams) reach() []uint64 {
	R := uint64(p.R)
	return []uint64{words(R, uint64(p.V)), words(R), words(R, 2)}
}

// nllFast computes in f32, like a GPU.
func nllFast(p NLLParams, b nllBuffers) {
	V := int(p.V)
	parallel(int(p.R), func(first, last int) {
		powers := make([]float32, V)
		for r := first; r < last; r++ {
			y := b.Y[2*r : 2*r+2]
			y[0], y[1] = 0, 0
			if b.Labels[r] >= p.V {
				continue
			}
			row, label := b.Logits[r*V:(r+1)*V], int(b.Labels[r])
			largest := slices.Max(row)
			sum := simd.Exp(powers, row, 1, largest)
			y[0], y[1] = float32(math.Log(float64(sum)))+(largest-row[label]), float32(rankIn(row, 1, label))
		}
	})
}

func nllCases() []Case {
	return []Case{NLLCase(NLLParams{R: 6, V: 1021})}
}

// NLLCase makes a case of NLL: logits around 100, in steps of ½ so that many are equal; the labels are in turn the best column, a column, the
// last of the best columns, and two that are no column.
func NLLCase(p NLLParams) Case {
	R, V := int(p.R), int(p.V)
	logits, labels := Random(1, R*V), make([]uint32, R)
	x := floats(logits)
	for i := range x {
		x[i] = 100 + float32(math.Round(float64(4*x[i])))/2
	}
	for r := range R {
		first, last := 0, 0
		for v := range V {
			if x[r*V+v] > x[r*V+first] {
				first = v
			}
			if x[r*V+v] >= x[r*V+last] {
				last = v
			}
		}
		labels[r] = []uint32{uint32(first), uint32((37 * r) % V), uint32(last), IgnoreLabel, p.V}[r%5]
	}
	return Case{
		Name:     "nll",
		Dispatch: func(info gpu.Info) Dispatch { return NLL(info, p) },
		Buffers:  [][]uint32{logits, labels, Random(2, 2*R)},
		Abs:      1e-5, Rel: 1e-5,
	}
}
