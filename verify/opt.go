// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"fromage/compiler"
	"fromage/runner"
	"fromage/tokenizer"
	"fromage/tokenizer/sugarme"
)

// opt verifies OPTForCausalLM: logits, hidden states, loss, embeddings as input, greedy generation with and without KV cache, tokenisation.
func (v *verification) opt() error {
	done, err := v.load(compiler.Options{OPT: v.dir})
	if err != nil {
		return err
	}
	defer done()
	for _, f := range []func() error{v.optForward, v.optEmbeds, v.optGreedy, v.tokenization} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// sequences makes one sequence for each row of numbers.
func (v *verification) sequences(ids [][]int) []*runner.Sequence {
	var out []*runner.Sequence
	for _, row := range ids {
		s := v.r.NewSequence()
		for _, id := range row {
			s.AppendTokens(runner.Token{ID: id})
		}
		out = append(out, s)
	}
	return out
}

func (v *verification) optForward() error {
	ids, err := v.want.ints("input_ids")
	if err != nil {
		return err
	}
	sequences := v.sequences(ids)
	out, err := v.r.Outputs(v.ctx, sequences...)
	if err != nil {
		return err
	}
	for _, s := range sequences {
		s.Close()
	}
	if err := v.tensor("logits", flat(out.Logits)); err != nil {
		return err
	}
	if err := v.tensor("last_hidden_state", flat(out.Hidden)); err != nil {
		return err
	}
	scores, err := v.r.ScoreSequences(v.ctx, v.sequences(ids))
	if err != nil {
		return err
	}
	sum, n := 0.0, 0
	for _, s := range scores {
		sum, n = sum-s.Sum, n+len(s.Tokens)
	}
	want, err := v.want.floats("loss")
	if err != nil {
		return err
	}
	v.add(compare("loss", []float32{float32(sum / float64(n))}, want, 1e-4))
	return v.optSingle(ids[0], out.Logits[:len(ids[0])])
}

// optSingle runs one sequence alone: packing must not change it.
func (v *verification) optSingle(ids []int, packed [][]float32) error {
	s := v.sequences([][]int{ids})[0]
	defer s.Close()
	out, err := v.r.Outputs(v.ctx, s)
	if err != nil {
		return err
	}
	v.add(compare("logits, packed against single", flat(packed), flat(out.Logits), 1e-5))
	return nil
}

func (v *verification) optEmbeds() error {
	rows, err := v.want.rows("inputs_embeds")
	if err != nil {
		return err
	}
	t, _ := v.want.Lookup("inputs_embeds")
	var sequences []*runner.Sequence
	for chunk := range slices.Chunk(rows, t.Shape[1]) {
		s := v.r.NewSequence()
		defer s.Close()
		for _, row := range chunk {
			s.AppendTokens(runner.Token{Visual: row})
		}
		sequences = append(sequences, s)
	}
	out, err := v.r.Outputs(v.ctx, sequences...)
	if err != nil {
		return err
	}
	return v.tensor("inputs_embeds.logits", flat(out.Logits))
}

func (v *verification) optGreedy() error {
	prompt, err := v.want.ints("greedy.prompt_ids")
	if err != nil {
		return err
	}
	want, err := v.want.ints("greedy.output_ids")
	if err != nil {
		return err
	}
	ids, logits, err := v.greedy(prompt[0], len(want[0]), true)
	if err != nil {
		return err
	}
	v.ids("greedy.output_ids", ids, want[0], logits)
	if err := v.tensor("greedy.logits", flat(logits)); err != nil {
		return err
	}
	again, _, err := v.greedy(prompt[0], len(want[0]), false)
	if err != nil {
		return err
	}
	v.ids("greedy without KV cache", again, ids, nil)
	return nil
}

// greedy generates n most likely tokens; without the cache it computes the whole sequence anew for each.
func (v *verification) greedy(prompt []int, n int, cache bool) (ids []int, logits [][]float32, err error) {
	s := v.sequences([][]int{prompt})[0]
	defer s.Close()
	for range n {
		if !cache {
			fresh := v.r.NewSequence()
			fresh.AppendTokens(s.Tokens()...)
			s.Close()
			s = fresh
		}
		out, err := v.r.Outputs(v.ctx, s)
		if err != nil {
			return nil, nil, err
		}
		last := out.Logits[len(out.Logits)-1]
		best := argmax(last)
		ids, logits = append(ids, best), append(logits, last)
		s.AppendTokens(runner.Token{ID: best})
	}
	return ids, logits, nil
}

// tokenization compares the strings of tokenization.json where the folder has one.
func (v *verification) tokenization() error {
	path := filepath.Join(v.dir, "tokenization.json")
	if !exists(path) {
		return nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var file struct {
		Length int `json:"vocab_size_with_added"`
		Cases  []struct {
			Text     string  `json:"text"`
			IDs      []int32 `json:"ids"`
			IDsNoBOS []int32 `json:"ids_no_bos"`
			Decoded  string  `json:"decoded"`
			Raw      string  `json:"decoded_raw"`
		} `json:"cases"`
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		return fmt.Errorf("verify: %s: %w", path, err)
	}
	tok, err := tokenizer.LoadDir(os.DirFS(v.dir))
	if err != nil {
		return err
	}
	tok.AddSpecialTokens("<|image|>")
	tok.AddTokens("[RET]")
	sugar := sugarme.New(tok)
	c := Check{Name: "tokenization", Values: len(file.Cases)}
	differ := func(format string, args ...any) {
		if c.Mismatch == "" {
			c.Mismatch = fmt.Sprintf(format, args...)
		}
	}
	if tok.Len() != file.Length {
		differ("want %d tokens, have %d", file.Length, tok.Len())
	}
	for _, t := range file.Cases {
		if got := tok.Encode(t.Text, true); !slices.Equal(got, t.IDs) {
			differ("%q: want %v, have %v", t.Text, t.IDs, got)
		}
		if got := tok.Encode(t.Text, false); !slices.Equal(got, t.IDsNoBOS) {
			differ("%q without </s>: want %v, have %v", t.Text, t.IDsNoBOS, got)
		}
		if got, err := sugar.Encode(t.Text, true); err != nil || !slices.Equal(got, t.IDs) {
			differ("%q through sugarme/tokenizer: want %v, have %v, %v", t.Text, t.IDs, got, err)
		}
		if got := tok.Decode(t.IDs, true); got != t.Decoded {
			differ("%v: want %q, have %q", t.IDs, t.Decoded, got)
		}
		if got := tok.Decode(t.IDs, false); got != t.Raw {
			differ("%v with special tokens: want %q, have %q", t.IDs, t.Raw, got)
		}
	}
	if len(file.Cases) == 0 {
		differ("the file has no strings")
	}
	v.add(c)
	return nil
}
