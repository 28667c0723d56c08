// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math"

	"fromage/plan"
)

// buildVision adds program "vision", CLIPVisionTransformer (transformers, modeling_clip.py): pixels (B, 3·S·S), tokens (B·N,4), class_rows (B) with
// the row of each picture's class token → hidden (B·N,Dv), pooled (B,Dv) = post-layernorm of the class token.
func buildVision(m *plan.Model, c *CLIP) error {
	b := builder{plan.NewBuilder(m, "vision")}
	act, _ := plan.ParseAct(c.Activation)
	D, g := c.HiddenSize, c.ImageSize/c.PatchSize
	pixels := b.Input("pixels", plan.Dim{Of: plan.Images, N: 1}, 3*c.ImageSize*c.ImageSize)
	tokens := b.Numbers("tokens", plan.Dim{Of: plan.Tokens, N: 1}, plan.TokenColumns)
	classRows := b.Numbers("class_rows", plan.Dim{Of: plan.Images, N: 1}, 1)

	const embeddings = "vision_model.embeddings."
	x := b.Patches(pixels, c.ImageSize, c.PatchSize)
	x = b.Linear(plan.Linear{X: x, W: []plan.ID{b.matrix(D, 3*c.PatchSize*c.PatchSize, embeddings+"patch_embedding.weight")}})
	position := plan.WeightSpec{Name: embeddings + "position_embedding.weight", Rows: g*g + 1, Cols: D}
	position.Sources = []plan.Source{{Tensor: position.Name, Rows: g*g + 1}}
	x = b.VisionEmbed(x, b.vector(D, embeddings+"class_embedding"), b.Weight(position))
	x = b.norm(x, "vision_model.pre_layrnorm", c.Eps)
	x = b.encoder("vision_model", tower{D, c.Intermediate, c.Layers, c.Heads, act, c.Eps}, x, tokens)
	b.Output("hidden", x)
	b.Output("pooled", b.norm(b.GatherRows(x, classRows), "vision_model.post_layernorm", c.Eps))
	return b.Done()
}

// tower is the sizes of the layers that CLIP's two towers have in common.
type tower struct {
	hidden, intermediate, layers, heads int
	act                                 plan.Act
	eps                                 float32
}

// encoder adds CLIPEncoder: x (T,D) → (T,D). Who attends to whom is the token table's business.
func (b builder) encoder(name string, c tower, x, tokens plan.ID) plan.ID {
	D, dh := c.hidden, c.hidden/c.heads
	for i := range c.layers {
		layer := fmt.Sprintf("%s.encoder.layers.%d.", name, i)
		h := b.norm(x, layer+"layer_norm1", c.eps)
		qkv := b.linear(h, D, true, plan.ActNone, 0, layer+"self_attn.q_proj", layer+"self_attn.k_proj", layer+"self_attn.v_proj")
		a := b.Attention(plan.Attention{Q: qkv, KV: qkv, Tokens: tokens, Heads: c.heads, Dim: dh, K: D, V: 2 * D, Scale: scale(dh)})
		x = b.linear(a, D, true, plan.ActNone, x, layer+"self_attn.out_proj")
		h = b.norm(x, layer+"layer_norm2", c.eps)
		h = b.linear(h, c.intermediate, true, c.act, 0, layer+"mlp.fc1")
		x = b.linear(h, D, true, plan.ActNone, x, layer+"mlp.fc2")
	}
	return x
}

// buildText adds program "text", CLIPTextTransformer and its projection: tokens (T,4), each attending to its text up to itself, rows (R) with the place
// that each text is pooled at → text (R,P); and program "project": v (B,Dv) → image (B,P), the projection of pooled pictures into the same space. Neither
// is normalised.
func buildText(m *plan.Model, c *CLIP, t *CLIPText) error {
	b := builder{plan.NewBuilder(m, "text")}
	act, _ := plan.ParseAct(t.Activation)
	tokens := b.Numbers("tokens", plan.Dim{Of: plan.Tokens, N: 1}, plan.TokenColumns)
	rows := b.Numbers("rows", plan.Dim{Of: plan.Rows, N: 1}, 1)
	table := b.matrix(t.VocabSize, t.HiddenSize, TextTokens)
	x := b.Embed(plan.Embed{Tokens: tokens, Tables: []plan.ID{table}, Column: plan.TokenID})
	positions := b.matrix(t.MaxPositions, t.HiddenSize, TextPositions)
	x = b.Embed(plan.Embed{Tokens: tokens, Tables: []plan.ID{positions}, Column: plan.TokenPosition, Add: x})
	x = b.encoder("text_model", tower{t.HiddenSize, t.Intermediate, t.Layers, t.Heads, act, t.Eps}, x, tokens)
	pooled := b.norm(b.GatherRows(x, rows), "text_model.final_layer_norm", t.Eps)
	b.Output("text", b.linear(pooled, t.ProjectionDim, false, plan.ActNone, 0, "text_projection"))
	if err := b.Done(); err != nil {
		return err
	}
	b = builder{plan.NewBuilder(m, "project")}
	v := b.Input("v", plan.Dim{Of: plan.Images, N: 1}, c.HiddenSize)
	b.Output("image", b.linear(v, t.ProjectionDim, false, plan.ActNone, 0, "visual_projection"))
	return b.Done()
}

// Tables of CLIP's text tower.
const (
	TextTokens    = "text_model.embeddings.token_embedding.weight"
	TextPositions = "text_model.embeddings.position_embedding.weight"
)

// scale is the factor on attention scores for heads of dh columns.
func scale(dh int) float32 { return float32(1 / math.Sqrt(float64(dh))) }
