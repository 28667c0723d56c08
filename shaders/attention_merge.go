// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"

	"fromage/gpu"
)

// AttentionMerge is the second half of what AttentionStep computes: parts (Heads,Splits,Dh+4) f32, as AttentionPart leaves them → y (Heads·Dh) f32. Dh is a
// multiple of 4.
func AttentionMerge(_ gpu.Info, p AttentionMergeParams) Dispatch {
	return Dispatch{kernel(variant{file: "attention_merge"}, attentionMergeKernel(attentionMergeTwin)), p.encode(), grid(ceil(int(p.Heads*p.Dh/4), attentionMergeWG))}
}

func attentionMergeTwin(p AttentionMergeParams, b attentionMergeBuffers) {
	Dh, splits := int(p.Dh), int(p.Splits)
	for h := range int(p.Heads) {
		parts := b.Parts[h*splits*(Dh+4):][:splits*(Dh+4)]
		largest := math.Inf(-1)
		for s := range splits {
			largest = max(largest, float64(parts[s*(Dh+4)+Dh]))
		}
		for d := range Dh {
			value, weight := 0.0, 0.0
			for s := range splits {
				part := parts[s*(Dh+4):][:Dh+4]
				keep := math.Exp(float64(part[Dh]) - largest)
				value += keep * float64(part[d])
				weight += keep * float64(part[Dh+1])
			}
			if b.Y[h*Dh+d] = 0; weight > 0 {
				b.Y[h*Dh+d] = float32(value / weight)
			}
		}
	}
}

func (p AttentionMergeParams) reach() []uint64 {
	if p.Dh%4 != 0 {
		return nil
	}
	return []uint64{words(uint64(p.Heads), uint64(p.Splits), uint64(p.Dh)+4), words(uint64(p.Heads), uint64(p.Dh))}
}

func attentionMergeCases() []Case {
	return []Case{AttentionMergeCase(AttentionMergeParams{Heads: 7, Dh: 20, Splits: 5})}
}

// AttentionMergeCase makes a case of AttentionMerge with random parts; the last of each head, and all of the last head where there are several, have no rows.
func AttentionMergeCase(p AttentionMergeParams) Case {
	parts := floats(Random(1, int(p.Heads*p.Splits*(p.Dh+4))))
	for n := range int(p.Heads * p.Splits) {
		part := parts[n*int(p.Dh+4):][:p.Dh+4]
		part[p.Dh] *= 4
		part[p.Dh+1] = 1 + part[p.Dh+1]*part[p.Dh+1]
		if n%int(p.Splits) == int(p.Splits)-1 || p.Heads > 1 && n/int(p.Splits) == int(p.Heads)-1 {
			clear(part)
			part[p.Dh] = -3e38
		}
	}
	return Case{
		Name:     "attention_merge",
		Dispatch: func(info gpu.Info) Dispatch { return AttentionMerge(info, p) },
		Buffers:  [][]uint32{wordsOf(parts), Random(2, int(p.Heads*p.Dh))},
		Abs:      2e-5, Rel: 2e-5,
	}
}
