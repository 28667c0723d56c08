// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"slices"

	"fromage/plan"
)

// port is an input or output that a runner relies on.
type port struct {
	program, name string
	kind          plan.Kind
	rows          plan.Dim
	cols          int
	u32           bool
}

func (p port) check(m *plan.Model) error {
	program, err := m.Program(p.program)
	if err != nil {
		return err
	}
	id := program.Find(p.name)
	if id == 0 {
		return fmt.Errorf("program %s: want %s %s, have none", p.program, p.kind, p.name)
	}
	v := program.Value(id)
	if v.Kind != p.kind || v.Rows != p.rows || v.Cols != p.cols || v.U32 != p.u32 {
		return fmt.Errorf("program %s: want %s %s %s × %d (u32: %t), have %s %s × %d (u32: %t): the settings and the program differ",
			p.program, p.kind, p.name, p.rows, p.cols, p.u32, v.Kind, v.Rows, v.Cols, v.U32)
	}
	return nil
}

// checkSettings wants the programs of a part to be all there or all absent, with the inputs and outputs that package model documents in the sizes
// that the settings give.
func (m *Manifest) checkSettings() error {
	has := map[string]bool{}
	for _, p := range m.Model.Programs {
		if has[p.Name] || !slices.Contains([]string{"vision", "text", "project", "maps", "lm", "score"}, p.Name) {
			return fmt.Errorf("program %q: want vision, text, project, maps, lm and score, each at most once", p.Name)
		}
		has[p.Name] = true
	}
	if has["lm"] != has["score"] || has["maps"] && !(has["lm"] && has["vision"]) || !has["lm"] && !has["vision"] {
		return fmt.Errorf("programs: want lm with score, vision, or both, and maps only with both, have %d programs", len(has))
	}
	if has["text"] != has["project"] || has["text"] && !has["vision"] {
		return fmt.Errorf("programs: want text with project and vision, have %d programs", len(has))
	}
	s := &m.Settings
	checks := []struct {
		part  bool
		sizes map[string]int
		check func() error
	}{
		{has["lm"], map[string]int{"vocabulary": s.Vocabulary, "embed_dim": s.EmbedDim, "hidden_dim": s.HiddenDim, "layers": s.Layers, "max_positions": s.MaxPositions}, m.checkLM},
		{has["vision"], map[string]int{"vision_dim": s.VisionDim, "image_size": s.ImageSize, "image_tokens": s.ImageTokens}, m.checkVision},
		{has["text"], map[string]int{"text.vocabulary": s.Text.Vocabulary, "text.positions": s.Text.Positions, "text.dim": s.Text.Dim}, m.checkText},
		{has["maps"], map[string]int{"visual_tokens": s.VisualTokens, "shared_dim": s.SharedDim}, m.checkMaps},
	}
	for _, c := range checks {
		for name, n := range c.sizes {
			if c.part != (n > 0) || n < 0 || n > plan.MaxCols {
				return fmt.Errorf("settings: %s: want 1 to %d where the part is there and else 0, have %d", name, plan.MaxCols, n)
			}
		}
	}
	for _, c := range checks {
		if !c.part {
			continue
		}
		if err := c.check(); err != nil {
			return err
		}
	}
	if !has["text"] && s.Text != (TextSettings{}) {
		return fmt.Errorf("settings: text: want nothing without a text tower, have %+v", s.Text)
	}
	if !has["maps"] && (s.RET != 0 || s.ImageToken != 0) {
		return fmt.Errorf("settings: want ret and image_token 0 without heads, have %d and %d", s.RET, s.ImageToken)
	}
	return nil
}

var (
	tokens = plan.Dim{Of: plan.Tokens, N: 1}
	rows   = plan.Dim{Of: plan.Rows, N: 1}
	images = plan.Dim{Of: plan.Images, N: 1}
	prefix = plan.Dim{Of: plan.Prefix, N: 1}
)

func (m *Manifest) checkPorts(ports ...port) error {
	for _, p := range ports {
		if err := p.check(&m.Model); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manifest) checkLM() error {
	s := &m.Settings
	for _, id := range []int{s.BOS, s.EOS, s.Pad} {
		if id < 0 || id >= s.Vocabulary {
			return fmt.Errorf("settings: bos, eos, pad: want numbers in a vocabulary of %d, have %d, %d, %d", s.Vocabulary, s.BOS, s.EOS, s.Pad)
		}
	}
	for _, name := range []string{"lm", "score"} {
		ports := []port{
			{name, "tokens", plan.Input, tokens, plan.TokenColumns, true},
			{name, "prefix", plan.Input, prefix, s.EmbedDim, false},
			{name, "rows", plan.Input, rows, 1, true},
		}
		for i := range s.Layers {
			ports = append(ports, port{name, fmt.Sprintf("kv.%d", i), plan.State, tokens, 2 * s.HiddenDim, false})
		}
		if err := m.checkPorts(ports...); err != nil {
			return err
		}
		program, _ := m.Model.Program(name)
		if err := checkEmbeds(program, s.Vocabulary, s.MaxPositions); err != nil {
			return err
		}
	}
	return m.checkPorts(
		port{"lm", "hidden", plan.Output, rows, s.EmbedDim, false},
		port{"lm", "logits", plan.Output, rows, s.Vocabulary, false},
		port{"score", "labels", plan.Input, rows, 1, true},
		port{"score", "nll", plan.Output, rows, 2, false},
	)
}

// checkEmbeds wants a row for every token and every position that the settings allow.
func checkEmbeds(p *plan.Program, vocabulary, positions int) error {
	for _, op := range p.Ops {
		e, ok := op.(*plan.Embed)
		if !ok {
			continue
		}
		want, have := e.Offset+positions, 0
		if e.Column == plan.TokenID {
			want = vocabulary
		}
		for _, id := range e.Tables {
			if v := p.Value(id); v.Kind == plan.Weight {
				have += v.Rows.N
			}
		}
		if want != have {
			return fmt.Errorf("program %s: want embedding tables of %d rows for the settings, have %d", p.Name, want, have)
		}
	}
	return nil
}

func (m *Manifest) checkVision() error {
	s := &m.Settings
	program, _ := m.Model.Program("vision")
	for _, op := range program.Ops {
		if e, ok := op.(*plan.VisionEmbed); ok && program.Value(e.Position).Rows.N != s.ImageTokens {
			return fmt.Errorf("settings: image_tokens: want %d as in program vision, have %d", program.Value(e.Position).Rows.N, s.ImageTokens)
		}
	}
	return m.checkPorts(
		port{"vision", "pixels", plan.Input, images, 3 * s.ImageSize * s.ImageSize, false},
		port{"vision", "tokens", plan.Input, tokens, plan.TokenColumns, true},
		port{"vision", "class_rows", plan.Input, images, 1, true},
		port{"vision", "hidden", plan.Output, tokens, s.VisionDim, false},
		port{"vision", "pooled", plan.Output, images, s.VisionDim, false},
	)
}

func (m *Manifest) checkText() error {
	s := &m.Settings
	t := &s.Text
	if t.Positions < 2 || t.BOS < 0 || t.BOS >= t.Vocabulary || t.EOS < 0 || t.EOS >= t.Vocabulary || t.Pool != PoolHighest && t.Pool != t.EOS {
		return fmt.Errorf("settings: text: want bos and eos in a vocabulary of %d with room for both in %d positions, and pool %d or eos, have %d, %d and %d",
			t.Vocabulary, t.Positions, PoolHighest, t.BOS, t.EOS, t.Pool)
	}
	_, own := m.Files[FileTextTokenizer]
	if _, bpe := m.Files[FileTextTokenizerBPE]; own == bpe {
		return fmt.Errorf("files %s and %s: want one of them where there is a text tower", FileTextTokenizer, FileTextTokenizerBPE)
	}
	program, _ := m.Model.Program("text")
	if err := checkEmbeds(program, t.Vocabulary, t.Positions); err != nil {
		return err
	}
	return m.checkPorts(
		port{"text", "tokens", plan.Input, tokens, plan.TokenColumns, true},
		port{"text", "rows", plan.Input, rows, 1, true},
		port{"text", "text", plan.Output, rows, t.Dim, false},
		port{"project", "v", plan.Input, images, s.VisionDim, false},
		port{"project", "image", plan.Output, images, t.Dim, false},
	)
}

func (m *Manifest) checkMaps() error {
	s := &m.Settings
	if s.RET != s.Vocabulary-1 || s.ImageToken != s.Vocabulary-2 {
		return fmt.Errorf("settings: ret and image_token: want the last two of %d tokens, have %d and %d", s.Vocabulary, s.RET, s.ImageToken)
	}
	for _, name := range []string{FileTokenizer, FilePreprocessor} {
		if _, ok := m.Files[name]; !ok {
			return fmt.Errorf("file %s: want it where there are heads, have none", name)
		}
	}
	for _, want := range []plan.WeightSpec{{Name: "logit_scale", Rows: 1, Cols: 1}, {Name: "added_tokens", Rows: 2, Cols: s.EmbedDim}} {
		w, err := m.Model.Weight(want.Name)
		if err != nil {
			return err
		}
		if w.Rows != want.Rows || w.Cols != want.Cols || !w.Head {
			return fmt.Errorf("weight %s: want a head of %d × %d, have %d × %d", w.Name, want.Rows, want.Cols, w.Rows, w.Cols)
		}
	}
	return m.checkPorts(
		port{"maps", "v", plan.Input, images, s.VisionDim, false},
		port{"maps", "prefix", plan.Output, images, s.VisualTokens * s.EmbedDim, false},
		port{"maps", "retrieval", plan.Output, images, s.SharedDim, false},
		port{"lm", "retrieval", plan.Output, rows, s.SharedDim, false},
	)
}
