// SPDX-License-Identifier: Apache-2.0

package plan

// Find returns the builder's value with that name, 0 if there is none.
func (b *Builder) Find(name string) ID { return b.p.Find(name) }

// Accumulator is a sum of gradients: a state of rows × cols that outlives the run.
func (b *Builder) Accumulator(name string, rows, cols int) ID {
	if id := b.p.Find(name); id != 0 {
		return id
	}
	return b.add(Value{Name: name, Kind: State, Rows: Dim{One, rows}, Cols: cols})
}

// CrossEntropy adds a CrossEntropy of logits x·wᵀ and returns its losses, and the gradient by x where that is wanted. dw is the state that the gradient
// of the last of w is added to, or 0.
func (b *Builder) CrossEntropy(x ID, w []ID, labels, weights, dw ID, wantDX bool) (nll, dx ID) {
	rows, E, V := b.p.Value(x).Rows, b.Cols(x), 0
	for _, id := range w {
		V += b.p.Value(id).Rows.N
	}
	chunk := Dim{Chunk, 1}
	o := &CrossEntropy{X: x, W: w, Labels: labels, Weights: weights, DW: dw, NLL: b.made(rows, 2), Logits: b.made(chunk, V), XRows: b.made(chunk, E)}
	if wantDX {
		o.DX, o.DXRows = b.made(rows, E), b.made(chunk, E)
	}
	b.op(o)
	return o.NLL, o.DX
}

// Contrastive is the loss between the rows of two values (B,S) that are not normalised: the logits (B·B) of a by b, the statistics of Contrast, and the
// gradients of weight times the loss by a and by b. The gradient of scale is added to the state dscale.
func (b *Builder) Contrastive(x, y, scale, dscale ID, weight float32) (logits, stats, dx, dy ID) {
	nx, ny := b.Normalize(x), b.Normalize(y)
	logits, stats = b.made(Dim{Pairs, 1}, 1), b.made(Dim{Images, 2}, 4)
	b.op(&Similarities{A: nx, B: ny, Scale: scale, Y: logits})
	b.op(&Contrast{Logits: logits, Stats: stats})
	dnx, dny, terms := b.like(nx), b.like(ny), b.made(Dim{Images, 1}, 1)
	b.op(&ContrastBack{Logits: logits, Stats: stats, Other: ny, Scale: scale, Weight: weight, DX: dnx, DScale: terms})
	b.op(&ContrastBack{Logits: logits, Stats: stats, Other: nx, Scale: scale, Transposed: true, Weight: weight, DX: dny})
	b.op(&Sum{X: terms, Y: dscale})
	dx, dy = b.like(x), b.like(y)
	b.op(&NormalizeBack{X: x, DY: dnx, DX: dx})
	b.op(&NormalizeBack{X: y, DY: dny, DX: dy})
	return logits, stats, dx, dy
}
