// SPDX-License-Identifier: Apache-2.0

package tokenizer

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"
)

// optSpecial are the special tokens of both test vocabularies.
var optSpecial = []string{"<s>", "<pad>", "</s>", "<unk>"}

func read(t testing.TB, path ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func load(t testing.TB, dir string) *Tokenizer {
	t.Helper()
	tok, err := Load(read(t, dir, "vocab.json"), read(t, dir, "merges.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// loadFROMAGe is load with FROMAGe's two tokens.
func loadFROMAGe(t testing.TB, dir string) *Tokenizer {
	t.Helper()
	tok := load(t, dir)
	tok.AddSpecialTokens("<|image|>")
	tok.AddTokens("[RET]")
	return tok
}

func marshal(t testing.TB, tok *Tokenizer) []byte {
	t.Helper()
	data, err := tok.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func unmarshal(t testing.TB, data []byte) *Tokenizer {
	t.Helper()
	tok := new(Tokenizer)
	if err := tok.UnmarshalBinary(data); err != nil {
		t.Fatal(err)
	}
	return tok
}

// TestGolden compares with what Hugging Face's tokenizer printed.
func TestGolden(t *testing.T) {
	dir := "testdata/opt-tiny"
	var golden struct {
		Added []string `json:"added_tokens"`
		Len   int      `json:"vocab_size_with_added"`
		Cases []struct {
			Text         string
			IDs          []int32
			Bare         []int32 `json:"ids_no_bos"`
			Decoded, Raw string
		}
	}
	data := bytes.ReplaceAll(read(t, dir, "tokenization.json"), []byte(`"decoded_raw"`), []byte(`"raw"`))
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	fromDir, err := LoadDir(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	fromDir.AddSpecialTokens(golden.Added[0])
	fromDir.AddTokens(golden.Added[1])
	fromTables := loadFROMAGe(t, dir)
	for name, tok := range map[string]*Tokenizer{
		"LoadDir":         fromDir,
		"Load":            fromTables,
		"UnmarshalBinary": unmarshal(t, marshal(t, fromTables)),
	} {
		if tok.Len() != golden.Len {
			t.Errorf("%s: Len() = %d, want %d", name, tok.Len(), golden.Len)
		}
		for _, c := range golden.Cases {
			if got := tok.Encode(c.Text, true); !slices.Equal(got, c.IDs) {
				t.Errorf("%s: Encode(%q, true) = %v, want %v", name, c.Text, got, c.IDs)
			}
			if got := tok.Encode(c.Text, false); !slices.Equal(got, c.Bare) {
				t.Errorf("%s: Encode(%q, false) = %v, want %v", name, c.Text, got, c.Bare)
			}
			if got := tok.Decode(c.IDs, true); got != c.Decoded {
				t.Errorf("%s: Decode(%v, true) = %q, want %q", name, c.IDs, got, c.Decoded)
			}
			if got := tok.Decode(c.IDs, false); got != c.Raw {
				t.Errorf("%s: Decode(%v, false) = %q, want %q", name, c.IDs, got, c.Raw)
			}
		}
	}
}

// TestSlow compares with slow.json: strings and their ids by the algorithm of
// GPT-2's encoder.py, run in Python with its regex module.
func TestSlow(t *testing.T) {
	tok := loadFROMAGe(t, "testdata/opt-mini")
	var cases []struct {
		Text string
		IDs  []int32
	}
	if err := json.Unmarshal(read(t, "testdata/opt-mini/slow.json"), &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) != 300 {
		t.Fatalf("slow.json has %d cases, want 300", len(cases))
	}
	for _, c := range cases {
		if got := tok.Encode(c.Text, false); !slices.Equal(got, c.IDs) {
			t.Errorf("Encode(%q, false) = %v, want %v", c.Text, got, c.IDs)
		}
	}
}

// tokenizerJSONOf writes the tables in dir as tokenizer.json.
func tokenizerJSONOf(t testing.TB, dir string, pairs bool) []byte {
	t.Helper()
	var merges []any
	for line := range strings.Lines(string(read(t, dir, "merges.txt"))) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "#version"):
		case pairs:
			merges = append(merges, strings.Split(line, " "))
		default:
			merges = append(merges, line)
		}
	}
	var addedTokens []any
	for id, token := range optSpecial {
		addedTokens = append(addedTokens, map[string]any{"id": id, "content": token, "special": true})
	}
	data, err := json.Marshal(map[string]any{
		"added_tokens":  addedTokens,
		"normalizer":    nil,
		"pre_tokenizer": map[string]any{"type": "ByteLevel", "add_prefix_space": false},
		"model": map[string]any{
			"type": "BPE", "dropout": nil, "vocab": json.RawMessage(read(t, dir, "vocab.json")), "merges": merges,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestSameTables loads one tokenizer in every form: the tables must be the same
// to the byte.
func TestSameTables(t *testing.T) {
	for _, dir := range []string{"testdata/opt-tiny", "testdata/opt-mini"} {
		want := marshal(t, load(t, dir))
		vocab, merges := read(t, dir, "vocab.json"), read(t, dir, "merges.txt")
		_, bare, _ := bytes.Cut(merges, []byte("\n"))
		forms := map[string]fstest.MapFS{
			"tokenizer.json, merges as pairs": {"tokenizer.json": {Data: tokenizerJSONOf(t, dir, true)}},
			"tokenizer.json, merges as lines": {"tokenizer.json": {Data: tokenizerJSONOf(t, dir, false)}},
			"no config":                       {"vocab.json": {Data: vocab}, "merges.txt": {Data: merges}},
			"no #version":                     {"vocab.json": {Data: vocab}, "merges.txt": {Data: bare}},
			"\\r\\n":                          {"vocab.json": {Data: vocab}, "merges.txt": {Data: bytes.ReplaceAll(merges, []byte("\n"), []byte("\r\n"))}},
			"named as strings and objects": {"vocab.json": {Data: vocab}, "merges.txt": {Data: merges},
				"special_tokens_map.json": {Data: []byte(`{"bos_token": {"content": "</s>", "normalized": true}, "pad_token": "<pad>", "unk_token": null}`)},
				"tokenizer_config.json":   {Data: []byte(`{"additional_special_tokens": ["<s>", {"content": "<unk>"}], "add_bos_token": true}`)}},
			"added_tokens_decoder": {"vocab.json": {Data: vocab}, "merges.txt": {Data: merges},
				"tokenizer_config.json": {Data: []byte(`{"added_tokens_decoder": {
					"0": {"content": "<s>", "special": true}, "1": {"content": "<pad>", "special": true},
					"2": {"content": "</s>", "special": true}, "3": {"content": "<unk>", "special": true}}}`)}},
		}
		if dir == "testdata/opt-tiny" {
			forms["the real tokenizer.json"] = fstest.MapFS{"tokenizer.json": {Data: read(t, dir, "tokenizer.json")}}
		}
		for name, files := range forms {
			tok, err := LoadDir(files)
			if err != nil {
				t.Errorf("%s: %s: %v", dir, name, err)
				continue
			}
			if got := marshal(t, tok); !bytes.Equal(got, want) {
				t.Errorf("%s: %s: tables differ: %d bytes, want %d", dir, name, len(got), len(want))
			}
		}
		if got := marshal(t, unmarshal(t, want)); !bytes.Equal(got, want) {
			t.Errorf("%s: UnmarshalBinary and MarshalBinary: tables differ", dir)
		}
	}
}

// TestNamedTokens loads special and added tokens that the vocabulary lacks.
func TestNamedTokens(t *testing.T) {
	base := fstest.MapFS{
		"vocab.json": {Data: read(t, "testdata/opt-tiny/vocab.json")},
		"merges.txt": {Data: read(t, "testdata/opt-tiny/merges.txt")},
	}
	base["added_tokens.json"] = &fstest.MapFile{Data: []byte(`{"[RET]": 478, "<|image|>": 477}`)}
	base["special_tokens_map.json"] = &fstest.MapFile{Data: []byte(`{"bos_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>", "cls_token": {"content": "<|image|>"}}`)}
	tok, err := LoadDir(base)
	if err != nil {
		t.Fatal(err)
	}
	text := "<|image|>[RET]</s><mask>"
	if got, want := tok.Encode(text, false), []int32{477, 478, 2, 479}; !slices.Equal(got, want) {
		t.Errorf("Encode(%q) = %v, want %v", text, got, want)
	}
	if got, want := tok.Decode([]int32{477, 478, 2, 479}, true), "[RET]"; got != want {
		t.Errorf("Decode(…, true) = %q, want %q", got, want)
	}
	// No file names <s>, so it is text, as it is for GPT2Tokenizer.
	if got := tok.Encode("<s>", false); len(got) != 3 {
		t.Errorf("Encode(%q) = %v, want its three characters", "<s>", got)
	}
}

func TestAddTokens(t *testing.T) {
	tok := load(t, "testdata/opt-tiny")
	n := int32(tok.Len())
	ids := tok.AddTokens("qz", "", "qzc", "b", "é ü", "qz", "Ġcat")
	b, _ := tok.ID("b")
	cat, _ := tok.ID("Ġcat")
	if want := []int32{n, n + 1, b, n + 2, n, cat}; !slices.Equal(ids, want) {
		t.Fatalf("AddTokens = %v, want %v", ids, want)
	}
	a, _ := tok.ID("a")
	c, _ := tok.ID("c")
	for _, test := range []struct {
		text string
		want []int32
	}{
		{"qzqz", []int32{n, n}},
		{"qzcqz", []int32{n + 1, n}},
		{"aqz", []int32{a, n}},
		{"bc", []int32{b, c}},
		{"aé üa", []int32{a, n + 2, a}},
		{"aĠcata", []int32{a, cat, a}},
		{"a cat", []int32{a, cat}},
	} {
		for _, tok := range []*Tokenizer{tok, unmarshal(t, marshal(t, tok))} {
			if got := tok.Encode(test.text, false); !slices.Equal(got, test.want) {
				t.Errorf("Encode(%q) = %v, want %v", test.text, got, test.want)
			}
		}
	}
	if got, want := tok.Decode([]int32{n + 2, a}, true), "é üa"; got != want {
		t.Errorf("Decode = %q, want %q", got, want)
	}
}

func TestTokenNames(t *testing.T) {
	tok := loadFROMAGe(t, "testdata/opt-mini")
	if id, ok := tok.ID(bosToken); !ok || id != 2 || tok.BOS() != 2 {
		t.Errorf("ID(%q), BOS() = %d, %d, want 2, 2", bosToken, id, tok.BOS())
	}
	for id := range int32(tok.Len()) {
		token := tok.Token(id)
		if got, ok := tok.ID(token); !ok || got != id {
			t.Errorf("ID(Token(%d)) = %d, %v", id, got, ok)
		}
	}
	if got := tok.Text(tok.Encode("\n", false)[0]); got != "\n" {
		t.Errorf("Text of a newline = %q", got)
	}
	for _, id := range []int32{-1, int32(tok.Len()), 1 << 30} {
		if tok.Token(id) != "" || tok.Text(id) != "" || tok.Special(id) {
			t.Errorf("Token(%d), Text(%d) = %q, %q, want nothing", id, id, tok.Token(id), tok.Text(id))
		}
	}
	for _, token := range []string{"", "no such", "Ġno-such", " cat"} {
		if id, ok := tok.ID(token); ok {
			t.Errorf("ID(%q) = %d, want none", token, id)
		}
	}
}

// Wanted values are Python's: bytes.decode("utf-8", "replace").
var sanitizeTests = []struct{ in, want string }{
	{"", ""},
	{"plain é 😀", "plain é 😀"},
	{"a\xffb", "a\ufffdb"},
	{"\xf0\x9f\x98", "\ufffd"},
	{"\xf0\x9f\x98a", "\ufffda"},
	{"\xed\xa0\x80", "\ufffd\ufffd\ufffd"},
	{"\xc0\x80", "\ufffd\ufffd"},
	{"\xe0\x80\x80", "\ufffd\ufffd\ufffd"},
	{"\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd"},
	{"\xe2\x82\xe2\x82\xac", "\ufffd€"},
	{"\x80\x80", "\ufffd\ufffd"},
	{"\xf0\x90", "\ufffd"},
	{"\xf0\x8f\xbf\xbf", "\ufffd\ufffd\ufffd\ufffd"},
	{"\xc3", "\ufffd"},
	{"\xc3\xc3\xa9", "\ufffdé"},
	{"\xf8\x88\x80\x80\x80", "\ufffd\ufffd\ufffd\ufffd\ufffd"},
	{"\ufffd", "\ufffd"},
	{"\xf1\x80\x80\xe1\x80\xc2b", "\ufffd\ufffd\ufffdb"},
}

func TestSanitize(t *testing.T) {
	tok := loadFROMAGe(t, "testdata/opt-mini")
	for _, test := range sanitizeTests {
		if got := Sanitize(test.in); got != test.want {
			t.Errorf("Sanitize(%q) = %q, want %q", test.in, got, test.want)
		}
		if got := tok.Decode(tok.Encode(test.in, false), false); got != test.want {
			t.Errorf("Decode(Encode(%q)) = %q, want %q", test.in, got, test.want)
		}
	}
}

// TestDecoder decodes random ids, most of which break characters, one by one.
func TestDecoder(t *testing.T) {
	tok := loadFROMAGe(t, "testdata/opt-mini")
	rnd := rand.New(rand.NewPCG(1, 2))
	d := [2]*Decoder{tok.NewDecoder(false), tok.NewDecoder(true)}
	for range 20000 {
		ids := make([]int32, rnd.IntN(12))
		for i := range ids {
			switch rnd.IntN(3) {
			case 0:
				ids[i] = tok.byteID[0x80+rnd.IntN(0x80)]
			case 1:
				ids[i] = rnd.Int32N(260)
			default:
				ids[i] = rnd.Int32N(int32(tok.Len()) + 3)
			}
		}
		for skip, d := range d {
			var got strings.Builder
			for _, id := range ids {
				part := d.Push(id)
				if !utf8.ValidString(part) {
					t.Fatalf("Push(%d) = %q in %v, want whole characters", id, part, ids)
				}
				got.WriteString(part)
			}
			got.WriteString(d.Flush())
			if want := tok.Decode(ids, skip == 1); got.String() != want {
				t.Fatalf("Push one by one of %v = %q, want %q", ids, got.String(), want)
			}
		}
	}
}

// TestDecoderWaits pushes a character byte by byte.
func TestDecoderWaits(t *testing.T) {
	tok := load(t, "testdata/opt-tiny")
	d := tok.NewDecoder(true)
	var got []string
	for _, b := range []byte("é😀\xf0\x9fa") {
		got = append(got, d.Push(tok.byteID[b]))
	}
	if want := []string{"", "é", "", "", "", "😀", "", "", "\ufffda"}; !slices.Equal(got, want) {
		t.Errorf("Push byte by byte = %q, want %q", got, want)
	}
}
