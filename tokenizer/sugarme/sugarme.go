// SPDX-License-Identifier: Apache-2.0

// Package sugarme puts the exact tokenizer behind the interfaces of
// github.com/sugarme/tokenizer: that library's Tokenizer enters with its own
// encodings, offsets, truncation and padding, and leaves with the ids that
// package tokenizer gives.
//
// The library's own byte-level splitter and BPE model differ from GPT-2 on blank
// lines before a word and on runs of one character, and its own added tokens get
// lost; so [New] sets a PreTokenizer, a Model, a Decoder and a PostProcessor and
// leaves the library's list of added tokens empty. Do not call AddTokens on it:
// add tokens to the core before New.
//
// The library imports net/http. Programs for the browser use package tokenizer.
package sugarme

import (
	"errors"

	"fromage/tokenizer"

	sugar "github.com/sugarme/tokenizer"
	"github.com/sugarme/tokenizer/normalizer"
)

// Tokenizer encodes and decodes through the library.
type Tokenizer struct {
	// Sugar is the library's Tokenizer. With addSpecialTokens it puts `</s>` in
	// front of each text. Its methods panic on text that is not UTF-8 and know
	// no special tokens to leave out; those below do not and do.
	Sugar *sugar.Tokenizer
	core  *tokenizer.Tokenizer
}

// New returns a tokenizer on core's tables, added tokens included. Core must not
// change afterwards.
func New(core *tokenizer.Tokenizer) *Tokenizer {
	m := newModel(core)
	s := sugar.NewTokenizer(m)
	s.WithPreTokenizer(preTokenizer{core})
	s.WithDecoder(decoder{m})
	s.WithPostProcessor(bosFirst{core})
	return &Tokenizer{s, core}
}

// Encode is the core's Encode. The error is the library's.
func (t *Tokenizer) Encode(text string, bos bool) ([]int32, error) {
	enc, err := t.Sugar.EncodeSingle(tokenizer.Sanitize(text), bos)
	if err != nil {
		return nil, err
	}
	ids := make([]int32, len(enc.Ids))
	for i, id := range enc.Ids {
		ids[i] = int32(id)
	}
	return ids, nil
}

// Decode is the core's Decode.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	kept := make([]int, 0, len(ids))
	for _, id := range ids {
		if !skipSpecial || !t.core.Special(id) {
			kept = append(kept, int(id))
		}
	}
	return t.Sugar.Decode(kept, false)
}

// preTokenizer cuts a text as the core does, added tokens included.
type preTokenizer struct{ core *tokenizer.Tokenizer }

// PreTokenize implements the library's PreTokenizer.
func (p preTokenizer) PreTokenize(text *sugar.PreTokenizedString) (*sugar.PreTokenizedString, error) {
	return text.Split(func(_ int, whole *normalizer.NormalizedString) []sugar.SplitIdx {
		var splits []sugar.SplitIdx
		at := whole.Shift()
		for piece, id := range p.core.Pieces(whole.GetNormalized()) {
			// Without alignments the library takes a token's offsets in its piece
			// as bytes of the original, which they are: nothing was normalised.
			split := sugar.SplitIdx{Normalized: normalizer.NewNormalizedString(piece, piece, nil, nil, at)}
			if id >= 0 {
				split.Tokens = []sugar.Token{sugar.NewToken(int(id), p.core.Token(id), []int{0, len(piece)})}
			}
			splits = append(splits, split)
			at += len(piece)
		}
		return splits
	}), nil
}

// model is the core's merges and vocabulary.
type model struct {
	core *tokenizer.Tokenizer
	ids  map[string]int
}

func newModel(core *tokenizer.Tokenizer) model {
	m := model{core, make(map[string]int, core.Len())}
	for id := range core.Len() {
		m.ids[core.Token(int32(id))] = id
	}
	return m
}

// Tokenize implements the library's Model for a piece of the preTokenizer.
func (m model) Tokenize(piece string) ([]sugar.Token, error) {
	ids := m.core.AppendPiece(nil, piece)
	tokens := make([]sugar.Token, len(ids))
	at := 0
	for i, id := range ids {
		end := at + len(m.core.Text(id))
		tokens[i] = sugar.NewToken(int(id), m.core.Token(id), []int{at, end})
		at = end
	}
	return tokens, nil
}

// TokenToId implements the library's Model.
func (m model) TokenToId(token string) (int, bool) {
	id, ok := m.ids[token]
	return id, ok
}

// IdToToken implements the library's Model.
func (m model) IdToToken(id int) (string, bool) {
	if id < 0 || id >= m.core.Len() {
		return "", false
	}
	return m.core.Token(int32(id)), true
}

// GetVocab implements the library's Model. Added tokens are in it.
func (m model) GetVocab() map[string]int { return m.ids }

// GetVocabSize implements the library's Model.
func (m model) GetVocabSize() int { return m.core.Len() }

// Save implements the library's Model by refusing: the core's MarshalBinary
// writes the tables.
func (m model) Save(string, ...string) error {
	return errors.New("sugarme: save: want MarshalBinary of the core tokenizer")
}

// decoder turns tokens as the vocabulary spells them into text.
type decoder struct{ model }

// Decode implements the library's Decoder.
func (d decoder) Decode(tokens []string) string {
	ids := make([]int32, 0, len(tokens))
	for _, token := range tokens {
		if id, ok := d.ids[token]; ok {
			ids = append(ids, int32(id))
		}
	}
	return d.core.Decode(ids, false)
}

// DecodeChain implements the library's Decoder: the text that each token
// completes.
func (d decoder) DecodeChain(tokens []string) []string {
	texts := make([]string, len(tokens))
	stream := d.core.NewDecoder(false)
	for i, token := range tokens {
		if id, ok := d.ids[token]; ok {
			texts[i] = stream.Push(int32(id))
		}
	}
	if len(texts) > 0 {
		texts[len(texts)-1] += stream.Flush()
	}
	return texts
}

// bosFirst puts `</s>` in front of a text, and of both texts of a pair, as
// GPT2Tokenizer does.
type bosFirst struct{ core *tokenizer.Tokenizer }

// AddedTokens implements the library's PostProcessor.
func (b bosFirst) AddedTokens(isPair bool) int {
	if isPair {
		return 2
	}
	return 1
}

// Process implements the library's PostProcessor.
func (b bosFirst) Process(text, pair *sugar.Encoding, addSpecialTokens bool) *sugar.Encoding {
	if addSpecialTokens {
		text = b.before(text, 0)
		if pair != nil {
			pair = b.before(pair, 1)
		}
	}
	return sugar.DefaultProcess(text, pair, addSpecialTokens)
}

func (b bosFirst) before(text *sugar.Encoding, typeID int) *sugar.Encoding {
	id := b.core.BOS()
	bos := sugar.NewEncoding([]int{int(id)}, []int{typeID}, []string{b.core.Token(id)}, [][]int{{0, 0}}, []int{1}, []int{1}, nil,
		sugar.WithWordsEncodingOpt([]int{-1}))
	return bos.MergeWith(text, false)
}
