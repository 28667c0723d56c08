// SPDX-License-Identifier: Apache-2.0

// Package model is FROMAGe written once, as builder calls on package plan: OPT, the CLIP vision tower, and the maps between them.
//
// What enters is the checkpoints' own configuration files; what leaves is a plan.Model whose weights carry their Hugging Face names. The package
// refuses to know files' contents beyond configurations, storage formats, and devices.
package model

import (
	"encoding/json"
	"fmt"

	"fromage/plan"
)

// OPT is what an OPT checkpoint's config.json says, under its keys.
type OPT struct {
	ModelType        string `json:"model_type"`
	VocabSize        int    `json:"vocab_size"`
	HiddenSize       int    `json:"hidden_size"`
	Layers           int    `json:"num_hidden_layers"`
	FFN              int    `json:"ffn_dim"`
	MaxPositions     int    `json:"max_position_embeddings"`
	Heads            int    `json:"num_attention_heads"`
	WordEmbedProjDim int    `json:"word_embed_proj_dim"`
	PreNorm          bool   `json:"do_layer_norm_before"`
	NoFinalNorm      bool   `json:"_remove_final_layer_norm"`
	Bias             bool   `json:"enable_bias"`
	AffineNorm       bool   `json:"layer_norm_elementwise_affine"`
	TiedHead         bool   `json:"tie_word_embeddings"`
	Activation       string `json:"activation_function"`
	BOS              int    `json:"bos_token_id"`
	EOS              int    `json:"eos_token_id"`
	Pad              int    `json:"pad_token_id"`
}

// ParseOPT reads an OPT config.json. Keys that older checkpoints lack get the values that they had then.
func ParseOPT(data []byte) (*OPT, error) {
	c := &OPT{PreNorm: true, Bias: true, AffineNorm: true, TiedHead: true, Activation: "relu", BOS: 2, EOS: 2, Pad: 1}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("model: OPT config: %w", err)
	}
	if c.WordEmbedProjDim == 0 {
		c.WordEmbedProjDim = c.HiddenSize
	}
	if c.ModelType != "" && c.ModelType != "opt" {
		return nil, fmt.Errorf("model: OPT config: want model_type opt, have %q", c.ModelType)
	}
	if _, err := plan.ParseAct(c.Activation); err != nil {
		return nil, fmt.Errorf("model: OPT config: %w", err)
	}
	switch {
	case !c.AffineNorm:
		return nil, fmt.Errorf("model: OPT config: layer_norm_elementwise_affine false is not supported")
	case !c.TiedHead:
		return nil, fmt.Errorf("model: OPT config: tie_word_embeddings false is not supported: FROMAGe's [RET] row is both input and output")
	}
	return c, positive("OPT config", map[string]int{
		"vocab_size": c.VocabSize, "hidden_size": c.HiddenSize, "num_hidden_layers": c.Layers, "ffn_dim": c.FFN,
		"max_position_embeddings": c.MaxPositions, "num_attention_heads": c.Heads, "word_embed_proj_dim": c.WordEmbedProjDim,
	}, c.HiddenSize, c.Heads)
}

// CLIP is what a CLIP vision tower's configuration says, under its keys.
type CLIP struct {
	HiddenSize   int     `json:"hidden_size"`
	Intermediate int     `json:"intermediate_size"`
	Layers       int     `json:"num_hidden_layers"`
	Heads        int     `json:"num_attention_heads"`
	ImageSize    int     `json:"image_size"`
	PatchSize    int     `json:"patch_size"`
	Channels     int     `json:"num_channels"`
	Activation   string  `json:"hidden_act"`
	Eps          float32 `json:"layer_norm_eps"`
}

// ParseCLIP reads a config.json of a CLIPVisionModel or of a whole CLIPModel, whose `vision_config` it takes. Keys that a public file leaves out have
// the defaults of CLIPVisionConfig.
func ParseCLIP(data []byte) (*CLIP, error) {
	var whole struct {
		Vision json.RawMessage `json:"vision_config"`
	}
	if err := json.Unmarshal(data, &whole); err != nil {
		return nil, fmt.Errorf("model: CLIP config: %w", err)
	}
	if whole.Vision != nil {
		data = whole.Vision
	}
	c := &CLIP{768, 3072, 12, 12, 224, 32, 3, "quick_gelu", 1e-5}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("model: CLIP config: %w", err)
	}
	if _, err := plan.ParseAct(c.Activation); err != nil {
		return nil, fmt.Errorf("model: CLIP config: %w", err)
	}
	if c.Channels != 3 || c.PatchSize <= 0 || c.ImageSize > 4096 || c.ImageSize%c.PatchSize != 0 {
		return nil, fmt.Errorf("model: CLIP config: want 3 channels and an image_size up to 4096 that is a multiple of patch_size, have %d, %d and %d",
			c.Channels, c.ImageSize, c.PatchSize)
	}
	if !(c.Eps >= 0 && c.Eps < 1) {
		return nil, fmt.Errorf("model: CLIP config: layer_norm_eps: want 0 or more and below 1, have %g", c.Eps)
	}
	return c, positive("CLIP config", map[string]int{
		"hidden_size": c.HiddenSize, "intermediate_size": c.Intermediate, "num_hidden_layers": c.Layers, "num_attention_heads": c.Heads, "image_size": c.ImageSize,
	}, c.HiddenSize, c.Heads)
}

// Tokens returns N, the tokens of one picture: its patches and the class token.
func (c *CLIP) Tokens() int {
	g := c.ImageSize / c.PatchSize
	return g*g + 1
}

// CLIPText is what a CLIPModel's configuration says of its text tower, under its keys.
type CLIPText struct {
	VocabSize     int     `json:"vocab_size"`
	HiddenSize    int     `json:"hidden_size"`
	Intermediate  int     `json:"intermediate_size"`
	Layers        int     `json:"num_hidden_layers"`
	Heads         int     `json:"num_attention_heads"`
	MaxPositions  int     `json:"max_position_embeddings"`
	Activation    string  `json:"hidden_act"`
	Eps           float32 `json:"layer_norm_eps"`
	BOS           int     `json:"bos_token_id"`
	EOS           int     `json:"eos_token_id"`
	ProjectionDim int     `json:"-"` // the whole model's projection_dim
}

// ParseCLIPText reads the `text_config` of a CLIPModel's config.json. Keys that a public file leaves out have the defaults of CLIPTextConfig.
func ParseCLIPText(data []byte) (*CLIPText, error) {
	whole := struct {
		Text          json.RawMessage `json:"text_config"`
		ProjectionDim int             `json:"projection_dim"`
	}{ProjectionDim: 512}
	if err := json.Unmarshal(data, &whole); err != nil {
		return nil, fmt.Errorf("model: CLIP config: %w", err)
	}
	if whole.Text == nil {
		return nil, fmt.Errorf("model: CLIP config: want a CLIPModel with a text_config, have none")
	}
	c := &CLIPText{49408, 512, 2048, 12, 8, 77, "quick_gelu", 1e-5, 49406, 49407, whole.ProjectionDim}
	if err := json.Unmarshal(whole.Text, c); err != nil {
		return nil, fmt.Errorf("model: CLIP config: text_config: %w", err)
	}
	if _, err := plan.ParseAct(c.Activation); err != nil {
		return nil, fmt.Errorf("model: CLIP config: text_config: %w", err)
	}
	if !(c.Eps >= 0 && c.Eps < 1) {
		return nil, fmt.Errorf("model: CLIP config: text_config: layer_norm_eps: want 0 or more and below 1, have %g", c.Eps)
	}
	return c, positive("CLIP config: text_config", map[string]int{
		"vocab_size": c.VocabSize, "hidden_size": c.HiddenSize, "intermediate_size": c.Intermediate, "num_hidden_layers": c.Layers,
		"num_attention_heads": c.Heads, "max_position_embeddings": c.MaxPositions, "projection_dim": c.ProjectionDim,
	}, c.HiddenSize, c.Heads)
}

// Heads is what FROMAGe's model_args.json says of the maps.
type Heads struct {
	VisualTokens int   `json:"n_visual_tokens"`
	SharedDim    int   `json:"shared_emb_dim"`
	TextLayers   []int `json:"text_emb_layers"`
	RET          int   `json:"retrieval_token_idx"`
}

// ParseHeads reads a model_args.json. Keys left out have the reference's defaults; RET is 0 where the file does not say, as in the released models.
func ParseHeads(data []byte) (*Heads, error) {
	h := &Heads{VisualTokens: 1, SharedDim: 256, TextLayers: []int{-1}}
	if err := json.Unmarshal(data, h); err != nil {
		return nil, fmt.Errorf("model: model_args.json: %w", err)
	}
	if len(h.TextLayers) == 0 || len(h.TextLayers) > 64 || h.RET < 0 {
		return nil, fmt.Errorf("model: model_args.json: want 1 to 64 text_emb_layers and a retrieval_token_idx, have %d and %d", len(h.TextLayers), h.RET)
	}
	return h, positive("model_args.json", map[string]int{"n_visual_tokens": h.VisualTokens, "shared_emb_dim": h.SharedDim}, 1, 1)
}

// positive wants every size within 1 to plan.MaxCols, and the width a multiple of the heads.
func positive(file string, sizes map[string]int, width, heads int) error {
	for key, n := range sizes {
		if n <= 0 || n > plan.MaxCols {
			return fmt.Errorf("model: %s: %s: want 1 to %d, have %d", file, key, plan.MaxCols, n)
		}
	}
	if width%heads != 0 || width/heads > 256 {
		return fmt.Errorf("model: %s: hidden_size (%d) must be a multiple of num_attention_heads (%d), with at most 256 to a head", file, width, heads)
	}
	return nil
}
