// SPDX-License-Identifier: Apache-2.0

package clip_test

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"fromage/internal/testmodel"
	"fromage/tokenizer/clip"
)

// load returns the small tokenizer of package testmodel.
func load(t testing.TB) *clip.Tokenizer {
	t.Helper()
	dir := t.TempDir()
	testmodel.WriteCLIPTokenizer(t, dir)
	c, err := clip.LoadDir(os.DirFS(dir))
	if err != nil || c == nil {
		t.Fatalf("LoadDir = %v, %v", c, err)
	}
	return c
}

// spelling returns the tokens as the vocabulary spells them, by number.
func spelling(t testing.TB, c *clip.Tokenizer) map[int32]string {
	t.Helper()
	var file struct {
		Model struct {
			Vocab map[string]int32 `json:"vocab"`
		} `json:"model"`
	}
	if err := json.Unmarshal(c.JSON(), &file); err != nil {
		t.Fatal(err)
	}
	out := map[int32]string{}
	for token, id := range file.Model.Vocab {
		out[id] = token
	}
	return out
}

// TestEncode: the tokens were found by hand from the merges that testmodel.WriteCLIPTokenizer lists.
func TestEncode(t *testing.T) {
	c := load(t)
	names := spelling(t, c)
	for _, x := range []struct{ text, want string }{
		{"", ""},
		{"  \t\n ", ""},
		{"a cat", "a</w> cat</w>"},
		{"A CaT", "a</w> cat</w>"},
		{"  the\n\n cat ", "the</w> cat</w>"},
		{"cats", "c a t s</w>"},
		{"rained", "r ain e d</w>"},
		{"the cat's dog", "the</w> cat</w> 's</w> dog</w>"},
		{"we'll they're I'D 'tis", "w e</w> ' ll</w> th e y</w> ' r e</w> i</w> ' d</w> ' t</w> i s</w>"},
		{"on2000", "on</w> 2</w> 0</w> 0</w> 0</w>"},
		{"!?... a", "! ? . . .</w> a</w>"},
		{"cat<|endoftext|>dog <|startoftext|>", "cat</w> <|endoftext|> dog</w> <|startoftext|>"},
		{"<|ENDOFTEXT|>", "< |</w> e n do f t e x t</w> | ></w>"},
		{"\u00e9 e\u0301 \u00c9", "Ã ©</w> Ã ©</w> Ã ©</w>"},
		{"\u0130", "i</w> Ì ĩ</w>"},
		{"日本", "æ Ĺ ¥ æ ľ ¬</w>"},
		{"\xff", "ï ¿ ½</w>"},
		{"a\u00a0cat", "a</w> cat</w>"},
	} {
		var got []string
		for _, id := range c.Encode(x.text) {
			got = append(got, names[id])
		}
		if g := strings.Join(got, " "); g != x.want {
			t.Errorf("Encode(%q) = %s, want %s", x.text, g, x.want)
		}
	}
	if c.BOS() != 0 || c.EOS() != 1 || c.Len() != 525 {
		t.Errorf("BOS, EOS and Len are %d, %d and %d, want 0, 1 and 525", c.BOS(), c.EOS(), c.Len())
	}
}

// TestForms: the files of both kinds, and what JSON writes, are the same tokenizer; another kind is told apart.
func TestForms(t *testing.T) {
	c := load(t)
	again, err := clip.Load(c.JSON())
	if err != nil || !bytes.Equal(again.JSON(), c.JSON()) {
		t.Errorf("Load of what JSON wrote: %v", err)
	}
	old := bytes.ReplaceAll(c.JSON(), []byte(`["c","at\u003c/w\u003e"]`), []byte(`"c at\u003c/w\u003e"`))
	if bytes.Equal(old, c.JSON()) {
		t.Fatal("there is no merge to write in the older form")
	}
	for name, dir := range map[string]fstest.MapFS{"tokenizer.json": {"tokenizer.json": {Data: c.JSON()}}, "older merges": {"tokenizer.json": {Data: old}}} {
		got, err := clip.LoadDir(dir)
		if err != nil || got == nil || !slices.Equal(got.Encode("the cat"), c.Encode("the cat")) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, dir := range map[string]fstest.MapFS{
		"OPT's": {"vocab.json": {Data: []byte(`{"<s>": 0}`)}, "merges.txt": {}}, "another": {"tokenizer.json": {Data: []byte(`{"model": {"end_of_word_suffix": null}}`)}},
	} {
		if got, err := clip.LoadDir(dir); got != nil || err != nil {
			t.Errorf("%s tokenizer: %v, %v, want none", name, got, err)
		}
	}
}

func TestRefuses(t *testing.T) {
	good := string(load(t).JSON())
	for _, c := range []struct{ name, old, new, want string }{
		{"no JSON", good, "{", "tokenizer.json"},
		{"no ends of words", `\u003c/w\u003e","vocab"`, `@","vocab"`, "end_of_word_suffix"},
		{"no bytes", `"!":`, `"!!!":`, `token "!"`},
		{"no end", `"\u003c|endoftext|\u003e":`, `"end":`, "<|endoftext|>"},
		{"a large number", `"!":`, `"!": 99999, "!!!":`, "number below"},
		{"a merge of nothing", `["c","at\u003c/w\u003e"]`, `["c","x"]`, `token "cx"`},
		{"a merge of three", `["c","at\u003c/w\u003e"]`, `["c","a","t"]`, "want a merge"},
		{"a merge of one", `["c","at\u003c/w\u003e"]`, `"cat"`, "want a merge"},
	} {
		in := strings.Replace(good, c.old, c.new, 1)
		if in == good {
			t.Fatalf("%s: %q is not there", c.name, c.old)
		}
		if _, err := clip.Load([]byte(in)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	for name, dir := range map[string]fstest.MapFS{
		"want": {}, "merges.txt line 2": {"vocab.json": {Data: []byte(`{"<|startoftext|>": 0}`)}, "merges.txt": {Data: []byte("#version\nab\n")}},
	} {
		if _, err := clip.LoadDir(dir); err == nil || name != "want" && !strings.Contains(err.Error(), name) {
			t.Errorf("LoadDir: %v, want %q", err, name)
		}
	}
}

// FuzzEncode: every text has numbers of the vocabulary, and what they spell is the text without its spaces.
func FuzzEncode(f *testing.F) {
	f.Add("The cat's dog on 2000 \u0130 <|endoftext|>")
	f.Add("\xff\u0301 a")
	c := load(f)
	names := spelling(f, c)
	f.Fuzz(func(t *testing.T, text string) {
		for _, id := range c.Encode(text) {
			if _, ok := names[id]; !ok {
				t.Fatalf("Encode(%q): token %d does not exist", text, id)
			}
		}
		// White space between words does not count.
		if words := strings.Fields(text); !strings.Contains(text, "<|") {
			if got, want := c.Encode(strings.Join(words, "\n ")), c.Encode(text); !slices.Equal(got, want) {
				t.Errorf("Encode(%q) = %v, with other space %v", text, want, got)
			}
		}
	})
}

// FuzzLoad: no table makes Load or Encode fail otherwise than by an error.
func FuzzLoad(f *testing.F) {
	f.Add(load(f).JSON())
	f.Add([]byte(`{"model": {"end_of_word_suffix": "</w>", "merges": ["a b", ["a", "b"]]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := clip.Load(data); err == nil {
			c.Encode("the cat's 1")
		}
	})
}
