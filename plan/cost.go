// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"

	"fromage/gpu"
)

// Cost is what a step has to do whatever its kernel is like: bytes of its operands, each once, and operations of products that are added up, as FLOPs
// counts them. A kernel that reads something twice moves more.
type Cost struct {
	Read, Written int64
	FLOPs         float64
}

// Add adds another cost.
func (c *Cost) Add(d Cost) {
	c.Read, c.Written, c.FLOPs = c.Read+d.Read, c.Written+d.Written, c.FLOPs+d.FLOPs
}

// Bytes returns the bytes read and written.
func (c Cost) Bytes() int64 { return c.Read + c.Written }

// Attended is what a run's token table makes attention do.
type Attended struct {
	Pairs int // rows that tokens attend to, summed over tokens
	Rows  int // rows that some token attends to
}

// Costs returns the cost of each step that Lower made for the same layouts and sizes. Steps of training are counted as if they read and wrote their
// values whole.
func (p *Program) Costs(steps []Step, layouts map[string]Layout, dims Dims, a Attended) []Cost {
	costs := make([]Cost, len(steps))
	flops := p.FLOPs(dims)
	counted := -1 // the last operation whose products are counted
	for i, s := range steps {
		c := costing{p, layouts, dims, a, p.Ops[s.Op], 1}
		if o, ok := c.op.(*Attention); ok && s.Op != counted {
			counted = s.Op
			costs[i].FLOPs = 4 * float64(a.Pairs) * float64(o.Heads*o.Dim)
		} else if tables := c.tables(); tables != nil {
			c.part = c.partOf(s, tables)
			costs[i].FLOPs = flops[s.Op] * c.part
		} else if s.Op != counted {
			costs[i].FLOPs, counted = flops[s.Op], s.Op
		}
		_, changes := c.op.writes()
		for j, ref := range s.Buffers {
			if ref.Value == 0 || slices.Contains(s.Buffers[:j], ref) {
				continue
			}
			n := int64(c.bytes(ref))
			written := s.Dispatch.Kernel.Bindings[j] == gpu.ReadWrite
			if written {
				costs[i].Written += n
			}
			if _, whole := c.op.(*StoreRows); !written || !whole && slices.Contains(changes, ref.Value) {
				costs[i].Read += n
			}
		}
	}
	return costs
}

// costing is a step whose operands are being counted.
type costing struct {
	p       *Program
	layouts map[string]Layout
	dims    Dims
	a       Attended
	op      Op
	part    float64 // of the operation's tables that the step goes through
}

// tables are the weights whose shards have a step each.
func (c costing) tables() []ID {
	switch o := c.op.(type) {
	case *Embed:
		return o.Tables
	case *Linear:
		return o.W
	case *LinearBack:
		return o.W
	}
	return nil
}

// rows is the rows of a shard of a weight, or of a value.
func (c costing) rows(ref Ref) int {
	v := c.p.Value(ref.Value)
	if v.Kind == Weight {
		return c.layouts[v.Name].Shards[ref.Shard]
	}
	return v.Rows.In(c.dims)
}

// partOf is the part of all rows of the tables that a step binds.
func (c costing) partOf(s Step, tables []ID) float64 {
	bound, all := 0, 0
	for _, id := range tables {
		all += c.p.Value(id).Rows.In(c.dims)
	}
	for _, ref := range s.Buffers {
		if !ref.Scale && slices.Contains(tables, ref.Value) {
			bound += c.rows(ref)
		}
	}
	return float64(bound) / float64(all)
}

// bytes is what a step reads or writes of an operand.
func (c costing) bytes(ref Ref) float64 {
	v := c.p.Value(ref.Value)
	rows, width := float64(c.rows(ref)), float64(format(v, c.layouts).RowBytes(v.Cols))
	if v.Kind == Weight {
		f := c.layouts[v.Name].Format
		if width = float64(f.RowBytes(v.Cols)); ref.Scale {
			width = float64(f.ScaleBytes(v.Cols))
		}
	}
	tokens := float64(c.dims[Tokens])
	switch o := c.op.(type) {
	case *Embed: // as if tokens were spread evenly over the tables
		switch {
		case slices.Contains(o.Tables, ref.Value):
			return tokens * c.part * width
		case ref.Value != o.Tokens:
			return rows * width * c.part
		}
	case *Linear:
		if ref.Value != o.X && (ref.Value == o.Y || ref.Value == o.Bias || ref.Value == o.Residual) {
			return rows * width * c.part
		}
	case *LinearBack:
		if ref.Value == o.DY {
			return rows * width * c.part
		}
	case *Attention:
		head := float64(4 * o.Heads * o.Dim)
		n := 0.0
		if ref.Value == o.Q {
			n = tokens * head
		}
		if ref.Value == o.KV {
			n += float64(c.a.Rows) * 2 * head * width / float64(4*v.Cols)
		}
		if n > 0 {
			return n
		}
	case *StoreRows:
		if ref.Value == o.X {
			return rows * float64(4*c.p.Value(o.KV).Cols)
		}
	case *GatherRows:
		if ref.Value == o.X {
			return float64(c.p.Value(o.Y).Rows.In(c.dims)) * width
		}
	}
	return rows * width
}
