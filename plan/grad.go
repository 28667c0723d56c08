// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
)

// Gradients says what Grad is to compute.
type Gradients struct {
	// Of are values with the gradients that the loss has by them: where the way back begins.
	Of map[ID]ID
	// Weights are the trained weights, by value, and the states that their gradients are added to. All others are frozen.
	Weights map[ID]ID
	// Inputs are those that gradients are wanted of.
	Inputs []ID
	// Rows, where given, is an index (n) of token rows, the only ones whose gradients are wanted: what other tokens compute does not depend on anything
	// trained. TokenRows is the token table of those rows.
	Rows      ID
	TokenRows ID
	// PrefixRows is an index (I) of the token rows that look up rows 0 … of the program's last table, an input; needed where that is among Inputs.
	PrefixRows ID
	// Half has what the way back needs of the way forth wait for it as f16, where it has columns in fours and Rows is not given.
	Half bool
}

// Grad adds the operations that take gradients back through what the builder's program has computed so far, and returns those of g.Inputs. It walks the
// operations backwards with one rule for each kind, and stops at what neither a wanted input nor a trained weight has a part in. Every value that
// several operations read gets the sum of their gradients.
func (b *Builder) Grad(g Gradients) (map[ID]ID, error) {
	w := &backward{b: b, g: g, ops: slices.Clone(b.p.Ops), need: make([]bool, len(b.p.Values)+1), d: map[ID]ID{}, waits: map[ID]ID{}}
	for id := range g.Weights {
		w.need[id] = true
	}
	for _, id := range g.Inputs {
		w.need[id] = true
	}
	for _, op := range w.ops {
		if slices.ContainsFunc(op.reads(), func(id ID) bool { return w.need[id] }) {
			makes, changes := op.writes()
			for _, id := range append(makes, changes...) {
				w.need[id] = id != 0
			}
		}
	}
	for id, d := range g.Of {
		w.d[id] = d
	}
	for i, op := range slices.Backward(w.ops) {
		makes, _ := op.writes()
		if len(makes) != 1 || w.d[makes[0]] == 0 || !w.need[makes[0]] {
			continue
		}
		if err := w.back(op, w.d[makes[0]]); err != nil {
			return nil, fmt.Errorf("plan: gradient of program %s: op %d (%s): %w", b.p.Name, i, op.name(), err)
		}
	}
	out := map[ID]ID{}
	for _, id := range g.Inputs {
		if out[id] = w.d[id]; out[id] == 0 {
			return nil, fmt.Errorf("plan: gradient of program %s: the loss does not depend on input %s", b.p.Name, b.p.Value(id).Name)
		}
	}
	return out, nil
}

// backward is a walk of Grad.
type backward struct {
	b     *Builder
	g     Gradients
	ops   []Op
	need  []bool    // by value: whether its gradient leads to anything wanted
	d     map[ID]ID // gradients known so far
	waits map[ID]ID // by value: what waits for the way back in its place
}

// back is the gradient table: for each operation that training meets, how the gradient dy of its result becomes those of its operands.
func (w *backward) back(op Op, dy ID) error {
	switch o := op.(type) {
	case *Linear:
		return w.linear(o, dy)
	case *LayerNorm:
		if w.need[o.X] {
			w.put(o.X, func(add, dx ID) Op {
				return &LayerNormBack{X: w.at(o.X), Weight: o.Weight, DY: dy, Add: add, Eps: o.Eps, DX: dx}
			})
		}
	case *Attention:
		return w.attention(o, dy)
	case *GatherRows:
		if w.g.Rows != 0 && o.Index == w.g.Rows {
			w.add(o.X, dy)
			return nil
		}
		if w.g.Rows != 0 {
			return fmt.Errorf("rows are picked by another index than the one that gradients are limited to")
		}
		y := w.b.made(w.b.p.Value(o.X).Rows, w.b.Cols(dy))
		w.b.op(&ScatterRows{X: dy, Index: o.Index, Y: y})
		w.add(o.X, y)
	case *Embed:
		return w.embed(o, dy)
	case *Add:
		w.add(o.A, dy)
		w.add(o.B, dy)
	case *Normalize:
		w.put(o.X, func(add, dx ID) Op { return &NormalizeBack{X: w.at(o.X), DY: dy, DX: dx} })
	default:
		return fmt.Errorf("training has no rule for it")
	}
	return nil
}

// rows are those of a value that gradients are of.
func (w *backward) rows(id ID) Dim {
	if w.g.Rows != 0 {
		return w.b.p.Value(w.g.Rows).Rows
	}
	return w.b.p.Value(id).Rows
}

// at returns those rows. What waits from the way forth to the way back is as little as can be: the rows that are wanted, or all of them as f16.
func (w *backward) at(id ID) ID {
	v := *w.b.p.Value(id)
	switch {
	case v.Rows != w.rows(id):
		if w.waits[id] == 0 {
			w.waits[id] = w.b.made(w.rows(id), v.Cols)
			w.b.after(id, &GatherRows{id, w.g.Rows, w.waits[id]})
		}
		return w.waits[id]
	case !w.g.Half || w.g.Rows != 0 || v.Kind != Activation || v.U32 || v.Cols%4 != 0:
		return id
	}
	if w.waits[id] == 0 {
		w.waits[id] = w.b.add(Value{Kind: Activation, Rows: v.Rows, Cols: v.Cols / 2, U32: true})
		w.b.after(id, &Narrow{id, w.waits[id]})
	}
	wide := w.b.like(id)
	w.b.op(&Widen{w.waits[id], wide})
	return wide
}

// after puts an operation behind the one that makes a value, or at the end where none does.
func (b *Builder) after(id ID, o Op) {
	at := slices.IndexFunc(b.p.Ops, func(o Op) bool {
		makes, _ := o.writes()
		return slices.Contains(makes, id)
	})
	if at < 0 {
		at = len(b.p.Ops) - 1
	}
	b.p.Ops = slices.Insert(b.p.Ops, at+1, o)
}

// add adds dy to the gradient of a value.
func (w *backward) add(id, dy ID) {
	switch {
	case !w.need[id]:
	case w.d[id] == 0:
		w.d[id] = dy
	default:
		w.d[id] = w.b.Add(w.d[id], dy)
	}
}

// put adds what an operation computes to the gradient of a value; the operation itself adds what there is already, if it can.
func (w *backward) put(id ID, op func(add, dx ID) Op) {
	before := w.d[id]
	dx := w.b.made(w.rows(id), w.b.Cols(id))
	o := op(before, dx)
	w.b.op(o)
	if before != 0 && !slices.Contains(o.reads(), before) {
		dx = w.b.Add(before, dx)
	}
	w.d[id] = dx
}

func (w *backward) linear(o *Linear, dy ID) error {
	if o.Residual != 0 {
		w.add(o.Residual, dy)
	}
	if o.Act != ActNone {
		// ReLU's result tells where it let values through; the others need what went in, computed again.
		before := w.at(o.Y)
		if o.Act != ActReLU || o.Residual != 0 {
			before = w.b.Linear(Linear{X: w.at(o.X), W: o.W, Bias: o.Bias})
		}
		dx := w.b.like(dy)
		w.b.op(&ActBack{X: before, DY: dy, Act: o.Act, DX: dx})
		dy = dx
	}
	first := 0
	for _, id := range o.W {
		if dw := w.g.Weights[id]; dw != 0 {
			db := w.g.Weights[o.Bias]
			if len(o.W) > 1 && o.Bias != 0 && db != 0 {
				return fmt.Errorf("a trained bias of several stacked matrices")
			}
			w.b.op(&LinearWeightBack{DY: dy, X: w.at(o.X), First: first, DW: dw, DB: db})
		}
		first += w.b.p.Value(id).Rows.N
	}
	if w.need[o.X] {
		w.put(o.X, func(add, dx ID) Op { return &LinearBack{DY: dy, W: o.W, Add: add, DX: dx} })
	}
	return nil
}

// attention takes a gradient back to the value that queries, keys and values are columns of: the keys and values got into the state by StoreRows.
func (w *backward) attention(o *Attention, dy ID) error {
	for _, op := range w.ops {
		s, ok := op.(*StoreRows)
		if !ok || s.KV != o.KV {
			continue
		}
		if s.X != o.Q || s.Tokens != o.Tokens {
			return fmt.Errorf("want queries, keys and values of one linear layer")
		}
		tokens := o.Tokens
		if w.g.Rows != 0 {
			tokens = w.g.TokenRows
		}
		q := w.at(o.Q)
		w.put(o.Q, func(add, dx ID) Op {
			return &AttentionBack{
				Q: q, KV: o.KV, Tokens: tokens, DY: dy, Heads: o.Heads, Dim: o.Dim, K: o.K, V: o.V, KFrom: s.From + o.K, VFrom: s.From + o.V,
				Scale: o.Scale, Stats: w.b.made(w.b.p.Value(q).Rows, 2*o.Heads), DX: dx,
			}
		})
		return nil
	}
	return fmt.Errorf("want keys and values that StoreRows wrote")
}

func (w *backward) embed(o *Embed, dy ID) error {
	if o.Add != 0 {
		w.add(o.Add, dy)
	}
	first := 0
	for i, table := range o.Tables {
		v := w.b.p.Value(table)
		switch dt := w.g.Weights[table]; {
		case !w.need[table]:
		case dt != 0 && o.Offset == 0:
			tokens := o.Tokens
			if w.g.Rows != 0 {
				tokens = w.g.TokenRows
			}
			w.b.op(&EmbedBack{Tokens: tokens, DX: dy, First: first, Column: o.Column, DTable: dt})
		case v.Kind == Input && i == len(o.Tables)-1 && w.g.PrefixRows != 0 && w.g.Rows == 0:
			w.add(table, w.b.GatherRows(dy, w.g.PrefixRows))
		default:
			return fmt.Errorf("want an index of the rows of %s", v.Name)
		}
		if v.Kind == Weight {
			first += v.Rows.N
		}
	}
	return nil
}
