// SPDX-License-Identifier: Apache-2.0

package sugarme

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"fromage/tokenizer"
)

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile("../testdata/" + path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func load(t testing.TB, dir string) (*tokenizer.Tokenizer, *Tokenizer) {
	t.Helper()
	core, err := tokenizer.Load(read(t, dir+"/vocab.json"), read(t, dir+"/merges.txt"))
	if err != nil {
		t.Fatal(err)
	}
	core.AddSpecialTokens("<|image|>")
	core.AddTokens("[RET]")
	return core, New(core)
}

// check compares every path through the library with the core.
func check(t testing.TB, core *tokenizer.Tokenizer, tok *Tokenizer, text string) {
	t.Helper()
	for _, bos := range []bool{false, true} {
		want := core.Encode(text, bos)
		got, err := tok.Encode(text, bos)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("Encode(%q, %v) = %v, %v, want %v", text, bos, got, err, want)
		}
		for _, skip := range []bool{false, true} {
			if got, want := tok.Decode(want, skip), core.Decode(want, skip); got != want {
				t.Fatalf("Decode(%v, %v) = %q, want %q", want, skip, got, want)
			}
		}
	}
	clean := tokenizer.Sanitize(text)
	enc, err := tok.Sugar.EncodeSingle(clean, true)
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for i, o := range enc.Offsets[1:] {
		if o[0] != at || core.Text(int32(enc.Ids[i+1])) != clean[o[0]:o[1]] {
			t.Fatalf("EncodeSingle(%q): token %d has offsets %v, want its text from byte %d", clean, i, o, at)
		}
		at = o[1]
	}
	if at != len(clean) {
		t.Fatalf("EncodeSingle(%q): offsets end at %d of %d", clean, at, len(clean))
	}
}

func TestGolden(t *testing.T) {
	core, tok := load(t, "opt-tiny")
	var golden struct{ Cases []struct{ Text string } }
	if err := json.Unmarshal(read(t, "opt-tiny/tokenization.json"), &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden.Cases) != 34 {
		t.Fatalf("tokenization.json has %d cases, want 34", len(golden.Cases))
	}
	for _, c := range golden.Cases {
		check(t, core, tok, c.Text)
	}
}

func TestSlow(t *testing.T) {
	core, tok := load(t, "opt-mini")
	var cases []struct{ Text string }
	if err := json.Unmarshal(read(t, "opt-mini/slow.json"), &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		check(t, core, tok, c.Text)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	n := 20000
	if testing.Short() {
		n = 1000
	}
	for range n { // joined and cut at any byte, so that some are not UTF-8
		text := cases[rnd.IntN(len(cases))].Text + cases[rnd.IntN(len(cases))].Text
		check(t, core, tok, text[rnd.IntN(len(text)):])
	}
}

func TestInvalidUTF8(t *testing.T) {
	core, tok := load(t, "opt-mini")
	for _, text := range []string{"\xff", "a\xc3", "\xf0\x9f\x98[RET]", "\xed\xa0\x80 x", "\x80", "é\xe2\x82", "<|image|>\xc0\x80"} {
		check(t, core, tok, text)
	}
}

func TestLibrary(t *testing.T) {
	core, tok := load(t, "opt-tiny")
	if got := tok.Sugar.GetVocabSize(true); got != core.Len() {
		t.Errorf("GetVocabSize = %d, want %d", got, core.Len())
	}
	if id, ok := tok.Sugar.TokenToId("[RET]"); !ok || id != 478 {
		t.Errorf("TokenToId([RET]) = %d, %v, want 478", id, ok)
	}
	if token, ok := tok.Sugar.IdToToken(311); !ok || token != "Ġcat" {
		t.Errorf("IdToToken(311) = %q, %v, want Ġcat", token, ok)
	}
	if _, ok := tok.Sugar.IdToToken(479); ok {
		t.Errorf("IdToToken(479) = a token, want none")
	}
	pair, err := tok.Sugar.EncodePair("a cat", "[RET]", true)
	if err != nil {
		t.Fatal(err)
	}
	if want := []int{2, 68, 311, 2, 478}; !slices.Equal(pair.Ids, want) {
		t.Errorf("EncodePair = %v, want %v", pair.Ids, want)
	}
	if want := []int{0, 0, 0, 1, 1}; !slices.Equal(pair.TypeIds, want) {
		t.Errorf("EncodePair: type ids %v, want %v", pair.TypeIds, want)
	}
	if want := []int{1, 0, 0, 1, 0}; !slices.Equal(pair.SpecialTokenMask, want) {
		t.Errorf("EncodePair: special tokens mask %v, want %v", pair.SpecialTokenMask, want)
	}
	texts := decoder{newModel(core)}.DecodeChain([]string{"Ġcat", "Ã", "©", "no such token", "Ã"})
	if want := []string{" cat", "", "é", "", "\ufffd"}; !slices.Equal(texts, want) {
		t.Errorf("DecodeChain = %q, want %q", texts, want)
	}
	if tok.Sugar.GetModel().Save("") == nil {
		t.Errorf("Save: no error")
	}
}

func FuzzEncode(f *testing.F) {
	core, tok := load(f, "opt-mini")
	for _, s := range []string{"", "a cat", "I'm  \n\n\tx", "[RET]<|image|></s>", "\u00a0é日本語", "\xf0\x9f\x98"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if utf8.RuneCountInString(s) < 10000 {
			check(t, core, tok, s)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	_, tok := load(b, "opt-mini")
	for name, text := range map[string]string{
		"prompt":   "Q: What is this image?\nA: A photo of a cat sitting on the red table in front of an old wooden house.[RET]\n",
		"100 KB":   strings.Repeat("A photo of a cat sitting on the red table in front of an old wooden house, looking at the birds.\n", 1000),
		"one word": strings.Repeat("a", 100000),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tok.Encode(text, true); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
