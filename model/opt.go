// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"

	"fromage/plan"
)

// positionOffset is how far OPT's position table is shifted: position 0 is row 2 (OPTLearnedPositionalEmbedding).
const positionOffset = 2

const optEps = 1e-5

// builder adds what OPT and CLIP have in common to a program: weights by name, and layers of them.
type builder struct{ *plan.Builder }

func (b builder) vector(n int, tensors ...string) plan.ID {
	s := plan.WeightSpec{Name: tensors[0], Rows: 1, Cols: n * len(tensors)}
	for _, t := range tensors {
		s.Sources = append(s.Sources, plan.Source{Tensor: t, Rows: 1})
	}
	return b.Weight(s)
}

// matrix is a weight of rows × cols for each of the tensors, stacked.
func (b builder) matrix(rows, cols int, tensors ...string) plan.ID {
	s := plan.WeightSpec{Name: tensors[0], Rows: rows * len(tensors), Cols: cols, Matrix: true}
	for _, t := range tensors {
		s.Sources = append(s.Sources, plan.Source{Tensor: t, Rows: rows})
	}
	return b.Weight(s)
}

func (b builder) norm(x plan.ID, name string, eps float32) plan.ID {
	d := b.Cols(x)
	return b.LayerNorm(x, b.vector(d, name+".weight"), b.vector(d, name+".bias"), eps)
}

// linear is a linear layer (rows features each) of one or several stacked names.
func (b builder) linear(x plan.ID, rows int, bias bool, act plan.Act, residual plan.ID, names ...string) plan.ID {
	var weights, biases []string
	for _, n := range names {
		weights, biases = append(weights, n+".weight"), append(biases, n+".bias")
	}
	o := plan.Linear{X: x, W: []plan.ID{b.matrix(rows, b.Cols(x), weights...)}, Act: act, Residual: residual}
	if bias {
		o.Bias = b.vector(rows, biases...)
	}
	return b.Linear(o)
}

// trunk is what OPT computes from the token table and visual embeddings, up to before the final norm.
type trunk struct {
	layers []plan.ID // input of each decoder layer (T,D): Hugging Face's hidden_states[0…L−1]
	last   plan.ID   // output of the last layer (T,D)
}

// optTrunk builds OPTDecoder (transformers, modeling_opt.py): tokens (T,4), tables stacked (V,E) and visual embeddings (I,E) → (T,D). Keys and values
// go to the states kv.0 … kv.L−1, 2·D columns each.
func (b builder) optTrunk(c *OPT, tokens plan.ID, tables []plan.ID) trunk {
	act, _ := plan.ParseAct(c.Activation)
	D, dh := c.HiddenSize, c.HiddenSize/c.Heads
	x := b.Embed(plan.Embed{Tokens: tokens, Tables: tables, Column: plan.TokenID})
	if c.WordEmbedProjDim != D {
		x = b.linear(x, D, false, plan.ActNone, 0, "model.decoder.project_in")
	}
	positions := b.matrix(c.MaxPositions+positionOffset, D, "model.decoder.embed_positions.weight")
	x = b.Embed(plan.Embed{Tokens: tokens, Tables: []plan.ID{positions}, Column: plan.TokenPosition, Offset: positionOffset, Add: x})
	var t trunk
	for i := range c.Layers {
		t.layers = append(t.layers, x)
		layer := fmt.Sprintf("model.decoder.layers.%d.", i)
		h := x
		if c.PreNorm {
			h = b.norm(h, layer+"self_attn_layer_norm", optEps)
		}
		qkv := b.linear(h, D, c.Bias, plan.ActNone, 0, layer+"self_attn.q_proj", layer+"self_attn.k_proj", layer+"self_attn.v_proj")
		kv := b.State(fmt.Sprintf("kv.%d", i), 2*D)
		b.StoreRows(plan.StoreRows{X: qkv, Tokens: tokens, From: D, KV: kv})
		a := b.Attention(plan.Attention{Q: qkv, KV: kv, Tokens: tokens, Heads: c.Heads, Dim: dh, K: 0, V: D, Scale: scale(dh)})
		x = b.linear(a, D, c.Bias, plan.ActNone, x, layer+"self_attn.out_proj")
		if !c.PreNorm {
			x = b.norm(x, layer+"self_attn_layer_norm", optEps)
		}
		h = x
		if c.PreNorm {
			h = b.norm(h, layer+"final_layer_norm", optEps)
		}
		h = b.linear(h, c.FFN, c.Bias, act, 0, layer+"fc1")
		x = b.linear(h, D, c.Bias, plan.ActNone, x, layer+"fc2")
		if !c.PreNorm {
			x = b.norm(x, layer+"final_layer_norm", optEps)
		}
	}
	t.last = x
	return t
}

// optTop is the end of OPTDecoder on picked rows (R,D) → (R,E): the final norm and project_out where the model has them.
func (b builder) optTop(c *OPT, x plan.ID) plan.ID {
	if c.PreNorm && !c.NoFinalNorm {
		x = b.norm(x, "model.decoder.final_layer_norm", optEps)
	}
	if c.WordEmbedProjDim != c.HiddenSize {
		x = b.linear(x, c.WordEmbedProjDim, false, plan.ActNone, 0, "model.decoder.project_out")
	}
	return x
}
