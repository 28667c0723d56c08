// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"fromage/gpu"
	"fromage/plan"
)

// twoEnds is a program with a common beginning and two outputs, one of them by way of a state: x (T,3) → middle (T,4), ends (B,2), other (T,4).
func twoEnds(t *testing.T) *plan.Program {
	t.Helper()
	return program(t, "ends", func(b *plan.Builder) {
		tokens, kv := b.Numbers("tokens", perToken, plan.TokenColumns), b.State("kv", 8)
		qkv := b.Linear(plan.Linear{X: b.Input("x", perToken, 3), W: []plan.ID{weight(b, "qkv", 12, 3)}})
		b.StoreRows(plan.StoreRows{X: qkv, Tokens: tokens, From: 4, KV: kv})
		y := b.Attention(plan.Attention{Q: qkv, KV: kv, Tokens: tokens, Heads: 2, Dim: 2, V: 4, Scale: 1})
		b.Output("other", b.Normalize(y))
		picked := b.GatherRows(y, b.Numbers("rows", perRow, 1))
		b.Output("ends", b.Linear(plan.Linear{X: picked, W: []plan.ID{weight(b, "w", 2, 4)}, Act: plan.ActReLU}))
	})
}

// names lists a program's values of a kind.
func names(p *plan.Program, kind plan.Kind) (all []string) {
	for _, v := range p.Values {
		if v.Kind == kind {
			all = append(all, v.Name)
		}
	}
	slices.Sort(all)
	return all
}

// TestInline: what is inlined computes what the program does, on values and states of the builder's, once where it is asked for twice.
func TestInline(t *testing.T) {
	ends := twoEnds(t)
	var first, second map[string]plan.ID
	joined := program(t, "joined", func(b *plan.Builder) {
		// The rows are bound to another size, the input to a value that the builder computes.
		x := b.Linear(plan.Linear{X: b.Input("raw", perToken, 2), W: []plan.ID{weight(b, "w0", 3, 2)}})
		at := b.Numbers("ends", perImage, 1)
		var err error
		if first, err = b.Inline(ends, map[string]plan.ID{"x": x, "rows": at}, func(name string) string { return "my." + name }, "ends"); err != nil {
			t.Fatal(err)
		}
		if second, err = b.Inline(ends, map[string]plan.ID{"x": x, "rows": at}, func(name string) string { return "my." + name }, "ends", "other"); err != nil {
			t.Fatal(err)
		}
		b.Output("result", first["ends"])
		b.Output("more", second["other"])
	})
	if first["ends"] == 0 || first["ends"] != second["ends"] {
		t.Errorf("the same output inlined twice is values %d and %d, want one", first["ends"], second["ends"])
	}
	// Linear, and all of twoEnds once.
	if got, want := len(joined.Ops), 1+len(ends.Ops); got != want {
		t.Errorf("%d operations, want %d: the common beginning is computed once", got, want)
	}
	if v := joined.Value(first["ends"]); v.Rows != perImage {
		t.Errorf("ends has %s rows, want as many as the value that rows is bound to", v.Rows)
	}
	if got := names(joined, plan.Input); !slices.Equal(got, []string{"ends", "raw", "tokens"}) {
		t.Errorf("inputs %q, want those that are not bound", got)
	}
	if got := names(joined, plan.State); !slices.Equal(got, []string{"my.kv"}) {
		t.Errorf("states %q, want my.kv", got)
	}
	if len(names(ends, plan.Output)) != 2 || len(names(joined, plan.Weight)) != 3 {
		t.Errorf("the inlined program changed, or weights are %q", names(joined, plan.Weight))
	}

	dims, in := sizes(), numbers()
	random(joined, dims, in, 1)
	got := run(t, joined, dims, in)
	// The same in two programs, one after the other.
	before := program(t, "before", func(b *plan.Builder) {
		b.Output("x", b.Linear(plan.Linear{X: b.Input("raw", perToken, 2), W: []plan.ID{weight(b, "w0", 3, 2)}}))
	})
	in["x"], in["rows"] = nil, in["ends"]
	for _, v := range run(t, before, dims, in)["x"] {
		in["x"] = append(in["x"], math.Float32bits(v))
	}
	dims[plan.Rows] = dims[plan.Images]
	want := run(t, ends, dims, in)
	for _, c := range [][2]string{{"result", "ends"}, {"more", "other"}} {
		if !slices.Equal(got[c[0]], want[c[1]]) || len(want[c[1]]) == 0 {
			t.Errorf("%s = %v inlined, %v alone", c[1], got[c[0]], want[c[1]])
		}
	}
}

// TestInlineUnwanted: what the wanted outputs do not depend on is left out, with its weights and inputs.
func TestInlineUnwanted(t *testing.T) {
	ends := twoEnds(t)
	other := program(t, "other", func(b *plan.Builder) {
		out, err := b.Inline(ends, nil, strings.ToUpper, "other")
		if err != nil {
			t.Fatal(err)
		}
		b.Output("result", out["other"])
	})
	if len(other.Ops) != len(ends.Ops)-2 || other.Find("w") != 0 || other.Find("rows") != 0 || other.Find("KV") == 0 {
		t.Errorf("%d of %d operations; w is %d, rows %d, KV %d", len(other.Ops), len(ends.Ops), other.Find("w"), other.Find("rows"), other.Find("KV"))
	}
}

// TestLowerWanted: a run for some outputs computes them as a run for all does, the states as well, and nothing else.
func TestLowerWanted(t *testing.T) {
	ends := twoEnds(t)
	dims, in := sizes(), numbers()
	random(ends, dims, in, 1)
	all := run(t, ends, dims, in)
	for _, c := range []struct {
		outputs, made, left []string
	}{
		{[]string{"other"}, []string{"other", "kv"}, []string{"ends"}},
		{[]string{"ends"}, []string{"ends", "kv"}, []string{"other"}},
		{[]string{"ends", "other"}, []string{"ends", "other", "kv"}, nil},
	} {
		got := run(t, ends, dims, in, c.outputs...)
		for _, name := range c.made {
			if !slices.Equal(got[name], all[name]) || slices.Max(all[name]) == 0 {
				t.Errorf("for %q: %s = %v, want %v", c.outputs, name, got[name], all[name])
			}
		}
		for _, name := range c.left {
			if slices.Max(got[name]) != 0 || slices.Min(got[name]) != 0 {
				t.Errorf("for %q: %s = %v was computed", c.outputs, name, got[name])
			}
		}
	}
	for _, name := range []string{"kv", "none", ""} {
		if _, err := ends.Lower(gpu.Info{}, nil, dims, name); err == nil || !strings.Contains(err.Error(), "want an output") {
			t.Errorf("lowered for %q: %v", name, err)
		}
	}
}

// TestInlineApart: operations on other operands are others.
func TestInlineApart(t *testing.T) {
	ends := twoEnds(t)
	p := program(t, "apart", func(b *plan.Builder) {
		x, y := b.Input("x", perToken, 3), b.Input("y", perToken, 3)
		for i, in := range []plan.ID{x, y} {
			out, err := b.Inline(ends, map[string]plan.ID{"x": in}, func(name string) string { return name + string(rune('0'+i)) }, "other")
			if err != nil {
				t.Fatal(err)
			}
			b.Output("result"+string(rune('0'+i)), out["other"])
		}
	})
	if want := 2 * (len(ends.Ops) - 2); len(p.Ops) != want || !slices.Equal(names(p, plan.State), []string{"kv0", "kv1"}) {
		t.Errorf("%d operations with states %q, want %d with kv0 and kv1", len(p.Ops), names(p, plan.State), want)
	}
}

func TestInlineErrors(t *testing.T) {
	ends := twoEnds(t)
	for _, name := range []string{"none", "x", ""} {
		b := plan.NewBuilder(&plan.Model{}, "p")
		if _, err := b.Inline(ends, nil, strings.ToUpper, "other", name); err == nil || !strings.Contains(err.Error(), "inline ends: the program has no output "+name) {
			t.Errorf("Inline of %q = %v, want an error", name, err)
		}
	}
}
