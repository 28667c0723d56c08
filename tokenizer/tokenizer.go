// SPDX-License-Identifier: Apache-2.0

// Package tokenizer is OPT's tokenizer: GPT-2's byte-level BPE, exactly as
// Hugging Face's GPT2Tokenizer computes it.
//
// Text enters and token ids leave, or the other way round; the tables come
// from vocab.json and merges.txt, from tokenizer.json, or from the compact form
// of [Tokenizer.MarshalBinary]. Text passes three stages: added and special
// tokens are split off, left to right and longest first; what lies between them
// is cut into pieces by GPT-2's regular expression; every piece is merged,
// lowest rank first and leftmost among equals.
//
// The package refuses tables with which that would not be exact (another
// normaliser or splitter, tokens that strip the space beside them, merges that
// use a token before making it) instead of coming close. Character classes are
// those of Go's unicode package. White space beside an added token is kept, as
// Hugging Face keeps it today; its slow tokenizers of 2022 dropped it.
//
// The package knows no paths, no network and no model.
package tokenizer

import (
	"iter"
	"slices"
	"strings"
)

// bosToken is what OPT puts in front of a text (id 2 in its vocabulary).
const bosToken = "</s>"

// kind says how a token is matched and shown.
type kind uint8

const (
	// literal marks a token whose spelling is its text rather than its text in
	// GPT-2's alphabet of printable bytes.
	literal kind = 1 << iota
	// added marks a token that is matched whole wherever it occurs in a text.
	added
	// special marks an added token that Decode can leave out.
	special

	kindBits = 3
)

// Tokenizer turns text into token ids and back. A zero Tokenizer is good for
// UnmarshalBinary only. After the last AddTokens a Tokenizer may be used by
// several goroutines at once.
type Tokenizer struct {
	text   []string // by id: the bytes it stands for, which may end inside a character
	kind   []kind   // by id
	merges []merge  // by rank
	bos    int32

	// Derived from the above by index.
	byteID [256]int32
	pairs  pairTable
	first  [256][]match // added tokens by their first byte, longest first
}

// match is what Encode looks for in a text, and the id that it becomes.
type match struct {
	text string
	id   int32
}

// index derives what Encode looks things up in.
func (t *Tokenizer) index() {
	for id, s := range t.text {
		if len(s) == 1 && t.kind[id]&literal == 0 {
			t.byteID[s[0]] = int32(id)
		}
	}
	t.pairs = newPairTable(t.merges)
	for id, k := range t.kind {
		if k&added != 0 {
			t.addMatch(int32(id))
		}
	}
}

// addMatch makes Encode look for added token id.
func (t *Tokenizer) addMatch(id int32) {
	m := match{t.Token(id), id}
	list := &t.first[m.text[0]]
	at, _ := slices.BinarySearchFunc(*list, m, func(a, b match) int { return len(b.text) - len(a.text) })
	*list = slices.Insert(*list, at, m)
}

// Len returns the number of tokens, added ones included: ids are 0 … Len()−1.
func (t *Tokenizer) Len() int { return len(t.text) }

// BOS returns the id of `</s>`, which starts every text of OPT's.
func (t *Tokenizer) BOS() int32 { return t.bos }

// ID returns the id of a token spelled as in vocab.json ("Ġcat", "[RET]", "Ċ").
// It scans the vocabulary: look ids up once, not per text.
func (t *Tokenizer) ID(token string) (id int32, ok bool) {
	text, spelled := fromAlphabet(token)
	for i, k := range t.kind {
		if k&literal != 0 && t.text[i] == token || k&literal == 0 && spelled && t.text[i] == text {
			return int32(i), true
		}
	}
	return 0, false
}

// Token returns token id spelled as in vocab.json, or "" if there is no such id.
func (t *Tokenizer) Token(id int32) string {
	if t.has(id) && t.kind[id]&literal == 0 {
		return toAlphabet(t.text[id])
	}
	return t.Text(id)
}

// Text returns the bytes that token id stands for, which may begin or end
// inside a character, or "" if there is no such id.
func (t *Tokenizer) Text(id int32) string {
	if !t.has(id) {
		return ""
	}
	return t.text[id]
}

// Special reports whether id is a special token, one that Decode can leave out.
func (t *Tokenizer) Special(id int32) bool { return t.has(id) && t.kind[id]&special != 0 }

func (t *Tokenizer) has(id int32) bool { return id >= 0 && int(id) < len(t.text) }

// AddTokens appends tokens to the vocabulary, in order, and returns their ids.
// From then on Encode gives each its id wherever it occurs in a text. A token
// spelled like one in the vocabulary keeps that one's id; "" is passed over.
func (t *Tokenizer) AddTokens(tokens ...string) []int32 { return t.add(added, tokens) }

// AddSpecialTokens is AddTokens for tokens that Decode can leave out.
func (t *Tokenizer) AddSpecialTokens(tokens ...string) []int32 {
	return t.add(added|special, tokens)
}

func (t *Tokenizer) add(k kind, tokens []string) []int32 {
	var ids []int32
	for _, token := range tokens {
		if token == "" {
			continue
		}
		id, ok := t.ID(token)
		if !ok {
			id = t.appendToken(token)
		}
		t.mark(id, k)
		ids = append(ids, id)
	}
	return ids
}

// appendToken gives token the next id.
func (t *Tokenizer) appendToken(token string) int32 {
	t.text = append(t.text, token)
	t.kind = append(t.kind, literal)
	return int32(len(t.text) - 1)
}

// mark makes token id an added one of kind k.
func (t *Tokenizer) mark(id int32, k kind) {
	if t.kind[id]&added == 0 {
		t.addMatch(id)
	}
	t.kind[id] |= k
}

// Encode returns the token ids of text, after `</s>` if bos. Bytes that are not
// UTF-8 are read as [Sanitize] writes them.
func (t *Tokenizer) Encode(text string, bos bool) []int32 {
	ids := make([]int32, 0, len(text)/4+2)
	if bos {
		ids = append(ids, t.bos)
	}
	for piece, id := range t.Pieces(Sanitize(text)) {
		if id >= 0 {
			ids = append(ids, id)
		} else {
			ids = t.AppendPiece(ids, piece)
		}
	}
	return ids
}

// Pieces cuts text, which is UTF-8, into the pieces that Encode works on. An
// added token comes with its id; any other piece comes with −1 and is what
// AppendPiece takes. The pieces in a row are the text.
func (t *Tokenizer) Pieces(text string) iter.Seq2[string, int32] {
	return func(yield func(string, int32) bool) {
		for {
			at, token := t.nextAdded(text)
			for rest := text[:at]; rest != ""; {
				n := pieceLen(rest)
				if !yield(rest[:n], -1) {
					return
				}
				rest = rest[n:]
			}
			if token.text == "" || !yield(token.text, token.id) {
				return
			}
			text = text[at+len(token.text):]
		}
	}
}

// nextAdded returns the first added token in text and where it starts, or
// len(text) and no token.
func (t *Tokenizer) nextAdded(text string) (at int, token match) {
	for i := range len(text) {
		for _, m := range t.first[text[i]] {
			if strings.HasPrefix(text[i:], m.text) {
				return i, m
			}
		}
	}
	return len(text), match{}
}
