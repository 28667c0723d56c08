// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"fromage/gpu"
	"fromage/model"
	"fromage/plan"
	"fromage/shaders"
)

// tiny has every operation of the set: post-norm with projections, k > 1, two text layers.
func tiny(t testing.TB) *plan.Model {
	t.Helper()
	m, err := model.Build(model.Config{
		OPT:   &model.OPT{VocabSize: 40, HiddenSize: 16, Layers: 2, FFN: 24, MaxPositions: 32, Heads: 2, WordEmbedProjDim: 8, Bias: true, Activation: "relu"},
		CLIP:  &model.CLIP{HiddenSize: 12, Intermediate: 20, Layers: 1, Heads: 2, ImageSize: 8, PatchSize: 4, Channels: 3, Activation: "quick_gelu", Eps: 1e-5},
		Heads: &model.Heads{VisualTokens: 2, SharedDim: 6, TextLayers: []int{-1, 0}},
	})
	if err != nil {
		t.Fatal(err)
	}
	v := plan.NewBuilder(m, "norms")
	v.Output("y", v.Normalize(v.Input("x", plan.Dim{Of: plan.Rows, N: 1}, 4)))
	if err := v.Done(); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCodecRoundTrip(t *testing.T) {
	for _, p := range tiny(t).Programs {
		data, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var again plan.Program
		if err := json.Unmarshal(data, &again); err != nil {
			t.Fatalf("Unmarshal(%s): %v", p.Name, err)
		}
		if !reflect.DeepEqual(p, &again) {
			t.Errorf("program %s differs after a round trip", p.Name)
		}
	}
}

func TestCodecRefuses(t *testing.T) {
	for _, c := range []struct{ program, want string }{
		{`{"name":"p","values":[],"ops":[{"explode":{}}]}`, `op 0: there is no operation "explode"`},
		{`{"name":"p","values":[],"ops":[{}]}`, "op 0: want one operation, have 0"},
		{`{"name":"p","values":[],"ops":[{"add":null}]}`, "want a, have none"},
		{`{"name":"p","values":[],"ops":[{"add":{"a":1,"z":2}}]}`, `unknown field "z"`},
		{`{"name":"p","values":[],"more":1}`, `unknown field "more"`},
		{`{"name":"p","values":[{"name":"x","kind":"input","rows":"T","cols":-1}]}`, "shape or kind out of range"},
		{`{"name":"p","values":[{"name":"x","kind":"input","rows":"0T","cols":1}]}`, "rows: want a positive number"},
		{`{"name":"p","values":[{"name":"x","kind":"input","rows":"T","cols":2},{"rows":"T","cols":2}],"ops":[{"add":{"a":1,"b":3,"y":2}}]}`, "operand 3 does not exist"},
		{`{"name":"p","values":[{"name":"t","kind":"input","rows":"T","cols":4,"u32":true},{"name":"x","kind":"input","rows":"T","cols":4},{"name":"s","kind":"state","rows":"T","cols":4}],
			"ops":[{"store_rows":{"x":2,"tokens":1,"from":9223372036854775807,"kv":3}}]}`, "want 4 columns of x"},
		{`{"name":"p","values":[{"name":"t","kind":"input","rows":"T","cols":4,"u32":true},{"name":"x","kind":"input","rows":"T","cols":4},{"rows":"T","cols":4}],
			"ops":[{"attention":{"q":2,"kv":2,"tokens":1,"heads":1,"dim":4,"k":9223372036854775807,"v":0,"scale":1,"y":3}}]}`, "want 1 heads of 4 columns"},
	} {
		var p plan.Program
		if err := json.Unmarshal([]byte(c.program), &p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Unmarshal(%s) = %v, want an error with %q", c.program, err, c.want)
		}
	}
}

func TestModelCheckRefusesNoProgram(t *testing.T) {
	m := tiny(t)
	m.Programs = append(m.Programs, nil)
	if err := m.Check(); err == nil || !strings.Contains(err.Error(), "want a program, have none") {
		t.Errorf("Check of a missing program = %v, want an error", err)
	}
}

// FuzzProgram holds the promise of Program.Check: what it lets pass survives another round trip, and lowers and lists without a panic.
func FuzzProgram(f *testing.F) {
	for _, p := range tiny(f).Programs {
		data, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var p, again plan.Program
		if json.Unmarshal(data, &p) != nil {
			return
		}
		out, err := json.Marshal(&p)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &again); err != nil {
			t.Fatalf("Unmarshal(Marshal(p)) = %v", err)
		}
		layouts := map[string]plan.Layout{}
		for _, v := range p.Values {
			layouts[v.Name] = plan.Layout{Format: shaders.F32, Shards: []int{v.Rows.N}}
		}
		for _, dims := range []plan.Dims{plan.Run(3, 1, 2), plan.RunImages(2, 5)} {
			p.Slots(dims)
			// An error is an answer too; only a panic is not.
			_, _ = p.Lower(gpu.Info{}, layouts, dims)
		}
		if err := p.WriteText(&strings.Builder{}); err != nil {
			t.Fatal(err)
		}
	})
}
