// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"

	"fromage/gpu"
)

const (
	// attentionPartRows is how many rows a part should have: what a workgroup reads at a time.
	attentionPartRows = attentionPartWG
	// attentionPartLeast is the shortest past for which parts gain more time than AttentionMerge takes.
	attentionPartLeast = 1024
	// attentionPartMost is how many parts of a head are enough for every GPU.
	attentionPartMost = 16
	// attentionPartSoftware is how many parts of a head keep the cores busy where a CPU plays a GPU, and attentionPartLeastSoftware the shortest past.
	attentionPartSoftware, attentionPartLeastSoftware = 8, 128
)

// AttentionSplits is into how many parts AttentionPart should cut a head's rows on a device, where a token attends to at most past rows, or somewhat more;
// 1 where AttentionStep is better.
func AttentionSplits(info gpu.Info, past int) int {
	switch {
	case info.Software && sharedLanes(info) > 0 && past >= attentionPartLeastSoftware:
		return attentionPartSoftware
	case info.Software || past < attentionPartLeast:
		return 1
	}
	return min(past/attentionPartRows, attentionPartMost)
}

// AttentionPart is the first half of what AttentionStep computes, on the same operands and under the same conditions (AttentionSteps): it writes the
// token's keys and values to their row of kv, and leaves in parts (Heads,Splits,Dh+4) f32 what each of Splits parts of the rows adds to the result.
func AttentionPart(info gpu.Info, kept Format, p AttentionPartParams) Dispatch {
	checkHead("attention_part", p.Dh)
	v, groups := variant{file: "attention_part", imports: map[string]string{"rows": "rows_vec4"}}, int(p.Heads*p.Splits)
	if info.Software {
		v.file, v.text = "attention_part_software", attentionPartSoftwareText
		groups = ceil(groups, attentionPartSoftwareWG)
	}
	k := attentionPartInterface()
	if withTwins {
		k.Twin = attentionPartCall(attentionPartTwin(kept))
	}
	return Dispatch{kernel(v.keeping(kept), keptIn(kept, 2, k)), p.encode(), grid(groups)}
}

// step is the whole that p is the first half of.
func (p AttentionPartParams) step() AttentionStepParams {
	return AttentionStepParams{Heads: p.Heads, Dh: p.Dh, QStride: p.QStride, Source: p.Source, KVStride: p.KVStride, KOffset: p.KOffset, VOffset: p.VOffset, Scale: p.Scale}
}

func attentionPartTwin(kept Format) func(AttentionPartParams, attentionPartBuffers) {
	return func(p AttentionPartParams, b attentionPartBuffers) {
		storeOwn(kept, p.step(), b.Q, b.Tokens, b.Kv)
		b.Kv, b.Tokens = kept.attended(b.Kv, int(p.KVStride), 1, b.Tokens)
		attendInParts(p, b)
	}
}

func attendInParts(p AttentionPartParams, b attentionPartBuffers) {
	Dh := int(p.Dh)
	first, count := int(b.Tokens[2]), int(b.Tokens[3])
	each := ceil(count, int(p.Splits))
	for n := range int(p.Heads * p.Splits) {
		h, split := n/int(p.Splits), n%int(p.Splits)
		part := b.Parts[n*(Dh+4):][:Dh+4]
		clear(part)
		values, largest, weight := make([]float64, Dh), -3e38, 0.0
		for j := min(split*each, count); j < min((split+1)*each, count); j++ {
			row := b.Kv[(first+j)*int(p.KVStride)+h*Dh:]
			score := 0.0
			for d, k := range row[p.KOffset:][:Dh] {
				score += float64(b.Q[h*Dh+d]) * float64(k)
			}
			score *= float64(p.Scale)
			before := largest
			largest = max(largest, score)
			keep, w := math.Exp(before-largest), math.Exp(score-largest)
			weight = weight*keep + w
			for d, v := range row[p.VOffset:][:Dh] {
				values[d] = values[d]*keep + w*float64(v)
			}
		}
		for d, v := range values {
			part[d] = float32(v)
		}
		part[Dh], part[Dh+1] = float32(largest), float32(weight)
	}
}

func (p AttentionPartParams) reach() []uint64 {
	whole := p.step().reach()
	if whole == nil || p.Splits == 0 || p.Dh%4 != 0 {
		return nil
	}
	return append(whole[:3], words(uint64(p.Heads), uint64(p.Splits), uint64(p.Dh)+4))
}

func attentionPartCases() []Case {
	p := AttentionPartParams{Heads: 3, Dh: 20, QStride: 180, Source: 60, KVStride: 120, VOffset: 60, Splits: 4, Scale: 0.22}
	return []Case{AttentionPartCase(F32, p, 131), AttentionPartCase(F32, p, 2), AttentionPartCase(F16, p, 131)}
}

// AttentionPartCase makes a case of AttentionPart of what AttentionStepCase makes one of.
func AttentionPartCase(kept Format, p AttentionPartParams, count int) Case {
	c := AttentionStepCase(kept, p.step(), count)
	c.Name, c.Dispatch = "attention_part", func(info gpu.Info) Dispatch { return AttentionPart(info, kept, p) }
	c.Buffers[3] = Random(3, int(p.Heads*p.Splits*(p.Dh+4)))
	return c
}
