// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"strings"
	"testing"

	"fromage/model"
	"fromage/plan"
)

// TestTextSettings: a text tower comes whole, with settings that its programs bear out and one tokenizer, or not at all.
func TestTextSettings(t *testing.T) {
	m, err := model.Build(model.Config{
		CLIP: &model.CLIP{HiddenSize: 8, Intermediate: 8, Layers: 1, Heads: 2, ImageSize: 4, PatchSize: 2, Channels: 3, Activation: "quick_gelu", Eps: 1e-5},
		Text: &model.CLIPText{VocabSize: 40, HiddenSize: 12, Intermediate: 8, Layers: 1, Heads: 2, MaxPositions: 9, Activation: "gelu", ProjectionDim: 5},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		change     func(m *Manifest)
	}{
		{"nothing", "", func(*Manifest) {}},
		{"highest", "", func(m *Manifest) { m.Settings.Text.Pool = PoolHighest }},
		{"another tokenizer", "", func(m *Manifest) { m.Files = map[string]Blob{FileTextTokenizerBPE: {}} }},
		{"no tokenizer", "want one of them", func(m *Manifest) { m.Files = nil }},
		{"two tokenizers", "want one of them", func(m *Manifest) { m.Files[FileTextTokenizerBPE] = Blob{} }},
		{"pool", "pool -1 or eos", func(m *Manifest) { m.Settings.Text.Pool = 4 }},
		{"eos", "want bos and eos in a vocabulary of 40", func(m *Manifest) { m.Settings.Text.EOS, m.Settings.Text.Pool = 40, 40 }},
		{"bos", "want bos and eos in a vocabulary of 40", func(m *Manifest) { m.Settings.Text.BOS = -1 }},
		{"vocabulary", "tables of 41 rows", func(m *Manifest) { m.Settings.Text.Vocabulary = 41 }},
		{"positions", "tables of 10 rows", func(m *Manifest) { m.Settings.Text.Positions = 10 }},
		{"dim", "output text", func(m *Manifest) { m.Settings.Text.Dim = 6 }},
		{"no dim", "text.dim: want 1 to", func(m *Manifest) { m.Settings.Text.Dim = 0 }},
		{"half a tower", "want text with project", func(m *Manifest) { m.Model.Programs = m.Model.Programs[:2] }},
		{"no vision", "want lm with score, vision, or both", func(m *Manifest) { m.Model.Programs = m.Model.Programs[1:] }},
		{"settings without a tower", "where the part is there and else 0, have", func(m *Manifest) { m.Model.Programs = m.Model.Programs[:1] }},
		{"numbers without a tower", "want nothing without a text tower", func(m *Manifest) {
			m.Model.Programs, m.Settings.Text = m.Model.Programs[:1], TextSettings{EOS: 1}
		}},
	} {
		x := Manifest{
			Model: plan.Model{Weights: m.Weights, Programs: m.Programs},
			Settings: Settings{
				VisionDim: 8, ImageSize: 4, ImageTokens: 5, Text: TextSettings{Vocabulary: 40, Positions: 9, Dim: 5, BOS: 3, EOS: 39, Pool: 39},
			},
			Files: map[string]Blob{FileTextTokenizer: {}},
		}
		c.change(&x)
		err := x.checkSettings()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
