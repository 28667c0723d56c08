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
	D, dh, g := c.HiddenSize, c.HiddenSize/c.Heads, c.ImageSize/c.PatchSize
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
	for i := range c.Layers {
		layer := fmt.Sprintf("vision_model.encoder.layers.%d.", i)
		h := b.norm(x, layer+"layer_norm1", c.Eps)
		qkv := b.linear(h, D, true, plan.ActNone, 0, layer+"self_attn.q_proj", layer+"self_attn.k_proj", layer+"self_attn.v_proj")
		a := b.Attention(plan.Attention{Q: qkv, KV: qkv, Tokens: tokens, Heads: c.Heads, Dim: dh, K: D, V: 2 * D, Scale: scale(dh)})
		x = b.linear(a, D, true, plan.ActNone, x, layer+"self_attn.out_proj")
		h = b.norm(x, layer+"layer_norm2", c.Eps)
		h = b.linear(h, c.Intermediate, true, act, 0, layer+"mlp.fc1")
		x = b.linear(h, D, true, plan.ActNone, x, layer+"mlp.fc2")
	}
	b.Output("hidden", x)
	b.Output("pooled", b.norm(b.GatherRows(x, classRows), "vision_model.post_layernorm", c.Eps))
	return b.Done()
}

// scale is the factor on attention scores for heads of dh columns.
func scale(dh int) float32 { return float32(1 / math.Sqrt(float64(dh))) }
