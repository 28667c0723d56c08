// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"

	"fromage/plan"
)

// Config is a whole FROMAGe, or the part of it that is given: OPT alone, CLIP alone, or all three.
type Config struct {
	OPT   *OPT
	CLIP  *CLIP
	Text  *CLIPText // CLIP's other tower: needs CLIP
	Heads *Heads
	// Vocabulary is the tokenizer's length, `<|image|>` and [RET] included; the reference resizes the embedding table to it. 0 keeps OPT's own rows.
	Vocabulary int
}

// AddedTokens is the weight (2,E) with the rows of the two added tokens, apart from OPT's table so that a new [RET] can be put in while running.
const AddedTokens = "added_tokens"

// Checkpoint tensors that are not OPT's or CLIP's.
const (
	// ImageTokenRow is the row of `<|image|>`: of the heads' file where it has one, else OPT's own, else the mean of OPT's rows.
	ImageTokenRow = "image_token_embedding.weight"
	// RETRow is the trained row of [RET], as the reference's checkpoint names it.
	RETRow = "ret_input_embeddings.weight"
	// LogitScale is the natural logarithm of the factor on retrieval scores.
	LogitScale = "logit_scale"
)

// Build makes the weights and programs of a configuration:
//
//	vision  pictures → pooled CLIP states v (see buildVision)
//	text    token numbers → CLIP's text embeddings; project: v → CLIP's image embeddings (see buildText)
//	maps    v (B,Dv) → prefix (B, k·E) = visual_embeddings, retrieval (B,S) = visual_fc, not normalised
//	lm      tokens (T,4), prefix (I,E), rows (R) → of those rows hidden (R,E), logits (R,V) and, with heads, retrieval (R,S) = Σ text_hidden_fcs
//	score   tokens (T,4), prefix (I,E), rows (R), labels (R) → nll (R,2)
//
// The source is FromageModel in the reference's fromage/models.py.
func Build(c Config) (*plan.Model, error) {
	m := &plan.Model{}
	if c.CLIP != nil {
		if err := buildVision(m, c.CLIP); err != nil {
			return nil, err
		}
	}
	if c.Text != nil {
		if c.CLIP == nil {
			return nil, fmt.Errorf("model: CLIP's text tower needs its vision tower")
		}
		if err := buildText(m, c.CLIP, c.Text); err != nil {
			return nil, err
		}
	}
	if c.Heads != nil && (c.OPT == nil || c.CLIP == nil) {
		return nil, fmt.Errorf("model: heads need an OPT and a CLIP")
	}
	if c.Heads != nil {
		if err := buildMaps(m, c); err != nil {
			return nil, err
		}
	}
	if c.OPT == nil {
		return m, nil
	}
	if err := buildLM(m, c); err != nil {
		return nil, err
	}
	return m, buildScore(m, c)
}

// head is one of the trained linear maps: f32 always.
func (b builder) head(x plan.ID, rows int, name string) plan.ID {
	w := plan.WeightSpec{Name: name + ".weight", Rows: rows, Cols: b.Cols(x), Head: true}
	w.Sources = []plan.Source{{Tensor: w.Name, Rows: rows}}
	bias := plan.WeightSpec{Name: name + ".bias", Rows: 1, Cols: rows, Head: true}
	bias.Sources = []plan.Source{{Tensor: bias.Name, Rows: 1}}
	return b.Linear(plan.Linear{X: x, W: []plan.ID{b.Weight(w)}, Bias: b.Weight(bias)})
}

func buildMaps(m *plan.Model, c Config) error {
	b := builder{plan.NewBuilder(m, "maps")}
	v := b.Input("v", plan.Dim{Of: plan.Images, N: 1}, c.CLIP.HiddenSize)
	b.Output("prefix", b.head(v, c.Heads.VisualTokens*c.OPT.WordEmbedProjDim, "visual_embeddings"))
	b.Output("retrieval", b.head(v, c.Heads.SharedDim, "visual_fc"))
	m.Weights = append(m.Weights, plan.WeightSpec{Name: LogitScale, Rows: 1, Cols: 1, Head: true, Sources: []plan.Source{{Tensor: LogitScale, Rows: 1}}})
	return b.Done()
}

// tables are the embedding rows that token numbers look up, tied with the output rows: OPT's own, then with heads `<|image|>` and [RET].
func (b builder) tables(c Config) ([]plan.ID, error) {
	rows := c.OPT.VocabSize
	if c.Vocabulary > 0 {
		rows = c.Vocabulary
	}
	var added []plan.ID
	if c.Heads != nil {
		if c.Heads.RET != 0 && c.Heads.RET != rows-1 {
			return nil, fmt.Errorf("model: want [RET] (retrieval_token_idx) as the last of %d tokens, have %d", rows, c.Heads.RET)
		}
		rows -= 2
		added = append(added, b.Weight(plan.WeightSpec{
			Name: AddedTokens, Rows: 2, Cols: c.OPT.WordEmbedProjDim, Head: true,
			Sources: []plan.Source{{Tensor: ImageTokenRow, Rows: 1}, {Tensor: RETRow, Rows: 1}},
		}))
	}
	if rows <= 0 || rows > c.OPT.VocabSize {
		return nil, fmt.Errorf("model: want a tokenizer of at most OPT's %d tokens before the added ones, have %d", c.OPT.VocabSize, rows)
	}
	return append([]plan.ID{b.matrix(rows, c.OPT.WordEmbedProjDim, "model.decoder.embed_tokens.weight")}, added...), nil
}

// top is what the two language-model programs share.
type top struct {
	hidden, logits plan.ID
	retrieval      plan.ID // 0 without heads
}

func (b builder) lm(c Config, withRetrieval bool) (top, error) {
	tokens := b.Numbers("tokens", plan.Dim{Of: plan.Tokens, N: 1}, plan.TokenColumns)
	prefix := b.Input("prefix", plan.Dim{Of: plan.Prefix, N: 1}, c.OPT.WordEmbedProjDim)
	rows := b.Numbers("rows", plan.Dim{Of: plan.Rows, N: 1}, 1)
	tables, err := b.tables(c)
	if err != nil {
		return top{}, err
	}
	t := b.optTrunk(c.OPT, tokens, append(tables[:len(tables):len(tables)], prefix))
	var out top
	out.hidden = b.optTop(c.OPT, b.GatherRows(t.last, rows))
	out.logits = b.Linear(plan.Linear{X: out.hidden, W: tables})
	if !withRetrieval {
		return out, nil
	}
	for i, layer := range c.Heads.TextLayers {
		h, err := b.hiddenState(t, out.hidden, rows, layer)
		if err != nil {
			return top{}, err
		}
		e := b.head(h, c.Heads.SharedDim, fmt.Sprintf("text_hidden_fcs.%d.0", i))
		if out.retrieval != 0 {
			e = b.Add(out.retrieval, e)
		}
		out.retrieval = e
	}
	return out, nil
}

// hiddenState is rows of Hugging Face's hidden_states[layer]: 0 … L−1 are the layers' inputs, L (or −1) the state after the final norm and project_out.
func (b builder) hiddenState(t trunk, top, rows plan.ID, layer int) (plan.ID, error) {
	n := len(t.layers)
	if layer < 0 {
		layer += n + 1
	}
	switch {
	case layer == n:
		return top, nil
	case layer < 0 || layer > n:
		return 0, fmt.Errorf("model: text_emb_layers: want a layer up to %d, have %d", n, layer)
	}
	return b.GatherRows(t.layers[layer], rows), nil
}

func buildLM(m *plan.Model, c Config) error {
	b := builder{plan.NewBuilder(m, "lm")}
	out, err := b.lm(c, c.Heads != nil)
	if err != nil {
		return err
	}
	b.Output("hidden", out.hidden)
	b.Output("logits", out.logits)
	if out.retrieval != 0 {
		b.Output("retrieval", out.retrieval)
	}
	return b.Done()
}

func buildScore(m *plan.Model, c Config) error {
	b := builder{plan.NewBuilder(m, "score")}
	out, err := b.lm(c, false)
	if err != nil {
		return err
	}
	b.Output("nll", b.NLL(out.logits, b.Numbers("labels", plan.Dim{Of: plan.Rows, N: 1}, 1)))
	return b.Done()
}
