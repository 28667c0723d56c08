// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"slices"
	"strings"
	"testing"

	"fromage/gpu"
	"fromage/model"
	"fromage/plan"
	"fromage/shaders"
)

// build makes a whole FROMAGe of public shapes.
func build(t *testing.T, opt model.OPT, clip model.CLIP, heads model.Heads) *plan.Model {
	t.Helper()
	m, err := model.Build(model.Config{OPT: &opt, CLIP: &clip, Heads: &heads, Vocabulary: 50267})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestShapes builds every public OPT and CLIP, lowers all programs and holds the number of parameters to the published ones.
func TestShapes(t *testing.T) {
	heads := model.Heads{VisualTokens: 4, SharedDim: 256, TextLayers: []int{-1}}
	published := map[string]float64{"125m": 125e6, "350m": 331e6, "1.3b": 1.316e9, "2.7b": 2.65e9, "6.7b": 6.66e9, "13b": 12.85e9, "30b": 29.97e9, "66b": 65.72e9}
	for name, opt := range model.OPTShapes() {
		for clipName, clip := range model.CLIPShapes() {
			m := build(t, opt, clip, heads)
			lowered(t, m, clip.Tokens())
			if clipName != "b32" {
				continue
			}
			sum := 0.0
			for _, w := range m.Weights {
				if strings.HasPrefix(w.Name, "model.") {
					sum += float64(w.Rows) * float64(w.Cols)
				}
			}
			if d := sum/published[name] - 1; d < -0.01 || d > 0.01 {
				t.Errorf("OPT-%s: %.4g parameters, want about %.4g", name, sum, published[name])
			}
		}
	}
}

func lowered(t *testing.T, m *plan.Model, imageTokens int) {
	t.Helper()
	layouts := map[string]plan.Layout{}
	for _, w := range m.Weights {
		layouts[w.Name] = plan.Layout{Format: shaders.F32, Shards: []int{w.Rows}}
	}
	for _, p := range m.Programs {
		dims := plan.Run(7, 3, 2)
		if p.Name == "vision" || p.Name == "maps" {
			dims = plan.RunImages(2, imageTokens)
		}
		steps, err := p.Lower(gpu.Info{Limits: gpu.DefaultLimits}, layouts, dims)
		if err != nil {
			t.Fatal(err)
		}
		if len(steps) < len(p.Ops) {
			t.Errorf("program %s: %d steps for %d operations", p.Name, len(steps), len(p.Ops))
		}
	}
}

// TestSlots: no two activations that are alive at once share a slot, and sharing pays.
func TestSlots(t *testing.T) {
	opt := model.OPTShapes()["350m"]
	m := build(t, opt, model.CLIPShapes()["b32"], model.Heads{VisualTokens: 1, SharedDim: 256, TextLayers: []int{-1, 3, -2}})
	for _, p := range m.Programs {
		slot, size := p.Slots(plan.Run(16, 4, 2))
		if len(size) > 8 {
			t.Errorf("program %s: %d slots, want at most 8", p.Name, len(size))
		}
		layouts := map[string]plan.Layout{}
		for _, w := range m.Weights {
			layouts[w.Name] = plan.Layout{Format: shaders.F32, Shards: []int{w.Rows}}
		}
		dims := plan.Run(16, 4, 2)
		dims[plan.Images] = 1
		steps, err := p.Lower(gpu.Info{Limits: gpu.DefaultLimits}, layouts, dims)
		if err != nil {
			t.Fatal(err)
		}
		holds := map[int]plan.ID{} // slot → the value written last
		for _, s := range steps {
			for i, ref := range s.Buffers {
				if ref.Value == 0 || slot[ref.Value-1] < 0 {
					continue
				}
				at := slot[ref.Value-1]
				if s.Dispatch.Kernel.Bindings[i] == gpu.ReadWrite {
					holds[at] = ref.Value
				} else if holds[at] != ref.Value {
					t.Fatalf("program %s: op %d reads value %d from slot %d, which holds value %d", p.Name, s.Op, ref.Value, at, holds[at])
				}
			}
		}
	}
}

func TestTextLayers(t *testing.T) {
	opt, clip := model.OPTShapes()["125m"], model.CLIPShapes()["b32"]
	for _, c := range []struct {
		layers []int
		want   string // part of the error; "" for none
	}{
		{[]int{-1}, ""}, {[]int{12}, ""}, {[]int{0, -1}, ""}, {[]int{-13}, ""},
		{[]int{13}, "want a layer up to 12, have 13"}, {[]int{-14}, "want a layer up to 12, have -1"},
	} {
		_, err := model.Build(model.Config{OPT: &opt, CLIP: &clip, Heads: &model.Heads{VisualTokens: 1, SharedDim: 8, TextLayers: c.layers}, Vocabulary: 50267})
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("text_emb_layers %v: error %v, want %q", c.layers, err, c.want)
		}
	}
}

func TestParse(t *testing.T) {
	opt := `"vocab_size": 50272, "hidden_size": 768, "num_hidden_layers": 12, "ffn_dim": 3072, "max_position_embeddings": 2048, "num_attention_heads": 12`
	for _, c := range []struct{ config, want string }{
		{"{" + opt + "}", ""},
		{"{" + opt + `, "model_type": "gpt2"}`, "want model_type opt"},
		{"{" + opt + `, "activation_function": "swish"}`, "activation function"},
		{"{" + opt + `, "tie_word_embeddings": false}`, "tie_word_embeddings"},
		{"{" + opt + `, "hidden_size": 770}`, "must be a multiple"},
		{"{" + opt + `, "ffn_dim": 0}`, "ffn_dim: want 1 to"},
		{"{" + opt + `, "vocab_size": 1e300}`, "vocab_size"},
		{"[]", "OPT config"},
	} {
		got, err := model.ParseOPT([]byte(c.config))
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("ParseOPT(%s): error %v, want %q", c.config, err, c.want)
		}
		if err == nil && (got.WordEmbedProjDim != 768 || !got.PreNorm || !got.Bias || got.EOS != 2) {
			t.Errorf("ParseOPT: keys that are left out: have %+v", *got)
		}
	}
	for _, c := range []struct{ config, want string }{
		{`{"hidden_size": 768, "image_size": 224, "patch_size": 32}`, ""},
		{`{"vision_config": {"hidden_size": 1024, "num_attention_heads": 16, "patch_size": 14}, "hidden_size": 3}`, ""},
		{`{"vision_config": {"num_channels": 4}}`, "3 channels"},
		{`{"layer_norm_eps": -1}`, "layer_norm_eps"},
		{`{"layer_norm_eps": 1e9}`, "layer_norm_eps"},
		{`{"image_size": 225}`, "multiple of patch_size"},
		{`{"hidden_act": "silu"}`, "activation"},
	} {
		if _, err := model.ParseCLIP([]byte(c.config)); (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("ParseCLIP(%s): error %v, want %q", c.config, err, c.want)
		}
	}
	for _, c := range []struct{ config, want string }{
		{`{"text_config": {}}`, ""},
		{`{"text_config": {"hidden_size": 768, "num_attention_heads": 12, "eos_token_id": 2}, "projection_dim": 768}`, ""},
		{`{"vision_config": {}}`, "want a CLIPModel with a text_config"},
		{`{"text_config": {"hidden_act": "silu"}}`, "activation"},
		{`{"text_config": {"layer_norm_eps": 2}}`, "layer_norm_eps"},
		{`{"text_config": {"hidden_size": 510}}`, "must be a multiple"},
		{`{"text_config": {}, "projection_dim": -1}`, "projection_dim: want 1 to"},
		{`{"text_config": 7}`, "text_config"},
		{`[]`, "CLIP config"},
	} {
		if _, err := model.ParseCLIPText([]byte(c.config)); (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("ParseCLIPText(%s): error %v, want %q", c.config, err, c.want)
		}
	}
	for _, c := range []struct{ config, want string }{
		{`{}`, ""}, {`{"text_emb_layers": []}`, "text_emb_layers"}, {`{"shared_emb_dim": -4}`, "shared_emb_dim"}, {`{"n_visual_tokens": "two"}`, "model_args.json"},
	} {
		if _, err := model.ParseHeads([]byte(c.config)); (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("ParseHeads(%s): error %v, want %q", c.config, err, c.want)
		}
	}
}

// TestAddedTokens: the two added rows are apart from OPT's table, which loses the rows that the reference cuts off.
func TestAddedTokens(t *testing.T) {
	m := build(t, model.OPTShapes()["125m"], model.CLIPShapes()["b32"], model.Heads{VisualTokens: 1, SharedDim: 256, TextLayers: []int{-1}})
	table, err := m.Weight("model.decoder.embed_tokens.weight")
	if err != nil || table.Rows != 50265 {
		t.Errorf("embed_tokens: want 50265 rows, have %+v, %v", table, err)
	}
	added, err := m.Weight(model.AddedTokens)
	if err != nil || added.Rows != 2 || !added.Head || !slices.ContainsFunc(added.Sources, func(s plan.Source) bool { return s.Tensor == model.RETRow }) {
		t.Errorf("added tokens: want 2 rows of the heads, have %+v, %v", added, err)
	}
	if _, err := model.Build(model.Config{Text: &model.CLIPText{}}); err == nil || !strings.Contains(err.Error(), "needs its vision tower") {
		t.Errorf("a text tower alone: have %v", err)
	}
	if _, err := m.Program("none"); err == nil || !strings.Contains(err.Error(), `no program "none"`) {
		t.Errorf("Program(none): have %v", err)
	}
}

// TestDispatches counts what decoding one token submits: on hardware five kernels a layer, with the norms in the linear layers behind them and keys and
// values stored by attention; and what else there is, whatever the number of layers.
func TestDispatches(t *testing.T) {
	opt := model.OPTShapes()["125m"]
	count := func(layers int, software bool) int {
		opt.Layers = layers
		m := build(t, opt, model.CLIPShapes()["b32"], model.Heads{VisualTokens: 1, SharedDim: 256, TextLayers: []int{-1}})
		layouts := map[string]plan.Layout{}
		for _, w := range m.Weights {
			layouts[w.Name] = plan.Layout{Shards: []int{w.Rows}}
		}
		lm, err := m.Program("lm")
		if err != nil {
			t.Fatal(err)
		}
		steps, err := lm.Lower(gpu.Info{Software: software, Limits: gpu.DefaultLimits}, layouts, plan.Run(1, 1, 0))
		if err != nil {
			t.Fatal(err)
		}
		return len(steps)
	}
	for _, c := range []struct {
		software    bool
		layer, rest int
	}{{false, 5, 8}, {true, 7, 8}} {
		layer := count(12, c.software) - count(11, c.software)
		if rest := count(12, c.software) - 12*layer; layer != c.layer || rest != c.rest {
			t.Errorf("software %t: %d dispatches a layer and %d beside, want %d and %d", c.software, layer, rest, c.layer, c.rest)
		}
	}
}
