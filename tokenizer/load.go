// SPDX-License-Identifier: Apache-2.0

package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// optTokens are the special tokens of a vocabulary that comes without a file
// that names them.
var optTokens = []string{"<s>", "<pad>", bosToken, "<unk>"}

// Load reads vocab.json (an object of token → id) and merges.txt (a line "a b"
// per merge, after an optional "#version" line). Of `<s>` `<pad>` `</s>` `<unk>`
// those in the vocabulary are special tokens.
func Load(vocabJSON, mergesTXT []byte) (*Tokenizer, error) {
	tb, err := readTables(vocabJSON, mergesTXT)
	if err != nil {
		return nil, err
	}
	tb.addOPTTokens()
	return tb.build()
}

// LoadJSON reads Hugging Face's tokenizer.json. Its added_tokens are added or
// special as they say.
func LoadJSON(tokenizerJSON []byte) (*Tokenizer, error) {
	tb, err := readTokenizerJSON(tokenizerJSON)
	if err != nil {
		return nil, err
	}
	return tb.build()
}

// LoadDir reads the tokenizer of a checkpoint's folder: tokenizer.json, or
// without it vocab.json and merges.txt; and the special and added tokens that
// special_tokens_map.json, added_tokens.json and tokenizer_config.json name.
// If no file names any, those of Load are special.
func LoadDir(dir fs.FS) (*Tokenizer, error) {
	tb, err := readDirTables(dir)
	if err != nil {
		return nil, err
	}
	for _, config := range []struct {
		file string
		read func(*tables, []byte) error
	}{
		{"added_tokens.json", (*tables).readAddedTokens},
		{"special_tokens_map.json", (*tables).readSpecialTokens},
		{"tokenizer_config.json", (*tables).readConfig},
	} {
		data, err := fs.ReadFile(dir, config.file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("tokenizer: %w", err)
		}
		if err := config.read(tb, data); err != nil {
			return nil, err
		}
	}
	if len(tb.added) == 0 {
		tb.addOPTTokens()
	}
	return tb.build()
}

func readDirTables(dir fs.FS) (*tables, error) {
	data, err := fs.ReadFile(dir, "tokenizer.json")
	if err == nil {
		return readTokenizerJSON(data)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	vocab, err := fs.ReadFile(dir, "vocab.json")
	if err != nil {
		return nil, fmt.Errorf("tokenizer: want tokenizer.json, or vocab.json and merges.txt: %w", err)
	}
	merges, err := fs.ReadFile(dir, "merges.txt")
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	return readTables(vocab, merges)
}

// tables is what the files say, tokens as they spell them.
type tables struct {
	vocabFile string // where vocab stands, for errors
	vocab     map[string]int32
	mergeAt   func(rank int) string // where a merge stands, for errors
	merges    [][2]string
	added     []addedToken
}

// addedToken is an added token as tokenizer.json and tokenizer_config.json write
// it. special_tokens_map.json may write the content alone.
type addedToken struct {
	ID         *int32 `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Special    bool   `json:"special"`
	at         string // where it stands, for errors
}

func (tb *tables) addOPTTokens() {
	for _, token := range optTokens {
		if _, ok := tb.vocab[token]; ok {
			tb.added = append(tb.added, addedToken{Content: token, Special: true})
		}
	}
}

// addToken appends one of a file's added tokens.
func (tb *tables) addToken(a addedToken) error {
	if a.SingleWord || a.LStrip || a.RStrip {
		return fmt.Errorf("tokenizer: %s %q: want single_word, lstrip and rstrip false, have %v, %v, %v",
			a.at, a.Content, a.SingleWord, a.LStrip, a.RStrip)
	}
	if a.Content == "" {
		return fmt.Errorf(`tokenizer: %s: want a token, have ""`, a.at)
	}
	tb.added = append(tb.added, a)
	return nil
}

func readTables(vocabJSON, mergesTXT []byte) (*tables, error) {
	tb := &tables{vocabFile: "vocab.json"}
	if err := json.Unmarshal(vocabJSON, &tb.vocab); err != nil {
		return nil, fmt.Errorf("tokenizer: vocab.json: %w", err)
	}
	lines := strings.Split(strings.TrimRight(string(mergesTXT), "\r\n"), "\n")
	first := 1 // line number of the first merge
	if strings.HasPrefix(lines[0], "#version") {
		lines, first = lines[1:], 2
	} else if len(lines) == 1 && lines[0] == "" {
		lines = nil
	}
	tb.mergeAt = func(rank int) string { return fmt.Sprintf("merges.txt line %d", rank+first) }
	for i, line := range lines {
		line = strings.TrimSuffix(line, "\r")
		m, ok := splitMerge(line)
		if !ok {
			return nil, fmt.Errorf(`tokenizer: %s: want "a b", have %q`, tb.mergeAt(i), line)
		}
		tb.merges = append(tb.merges, m)
	}
	return tb, nil
}

// splitMerge splits "a b".
func splitMerge(s string) (m [2]string, ok bool) {
	left, right, ok := strings.Cut(s, " ")
	return [2]string{left, right}, ok && left != "" && right != "" && !strings.Contains(right, " ")
}

// tokenizerJSON is the part of tokenizer.json that decides about ids.
type tokenizerJSON struct {
	AddedTokens  []addedToken    `json:"added_tokens"`
	Normalizer   json.RawMessage `json:"normalizer"`
	PreTokenizer struct {
		Type           string `json:"type"`
		AddPrefixSpace bool   `json:"add_prefix_space"`
		UseRegex       *bool  `json:"use_regex"`
	} `json:"pre_tokenizer"`
	Model struct {
		Type         string           `json:"type"`
		Dropout      float64          `json:"dropout"`
		Prefix       string           `json:"continuing_subword_prefix"`
		Suffix       string           `json:"end_of_word_suffix"`
		IgnoreMerges bool             `json:"ignore_merges"`
		Vocab        map[string]int32 `json:"vocab"`
		Merges       mergeList        `json:"merges"`
	} `json:"model"`
}

// mergeList reads merges written "a b" (tokenizers before 0.20) or ["a", "b"].
type mergeList [][2]string

func (l *mergeList) UnmarshalJSON(data []byte) error {
	var pairs [][]string
	if json.Unmarshal(data, &pairs) != nil {
		var lines []string
		if err := json.Unmarshal(data, &lines); err != nil {
			return err
		}
		pairs = make([][]string, len(lines))
		for i, line := range lines {
			pairs[i] = strings.Split(line, " ")
		}
	}
	*l = make(mergeList, len(pairs))
	for i, p := range pairs {
		if len(p) != 2 || p[0] == "" || p[1] == "" {
			return fmt.Errorf(`model.merges[%d]: want "a b" or ["a", "b"], have %q`, i, p)
		}
		(*l)[i] = [2]string(p)
	}
	return nil
}

func readTokenizerJSON(data []byte) (*tables, error) {
	var j tokenizerJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return nil, fmt.Errorf("tokenizer: tokenizer.json: %w", err)
	}
	pre, model := &j.PreTokenizer, &j.Model
	for _, want := range []struct {
		ok          bool
		entry, want string
		have        any
	}{
		{len(j.Normalizer) == 0 || string(j.Normalizer) == "null", "normalizer", "null", string(j.Normalizer)},
		{pre.Type == "ByteLevel", "pre_tokenizer.type", "ByteLevel", pre.Type},
		{!pre.AddPrefixSpace, "pre_tokenizer.add_prefix_space", "false", pre.AddPrefixSpace},
		{pre.UseRegex == nil || *pre.UseRegex, "pre_tokenizer.use_regex", "true", false},
		{model.Type == "" || model.Type == "BPE", "model.type", "BPE", model.Type},
		{model.Dropout == 0, "model.dropout", "null", model.Dropout},
		{model.Prefix == "", "model.continuing_subword_prefix", "null", model.Prefix},
		{model.Suffix == "", "model.end_of_word_suffix", "null", model.Suffix},
		{!model.IgnoreMerges, "model.ignore_merges", "false", model.IgnoreMerges},
	} {
		if !want.ok {
			return nil, fmt.Errorf("tokenizer: tokenizer.json %s: want %s, have %v", want.entry, want.want, want.have)
		}
	}
	tb := &tables{
		vocabFile: "tokenizer.json model.vocab",
		vocab:     model.Vocab,
		mergeAt:   func(rank int) string { return fmt.Sprintf("tokenizer.json model.merges[%d]", rank) },
		merges:    model.Merges,
	}
	for i, a := range j.AddedTokens {
		a.at = fmt.Sprintf("tokenizer.json added_tokens[%d]", i)
		if err := tb.addToken(a); err != nil {
			return nil, err
		}
	}
	return tb, nil
}

// readAddedTokens reads added_tokens.json: an object of token → id.
func (tb *tables) readAddedTokens(data []byte) error {
	var ids map[string]int32
	if err := json.Unmarshal(data, &ids); err != nil {
		return fmt.Errorf("tokenizer: added_tokens.json: %w", err)
	}
	for token, id := range ids {
		if err := tb.addToken(addedToken{ID: &id, Content: token, at: "added_tokens.json"}); err != nil {
			return err
		}
	}
	return nil
}

// namedToken is a special token given as "</s>", {"content": "</s>", …} or null.
type namedToken struct{ addedToken }

func (n *namedToken) UnmarshalJSON(data []byte) error {
	if data[0] == '"' {
		return json.Unmarshal(data, &n.Content)
	}
	return json.Unmarshal(data, &n.addedToken)
}

// specialTokens is special_tokens_map.json and a part of tokenizer_config.json.
type specialTokens struct {
	BOS        namedToken   `json:"bos_token"`
	EOS        namedToken   `json:"eos_token"`
	Unk        namedToken   `json:"unk_token"`
	Sep        namedToken   `json:"sep_token"`
	Pad        namedToken   `json:"pad_token"`
	Cls        namedToken   `json:"cls_token"`
	Mask       namedToken   `json:"mask_token"`
	Additional []namedToken `json:"additional_special_tokens"`
}

// addSpecial adds the special tokens of file, in the order in which Hugging Face
// gives ids to those that the vocabulary lacks.
func (tb *tables) addSpecial(file string, s *specialTokens) error {
	if s.BOS.Content != "" && s.BOS.Content != bosToken {
		return fmt.Errorf("tokenizer: %s bos_token: want %q, have %q", file, bosToken, s.BOS.Content)
	}
	named := []namedToken{s.BOS, s.EOS, s.Unk, s.Sep, s.Pad, s.Cls, s.Mask}
	for _, n := range append(named, s.Additional...) {
		if n.Content == "" {
			continue
		}
		n.ID, n.Special, n.at = nil, true, file
		if err := tb.addToken(n.addedToken); err != nil {
			return err
		}
	}
	return nil
}

func (tb *tables) readSpecialTokens(data []byte) error {
	var s specialTokens
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("tokenizer: special_tokens_map.json: %w", err)
	}
	return tb.addSpecial("special_tokens_map.json", &s)
}

func (tb *tables) readConfig(data []byte) error {
	var c struct {
		specialTokens
		AddPrefixSpace bool                 `json:"add_prefix_space"`
		Added          map[int32]addedToken `json:"added_tokens_decoder"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("tokenizer: tokenizer_config.json: %w", err)
	}
	if c.AddPrefixSpace {
		return errors.New("tokenizer: tokenizer_config.json add_prefix_space: want false, have true")
	}
	for id, a := range c.Added {
		a.ID, a.at = &id, fmt.Sprintf("tokenizer_config.json added_tokens_decoder[%d]", id)
		if err := tb.addToken(a); err != nil {
			return err
		}
	}
	return tb.addSpecial("tokenizer_config.json", &c.specialTokens)
}

// build checks the tables and turns them into a tokenizer.
func (tb *tables) build() (*Tokenizer, error) {
	all, err := tb.withAdded()
	if err != nil {
		return nil, err
	}
	t := &Tokenizer{text: make([]string, len(all)), kind: make([]kind, len(all))}
	for token, id := range all {
		if id < 0 || int(id) >= len(all) {
			return nil, fmt.Errorf("tokenizer: %s %q: want an id below the number of tokens, %d, have %d", tb.vocabFile, token, len(all), id)
		}
		if t.text[id] != "" {
			return nil, fmt.Errorf("tokenizer: %s %q: want an id of its own, have %d as %q", tb.vocabFile, token, id, t.Token(id))
		}
		if token == "" {
			return nil, fmt.Errorf(`tokenizer: %s: want no token "", have id %d`, tb.vocabFile, id)
		}
		text, spelled := fromAlphabet(token)
		_, inVocab := tb.vocab[token]
		if !spelled || !inVocab {
			text, t.kind[id] = token, literal
		}
		t.text[id] = text
	}
	if err := tb.buildMerges(t); err != nil {
		return nil, err
	}
	bos, ok := all[bosToken]
	if !ok {
		return nil, fmt.Errorf("tokenizer: %s: want a token %q, have none", tb.vocabFile, bosToken)
	}
	t.bos = bos
	t.index()
	for _, a := range tb.added {
		id, ok := all[a.Content]
		if !ok {
			id = t.appendToken(a.Content)
			all[a.Content] = id
		}
		if a.Special {
			t.mark(id, added|special)
		} else {
			t.mark(id, added)
		}
	}
	return t, nil
}

// withAdded returns the vocabulary together with the added tokens that have an
// id of their own beside it.
func (tb *tables) withAdded() (map[string]int32, error) {
	all := make(map[string]int32, len(tb.vocab))
	for token, id := range tb.vocab {
		all[token] = id
	}
	for _, a := range tb.added {
		if a.ID == nil {
			continue
		}
		if id, ok := all[a.Content]; ok && id != *a.ID {
			return nil, fmt.Errorf("tokenizer: %s %q: want id %d, have %d", a.at, a.Content, id, *a.ID)
		}
		all[a.Content] = *a.ID
	}
	return all, nil
}

func (tb *tables) buildMerges(t *Tokenizer) error {
	made := make([]bool, len(t.text))
	for b, r := range byteRune {
		id, ok := tb.vocab[string(r)]
		if !ok {
			return fmt.Errorf("tokenizer: %s: want a token %q for byte %#02x, have none", tb.vocabFile, r, b)
		}
		made[id] = true
	}
	t.merges = make([]merge, 0, len(tb.merges))
	for rank, m := range tb.merges {
		var ids [3]int32
		for i, token := range []string{m[0], m[1], m[0] + m[1]} {
			id, ok := tb.vocab[token]
			if !ok {
				return fmt.Errorf("tokenizer: %s: want tokens of the vocabulary, have %q", tb.mergeAt(rank), token)
			}
			ids[i] = id
		}
		next := merge{ids[0], ids[1], ids[2]}
		if err := next.check(made); err != nil {
			return fmt.Errorf("tokenizer: %s: %w", tb.mergeAt(rank), err)
		}
		t.merges = append(t.merges, next)
	}
	return nil
}

// check reports a merge out of order: its parts must have been made before it
// and its product not. On such a list every order of merging that takes the
// lowest rank first, one pair or all equal pairs at a time, gives the same ids.
func (m merge) check(made []bool) error {
	if !made[m.left] || !made[m.right] {
		return fmt.Errorf("want parts that are bytes or made by earlier merges, have tokens %d and %d", m.left, m.right)
	}
	if made[m.product] {
		return fmt.Errorf("want a token not made before, have token %d", m.product)
	}
	made[m.product] = true
	return nil
}
