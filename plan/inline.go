// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"reflect"
	"slices"
)

// Inline adds to the builder's program what p computes for the wanted outputs, and returns their values by name. Inputs named in bind are the given
// values, by whose rows results are counted; other inputs are the builder's of that name, made where it has none. States are renamed by state, so that two users of a model do not share
// them. Operations that the builder has already, on the same operands, are not added again: two inlinings that share a beginning compute it once.
func (b *Builder) Inline(p *Program, bind map[string]ID, state func(name string) string, want ...string) (map[string]ID, error) {
	for _, name := range want {
		if id := p.Find(name); id == 0 || p.Value(id).Kind != Output {
			return nil, fmt.Errorf("plan: inline %s: the program has no output %s", p.Name, name)
		}
	}
	in := inlining{b: b, p: p, to: make([]ID, len(p.Values)+1), bind: bind, state: state, sizes: map[Size]Size{}}
	need := p.needs(func(v *Value) bool { return v.Kind == Output && slices.Contains(want, v.Name) })
	for name, id := range bind {
		if input := p.Find(name); input != 0 {
			in.sizes[p.Value(input).Rows.Of] = b.p.Value(id).Rows.Of
		}
	}
	for i, op := range p.Ops {
		if need[i] {
			in.add(op)
		}
	}
	out := map[string]ID{}
	for _, name := range want {
		out[name] = in.to[p.Find(name)]
	}
	return out, nil
}

type inlining struct {
	b     *Builder
	p     *Program
	to    []ID // by p's values: the builder's
	bind  map[string]ID
	state func(string) string
	sizes map[Size]Size // what sizes become where an input is bound to a value of another
}

func (in *inlining) add(op Op) {
	clone := mapIDs(op, func(id ID) ID { return in.operand(id, op) })
	if same := in.b.find(clone); same != nil {
		makes, _ := op.writes()
		have, _ := same.writes()
		for i, id := range makes {
			in.to[id] = have[i]
		}
		return
	}
	makes, _ := op.writes()
	for _, id := range makes {
		if id == 0 {
			continue
		}
		v := *in.p.Value(id)
		if to, ok := in.sizes[v.Rows.Of]; ok {
			v.Rows.Of = to
		}
		in.to[id] = in.b.made(v.Rows, v.Cols)
	}
	in.b.p.Ops = append(in.b.p.Ops, mapIDs(op, func(id ID) ID { return in.to[id] }))
}

// operand returns the builder's value for one of op's, 0 for those that op makes.
func (in *inlining) operand(id ID, op Op) ID {
	if makes, _ := op.writes(); id == 0 || slices.Contains(makes, id) {
		return 0
	}
	if in.to[id] != 0 {
		return in.to[id]
	}
	v := *in.p.Value(id)
	if bound, ok := in.bind[v.Name]; ok && v.Kind == Input {
		in.to[id] = bound
		return bound
	}
	if v.Kind == State {
		v.Name = in.state(v.Name)
	}
	if in.to[id] = in.b.p.Find(v.Name); in.to[id] == 0 {
		in.to[id] = in.b.add(v)
	}
	return in.to[id]
}

// find returns an operation of the builder that is op but for what it makes, nil if there is none.
func (b *Builder) find(op Op) Op {
	for _, have := range b.p.Ops {
		if reflect.TypeOf(have) != reflect.TypeOf(op) {
			continue
		}
		makes, _ := have.writes()
		if reflect.DeepEqual(op, mapIDs(have, func(id ID) ID {
			if slices.Contains(makes, id) {
				return 0
			}
			return id
		})) {
			return have
		}
	}
	return nil
}

// mapIDs returns a copy of op with f of every value that it names.
func mapIDs(op Op, f func(ID) ID) Op {
	from := reflect.ValueOf(op).Elem()
	to := reflect.New(from.Type())
	for i := range from.NumField() {
		switch v := from.Field(i).Interface().(type) {
		case ID:
			to.Elem().Field(i).Set(reflect.ValueOf(f(v)))
		case []ID:
			ids := make([]ID, len(v))
			for j, id := range v {
				ids[j] = f(id)
			}
			if v != nil {
				to.Elem().Field(i).Set(reflect.ValueOf(ids))
			}
		default:
			to.Elem().Field(i).Set(from.Field(i))
		}
	}
	return to.Interface().(Op)
}
