// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"

	"fromage/gpu"
	"fromage/shaders"
)

// Layout says how a weight is stored: its format, and the rows of each shard it is split into. Of a state of keys and values it says the format alone.
type Layout struct {
	Format shaders.Format
	Shards []int
}

// Ref names the buffer that a step binds: a value's, one shard of a weight's, or its scales; or so many bytes of scratch, which hold something from one step
// to the next. The zero Ref is a buffer that the kernel does not look at.
type Ref struct {
	Value   ID
	Shard   int
	Scale   bool
	Scratch int
}

// Step is one kernel dispatch of a lowered program.
type Step struct {
	Op       int // the operation it belongs to
	Dispatch shaders.Dispatch
	Buffers  []Ref
}

// Lower turns a checked program into dispatches for the sizes of one run on a device, with weights stored as layouts says, by name, and keys and values as
// it says, in f32 where it says nothing. Where outputs are named, only they and the states are computed. A program whose sizes leave an operation nothing
// to do (R = 0) has no steps for it.
func (p *Program) Lower(info gpu.Info, layouts map[string]Layout, dims Dims, outputs ...string) ([]Step, error) {
	l := &lowering{p: p, info: info, layouts: layouts, dims: dims}
	for _, name := range outputs {
		if id := p.Find(name); id == 0 || p.Value(id).Kind != Output {
			return nil, fmt.Errorf("plan: program %s: want an output, have %q", p.Name, name)
		}
	}
	need := p.needs(func(v *Value) bool {
		return v.Kind == State || v.Kind == Output && (len(outputs) == 0 || slices.Contains(outputs, v.Name))
	})
	pairs, done := p.pairs(), false // done: together with the operation before
	for i, op := range p.Ops {
		l.op = i
		switch {
		case done:
			done = false
			continue
		case !need[i] || l.idle(op):
			continue
		case pairs[i] && need[i+1]:
			l.op = i + 1
			done = l.together(op, p.Ops[i+1])
		}
		if !done {
			l.op = i
			op.lower(l)
		}
		if l.err != nil {
			return nil, fmt.Errorf("plan: program %s: op %d (%s): %w", p.Name, i, op.name(), l.err)
		}
	}
	return l.steps, nil
}

// Scratch returns the bytes of scratch that steps need.
func Scratch(steps []Step) (size int) {
	for _, s := range steps {
		for _, ref := range s.Buffers {
			size = max(size, ref.Scratch)
		}
	}
	return size
}

type lowering struct {
	p       *Program
	info    gpu.Info
	layouts map[string]Layout
	dims    Dims
	op      int
	steps   []Step
	err     error
}

func (l *lowering) step(d shaders.Dispatch, buffers ...Ref) {
	l.steps = append(l.steps, Step{l.op, d, buffers})
}

// rows is the number of rows of a value in this run. Of a KV state it is the token count: what is written of it.
func (l *lowering) rows(id ID) int { return l.p.Value(id).Rows.In(l.dims) }

// idle says whether an operation has nothing to do in this run.
func (l *lowering) idle(op Op) bool {
	makes, changes := op.writes()
	for _, id := range append(makes, changes...) {
		if id != 0 && l.rows(id) > 0 {
			return false
		}
	}
	return true
}

func (l *lowering) cols(id ID) int { return l.p.Value(id).Cols }

// u is rows as a kernel parameter.
func (l *lowering) u(id ID) uint32 { return uint32(l.rows(id)) }

// shard is one part of a table: rows in a format, and the buffers with its values and scales.
type shard struct {
	format        shaders.Format
	rows          int
	values, scale Ref
}

// shards lists the parts of a table: of a weight those of its layout, of a computed value the one buffer.
func (l *lowering) shards(id ID) []shard {
	v := l.p.Value(id)
	if v.Kind != Weight {
		return []shard{{shaders.F32, l.rows(id), Ref{Value: id}, Ref{}}}
	}
	layout, ok := l.layouts[v.Name]
	total := 0
	var parts []shard
	for i, rows := range layout.Shards {
		total += rows
		part := shard{layout.Format, rows, Ref{Value: id, Shard: i}, Ref{}}
		if layout.Format.ScaleBytes(64) > 0 {
			part.scale = Ref{Value: id, Shard: i, Scale: true}
		}
		parts = append(parts, part)
	}
	if l.err == nil && (!ok || total != v.Rows.N || !layout.Format.Fits(v.Cols)) {
		l.err = fmt.Errorf("weight %s: want a layout of %d rows of %d, have %d rows as %s", v.Name, v.Rows.N, v.Cols, total, layout.Format)
	}
	return parts
}

// plain wants a weight in one f32 piece.
func (l *lowering) plain(id ID) Ref {
	if id == 0 {
		return Ref{}
	}
	if parts := l.shards(id); l.err == nil && (len(parts) != 1 || parts[0].format != shaders.F32) {
		l.err = fmt.Errorf("weight %s: want one shard of f32, have %d of %s", l.p.Value(id).Name, len(parts), parts[0].format)
	}
	return Ref{Value: id}
}

// format is how a value's words are: a state's may be f16.
func format(v *Value, layouts map[string]Layout) shaders.Format {
	if v.Kind != State {
		return shaders.F32
	}
	return layouts[v.Name].Format
}

// kept is the format of keys and values that a kernel looks at in parts of these sizes.
func (l *lowering) kept(kv ID, sizes ...uint32) shaders.Format {
	v := l.p.Value(kv)
	f := format(v, l.layouts)
	if !shaders.AttentionKeeps(f, sizes...) {
		l.err = fmt.Errorf("state %s: want f32, or f16 and multiples of 4, have %s and %v", v.Name, f, sizes)
		return shaders.F32
	}
	return f
}

func flag(id ID) uint32 {
	if id == 0 {
		return 0
	}
	return 1
}

func (o *Embed) lower(l *lowering) {
	first := 0
	for _, table := range o.Tables {
		for _, part := range l.shards(table) {
			d := shaders.Embed(l.info, part.format, shaders.EmbedParams{
				T: l.u(o.Y), K: uint32(l.cols(o.Y)), Rows: uint32(part.rows), First: uint32(first),
				Offset: uint32(o.Offset), Column: uint32(o.Column), Add: flag(o.Add),
			})
			if part.rows > 0 {
				l.step(d, Ref{Value: o.Tokens}, part.values, part.scale, Ref{Value: o.Add}, Ref{Value: o.Y})
			}
			first += part.rows
		}
	}
}

func (o *LayerNorm) lower(l *lowering) {
	d := shaders.LayerNorm(l.info, shaders.LayerNormParams{T: l.u(o.Y), D: uint32(l.cols(o.Y)), Eps: o.Eps})
	l.step(d, Ref{Value: o.X}, l.plain(o.Weight), l.plain(o.Bias), Ref{Value: o.Y})
}

func (o *Linear) lower(l *lowering) {
	p := shaders.LinearParams{
		T: l.u(o.Y), K: uint32(l.cols(o.X)), Stride: uint32(l.cols(o.Y)), Act: uint32(o.Act), Bias: flag(o.Bias), Residual: flag(o.Residual),
	}
	l.linear(p, o.W, Ref{Value: o.X}, l.plain(o.Bias), Ref{Value: o.Residual}, Ref{Value: o.Y})
}

// linear adds the steps of a linear layer, one for each shard of its stacked weights.
func (l *lowering) linear(p shaders.LinearParams, w []ID, x, bias, residual, y Ref) {
	for _, id := range w {
		for _, part := range l.shards(id) {
			p.F = uint32(part.rows)
			l.step(shaders.Linear(l.info, part.format, p), x, part.values, part.scale, bias, residual, y)
			p.F0 += p.F
		}
	}
}

func (o *Attention) lower(l *lowering) {
	p := shaders.AttentionParams{
		T: l.u(o.Y), Heads: uint32(o.Heads), Dh: uint32(o.Dim), QStride: uint32(l.cols(o.Q)),
		KVStride: uint32(l.cols(o.KV)), KOffset: uint32(o.K), VOffset: uint32(o.V), Scale: o.Scale,
	}
	d := shaders.Attention(l.info, l.kept(o.KV, p.Dh, p.QStride, p.KVStride, p.KOffset, p.VOffset), p)
	l.step(d, Ref{Value: o.Q}, Ref{Value: o.KV}, Ref{Value: o.Tokens}, Ref{Value: o.Y})
}

func (o *StoreRows) lower(l *lowering) {
	width := uint32(l.cols(o.KV))
	p := shaders.StoreRowsParams{T: l.u(o.X), Width: width, SourceStride: uint32(l.cols(o.X)), SourceOffset: uint32(o.From), TargetStride: width}
	d := shaders.StoreRows(l.info, l.kept(o.KV, width, p.SourceStride, p.SourceOffset), p)
	l.step(d, Ref{Value: o.X}, Ref{Value: o.Tokens}, Ref{Value: o.KV})
}

func (o *GatherRows) lower(l *lowering) {
	d := shaders.GatherRows(l.info, shaders.GatherRowsParams{R: l.u(o.Y), D: uint32(l.cols(o.Y))})
	l.step(d, Ref{Value: o.X}, Ref{Value: o.Index}, Ref{Value: o.Y})
}

func (o *Patches) lower(l *lowering) {
	d := shaders.Patches(l.info, shaders.PatchesParams{B: l.u(o.X), S: uint32(o.Size), P: uint32(o.Patch)})
	l.step(d, Ref{Value: o.X}, Ref{Value: o.Y})
}

func (o *VisionEmbed) lower(l *lowering) {
	d := shaders.VisionEmbed(l.info, shaders.VisionEmbedParams{B: uint32(l.dims[Images]), N: uint32(l.p.Value(o.X).Rows.N + 1), D: uint32(l.cols(o.Y))})
	l.step(d, Ref{Value: o.X}, l.plain(o.Class), l.plain(o.Position), Ref{Value: o.Y})
}

func (o *Add) lower(l *lowering) {
	d := shaders.Add(l.info, shaders.AddParams{N: l.u(o.Y) * uint32(l.cols(o.Y))})
	l.step(d, Ref{Value: o.A}, Ref{Value: o.B}, Ref{Value: o.Y})
}

func (o *Normalize) lower(l *lowering) {
	d := shaders.Normalize(l.info, shaders.NormalizeParams{T: l.u(o.Y), D: uint32(l.cols(o.Y))})
	l.step(d, Ref{Value: o.X}, Ref{Value: o.Y})
}

func (o *NLL) lower(l *lowering) {
	d := shaders.NLL(l.info, shaders.NLLParams{R: l.u(o.Y), V: uint32(l.cols(o.X))})
	l.step(d, Ref{Value: o.X}, Ref{Value: o.Labels}, Ref{Value: o.Y})
}
