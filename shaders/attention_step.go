// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// AttentionSteps says whether AttentionStep computes for T tokens with these sizes: one token, everything in fours.
func AttentionSteps(T int, p AttentionStepParams) bool {
	return T == 1 && (p.Dh|p.QStride|p.Source|p.KVStride|p.KOffset|p.VOffset)%4 == 0
}

// AttentionStep is StoreRows and Attention in one, for one token: q (QStride) f32 with its queries from column 0 and its row of kv from column Source,
// tokens (1,4) u32, kv (rows,KVStride) in format kept → y (Heads·Dh) f32. It writes the token's keys and values to row first+position of kv, then attends as
// Attention does. Dh is at most 256.
func AttentionStep(info gpu.Info, kept Format, p AttentionStepParams) Dispatch {
	checkHead("attention_step", p.Dh)
	v, groups := variant{file: "attention_step", imports: map[string]string{"rows": "rows_vec4"}}, int(p.Heads)
	if info.Software {
		v.file, v.text = "attention_step_software", attentionStepSoftwareText
		groups = ceil(groups, attentionStepSoftwareWG)
	}
	k := attentionStepInterface()
	if withTwins {
		k.Twin, k.Fast = attentionStepCall(attentionStepBy(kept, attentionTwin)), attentionStepCall(attentionStepBy(kept, attentionFast))
	}
	return Dispatch{kernel(v.keeping(kept), keptIn(kept, 2, k)), p.encode(), grid(groups)}
}

// attentionStepBy stores the token's keys and values, then attends.
func attentionStepBy(kept Format, attend func(AttentionParams, attentionBuffers)) func(AttentionStepParams, attentionStepBuffers) {
	return func(p AttentionStepParams, b attentionStepBuffers) {
		storeOwn(kept, p, b.Q, b.Tokens, b.Kv)
		attentionOver(kept, attend)(AttentionParams{T: 1, Heads: p.Heads, Dh: p.Dh, QStride: p.QStride, KVStride: p.KVStride, KOffset: p.KOffset, VOffset: p.VOffset, Scale: p.Scale},
			attentionBuffers{Q: b.Q, Kv: b.Kv, Tokens: b.Tokens, Y: b.Y})
	}
}

// storeOwn takes the token's keys and values to their row.
func storeOwn(kept Format, p AttentionStepParams, q []float32, tokens []uint32, kv []float32) {
	n := p.Heads * p.Dh
	row := int(tokens[2]+tokens[1]) * int(p.KVStride)
	for _, column := range []uint32{p.KOffset, p.VOffset} {
		kept.keep(kv, row+int(column), q[p.Source+column:][:n])
	}
}

func (p AttentionStepParams) reach() []uint64 {
	if p.Dh == 0 || p.Dh > attentionMaxDh || p.KVStride == 0 {
		return nil
	}
	width := words(uint64(p.Heads), uint64(p.Dh))
	end := uint64(max(p.KOffset, p.VOffset)) + width
	return []uint64{max(uint64(p.QStride), width, uint64(p.Source)+end), 4, end, width}
}

func attentionStepCases() []Case {
	p := AttentionStepParams{Heads: 3, Dh: 20, QStride: 180, Source: 60, KVStride: 120, VOffset: 60, Scale: 0.22}
	return []Case{AttentionStepCase(F32, p, 131), AttentionStepCase(F16, p, 131)}
}

// AttentionStepCase makes a case of AttentionStep with random contents: a token after count−1 others, whose rows follow a row that it does not attend to.
func AttentionStepCase(kept Format, p AttentionStepParams, count int) Case {
	q := Random(1, int(p.QStride))
	if kept == F16 { // what rounding makes of the token's own row is StoreRows' matter
		F16.decodeRow(kept.random(1, len(q)), nil, 0, floats(q))
	}
	return Case{
		Name:     "attention_step",
		Dispatch: func(info gpu.Info) Dispatch { return AttentionStep(info, kept, p) },
		Buffers: [][]uint32{
			q, {7, uint32(count - 1), 1, uint32(count)}, kept.random(2, (1+count)*int(p.KVStride)), Random(3, int(p.Heads*p.Dh)),
		},
		Abs: 2e-5, Rel: 2e-5,
	}
}
