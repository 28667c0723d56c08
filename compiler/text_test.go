// SPDX-License-Identifier: Apache-2.0

package compiler_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fromage/bundle"
	"fromage/compiler"
	"fromage/internal/testmodel"
)

const optTiny = "../testdata/golden/fromage/one-token/facebook/opt-tiny"

// TestText: the text tower is kept on demand, with the tokenizer that is at hand, and pooled as the configuration says.
func TestText(t *testing.T) {
	for _, c := range []struct {
		name string
		eos  int
		own  bool // the CLIP's folder has its tokenizer
		opt  string
		want bundle.TextSettings
		file string
	}{
		{"own", 1, true, "", bundle.TextSettings{Vocabulary: 530, Positions: 16, Dim: 12, BOS: 0, EOS: 1, Pool: 1}, bundle.FileTextTokenizer},
		{"own, wrong eos_token_id", 2, true, optTiny, bundle.TextSettings{Vocabulary: 530, Positions: 16, Dim: 12, BOS: 0, EOS: 1, Pool: bundle.PoolHighest}, bundle.FileTextTokenizer},
		{"OPT's", 2, false, optTiny, bundle.TextSettings{Vocabulary: 530, Positions: 16, Dim: 12, BOS: 0, EOS: 2, Pool: bundle.PoolHighest}, bundle.FileTextTokenizerBPE},
		{"OPT's, another end", 7, false, optTiny, bundle.TextSettings{Vocabulary: 530, Positions: 16, Dim: 12, BOS: 0, EOS: 7, Pool: 7}, bundle.FileTextTokenizerBPE},
	} {
		dir := t.TempDir()
		testmodel.WriteCLIP(t, dir, testmodel.CLIPConfig(c.eos))
		if c.own {
			testmodel.WriteCLIPTokenizer(t, dir)
		}
		m := testmodel.Compiled(t, compiler.Options{CLIP: dir, OPT: c.opt, Text: true}).Manifest()
		if _, ok := m.Files[c.file]; m.Settings.Text != c.want || !ok {
			t.Errorf("%s: settings %+v, want %+v; %s is there: %t", c.name, m.Settings.Text, c.want, c.file, ok)
		}
		without := testmodel.Compiled(t, compiler.Options{CLIP: dir}).Manifest()
		if len(without.Model.Programs) != 1 || without.Settings.Text != (bundle.TextSettings{}) {
			t.Errorf("%s: without Text: programs %d, settings %+v", c.name, len(without.Model.Programs), without.Settings.Text)
		}
	}
}

func TestTextRefuses(t *testing.T) {
	// layers has the configuration count other layers than the two that there are.
	layers := func(n int) func(*testing.T, string, *compiler.Options) {
		return func(t *testing.T, dir string, _ *compiler.Options) {
			config := testmodel.CLIPConfig(1)
			config["text_config"].(map[string]any)["num_hidden_layers"] = n
			testmodel.WriteConfig(t, dir, config)
		}
	}
	for _, c := range []struct {
		name, want string
		change     func(t *testing.T, dir string, o *compiler.Options)
	}{
		{"no tokenizer", "for the text tower", func(_ *testing.T, dir string, o *compiler.Options) { os.Remove(filepath.Join(dir, "vocab.json")) }},
		{"a tokenizer that is too long", "at most vocab_size = 500 tokens", func(t *testing.T, dir string, _ *compiler.Options) {
			config := testmodel.CLIPConfig(1)
			config["text_config"].(map[string]any)["vocab_size"] = 500
			testmodel.WriteCLIP(t, dir, config)
		}},
		{"another end", "whose texts end with 9", func(t *testing.T, dir string, _ *compiler.Options) {
			testmodel.WriteCLIP(t, dir, testmodel.CLIPConfig(9))
		}},
		{"no text tower", "text_config, have none", func(_ *testing.T, _ string, o *compiler.Options) { o.CLIP = "../testdata/golden/clip/vision" }},
		{"a layer too many", "want the 1 layers", layers(1)},
		{"a layer too few", "want tensor text_model.encoder.layers.2.", layers(3)},
		{"no CLIP", "want a CLIP checkpoint", func(_ *testing.T, _ string, o *compiler.Options) { o.CLIP, o.OPT = "", optTiny }},
	} {
		dir := t.TempDir()
		testmodel.WriteCLIP(t, dir, testmodel.CLIPConfig(1))
		testmodel.WriteCLIPTokenizer(t, dir)
		o := compiler.Options{CLIP: dir, Text: true, Out: filepath.Join(t.TempDir(), "a.bundle")}
		c.change(t, dir, &o)
		if err := compiler.Compile(context.Background(), o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
