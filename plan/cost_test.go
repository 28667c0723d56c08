// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"strings"
	"testing"

	"fromage/gpu"
	"fromage/plan"
	"fromage/shaders"
)

// TestCosts counts by hand what each step of a layer moves and computes, for 5 tokens of which 2 are wanted.
func TestCosts(t *testing.T) {
	const T, R, D, V, F = 5, 2, 64, 10, 96
	tokens, rows := plan.Dim{Of: plan.Tokens, N: 1}, plan.Dim{Of: plan.Rows, N: 1}
	m := &plan.Model{}
	b := plan.NewBuilder(m, "p")
	table := b.Numbers("tokens", tokens, plan.TokenColumns)
	index := b.Numbers("rows", rows, 1)
	weight := func(name string, rows, cols int, matrix bool) plan.ID {
		return b.Weight(plan.WeightSpec{Name: name, Rows: rows, Cols: cols, Matrix: matrix, Sources: []plan.Source{{Tensor: name, Rows: rows}}})
	}
	words := weight("words", V, D, true)
	x := b.Embed(plan.Embed{Tokens: table, Tables: []plan.ID{words}})
	h := b.LayerNorm(x, weight("norm.weight", 1, D, false), weight("norm.bias", 1, D, false), 1e-5)
	qkv := b.Linear(plan.Linear{X: h, W: []plan.ID{weight("qkv", 3*D, D, true)}, Bias: weight("bias", 1, 3*D, false)})
	kv := b.State("kv", 2*D)
	b.StoreRows(plan.StoreRows{X: qkv, Tokens: table, From: D, KV: kv})
	a := b.Attention(plan.Attention{Q: qkv, KV: kv, Tokens: table, Heads: 2, Dim: D / 2, K: 0, V: D, Scale: 1})
	own := b.Attention(plan.Attention{Q: qkv, KV: qkv, Tokens: table, Heads: 2, Dim: D / 2, K: D, V: 2 * D, Scale: 1})
	x = b.Add(b.Linear(plan.Linear{X: a, W: []plan.ID{weight("out", D, D, true)}, Residual: x}), own)
	b.Output("y", b.Linear(plan.Linear{X: b.GatherRows(x, index), W: []plan.ID{weight("head", F, D, true)}}))
	if err := b.Done(); err != nil {
		t.Fatal(err)
	}
	p, err := m.Program("p")
	if err != nil {
		t.Fatal(err)
	}
	layouts := map[string]plan.Layout{
		"words": {Format: shaders.Q8, Shards: []int{4, 6}}, "qkv": {Format: shaders.F16, Shards: []int{3 * D}}, "out": {Format: shaders.Q4, Shards: []int{D}},
		"head": {Format: shaders.F32, Shards: []int{64, 32}}, "norm.weight": {Shards: []int{1}}, "norm.bias": {Shards: []int{1}}, "bias": {Shards: []int{1}},
	}
	dims := plan.Run(T, R, 0)
	steps, err := p.Lower(gpu.Info{Limits: gpu.DefaultLimits}, layouts, dims)
	if err != nil {
		t.Fatal(err)
	}
	const pairs, attended = 17, 9
	row := func(n int) int64 { return int64(4 * n) }
	want := []struct {
		name string
		cost plan.Cost
	}{
		// 4 of 10 rows: 2 of the tokens; a row is 64 bytes of values and 2 scales of 2 bytes.
		{"embed, first shard", plan.Cost{Read: 16*T + 2*(64+4), Written: 2 * 4 * D}},
		{"embed, second shard", plan.Cost{Read: 16*T + 3*(64+4), Written: 3 * 4 * D}},
		{"layer norm", plan.Cost{Read: T*row(D) + 2*row(D), Written: T * row(D)}},
		{"qkv", plan.Cost{Read: T*row(D) + 3*D*2*D + row(3*D), Written: T * row(3*D), FLOPs: 2 * T * D * 3 * D}},
		{"store rows", plan.Cost{Read: T*row(2*D) + 16*T, Written: T * row(2*D)}},
		{"attention over a state", plan.Cost{Read: T*row(D) + attended*row(2*D) + 16*T, Written: T * row(D), FLOPs: 4 * pairs * D}},
		{"attention among themselves", plan.Cost{Read: T*row(D) + attended*row(2*D) + 16*T, Written: T * row(D), FLOPs: 4 * pairs * D}},
		{"out", plan.Cost{Read: T*row(D) + D*(32+8) + T*row(D), Written: T * row(D), FLOPs: 2 * T * D * D}},
		{"add", plan.Cost{Read: 2 * T * row(D), Written: T * row(D)}},
		{"gather rows", plan.Cost{Read: R*row(D) + 4*R, Written: R * row(D)}},
		{"head, first shard", plan.Cost{Read: R*row(D) + 64*row(D), Written: R * row(64), FLOPs: 2 * R * D * 64}},
		{"head, second shard", plan.Cost{Read: R*row(D) + 32*row(D), Written: R * row(32), FLOPs: 2 * R * D * 32}},
	}
	costs := p.Costs(steps, layouts, dims, plan.Attended{Pairs: pairs, Rows: attended})
	if len(costs) != len(want) {
		t.Fatalf("Costs of %d steps, want %d", len(costs), len(want))
	}
	var sum plan.Cost
	for i, w := range want {
		if costs[i] != w.cost {
			t.Errorf("%s (%s) = %+v, want %+v", w.name, steps[i].Dispatch.Kernel.Name, costs[i], w.cost)
		}
		sum.Add(costs[i])
	}
	if sum.Bytes() != sum.Read+sum.Written || sum.Read <= sum.Written {
		t.Errorf("sum = %+v, %d bytes", sum, sum.Bytes())
	}
	// Keys and values in f16 are half of what is written of them and of what is read.
	layouts["kv"] = plan.Layout{Format: shaders.F16}
	if steps, err = p.Lower(gpu.Info{Limits: gpu.DefaultLimits}, layouts, dims); err != nil {
		t.Fatal(err)
	}
	costs = p.Costs(steps, layouts, dims, plan.Attended{Pairs: pairs, Rows: attended})
	for i, w := range want {
		switch w.name {
		case "store rows":
			w.cost.Written /= 2
		case "attention over a state":
			w.cost.Read -= attended * row(D)
		}
		if costs[i] != w.cost {
			t.Errorf("in f16: %s (%s) = %+v, want %+v", w.name, steps[i].Dispatch.Kernel.Name, costs[i], w.cost)
		}
	}
	layouts["kv"] = plan.Layout{Format: shaders.Q8}
	if _, err := p.Lower(gpu.Info{}, layouts, dims); err == nil || !strings.Contains(err.Error(), "state kv: want f32, or f16") {
		t.Errorf("keys and values in q8: %v, want an error that says what is possible", err)
	}
}

// TestCostsOfTraining holds the products of all steps of a way back to those of its operations.
func TestCostsOfTraining(t *testing.T) {
	p := &plan.Program{Name: "back"}
	add := func(v plan.Value) plan.ID { p.Values = append(p.Values, v); return plan.ID(len(p.Values)) }
	n := plan.Dim{Of: plan.Rows, N: 1}
	dy := add(plan.Value{Name: "dy", Kind: plan.Input, Rows: n, Cols: 12})
	x := add(plan.Value{Name: "x", Kind: plan.Input, Rows: n, Cols: 8})
	w := add(plan.Value{Name: "w", Kind: plan.Weight, Rows: plan.Dim{N: 12}, Cols: 8})
	dw := add(plan.Value{Name: "dw", Kind: plan.State, Rows: plan.Dim{N: 12}, Cols: 8})
	dx := add(plan.Value{Name: "dx", Kind: plan.Output, Rows: n, Cols: 8})
	p.Ops = []plan.Op{&plan.LinearBack{DY: dy, W: []plan.ID{w}, DX: dx}, &plan.LinearWeightBack{DY: dy, X: x, DW: dw}}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	layouts, dims := map[string]plan.Layout{"w": {Format: shaders.F16, Shards: []int{4, 8}}}, plan.Run(1, 3, 0)
	steps, err := p.Lower(gpu.Info{Limits: gpu.DefaultLimits}, layouts, dims)
	if err != nil {
		t.Fatal(err)
	}
	want := []plan.Cost{
		{Read: 3*4*4 + 4*16, Written: 3 * 32, FLOPs: 2 * 3 * 8 * 4},
		{Read: 3*4*8 + 8*16, Written: 3 * 32, FLOPs: 2 * 3 * 8 * 8},
		{Read: 3*48 + 3*32 + 12*32, Written: 12 * 32, FLOPs: 2 * 3 * 8 * 12},
	}
	for i, c := range p.Costs(steps, layouts, dims, plan.Attended{}) {
		if i >= len(want) || c != want[i] {
			t.Errorf("step %d (%s) = %+v, want %+v", i, steps[i].Dispatch.Kernel.Name, c, want)
		}
	}
}
