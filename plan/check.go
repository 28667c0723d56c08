// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
)

// MaxCols is the most columns that a value may have, well above any model's vocabulary.
const MaxCols = 1 << 22

// Check holds a program to the rules: every operand exists, is made before it is used, and has the shape that its operation wants. A program that
// passes lowers without a panic. It is what makes a plan from a file safe to run.
func (p *Program) Check() error {
	c := &checker{p: p, made: make([]bool, len(p.Values)+1)}
	names := map[string]bool{}
	for i, v := range p.Values {
		if v.Cols <= 0 || v.Cols > MaxCols || v.Rows.N <= 0 || v.Rows.N > MaxCols || int(v.Rows.Of) >= len(sizeNames) || int(v.Kind) >= len(kindNames) {
			return fmt.Errorf("plan: program %s: value %d (%s): shape or kind out of range: %s × %d", p.Name, i+1, v.Name, v.Rows, v.Cols)
		}
		if v.Kind != Activation && (v.Name == "" || names[v.Name]) {
			return fmt.Errorf("plan: program %s: value %d: want a name of its own, have %q", p.Name, i+1, v.Name)
		}
		names[v.Name] = true
		c.made[i+1] = v.Kind == Input || v.Kind == Weight || v.Kind == State
	}
	for i, op := range p.Ops {
		c.op = fmt.Sprintf("program %s: op %d (%s)", p.Name, i, op.name())
		for _, id := range op.reads() {
			if id < 0 || int(id) > len(p.Values) || id > 0 && !c.made[id] {
				return fmt.Errorf("plan: %s: operand %d does not exist or is not made yet", c.op, id)
			}
		}
		makes, changes := op.writes()
		for _, out := range append(makes, changes...) {
			if out < 0 || int(out) > len(p.Values) {
				return fmt.Errorf("plan: %s: result %d does not exist", c.op, out)
			}
		}
		for _, out := range makes {
			if k := kindOf(p, out); out != 0 && (k != Activation && k != Output || c.made[out]) {
				return fmt.Errorf("plan: %s: may not make %s value %d", c.op, k, out)
			}
		}
		for _, out := range changes {
			if k := kindOf(p, out); out != 0 && k != State {
				return fmt.Errorf("plan: %s: may not change %s value %d", c.op, k, out)
			}
		}
		if op.check(c); c.err != nil {
			return c.err
		}
		for _, out := range makes {
			c.made[out] = true
		}
	}
	for i, v := range p.Values {
		if v.Kind == Output && !c.made[i+1] {
			return fmt.Errorf("plan: program %s: output %s is never made", p.Name, v.Name)
		}
	}
	return nil
}

func kindOf(p *Program, id ID) Kind {
	if id == 0 {
		return Activation
	}
	return p.Value(id).Kind
}

// Check holds all programs to the rules, and the weights they name to the specs.
func (m *Model) Check() error {
	for i := range m.Weights {
		if s := &m.Weights[i]; slices.ContainsFunc(m.Weights[:i], func(o WeightSpec) bool { return o.Name == s.Name }) || s.Rows <= 0 || s.Cols <= 0 {
			return fmt.Errorf("plan: weight %s: named twice or empty: %d × %d", s.Name, s.Rows, s.Cols)
		}
	}
	for i, p := range m.Programs {
		if p == nil {
			return fmt.Errorf("plan: program %d: want a program, have none", i)
		}
		if err := p.Check(); err != nil {
			return err
		}
		for _, v := range p.Values {
			if v.Kind != Weight {
				continue
			}
			s, err := m.Weight(v.Name)
			if err != nil {
				return err
			}
			if v.Rows != (Dim{One, s.Rows}) || v.Cols != s.Cols {
				return fmt.Errorf("plan: program %s: weight %s: want %d × %d, have %s × %d", p.Name, v.Name, s.Rows, s.Cols, v.Rows, v.Cols)
			}
		}
	}
	return nil
}

// checker keeps the first rule that was broken. Its methods treat the absent operand 0 as broken, but for opt.
type checker struct {
	p    *Program
	made []bool
	op   string
	err  error
}

func (c *checker) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("plan: %s: %s", c.op, fmt.Sprintf(format, args...))
	}
}

// is wants value id with these rows and columns, of f32.
func (c *checker) is(what string, id ID, rows Dim, cols int) {
	c.shape(what, id, rows, cols, false)
}

func (c *checker) shape(what string, id ID, rows Dim, cols int, u32 bool) {
	if id == 0 {
		c.fail("want %s, have none", what)
		return
	}
	v := c.p.Value(id)
	if v.Rows != rows || v.Cols != cols || v.U32 != u32 {
		c.fail("want %s %s × %d, have value %d (%s) %s × %d", what, rows, cols, id, v.Name, v.Rows, v.Cols)
	}
}

// opt is like is where the operand is given.
func (c *checker) opt(what string, id ID, rows Dim, cols int) {
	if id != 0 {
		c.is(what, id, rows, cols)
	}
}

// at returns a value that the op cannot do without.
func (c *checker) at(what string, id ID) Value {
	if id == 0 {
		c.fail("want %s, have none", what)
		return Value{Rows: Dim{One, 1}, Cols: 1}
	}
	return *c.p.Value(id)
}

func (c *checker) vector(what string, id ID, n int) {
	c.is(what, id, Dim{One, 1}, n)
	c.weight(what, id)
}

func (c *checker) weight(what string, id ID) {
	if id != 0 && c.p.Value(id).Kind != Weight {
		c.fail("want %s to be a weight, have value %d (%s)", what, id, c.p.Value(id).Kind)
	}
}

// active wants value id not to be a weight: its rows are plain f32.
func (c *checker) active(what string, id ID) {
	if id != 0 && c.p.Value(id).Kind == Weight {
		c.fail("want %s to be computed, have weight %s", what, c.p.Value(id).Name)
	}
}

func (c *checker) tokens(id ID) {
	c.shape("token table", id, Dim{Tokens, 1}, TokenColumns, true)
}

// stacked returns the rows of tables put under one another; all must have cols columns.
func (c *checker) stacked(what string, ids []ID, cols int) int {
	rows := 0
	if len(ids) == 0 {
		c.fail("want %s, have none", what)
	}
	for _, id := range ids {
		v := c.at(what, id)
		if v.Rows.Of != One && v.Kind == Weight || v.Cols != cols || v.U32 {
			c.fail("want %s with %d columns, have value %d (%s) %s × %d", what, cols, id, v.Name, v.Rows, v.Cols)
		}
		if v.Rows.Of == One {
			rows += v.Rows.N
		}
	}
	return rows
}

func (o *Embed) check(c *checker) {
	c.tokens(o.Tokens)
	y := c.at("a result", o.Y)
	c.is("a result", o.Y, Dim{Tokens, 1}, y.Cols)
	c.stacked("tables", o.Tables, y.Cols)
	for i, id := range o.Tables {
		if v := c.at("tables", id); v.Kind != Weight && (v.Kind != Input || i != len(o.Tables)-1) {
			c.fail("want weights and at most one input, the last, as tables; have value %d (%s)", id, v.Kind)
		}
	}
	c.opt("a summand", o.Add, Dim{Tokens, 1}, y.Cols)
	c.active("a summand", o.Add)
	if o.Add != 0 && len(o.Tables) > 1 || o.Column < 0 || o.Column >= TokenColumns || o.Offset < 0 || o.Offset > MaxCols {
		c.fail("column %d, offset %d or the summand is out of range", o.Column, o.Offset)
	}
}

func (o *LayerNorm) check(c *checker) {
	x := c.at("x", o.X)
	c.active("x", o.X)
	c.vector("weight", o.Weight, x.Cols)
	c.vector("bias", o.Bias, x.Cols)
	c.is("a result", o.Y, x.Rows, x.Cols)
}

func (o *Linear) check(c *checker) {
	x := c.at("x", o.X)
	c.is("x", o.X, x.Rows, x.Cols)
	c.active("x", o.X)
	f := c.stacked("w", o.W, x.Cols)
	for _, id := range o.W {
		c.weight("w", id)
	}
	c.is("a result", o.Y, x.Rows, f)
	if o.Bias != 0 {
		c.vector("bias", o.Bias, f)
	}
	c.opt("residual", o.Residual, x.Rows, f)
	c.active("residual", o.Residual)
	if int(o.Act) >= len(actNames) {
		c.fail("activation %d does not exist", o.Act)
	}
}

func (o *Attention) check(c *checker) {
	c.tokens(o.Tokens)
	q, kv := c.at("q", o.Q), c.at("kv", o.KV)
	c.active("q", o.Q)
	c.active("kv", o.KV)
	if o.Heads <= 0 || o.Dim <= 0 || o.Heads > MaxCols || o.Dim > 256 || o.K < 0 || o.V < 0 || q.U32 || kv.U32 ||
		o.Heads*o.Dim > q.Cols || o.K > kv.Cols-o.Heads*o.Dim || o.V > kv.Cols-o.Heads*o.Dim {
		c.fail("want %d heads of %d columns within q and kv, have %d and %d columns", o.Heads, o.Dim, q.Cols, kv.Cols)
		return
	}
	c.is("q", o.Q, Dim{Tokens, 1}, q.Cols)
	c.is("a result", o.Y, Dim{Tokens, 1}, o.Heads*o.Dim)
}

func (o *StoreRows) check(c *checker) {
	c.tokens(o.Tokens)
	x, kv := c.at("x", o.X), c.at("kv", o.KV)
	c.is("x", o.X, Dim{Tokens, 1}, x.Cols)
	c.active("x", o.X)
	if kv.Kind != State || kv.U32 || o.From < 0 || o.From > x.Cols-kv.Cols {
		c.fail("want %d columns of x from %d on, have %d", kv.Cols, o.From, x.Cols)
	}
}

func (o *GatherRows) check(c *checker) {
	x := c.at("x", o.X)
	c.is("x", o.X, x.Rows, x.Cols)
	c.active("x", o.X)
	index := c.at("index", o.Index)
	c.shape("index", o.Index, index.Rows, 1, true)
	c.is("a result", o.Y, index.Rows, x.Cols)
}

func (o *Patches) check(c *checker) {
	if o.Size <= 0 || o.Size > 4096 || o.Patch <= 0 || o.Size%o.Patch != 0 {
		c.fail("want a size that is a multiple of the patch, have %d and %d", o.Size, o.Patch)
		return
	}
	g := o.Size / o.Patch
	c.is("x", o.X, Dim{Images, 1}, 3*o.Size*o.Size)
	c.active("x", o.X)
	c.is("a result", o.Y, Dim{Images, g * g}, 3*o.Patch*o.Patch)
}

func (o *VisionEmbed) check(c *checker) {
	x, y := c.at("x", o.X), c.at("a result", o.Y)
	n := x.Rows.N + 1
	c.is("x", o.X, Dim{Images, n - 1}, y.Cols)
	c.active("x", o.X)
	c.vector("class", o.Class, y.Cols)
	c.is("position", o.Position, Dim{One, n}, y.Cols)
	c.weight("position", o.Position)
	c.is("a result", o.Y, Dim{Tokens, 1}, y.Cols)
}

func (o *Add) check(c *checker) {
	a := c.at("a", o.A)
	c.active("a", o.A)
	c.active("b", o.B)
	c.is("a", o.A, a.Rows, a.Cols)
	c.is("b", o.B, a.Rows, a.Cols)
	c.is("a result", o.Y, a.Rows, a.Cols)
}

func (o *Normalize) check(c *checker) {
	x := c.at("x", o.X)
	c.active("x", o.X)
	c.is("x", o.X, x.Rows, x.Cols)
	c.is("a result", o.Y, x.Rows, x.Cols)
}

func (o *NLL) check(c *checker) {
	x := c.at("x", o.X)
	c.active("x", o.X)
	c.is("x", o.X, x.Rows, x.Cols)
	c.shape("labels", o.Labels, x.Rows, 1, true)
	c.is("a result", o.Y, x.Rows, 2)
}
