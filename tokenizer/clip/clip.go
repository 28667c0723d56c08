// SPDX-License-Identifier: Apache-2.0

// Package clip is the tokenizer of CLIP's text tower: byte-level BPE with marked ends of words, as Hugging Face's CLIPTokenizer computes it.
//
// What enters is a text and the tables of tokenizer.json, or vocab.json and merges.txt; what leaves is token numbers. A text is brought into Unicode's
// NFC, its white space made single spaces, and lowered; `<|startoftext|>` and `<|endoftext|>` are split off first. The package refuses to know files, the
// length that a text is cut to, and models, and it does not decode.
package clip

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Tokens that every CLIP vocabulary has.
const (
	bosToken = "<|startoftext|>"
	eosToken = "<|endoftext|>"
	endMark  = "</w>" // what a token at the end of a word is spelled with
)

// Tokenizer turns text into token numbers. It may be used by several goroutines at once.
type Tokenizer struct {
	vocab    map[string]int32
	merges   [][2]string
	ranks    map[[2]string]int
	bos, eos int32
}

// table is the part of tokenizer.json that decides about numbers.
type table struct {
	Model struct {
		Type   string           `json:"type,omitempty"`
		Suffix string           `json:"end_of_word_suffix"`
		Vocab  map[string]int32 `json:"vocab"`
		Merges []mergePair      `json:"merges"`
	} `json:"model"`
}

// mergePair reads a merge written "a b" (tokenizers before 0.20) or ["a", "b"], and writes it as the latter.
type mergePair [2]string

func (m *mergePair) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) != nil {
		var pair []string
		if err := json.Unmarshal(data, &pair); err != nil || len(pair) != 2 {
			return fmt.Errorf(`want a merge ["a", "b"], have %.80s`, data)
		}
		*m = mergePair(pair)
		return nil
	}
	left, right, ok := strings.Cut(text, " ")
	if !ok {
		return fmt.Errorf(`want a merge "a b", have %.80q`, text)
	}
	*m = mergePair{left, right}
	return nil
}

// LoadDir reads the tokenizer of a checkpoint's folder: tokenizer.json, or without it vocab.json and merges.txt. It returns nil where they are not of
// CLIP's kind: there are no words' ends in them.
func LoadDir(dir fs.FS) (*Tokenizer, error) {
	data, err := fs.ReadFile(dir, "tokenizer.json")
	if err == nil {
		var t table
		if err := json.Unmarshal(data, &t); err != nil {
			return nil, fmt.Errorf("clip: tokenizer.json: %w", err)
		}
		if t.Model.Suffix != endMark {
			return nil, nil
		}
		return Load(data)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("clip: %w", err)
	}
	t := table{}
	t.Model.Suffix = endMark
	vocab, err := fs.ReadFile(dir, "vocab.json")
	if err != nil {
		return nil, fmt.Errorf("clip: %w", err)
	}
	if err := json.Unmarshal(vocab, &t.Model.Vocab); err != nil {
		return nil, fmt.Errorf("clip: vocab.json: %w", err)
	}
	if _, ok := t.Model.Vocab[bosToken]; !ok {
		return nil, nil
	}
	merges, err := fs.ReadFile(dir, "merges.txt")
	if err != nil {
		return nil, fmt.Errorf("clip: %w", err)
	}
	for i, line := range strings.Split(strings.TrimRight(string(merges), "\r\n"), "\n") {
		if i == 0 && strings.HasPrefix(line, "#version") {
			continue
		}
		left, right, ok := strings.Cut(strings.TrimSuffix(line, "\r"), " ")
		if !ok {
			return nil, fmt.Errorf(`clip: merges.txt line %d: want "a b", have %.80q`, i+1, line)
		}
		t.Model.Merges = append(t.Model.Merges, mergePair{left, right})
	}
	return t.build()
}

// Load reads a tokenizer.json, or what JSON wrote.
func Load(tokenizerJSON []byte) (*Tokenizer, error) {
	var t table
	if err := json.Unmarshal(tokenizerJSON, &t); err != nil {
		return nil, fmt.Errorf("clip: tokenizer.json: %w", err)
	}
	if t.Model.Suffix != endMark || t.Model.Type != "" && t.Model.Type != "BPE" {
		return nil, fmt.Errorf("clip: tokenizer.json: want a BPE model whose end_of_word_suffix is %s, have %q with %q", endMark, t.Model.Type, t.Model.Suffix)
	}
	return t.build()
}

// build holds the tables to what Encode relies on: a token for every byte within a word and at its end, and for every merge.
func (t *table) build() (*Tokenizer, error) {
	out := &Tokenizer{vocab: t.Model.Vocab, ranks: map[[2]string]int{}}
	has := func(token string) error {
		if id, ok := out.vocab[token]; !ok || id < 0 || int(id) >= len(out.vocab) {
			return fmt.Errorf("clip: want token %q with a number below %d, have %d (there: %t)", token, len(out.vocab), id, ok)
		}
		return nil
	}
	for b := range alphabet {
		if err := errors.Join(has(alphabet[b]), has(alphabet[b]+endMark)); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(has(bosToken), has(eosToken)); err != nil {
		return nil, err
	}
	for i, m := range t.Model.Merges {
		if err := has(m[0] + m[1]); err != nil {
			return nil, fmt.Errorf("%w: merge %d", err, i)
		}
		if _, ok := out.ranks[m]; !ok {
			out.ranks[m] = i
		}
		out.merges = append(out.merges, m)
	}
	out.bos, out.eos = out.vocab[bosToken], out.vocab[eosToken]
	return out, nil
}

// JSON returns the tables as Load reads them.
func (t *Tokenizer) JSON() []byte {
	var out table
	out.Model.Suffix, out.Model.Vocab = endMark, t.vocab
	for _, m := range t.merges {
		out.Model.Merges = append(out.Model.Merges, m)
	}
	data, err := json.Marshal(out)
	if err != nil {
		panic(err) // maps and strings always can be written
	}
	return data
}

// Len returns how many tokens there are.
func (t *Tokenizer) Len() int { return len(t.vocab) }

// BOS returns the number of `<|startoftext|>`, EOS that of `<|endoftext|>`.
func (t *Tokenizer) BOS() int32 { return t.bos }

// EOS returns the number of `<|endoftext|>`.
func (t *Tokenizer) EOS() int32 { return t.eos }

// Encode returns the numbers of a text's tokens, without those that begin and end it.
func (t *Tokenizer) Encode(text string) []int32 {
	var ids []int32
	for text != "" {
		at, token, id := len(text), "", int32(0)
		for s, n := range map[string]int32{bosToken: t.bos, eosToken: t.eos} {
			if i := strings.Index(text, s); i >= 0 && i < at {
				at, token, id = i, s, n
			}
		}
		ids = t.appendWords(ids, normalized(text[:at]))
		if token != "" {
			ids = append(ids, id)
		}
		text = text[at+len(token):]
	}
	return ids
}

// normalized is NFC, lower case, and single spaces for white space. Lowering is by character, without regard to its neighbours.
func normalized(text string) string {
	var b strings.Builder
	space := false
	for _, r := range norm.NFC.String(strings.ToValidUTF8(text, "\uFFFD")) {
		switch {
		case unicode.IsSpace(r):
			if !space {
				b.WriteByte(' ')
			}
		case r == 'İ':
			b.WriteString("i̇") // the one character that lowers to two
		default:
			b.WriteRune(unicode.ToLower(r))
		}
		space = unicode.IsSpace(r)
	}
	return b.String()
}

// endings are what may follow an apostrophe as a word of its own.
var endings = []string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}

// wordLen returns the length of the word that a text begins with: 's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+. White space is none.
func wordLen(text string) int {
	for _, s := range endings {
		if strings.HasPrefix(text, s) {
			return len(s)
		}
	}
	first, n := utf8.DecodeRuneInString(text)
	if unicode.IsNumber(first) {
		return n
	}
	letters := unicode.IsLetter(first)
	end := strings.IndexFunc(text, func(r rune) bool {
		if letters {
			return !unicode.IsLetter(r)
		}
		return unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsSpace(r)
	})
	if end < 0 {
		return len(text)
	}
	return end
}

// appendWords appends the tokens of a normalized text.
func (t *Tokenizer) appendWords(ids []int32, text string) []int32 {
	for {
		text = strings.TrimLeftFunc(text, unicode.IsSpace)
		if text == "" {
			return ids
		}
		n := wordLen(text)
		for _, token := range t.merge(text[:n]) {
			ids = append(ids, t.vocab[token])
		}
		text = text[n:]
	}
}

// merge joins a word's bytes, lowest rank first and leftmost among equals, as long as there is a merge.
func (t *Tokenizer) merge(word string) []string {
	parts := make([]string, len(word))
	for i := range len(word) {
		parts[i] = alphabet[word[i]]
	}
	parts[len(parts)-1] += endMark
	for len(parts) > 1 {
		best, rank := -1, len(t.merges)
		for i := range len(parts) - 1 {
			if r, ok := t.ranks[[2]string{parts[i], parts[i+1]}]; ok && r < rank {
				best, rank = i, r
			}
		}
		if best < 0 {
			break
		}
		parts[best] += parts[best+1]
		parts = append(parts[:best+1], parts[best+2:]...)
	}
	return parts
}

// alphabet spells every byte as a printable character, as GPT-2 does: those that are printable stand for themselves, the others for the characters from
// 256 on.
var alphabet = func() (a [256]string) {
	next := rune(256)
	for b := range a {
		if r := rune(b); r >= '!' && r <= '~' || r >= '¡' && r <= '¬' || r >= '®' && r <= 'ÿ' {
			a[b] = string(r)
			continue
		}
		a[b] = string(next)
		next++
	}
	return a
}()
