// SPDX-License-Identifier: Apache-2.0

package plan

import "fromage/shaders"

// pairs says for every operation whether the next may do its work as well, in one kernel: a norm whose result only the linear layer after it reads, and
// rows that are stored before they are attended to. Whether a device does so depends on the sizes of a run.
func (p *Program) pairs() []bool {
	readers := make([]int, len(p.Values)+1)
	for _, op := range p.Ops {
		for _, id := range op.reads() {
			readers[id]++
		}
	}
	pairs := make([]bool, len(p.Ops))
	for i := range len(p.Ops) - 1 {
		switch first := p.Ops[i].(type) {
		case *LayerNorm:
			next, ok := p.Ops[i+1].(*Linear)
			pairs[i] = ok && next.X == first.Y && next.Residual == 0 && readers[first.Y] == 1 && p.Value(first.Y).Kind == Activation
		case *StoreRows:
			next, ok := p.Ops[i+1].(*Attention)
			pairs[i] = ok && next.Q == first.X && next.KV == first.KV && next.Tokens == first.Tokens &&
				next.K == 0 && next.V == next.Heads*next.Dim && p.Value(next.KV).Cols == 2*next.V // all that is stored is attended to
		}
	}
	return pairs
}

// together lowers a pair of operations to one kernel where the device is faster so, and says whether it did.
func (l *lowering) together(first, second Op) bool {
	switch first := first.(type) {
	case *LayerNorm:
		return l.normLinear(first, second.(*Linear))
	case *StoreRows:
		return l.storeAttention(first, second.(*Attention))
	}
	return false
}

func (l *lowering) normLinear(n *LayerNorm, o *Linear) bool {
	K := l.cols(n.X)
	if !shaders.LinearNorms(l.info, l.rows(n.X), K) {
		return false
	}
	p := shaders.LinearNormParams{K: uint32(K), Act: uint32(o.Act), Bias: flag(o.Bias), Eps: n.Eps}
	for _, id := range o.W {
		for _, part := range l.shards(id) {
			p.F = uint32(part.rows)
			l.step(shaders.LinearNorm(l.info, part.format, p),
				Ref{Value: n.X}, l.plain(n.Weight), l.plain(n.Bias), part.values, part.scale, l.plain(o.Bias), Ref{Value: o.Y})
			p.F0 += p.F
		}
	}
	return true
}

func (l *lowering) storeAttention(s *StoreRows, o *Attention) bool {
	p := shaders.AttentionStepParams{
		Heads: uint32(o.Heads), Dh: uint32(o.Dim), QStride: uint32(l.cols(o.Q)), Source: uint32(s.From),
		KVStride: uint32(l.cols(o.KV)), KOffset: uint32(o.K), VOffset: uint32(o.V), Scale: o.Scale,
	}
	if !shaders.AttentionSteps(l.rows(o.Y), p) {
		return false
	}
	kept := l.kept(o.KV)
	splits := shaders.AttentionSplits(l.info, l.dims[Past])
	if splits == 1 {
		l.step(shaders.AttentionStep(l.info, kept, p), Ref{Value: o.Q}, Ref{Value: o.Tokens}, Ref{Value: o.KV}, Ref{Value: o.Y})
		return true
	}
	parts := Ref{Scratch: 4 * o.Heads * splits * (o.Dim + 4)}
	l.step(shaders.AttentionPart(l.info, kept, shaders.AttentionPartParams{
		Heads: p.Heads, Dh: p.Dh, QStride: p.QStride, Source: p.Source, KVStride: p.KVStride, KOffset: p.KOffset, VOffset: p.VOffset, Splits: uint32(splits), Scale: p.Scale,
	}), Ref{Value: o.Q}, Ref{Value: o.Tokens}, Ref{Value: o.KV}, parts)
	l.step(shaders.AttentionMerge(l.info, shaders.AttentionMergeParams{Heads: p.Heads, Dh: p.Dh, Splits: uint32(splits)}), parts, Ref{Value: o.Y})
	return true
}
