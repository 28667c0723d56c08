// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fromage/model"
	"fromage/plan"
)

// differences are the derivatives of a loss of a program's results by what in holds under a name, by central differences.
func differences(t *testing.T, p *plan.Program, dims plan.Dims, in contents, name string, loss func(out map[string][]float32) float64) []float64 {
	t.Helper()
	const step = 0x1p-7
	words := slices.Clone(in[name])
	moved := maps.Clone(in)
	moved[name] = words
	out := make([]float64, len(words))
	for i, was := range in[name] {
		var at [2]float64
		for side, by := range []float32{-step, step} {
			words[i] = math.Float32bits(math.Float32frombits(was) + by)
			at[side] = loss(run(t, p, dims, moved))
		}
		words[i] = was
		out[i] = (at[1] - at[0]) / (2 * step)
	}
	return out
}

// near wants a gradient to be what differences say, as far as their steps and f32 let them.
func near(t *testing.T, what string, got []float32, want []float64) {
	t.Helper()
	largest := 0.0
	for _, w := range want {
		largest = max(largest, math.Abs(w))
	}
	if len(got) != len(want) || largest == 0 {
		t.Errorf("%s: %d values, want %d, of which some are not 0", what, len(got), len(want))
		return
	}
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - w); !(d <= 2e-3*(1+largest)) {
			t.Errorf("%s: value %d: got %g, want %g", what, i, got[i], w)
		}
	}
}

// gradientCase is a small program and what its gradients are wanted of.
type gradientCase struct {
	name            string
	build           func(b *plan.Builder) plan.ID
	inputs, trained []string
}

func linear(act plan.Act, residual bool) func(b *plan.Builder) plan.ID {
	return func(b *plan.Builder) plan.ID {
		o := plan.Linear{X: b.Input("x", perToken, 4), W: []plan.ID{weight(b, "w", 3, 4)}, Bias: weight(b, "bias", 1, 3), Act: act}
		if residual {
			o.Residual = b.Input("r", perToken, 3)
		}
		return b.Linear(o)
	}
}

// attention is two heads of two columns over a value with queries, keys and values in some order.
func attention(b *plan.Builder) plan.ID {
	x, tokens, kv := b.Input("x", perToken, 12), b.Numbers("tokens", perToken, plan.TokenColumns), b.State("kv", 8)
	b.StoreRows(plan.StoreRows{X: x, Tokens: tokens, From: 4, KV: kv})
	return b.Attention(plan.Attention{Q: x, KV: kv, Tokens: tokens, Heads: 2, Dim: 2, K: 0, V: 4, Scale: 0.7})
}

func embed(b *plan.Builder) plan.ID {
	tables := []plan.ID{weight(b, "words", 3, 4), weight(b, "added", 1, 4), b.Input("prefix", plan.Dim{Of: plan.Prefix, N: 1}, 4)}
	return b.Embed(plan.Embed{Tokens: b.Numbers("tokens", perToken, plan.TokenColumns), Tables: tables})
}

var gradientCases = []gradientCase{
	{"linear", linear(plan.ActNone, false), []string{"x"}, []string{"w", "bias"}},
	{"linear with residual", linear(plan.ActNone, true), []string{"x", "r"}, []string{"w"}},
	{"relu", linear(plan.ActReLU, false), []string{"x"}, []string{"w", "bias"}},
	{"relu with residual", linear(plan.ActReLU, true), []string{"x", "r"}, nil},
	{"quick_gelu", linear(plan.ActQuickGELU, true), []string{"x", "r"}, []string{"w", "bias"}},
	{"gelu", linear(plan.ActGELU, false), []string{"x"}, []string{"bias", "w"}},
	{"stacked matrices", func(b *plan.Builder) plan.ID {
		return b.Linear(plan.Linear{X: b.Input("x", perToken, 4), W: []plan.ID{weight(b, "w1", 3, 4), weight(b, "w2", 2, 4), weight(b, "w3", 1, 4)}, Bias: weight(b, "bias", 1, 6)})
	}, []string{"x"}, []string{"w1", "w3"}},
	{"layer_norm", func(b *plan.Builder) plan.ID {
		return b.LayerNorm(b.Input("x", perToken, 6), weight(b, "w", 1, 6), weight(b, "bias", 1, 6), 1e-5)
	}, []string{"x"}, nil},
	{"attention", attention, []string{"x"}, nil},
	{"embed", embed, []string{"prefix"}, []string{"added"}},
	{"embed of words", embed, nil, []string{"words"}},
	{"embed onto a sum", func(b *plan.Builder) plan.ID {
		return b.Embed(plan.Embed{Tokens: b.Numbers("tokens", perToken, plan.TokenColumns), Tables: []plan.ID{weight(b, "positions", 5, 4)}, Column: plan.TokenPosition, Offset: 2, Add: b.Input("x", perToken, 4)})
	}, []string{"x"}, nil},
	{"gather_rows", func(b *plan.Builder) plan.ID {
		return b.GatherRows(b.Input("x", perToken, 3), b.Numbers("rows", perRow, 1))
	}, []string{"x"}, nil},
	{"add", func(b *plan.Builder) plan.ID {
		return b.Add(b.Input("x", perToken, 3), b.Input("y", perToken, 3))
	}, []string{"x", "y"}, nil},
	{"add to itself", func(b *plan.Builder) plan.ID {
		x := b.Input("x", perToken, 3)
		return b.Add(x, x)
	}, []string{"x"}, nil},
	{"normalize", func(b *plan.Builder) plan.ID { return b.Normalize(b.Input("x", perToken, 3)) }, []string{"x"}, nil},
	{"a value that four operations read", func(b *plan.Builder) plan.ID {
		x := b.Linear(plan.Linear{X: b.Input("x", perToken, 3), W: []plan.ID{weight(b, "first", 4, 3)}})
		n := b.Normalize(x)
		y := b.LayerNorm(x, weight(b, "w", 1, 4), weight(b, "bias", 1, 4), 1e-5)
		z := b.Linear(plan.Linear{X: x, W: []plan.ID{weight(b, "square", 4, 4)}, Residual: x})
		return b.Add(b.Add(y, z), n)
	}, []string{"x"}, []string{"first", "square"}},
	{"a layer", func(b *plan.Builder) plan.ID {
		x := embed(b)
		tokens, kv := b.Find("tokens"), b.State("kv", 8)
		y := b.LayerNorm(x, weight(b, "n1", 1, 4), weight(b, "n1.bias", 1, 4), 1e-5)
		qkv := b.Linear(plan.Linear{X: y, W: []plan.ID{weight(b, "qkv", 12, 4)}, Bias: weight(b, "qkv.bias", 1, 12)})
		b.StoreRows(plan.StoreRows{X: qkv, Tokens: tokens, From: 4, KV: kv})
		y = b.Attention(plan.Attention{Q: qkv, KV: kv, Tokens: tokens, Heads: 2, Dim: 2, V: 4, Scale: 0.7})
		x = b.Linear(plan.Linear{X: y, W: []plan.ID{weight(b, "out", 4, 4)}, Residual: x})
		y = b.Linear(plan.Linear{X: x, W: []plan.ID{weight(b, "fc1", 6, 4)}, Act: plan.ActGELU})
		x = b.Linear(plan.Linear{X: y, W: []plan.ID{weight(b, "fc2", 4, 6)}, Residual: x})
		return b.GatherRows(x, b.Numbers("ends", perImage, 1))
	}, []string{"prefix"}, []string{"added"}},
}

// backwards makes a case's program, and the same with its gradients: of inputs as outputs d.NAME, of weights added to states d.NAME, of the loss Σ dy·y.
func (c gradientCase) backwards(t *testing.T) (forward, back *plan.Program) {
	t.Helper()
	var y plan.ID
	forward = program(t, c.name, func(b *plan.Builder) {
		y = c.build(b)
		b.Output("result", y)
	})
	return forward, program(t, c.name, func(b *plan.Builder) {
		y := c.build(b)
		v := forward.Value(y)
		g := plan.Gradients{Of: map[plan.ID]plan.ID{y: b.Input("dy", v.Rows, v.Cols)}, Weights: map[plan.ID]plan.ID{}}
		for _, name := range c.inputs {
			g.Inputs = append(g.Inputs, b.Find(name))
		}
		for _, name := range c.trained {
			w := forward.Value(forward.Find(name))
			g.Weights[b.Find(name)] = b.Accumulator("d."+name, w.Rows.N, w.Cols)
		}
		if b.Find("prefix") != 0 {
			g.PrefixRows = b.Numbers("prefix_rows", plan.Dim{Of: plan.Prefix, N: 1}, 1)
		}
		d, err := b.Grad(g)
		if err != nil {
			t.Fatal(err)
		}
		for i, name := range c.inputs {
			if id := d[g.Inputs[i]]; id != b.Find("dy") {
				b.Output("d."+name, id)
			}
		}
	})
}

// TestGrad: every rule against differences of the program's results.
func TestGrad(t *testing.T) {
	for _, c := range gradientCases {
		t.Run(c.name, func(t *testing.T) {
			forward, back := c.backwards(t)
			dims, in := sizes(), numbers()
			random(back, dims, in, 4) // numbers that do not bring ReLU within a step of its corner
			dy := back.Find("dy")
			loss := func(out map[string][]float32) (sum float64) {
				for i, y := range out["result"] {
					sum += float64(y) * float64(math.Float32frombits(in["dy"][i]))
				}
				return sum
			}
			// What the sums hold already stays in them.
			for _, name := range c.trained {
				before := make([]uint32, len(in[name]))
				for i := range before {
					before[i] = math.Float32bits(1)
				}
				in["d."+name] = before
			}
			out := run(t, back, dims, in)
			for _, name := range c.inputs {
				got := out["d."+name]
				if got == nil { // the gradient is dy itself
					got = out[back.Value(dy).Name]
				}
				near(t, "d."+name, got, differences(t, forward, dims, in, name, loss))
			}
			for _, name := range c.trained {
				want := differences(t, forward, dims, in, name, loss)
				for i := range want {
					want[i]++
				}
				near(t, "d."+name, out["d."+name], want)
			}
		})
	}
}

// TestLossGradients: the cross-entropy in pieces of two rows, and the contrastive loss.
func TestLossGradients(t *testing.T) {
	dims := sizes()
	t.Run("cross_entropy", func(t *testing.T) {
		p := program(t, "loss", func(b *plan.Builder) {
			nll, dx := b.CrossEntropy(b.Input("x", perRow, 3), []plan.ID{weight(b, "words", 3, 3), weight(b, "added", 2, 3)},
				b.Numbers("labels", perRow, 1), b.Input("weights", perRow, 1), b.Accumulator("d.added", 2, 3), true)
			b.Output("nll", nll)
			b.Output("d.x", dx)
		})
		for _, chunk := range []int{1, 2, 3} {
			dims[plan.Chunk] = chunk
			in := numbers()
			random(p, dims, in, 5)
			out := run(t, p, dims, in)
			loss := func(out map[string][]float32) (sum float64) {
				for i, w := range in["weights"] {
					sum += float64(out["nll"][2*i]) * float64(math.Float32frombits(w))
				}
				return sum
			}
			near(t, fmt.Sprintf("chunks of %d: d.x", chunk), out["d.x"], differences(t, p, dims, in, "x", loss))
			near(t, fmt.Sprintf("chunks of %d: d.added", chunk), out["d.added"], differences(t, p, dims, in, "added", loss))
		}
	})
	t.Run("contrastive", func(t *testing.T) {
		const factor = 0.75
		p := program(t, "loss", func(b *plan.Builder) {
			_, stats, dx, dy := b.Contrastive(b.Input("x", perImage, 3), b.Input("y", perImage, 3), weight(b, "scale", 1, 1), b.Accumulator("d.scale", 1, 1), factor)
			b.Output("stats", stats)
			b.Output("d.x", dx)
			b.Output("d.y", dy)
		})
		in := contents{}
		random(p, dims, in, 7)
		out := run(t, p, dims, in)
		loss := func(out map[string][]float32) (sum float64) {
			for i := range 4 { // two rows, two columns
				sum += factor * float64(out["stats"][4*i+1]) / 4
			}
			return sum
		}
		for _, name := range []string{"x", "y", "scale"} {
			near(t, "d."+name, out["d."+name], differences(t, p, dims, in, name, loss))
		}
	})
}

// TestGradStops: there is no way back to what is frozen, nor to what a trained weight does not lie behind.
func TestGradStops(t *testing.T) {
	layers := func(b *plan.Builder) plan.ID {
		x := b.Linear(plan.Linear{X: b.Input("x", perToken, 4), W: []plan.ID{weight(b, "w1", 5, 4)}, Act: plan.ActGELU})
		return b.Linear(plan.Linear{X: x, W: []plan.ID{weight(b, "w2", 3, 5)}, Bias: weight(b, "b2", 1, 3)})
	}
	for _, c := range []struct {
		trained []string
		want    map[string]int // operations of the way back
	}{
		{nil, map[string]int{}},
		{[]string{"w2"}, map[string]int{"LinearWeightBack": 1}},
		{[]string{"w1"}, map[string]int{"LinearBack": 1, "Linear": 1, "ActBack": 1, "LinearWeightBack": 1}},
		{[]string{"w1", "w2"}, map[string]int{"LinearBack": 1, "Linear": 1, "ActBack": 1, "LinearWeightBack": 2}},
	} {
		forward, back := gradientCase{name: "stops", build: layers, trained: c.trained}.backwards(t)
		have := map[string]int{}
		for _, op := range back.Ops[len(forward.Ops):] {
			have[reflect.TypeOf(op).Elem().Name()]++
		}
		if !maps.Equal(have, c.want) {
			t.Errorf("with %v trained, the way back has %v, want %v", c.trained, have, c.want)
		}
	}
}

// TestGradRows: gradients of a token that is the last of each sequence are those of all rows, computed for its own rows alone.
func TestGradRows(t *testing.T) {
	for _, preNorm := range []bool{true, false} {
		t.Run(fmt.Sprint("norm before: ", preNorm), func(t *testing.T) { testGradRows(t, lastToken(t, preNorm)) })
	}
}

func testGradRows(t *testing.T, lm *plan.Program) {
	build := func(limited bool) *plan.Program {
		return program(t, "text", func(b *plan.Builder) {
			at := b.Numbers("ends", perImage, 1)
			out, err := b.Inline(lm, map[string]plan.ID{"rows": at}, strings.ToUpper, "retrieval")
			if err != nil {
				t.Fatal(err)
			}
			g := plan.Gradients{
				Of:      map[plan.ID]plan.ID{out["retrieval"]: b.Input("dy", perImage, b.Cols(out["retrieval"]))},
				Weights: map[plan.ID]plan.ID{},
			}
			if limited {
				g.Rows, g.TokenRows = at, b.Numbers("end_tokens", perImage, plan.TokenColumns)
			}
			for _, v := range lm.Values {
				if id := b.Find(v.Name); id != 0 && (v.Name == "added_tokens" || strings.HasPrefix(v.Name, "text_hidden_fcs")) {
					g.Weights[id] = b.Accumulator("d."+v.Name, v.Rows.N, v.Cols)
				}
			}
			if _, err := b.Grad(g); err != nil {
				t.Fatal(err)
			}
		})
	}
	dims := sizes()
	dims[plan.Prefix] = 0
	// The last word of both sequences, number 39 of the vocabulary, is the second of added_tokens; the one before is a word.
	in := contents{"tokens": {2, 0, 0, 1, 7, 1, 0, 2, 39, 2, 0, 3, 2, 0, 3, 1, 39, 1, 3, 2}, "ends": {2, 4}, "end_tokens": {39, 2, 0, 3, 39, 1, 3, 2}, "prefix": {}}
	full, limited := build(false), build(true)
	random(full, dims, in, 9)
	want, got := run(t, full, dims, in), run(t, limited, dims, in)
	compared := 0
	for name, w := range want {
		if !strings.HasPrefix(name, "d.") {
			continue
		}
		compared++
		var wide []float64
		for _, x := range w {
			wide = append(wide, float64(x))
		}
		near(t, name, got[name], wide)
	}
	if compared != 5 {
		t.Errorf("compared %d gradients, want those of added_tokens, and of two maps with their biases", compared)
	}
	work := func(p *plan.Program) (sum float64) {
		for i, f := range p.FLOPs(dims) {
			if _, back := p.Ops[i].(*plan.LinearBack); back {
				sum += f
			}
		}
		return sum
	}
	// Two rows of five, but for the maps, which have two in both.
	if f, l := work(full), work(limited); l <= 0 || l > 0.45*f {
		t.Errorf("back through matrices: %g operations, want two fifths of %g", l, f)
	}
	// Of what waits for the way back, nothing but those rows does. A layer's way forth has all of them.
	if f, l := held(full, 4000), held(limited, 4000); l > f*3/5 {
		t.Errorf("buffers of %d bytes, want at most three fifths of the %d of all rows", l, f)
	}
}

// held is the bytes of a program's activations for so many tokens in forty sequences.
func held(p *plan.Program, tokens int) (sum int) {
	dims := plan.Run(tokens, 40, 0)
	dims[plan.Images] = 40
	_, size := p.Slots(dims)
	for _, n := range size {
		sum += n
	}
	return sum
}

// TestGradHalf: with what waits as f16, gradients are nearly those without, in less memory.
func TestGradHalf(t *testing.T) {
	lm := lastToken(t, true)
	build := func(half bool) *plan.Program {
		return program(t, "text", func(b *plan.Builder) {
			out, err := b.Inline(lm, nil, strings.ToUpper, "hidden")
			if err != nil {
				t.Fatal(err)
			}
			rows := b.Numbers("prefix_rows", plan.Dim{Of: plan.Prefix, N: 1}, 1)
			prefix := b.Find("prefix")
			dy := b.Input("dy", plan.Dim{Of: plan.Rows, N: 1}, b.Cols(out["hidden"]))
			d, err := b.Grad(plan.Gradients{Of: map[plan.ID]plan.ID{out["hidden"]: dy}, Inputs: []plan.ID{prefix}, PrefixRows: rows, Half: half})
			if err != nil {
				t.Fatal(err)
			}
			b.Output("d.prefix", d[prefix])
		})
	}
	dims := sizes()
	dims[plan.Prefix], dims[plan.Rows] = 1, 3
	// The first of two sequences begins with a picture, number 40, after its start.
	in := contents{"tokens": {2, 0, 0, 1, 40, 1, 0, 2, 7, 2, 0, 3, 2, 0, 3, 1, 9, 1, 3, 2}, "rows": {1, 2, 4}, "prefix_rows": {1}}
	whole, half := build(false), build(true)
	random(whole, dims, in, 9)
	want, got := run(t, whole, dims, in)["d.prefix"], run(t, half, dims, in)["d.prefix"]
	largest, worst := 0.0, 0.0
	for i, w := range want {
		largest, worst = max(largest, math.Abs(float64(w))), max(worst, math.Abs(float64(got[i]-w)))
	}
	if largest == 0 || worst == 0 || worst > 5e-3*largest {
		t.Errorf("gradients of up to %g are up to %g apart, want a little", largest, worst)
	}
	if w, h := held(whole, 4000), held(half, 4000); h > w*5/6 {
		t.Errorf("buffers of %d bytes, want at most five sixths of %d", h, w)
	}
}

// lastToken is the language model of a FROMAGe whose text embedding reads two layers.
func lastToken(t *testing.T, preNorm bool) *plan.Program {
	t.Helper()
	m, err := model.Build(model.Config{
		OPT:   &model.OPT{VocabSize: 40, HiddenSize: 8, Layers: 2, FFN: 12, MaxPositions: 8, Heads: 2, WordEmbedProjDim: 8, PreNorm: preNorm, Bias: true, Activation: "relu"},
		CLIP:  &model.CLIP{HiddenSize: 8, Intermediate: 8, Layers: 1, Heads: 2, ImageSize: 4, PatchSize: 2, Channels: 3, Activation: "quick_gelu", Eps: 1e-5},
		Heads: &model.Heads{VisualTokens: 1, SharedDim: 6, TextLayers: []int{-1, 1}}, Vocabulary: 40,
	})
	if err != nil {
		t.Fatal(err)
	}
	lm, err := m.Program("lm")
	if err != nil {
		t.Fatal(err)
	}
	return lm
}

// TestGradErrors: what there is no rule for is named.
func TestGradErrors(t *testing.T) {
	of := func(b *plan.Builder, y plan.ID, rows plan.Dim) map[plan.ID]plan.ID {
		return map[plan.ID]plan.ID{y: b.Input("dy", rows, b.Cols(y))}
	}
	for _, c := range []struct {
		name string
		grad func(b *plan.Builder) plan.Gradients
		want string
	}{
		{"no rule", func(b *plan.Builder) plan.Gradients {
			x := b.Input("x", perRow, 4)
			y := b.NLL(x, b.Numbers("labels", perRow, 1))
			return plan.Gradients{Of: of(b, y, perRow), Inputs: []plan.ID{x}}
		}, "program no rule: op 0 (nll): training has no rule for it"},
		{"no way", func(b *plan.Builder) plan.Gradients {
			x, z := b.Input("x", perRow, 4), b.Input("z", perRow, 4)
			return plan.Gradients{Of: of(b, b.Normalize(x), perRow), Inputs: []plan.ID{z}}
		}, "the loss does not depend on input z"},
		{"a stacked bias", func(b *plan.Builder) plan.Gradients {
			y := b.Linear(plan.Linear{X: b.Input("x", perRow, 4), W: []plan.ID{weight(b, "w1", 3, 4), weight(b, "w2", 2, 4)}, Bias: weight(b, "bias", 1, 5)})
			return plan.Gradients{Of: of(b, y, perRow), Weights: map[plan.ID]plan.ID{b.Find("w1"): b.Accumulator("d.w1", 3, 4), b.Find("bias"): b.Accumulator("d.bias", 1, 5)}}
		}, "op 0 (linear): a trained bias of several stacked matrices"},
		{"keys of another value", func(b *plan.Builder) plan.Gradients {
			x, q := b.Input("x", perToken, 12), b.Input("q", perToken, 4)
			tokens, kv := b.Numbers("tokens", perToken, plan.TokenColumns), b.State("kv", 8)
			b.StoreRows(plan.StoreRows{X: x, Tokens: tokens, From: 4, KV: kv})
			y := b.Attention(plan.Attention{Q: q, KV: kv, Tokens: tokens, Heads: 2, Dim: 2, V: 4, Scale: 1})
			return plan.Gradients{Of: of(b, y, perToken), Inputs: []plan.ID{q}}
		}, "op 1 (attention): want queries, keys and values of one linear layer"},
		{"keys from before", func(b *plan.Builder) plan.Gradients {
			q := b.Input("q", perToken, 4)
			y := b.Attention(plan.Attention{Q: q, KV: b.State("kv", 8), Tokens: b.Numbers("tokens", perToken, plan.TokenColumns), Heads: 2, Dim: 2, V: 4, Scale: 1})
			return plan.Gradients{Of: of(b, y, perToken), Inputs: []plan.ID{q}}
		}, "op 0 (attention): want keys and values that StoreRows wrote"},
		{"other rows", func(b *plan.Builder) plan.Gradients {
			x := b.Input("x", perToken, 3)
			y := b.GatherRows(x, b.Numbers("rows", perRow, 1))
			return plan.Gradients{Of: of(b, y, perRow), Inputs: []plan.ID{x}, Rows: b.Numbers("ends", perImage, 1), TokenRows: b.Numbers("end_tokens", perImage, plan.TokenColumns)}
		}, "op 0 (gather_rows): rows are picked by another index"},
		{"a prefix without its rows", func(b *plan.Builder) plan.Gradients {
			y := embed(b)
			return plan.Gradients{Of: of(b, y, perToken), Inputs: []plan.ID{b.Find("prefix")}}
		}, "op 0 (embed): want an index of the rows of prefix"},
	} {
		b := plan.NewBuilder(&plan.Model{}, c.name)
		if _, err := b.Grad(c.grad(b)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Grad = %v, want an error with %q", c.name, err, c.want)
		}
	}
}

// TestFLOPs counts those of a program by hand.
func TestFLOPs(t *testing.T) {
	_, back := gradientCase{name: "count", build: linear(plan.ActNone, false), inputs: []string{"x"}, trained: []string{"w"}}.backwards(t)
	// Forward, back to w and back to x: five rows of 4 by 3 each.
	if got, want := back.FLOPs(sizes()), []float64{120, 120, 120}; !slices.Equal(got, want) {
		t.Errorf("FLOPs = %v, want %v", got, want)
	}
	p := program(t, "loss", func(b *plan.Builder) {
		nll, dx := b.CrossEntropy(b.Input("x", perRow, 4), []plan.ID{weight(b, "words", 5, 4), weight(b, "added", 2, 4)},
			b.Numbers("labels", perRow, 1), b.Input("weights", perRow, 1), b.Accumulator("d.added", 2, 4), true)
		b.Output("nll", nll)
		b.Output("dx", dx)
		_, stats, da, dc := b.Contrastive(b.Input("a", perImage, 6), b.Input("c", perImage, 6), weight(b, "scale", 1, 1), b.Accumulator("d.scale", 1, 1), 1)
		b.Output("stats", stats)
		b.Output("da", da)
		b.Output("dc", dc)
	})
	sum := 0.0
	for _, f := range p.FLOPs(sizes()) {
		sum += f
	}
	// Three rows of 4 by 7 columns there and back, and by the 2 that are trained; 2·2 pairs of 6 columns there and back to both.
	if want := 2.0 * (3*4*(7+7+2) + 4*6*3); sum != want {
		t.Errorf("FLOPs = %g, want %g", sum, want)
	}
}
