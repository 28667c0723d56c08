// SPDX-License-Identifier: Apache-2.0

package plan

import "slices"

// Builder makes one program of a model. Its methods return the value that the operation makes; mistakes in shapes are found by Done.
type Builder struct {
	m *Model
	p *Program
}

// NewBuilder starts a program of m.
func NewBuilder(m *Model, name string) *Builder {
	return &Builder{m, &Program{Name: name}}
}

// Done checks the program and adds it to the model.
func (b *Builder) Done() error {
	if err := b.p.Check(); err != nil {
		return err
	}
	b.m.Programs = append(b.m.Programs, b.p)
	return nil
}

func (b *Builder) add(v Value) ID {
	b.p.Values = append(b.p.Values, v)
	return ID(len(b.p.Values))
}

// Input is a value that the caller writes: (rows, cols) f32.
func (b *Builder) Input(name string, rows Dim, cols int) ID {
	return b.add(Value{Name: name, Kind: Input, Rows: rows, Cols: cols})
}

// Numbers is an input of u32.
func (b *Builder) Numbers(name string, rows Dim, cols int) ID {
	return b.add(Value{Name: name, Kind: Input, Rows: rows, Cols: cols, U32: true})
}

// State is rows of cols values that outlive the run; the caller decides how many.
func (b *Builder) State(name string, cols int) ID {
	return b.add(Value{Name: name, Kind: State, Rows: Dim{Tokens, 1}, Cols: cols})
}

// Weight enters a weight into the model, once, and into the program.
func (b *Builder) Weight(s WeightSpec) ID {
	if id := b.p.Find(s.Name); id != 0 {
		return id
	}
	if !slices.ContainsFunc(b.m.Weights, func(o WeightSpec) bool { return o.Name == s.Name }) {
		b.m.Weights = append(b.m.Weights, s)
	}
	return b.add(Value{Name: s.Name, Kind: Weight, Rows: Dim{One, s.Rows}, Cols: s.Cols})
}

// Output marks an activation as a result under a name.
func (b *Builder) Output(name string, id ID) {
	v := b.p.Value(id)
	v.Kind, v.Name = Output, name
}

func (b *Builder) made(rows Dim, cols int) ID {
	return b.add(Value{Kind: Activation, Rows: rows, Cols: cols})
}

func (b *Builder) like(id ID) ID { return b.made(b.p.Value(id).Rows, b.p.Value(id).Cols) }

func (b *Builder) op(o Op) { b.p.Ops = append(b.p.Ops, o) }

// Cols returns the columns of a value.
func (b *Builder) Cols(id ID) int { return b.p.Value(id).Cols }

// Embed adds an Embed and returns its result.
func (b *Builder) Embed(o Embed) ID {
	o.Y = b.made(Dim{Tokens, 1}, b.Cols(o.Tables[0]))
	b.p.Ops = append(b.p.Ops, &o)
	return o.Y
}

// LayerNorm adds a LayerNorm and returns its result.
func (b *Builder) LayerNorm(x, weight, bias ID, eps float32) ID {
	y := b.like(x)
	b.p.Ops = append(b.p.Ops, &LayerNorm{x, weight, bias, eps, y})
	return y
}

// Linear adds a Linear and returns its result.
func (b *Builder) Linear(o Linear) ID {
	cols := 0
	for _, w := range o.W {
		cols += b.p.Value(w).Rows.N
	}
	o.Y = b.made(b.p.Value(o.X).Rows, cols)
	b.p.Ops = append(b.p.Ops, &o)
	return o.Y
}

// Attention adds an Attention and returns its result.
func (b *Builder) Attention(o Attention) ID {
	o.Y = b.made(Dim{Tokens, 1}, o.Heads*o.Dim)
	b.p.Ops = append(b.p.Ops, &o)
	return o.Y
}

// StoreRows adds a StoreRows.
func (b *Builder) StoreRows(o StoreRows) { b.p.Ops = append(b.p.Ops, &o) }

// GatherRows adds a GatherRows and returns its result.
func (b *Builder) GatherRows(x, index ID) ID {
	y := b.made(b.p.Value(index).Rows, b.Cols(x))
	b.p.Ops = append(b.p.Ops, &GatherRows{x, index, y})
	return y
}

// Patches adds a Patches over pictures of size × size pixels and returns its result.
func (b *Builder) Patches(x ID, size, patch int) ID {
	g := size / patch
	y := b.made(Dim{Images, g * g}, 3*patch*patch)
	b.p.Ops = append(b.p.Ops, &Patches{x, size, patch, y})
	return y
}

// VisionEmbed adds a VisionEmbed and returns its result.
func (b *Builder) VisionEmbed(x, class, position ID) ID {
	y := b.made(Dim{Tokens, 1}, b.Cols(x))
	b.p.Ops = append(b.p.Ops, &VisionEmbed{x, class, position, y})
	return y
}

// Add adds an Add and returns its result.
func (b *Builder) Add(x, y ID) ID {
	sum := b.like(x)
	b.p.Ops = append(b.p.Ops, &Add{x, y, sum})
	return sum
}

// Normalize adds a Normalize and returns its result.
func (b *Builder) Normalize(x ID) ID {
	y := b.like(x)
	b.p.Ops = append(b.p.Ops, &Normalize{x, y})
	return y
}

// NLL adds an NLL and returns its result.
func (b *Builder) NLL(x, labels ID) ID {
	y := b.made(b.p.Value(x).Rows, 2)
	b.p.Ops = append(b.p.Ops, &NLL{x, labels, y})
	return y
}
