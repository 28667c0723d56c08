// SPDX-License-Identifier: Apache-2.0

package tokenizer

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"
)

// wantError fails unless err says all of parts.
func wantError(t *testing.T, what string, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want %q", what, parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: error %q, want %q in it", what, err, part)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	vocab, merges := string(read(t, "testdata/opt-tiny/vocab.json")), string(read(t, "testdata/opt-tiny/merges.txt"))
	replace := func(s, old, new string) string {
		if !strings.Contains(s, old) {
			t.Fatalf("no %q to replace", old)
		}
		return strings.Replace(s, old, new, 1)
	}
	for _, test := range []struct {
		name, vocab, merges string
		want                []string
	}{
		{"one part", vocab, replace(merges, "Ġ s\n", "Ġ\n"), []string{`tokenizer: merges.txt line 5: want "a b", have "Ġ"`}},
		{"three parts", vocab, replace(merges, "Ġ s\n", "Ġ s t\n"), []string{`line 5: want "a b", have "Ġ s t"`}},
		{"empty line", vocab, replace(merges, "Ġ s\n", "\n"), []string{`line 5: want "a b", have ""`}},
		{"unknown token", vocab, merges + "zq zq\n", []string{"merges.txt line 219", `"zq"`}},
		{"out of order", vocab, replace(merges, "h e\n", "Ġ the\nh e\n"), []string{"merges.txt line 2", "earlier merges"}},
		{"twice", vocab, merges + "h e\n", []string{"merges.txt line 219", "not made before"}},
		{"no JSON", "{", merges, []string{"tokenizer: vocab.json: unexpected end"}},
		{"null", "null", merges, []string{"vocab.json", `for byte 0x00`}},
		{"id no number", replace(vocab, `"<pad>":1,`, `"<pad>":"1",`), merges, []string{"vocab.json", "string"}},
		{"id negative", replace(vocab, `"<pad>":1,`, `"<pad>":-1,`), merges, []string{`vocab.json "<pad>"`, "-1"}},
		{"id too big", replace(vocab, `"<pad>":1,`, `"<pad>":477,`), merges, []string{`vocab.json "<pad>"`, "477, have 477"}},
		{"id huge", replace(vocab, `"<pad>":1,`, `"<pad>":99999999999,`), merges, []string{"vocab.json", "99999999999"}},
		{"id twice", replace(vocab, `"<pad>":1,`, `"<pad>":3,`), merges, []string{"vocab.json", "id of its own, have 3"}},
		{"empty token", replace(vocab, `"<pad>":1,`, `"":1,`), merges, []string{"vocab.json", `want no token ""`}},
		{"no byte", replace(vocab, `"!":4,`, `"!!":4,`), merges, []string{"vocab.json", `'!'`, "0x21"}},
		{"no </s>", replace(vocab, `"</s>":2,`, `"</t>":2,`), merges, []string{"vocab.json", `"</s>"`}},
	} {
		_, err := Load([]byte(test.vocab), []byte(test.merges))
		wantError(t, test.name, err, test.want...)
	}
}

func TestLoadJSONErrors(t *testing.T) {
	whole := read(t, "testdata/opt-tiny/tokenizer.json")
	for _, test := range []struct {
		name   string
		change func(j map[string]any)
		want   []string
	}{
		{"normalizer", func(j map[string]any) { j["normalizer"] = map[string]any{"type": "NFC"} }, []string{"tokenizer.json normalizer: want null", "NFC"}},
		{"splitter", func(j map[string]any) { j["pre_tokenizer"] = map[string]any{"type": "Whitespace"} }, []string{"pre_tokenizer.type: want ByteLevel, have Whitespace"}},
		{"no splitter", func(j map[string]any) { j["pre_tokenizer"] = nil }, []string{"pre_tokenizer.type"}},
		{"prefix space", func(j map[string]any) { j["pre_tokenizer"].(map[string]any)["add_prefix_space"] = true }, []string{"pre_tokenizer.add_prefix_space: want false, have true"}},
		{"no regex", func(j map[string]any) { j["pre_tokenizer"].(map[string]any)["use_regex"] = false }, []string{"pre_tokenizer.use_regex: want true, have false"}},
		{"model", func(j map[string]any) { j["model"].(map[string]any)["type"] = "Unigram" }, []string{"model.type: want BPE, have Unigram"}},
		{"dropout", func(j map[string]any) { j["model"].(map[string]any)["dropout"] = 0.1 }, []string{"model.dropout: want null, have 0.1"}},
		{"prefix", func(j map[string]any) { j["model"].(map[string]any)["continuing_subword_prefix"] = "##" }, []string{"model.continuing_subword_prefix: want null, have ##"}},
		{"suffix", func(j map[string]any) { j["model"].(map[string]any)["end_of_word_suffix"] = "</w>" }, []string{"model.end_of_word_suffix: want null, have </w>"}},
		{"ignore_merges", func(j map[string]any) { j["model"].(map[string]any)["ignore_merges"] = true }, []string{"model.ignore_merges: want false, have true"}},
		{"merge of three", func(j map[string]any) {
			j["model"].(map[string]any)["merges"] = []any{[]any{"h", "e"}, []any{"h", "e", "r"}}
		}, []string{"tokenizer.json", "model.merges[1]", `["h" "e" "r"]`}},
		{"merge of one", func(j map[string]any) { j["model"].(map[string]any)["merges"] = []any{"h e", "h"} }, []string{"tokenizer.json", "model.merges[1]", `["h"]`}},
		{"merge of numbers", func(j map[string]any) { j["model"].(map[string]any)["merges"] = []any{1} }, []string{"tokenizer.json", "number"}},
		{"unknown merge", func(j map[string]any) { j["model"].(map[string]any)["merges"] = []any{"h q"} }, []string{"tokenizer.json model.merges[0]", `"hq"`}},
		{"lstrip", func(j map[string]any) { j["added_tokens"].([]any)[1].(map[string]any)["lstrip"] = true }, []string{`tokenizer.json added_tokens[1] "<pad>"`, "lstrip"}},
		{"no content", func(j map[string]any) { j["added_tokens"].([]any)[1].(map[string]any)["content"] = "" }, []string{"tokenizer.json added_tokens[1]"}},
		{"other id", func(j map[string]any) { j["added_tokens"].([]any)[1].(map[string]any)["id"] = 7 }, []string{`tokenizer.json added_tokens[1] "<pad>": want id 1, have 7`}},
		{"a hole before", func(j map[string]any) {
			j["added_tokens"] = append(j["added_tokens"].([]any), map[string]any{"id": 500, "content": "[RET]"})
		}, []string{`"[RET]"`, "478, have 500"}},
	} {
		var j map[string]any
		if err := json.Unmarshal(whole, &j); err != nil {
			t.Fatal(err)
		}
		test.change(j)
		data, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		_, err = LoadJSON(data)
		wantError(t, test.name, err, test.want...)
	}
	_, err := LoadJSON([]byte("[]"))
	wantError(t, "array", err, "tokenizer: tokenizer.json:", "array")
}

func TestLoadDirErrors(t *testing.T) {
	file := func(data string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(data)} }
	vocab, merges := file(string(read(t, "testdata/opt-tiny/vocab.json"))), file(string(read(t, "testdata/opt-tiny/merges.txt")))
	for _, test := range []struct {
		name  string
		files fstest.MapFS
		want  []string
	}{
		{"nothing", fstest.MapFS{}, []string{"want tokenizer.json, or vocab.json and merges.txt", "not exist"}},
		{"no merges", fstest.MapFS{"vocab.json": vocab}, []string{"merges.txt", "not exist"}},
		{"other bos", fstest.MapFS{"vocab.json": vocab, "merges.txt": merges, "special_tokens_map.json": file(`{"bos_token": {"content": "<s>"}}`)},
			[]string{`special_tokens_map.json bos_token: want "</s>", have "<s>"`}},
		{"prefix space", fstest.MapFS{"vocab.json": vocab, "merges.txt": merges, "tokenizer_config.json": file(`{"add_prefix_space": true}`)},
			[]string{"tokenizer_config.json add_prefix_space: want false, have true"}},
		{"a number", fstest.MapFS{"vocab.json": vocab, "merges.txt": merges, "tokenizer_config.json": file(`{"pad_token": 1}`)},
			[]string{"tokenizer_config.json", "number"}},
		{"rstrip", fstest.MapFS{"vocab.json": vocab, "merges.txt": merges, "special_tokens_map.json": file(`{"mask_token": {"content": "<mask>", "rstrip": true}}`)},
			[]string{`special_tokens_map.json "<mask>"`, "rstrip"}},
		{"a hole", fstest.MapFS{"vocab.json": vocab, "merges.txt": merges, "added_tokens.json": file(`{"[RET]": 50266}`)},
			[]string{`"[RET]"`, "478, have 50266"}},
		{"decoder id", fstest.MapFS{"vocab.json": vocab, "merges.txt": merges, "tokenizer_config.json": file(`{"added_tokens_decoder": {"5": {"content": "<s>"}}}`)},
			[]string{`tokenizer_config.json added_tokens_decoder[5] "<s>": want id 0, have 5`}},
		{"empty added", fstest.MapFS{"vocab.json": vocab, "merges.txt": merges, "added_tokens.json": file(`{"": 477}`)},
			[]string{"added_tokens.json", `""`}},
		{"broken map", fstest.MapFS{"vocab.json": vocab, "merges.txt": merges, "added_tokens.json": file(`{`)}, []string{"tokenizer: added_tokens.json"}},
		{"a folder", fstest.MapFS{"tokenizer.json": {Mode: fs.ModeDir}}, []string{"tokenizer.json"}},
	} {
		_, err := LoadDir(test.files)
		wantError(t, test.name, err, test.want...)
	}
}

// TestUnmarshalBinaryErrors cuts and changes the compact form.
func TestUnmarshalBinaryErrors(t *testing.T) {
	tok := loadFROMAGe(t, "testdata/opt-tiny")
	data := marshal(t, tok)
	got := load(t, "testdata/opt-tiny")
	for n := range data {
		if err := got.UnmarshalBinary(data[:n]); err == nil {
			t.Fatalf("UnmarshalBinary of the first %d of %d bytes: no error", n, len(data))
		}
		if got.Len() != tok.Len()-2 {
			t.Fatalf("UnmarshalBinary of the first %d bytes changed the tokenizer", n)
		}
	}
	head := func(numbers ...uint64) []byte {
		b := []byte(magic)
		for _, n := range numbers {
			b = binary.AppendUvarint(b, n)
		}
		return b
	}
	change := func(f func(*Tokenizer)) []byte {
		tok := loadFROMAGe(t, "testdata/opt-tiny")
		f(tok)
		return marshal(t, tok)
	}
	for _, test := range []struct {
		name string
		data []byte
		want []string
	}{
		{"other magic", []byte("OPTBPE2\n"), []string{"tokenizer: tables byte 0"}},
		{"more tokens than bytes", head(1<<40, 0, 0), []string{"byte 8", "number of tokens"}},
		{"more merges than bytes", append(head(1, 1<<31, 0), 8, 'a'), []string{"number of merges"}},
		{"no tokens", head(0, 0, 0), []string{"byte 10", "id of </s>"}},
		{"endless varint", append([]byte(magic), bytes.Repeat([]byte{0xff}, 20)...), []string{"byte 8"}},
		{"long texts", append(head(1, 0, 0, 1<<20), "abc"...), []string{"token"}},
		{"tail", append(slices.Clone(data), 0), []string{"want the end, have 1 bytes more"}},
		{"empty token", change(func(t *Tokenizer) { t.text[3] = "" }), []string{"token 3"}},
		{"special, not added", change(func(t *Tokenizer) { t.kind[3] = special }), []string{"token 3"}},
		{"a byte twice", change(func(t *Tokenizer) { t.text[3] = "!" }), []string{"byte 0x21"}},
		{"a byte missing", change(func(t *Tokenizer) { t.text[4] = "!!" }), []string{"have 255"}},
		{"bos out of range", change(func(t *Tokenizer) { t.bos = 479 }), []string{"id of </s>"}},
		{"merge out of range", change(func(t *Tokenizer) { t.merges[5].right = 479 }), []string{"token id of at most 478"}},
		{"merge out of order", change(func(t *Tokenizer) { t.merges[0] = t.merges[100] }), []string{"merge 0"}},
		{"merge of other text", change(func(t *Tokenizer) { t.merges[0].product = 477 }), []string{"merge 0"}},
	} {
		wantError(t, test.name, new(Tokenizer).UnmarshalBinary(test.data), test.want...)
	}
}

// checkEncodes fails if what came through a loader cannot encode and decode.
func checkEncodes(t *testing.T, tok *Tokenizer) {
	text := "a cat[RET]'s  </s>\n\n é\xff" + strings.Repeat("ab", 50)
	ids := tok.Encode(text, true)
	for _, id := range ids {
		if id < 0 || int(id) >= tok.Len() {
			t.Fatalf("Encode gave id %d of %d", id, tok.Len())
		}
	}
	tok.Decode(ids, true)
	data := marshal(t, tok)
	if again := marshal(t, unmarshal(t, data)); !bytes.Equal(again, data) {
		t.Fatalf("MarshalBinary after UnmarshalBinary differs")
	}
}

func FuzzLoadTables(f *testing.F) {
	f.Add(read(f, "testdata/opt-tiny/vocab.json"), read(f, "testdata/opt-tiny/merges.txt"), read(f, "testdata/opt-tiny/tokenizer_config.json"))
	f.Add(read(f, "testdata/opt-tiny/vocab.json"), []byte("h e"), []byte(`{"added_tokens_decoder": {"477": {"content": "[RET]"}}}`))
	f.Fuzz(func(t *testing.T, vocab, merges, config []byte) {
		tok, err := LoadDir(fstest.MapFS{
			"vocab.json": {Data: vocab}, "merges.txt": {Data: merges},
			"special_tokens_map.json": {Data: config}, "tokenizer_config.json": {Data: config},
		})
		if err == nil {
			checkEncodes(t, tok)
		}
	})
}

func FuzzLoadJSON(f *testing.F) {
	f.Add(read(f, "testdata/opt-tiny/tokenizer.json"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if tok, err := LoadJSON(data); err == nil {
			checkEncodes(t, tok)
		}
	})
}

func FuzzUnmarshalBinary(f *testing.F) {
	f.Add(marshal(f, loadFROMAGe(f, "testdata/opt-tiny")))
	f.Fuzz(func(t *testing.T, data []byte) {
		tok := new(Tokenizer)
		if tok.UnmarshalBinary(data) == nil {
			checkEncodes(t, tok)
		}
	})
}

func FuzzEncode(f *testing.F) {
	tok := loadFROMAGe(f, "testdata/opt-mini")
	o := newOracle(f, read(f, "testdata/opt-mini/vocab.json"), read(f, "testdata/opt-mini/merges.txt"), append(optSpecial, "<|image|>", "[RET]")...)
	for _, s := range []string{"a cat", "I'm  \n\n\tx", "[RET]<|image|></s>", "\u00a0é日本語", "\xf0\x9f\x98", strings.Repeat("a", 200)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text := Sanitize(s)
		if !utf8.ValidString(text) || utf8.ValidString(s) && text != s {
			t.Fatalf("Sanitize(%q) = %q", s, text)
		}
		ids := tok.Encode(s, false)
		if got := tok.Decode(ids, false); got != text {
			t.Fatalf("Decode(Encode(%q)) = %q", s, got)
		}
		if want := o.encode(text); len(s) < 1000 && !slices.Equal(ids, want) {
			t.Fatalf("Encode(%q) = %v, want %v", s, ids, want)
		}
		d := tok.NewDecoder(false)
		var parts strings.Builder
		for _, id := range ids {
			parts.WriteString(d.Push(id))
		}
		if parts.WriteString(d.Flush()); parts.String() != text {
			t.Fatalf("decoded one by one, Encode(%q) = %q", s, parts.String())
		}
	})
}

// TestLoadDirOfCheckpoint loads a folder with every file.
func TestLoadDirOfCheckpoint(t *testing.T) {
	tok, err := LoadDir(os.DirFS("testdata/opt-tiny"))
	if err != nil {
		t.Fatal(err)
	}
	for id, token := range optSpecial {
		if !tok.Special(int32(id)) || tok.Token(int32(id)) != token {
			t.Errorf("token %d = %q, special %v; want %q, true", id, tok.Token(int32(id)), tok.Special(int32(id)), token)
		}
	}
	if tok.Special(4) {
		t.Errorf("token 4, %q, is special", tok.Token(4))
	}
}
