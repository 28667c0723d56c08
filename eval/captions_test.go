// SPDX-License-Identifier: Apache-2.0

package eval

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fromage/dataset"
	"fromage/internal/testmodel"
	"fromage/runner"
	"fromage/shaders"
)

const golden = "../testdata/golden/"

// captioned are examples over the golden pictures: some captions and pictures come twice, one caption is empty, one holds [RET], one is cut, and one
// picture is missing.
func captioned(t *testing.T) []dataset.Example {
	t.Helper()
	entries, err := os.ReadDir(golden + "clip/vision/images")
	if err != nil {
		t.Fatal(err)
	}
	captions := []string{
		"a cat", "two dogs on a sofa. They sleep", "a cat", "", "a photo of [RET] in the middle", strings.Repeat("a very long caption ", 9), "an icon",
		"a map\nof the world", "“quotes” and ümläuts", "the", "a cat on a mat", "black and white", "a cat", "noise", "the last one",
	}
	var out []dataset.Example
	for i, c := range captions {
		out = append(out, dataset.Example{Caption: c, Image: entries[i%len(entries)].Name()})
	}
	return slices.Insert(out, 5, dataset.Example{Caption: "nothing", Image: "none.png"})
}

func featuresOf(t *testing.T, r *runner.Runner, examples []dataset.Example) *dataset.Features {
	t.Helper()
	pictures, err := dataset.OpenPictures(context.Background(), golden+"clip/vision/images", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pictures.Close)
	var names []string
	for _, e := range examples {
		names = append(names, e.Image)
	}
	f, err := dataset.Embed(context.Background(), r, names, pictures, dataset.FeatureOptions{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// plain is the reference's validation as it stands: one padded example at a time, no cache, labels of −100.
type plain struct {
	t *testing.T
	r *runner.Runner
}

// outputs runs a whole sequence from nothing.
func (p *plain) outputs(prefix [][]float32, ids []int) *runner.Outputs {
	p.t.Helper()
	s := p.r.NewSequence()
	defer s.Close()
	for _, row := range prefix {
		s.AppendTokens(runner.Token{Visual: row})
	}
	for _, id := range ids {
		s.AppendTokens(runner.Token{ID: id})
	}
	out, err := p.r.Outputs(context.Background(), s)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// padded is CsvDataset.__getitem__.
func (p *plain) padded(caption string, maxLen int) (ids []int, length int) {
	s := p.r.NewSequence()
	if err := s.Append(runner.Part{Text: caption + "[RET]"}); err != nil {
		p.t.Fatal(err)
	}
	for _, token := range s.Tokens() {
		if len(ids) < maxLen {
			ids = append(ids, token.ID)
		}
	}
	length = len(ids)
	for len(ids) < maxLen {
		ids = append(ids, p.r.Settings().Pad)
	}
	if last := ids[maxLen-1]; last != p.r.RET() && last != p.r.Settings().Pad {
		ids[maxLen-1] = p.r.RET()
	}
	return ids, length
}

// label is the cross-entropy of a label under logits, and how many tokens are more likely.
func label(logits []float32, id int) (ce float64, rank int) {
	sum := 0.0
	for _, l := range logits {
		sum += math.Exp(float64(l) - float64(logits[id]))
		if l > logits[id] {
			rank++
		}
	}
	return math.Log(sum), rank
}

// captioning is model(…, mode="captioning"): the loss of one example.
func (p *plain) captioning(prefix [][]float32, ids []int) (ce float64, tokens, top1, top5 int) {
	labels := make([]int, len(prefix))
	for i := range labels {
		labels[i] = -100
	}
	labels = append(labels, ids...)
	for i, l := range labels {
		if l == p.r.Settings().Pad || l == p.r.RET() {
			for j := i; j < len(labels); j++ {
				labels[j] = -100
			}
			break
		}
	}
	out := p.outputs(prefix, ids)
	for i, l := range labels[1:] {
		if l == -100 {
			continue
		}
		c, rank := label(out.Logits[i], l)
		ce += c
		tokens++
		if rank < 1 {
			top1++
		}
		if rank < 5 {
			top5++
		}
	}
	return ce, tokens, top1, top5
}

// greedy is model.generate(…, num_words=words, min_word_tokens=words), decoded and cut.
func (p *plain) greedy(prefix [][]float32, words int) string {
	var ids []int
	var made []int32
	for range words {
		out := p.outputs(prefix, ids)
		logits := out.Logits[len(out.Logits)-1]
		logits[p.r.RET()] = float32(math.Inf(-1))
		best := 0
		for i, l := range logits {
			if l > logits[best] {
				best = i
			}
		}
		ids, made = append(ids, best), append(made, int32(best))
	}
	text := []rune(p.r.Tokenizer().Decode(made, true))
	if stop := slices.Index(text, '.'); stop > 5 {
		text = text[:stop]
	}
	return string(text)
}

func unit(v []float32) []float64 {
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x) / math.Sqrt(sum)
	}
	return out
}

// TestCaptions holds the packed evaluation to the plain one.
func TestCaptions(t *testing.T) {
	for _, name := range []string{"one-token", "four-tokens"} {
		t.Run(name, func(t *testing.T) { testCaptions(t, testmodel.Load(t, golden+"fromage/"+name, shaders.F32)) })
	}
}

func testCaptions(t *testing.T, r *runner.Runner) {
	examples := captioned(t)
	features := featuresOf(t, r, examples)
	train := []dataset.Example{{Caption: "a cat"}, {Caption: "noise"}, {Caption: "not in it"}}
	got, err := Captions(context.Background(), r, examples, features, CaptionOptions{Words: 12, Train: train})
	if err != nil {
		t.Fatal(err)
	}
	usable := features.Usable(examples)
	if got.Examples != len(examples)-1 || got.Skipped != 1 || len(got.Each) != len(usable) {
		t.Errorf("%d examples, %d skipped, want %d and 1", got.Examples, got.Skipped, len(examples)-1)
	}
	p := &plain{t: t, r: r}
	var ce float64
	var tokens, top1, top5 int
	var texts, pictures [][]float64
	var b bleu
	for i, e := range usable {
		v, err := features.Rows(e.Image)
		if err != nil {
			t.Fatal(err)
		}
		image, err := r.Maps(context.Background(), v)
		if err != nil {
			t.Fatal(err)
		}
		ids, length := p.padded(e.Caption, DefaultMaxLen)
		c, n, one, five := p.captioning(image[0].Prefix, ids)
		if x := got.Each[i]; math.Abs(x.NLL-c) > 1e-4*(1+c) || x.Tokens != n || x.Top1 != one || x.Top5 != five {
			t.Errorf("%q: NLL %v of %d tokens, %d and %d hits, want %v of %d, %d and %d", e.Caption, x.NLL, x.Tokens, x.Top1, x.Top5, c, n, one, five)
		}
		ce, tokens, top1, top5 = ce+c, tokens+n, top1+one, top5+five
		texts = append(texts, unit(p.outputs(nil, ids).Retrieval[length-1]))
		pictures = append(pictures, unit(image[0].Retrieval))
		caption := p.greedy(image[0].Prefix, 12)
		if got.Each[i].Generated != caption {
			t.Errorf("%s: generated %q, want %q", e.Image, got.Each[i].Generated, caption)
		}
		b.add(caption, p.references(usable, e.Image))
	}
	n := float64(tokens)
	for _, c := range []struct {
		what      string
		got, want float64
	}{{"CE", got.CE, ce / n}, {"top-1", got.Top1, 100 * float64(top1) / n}, {"top-5", got.Top5, 100 * float64(top5) / n}} {
		if math.Abs(c.got-c.want) > 1e-4*(1+c.want) {
			t.Errorf("%s = %v, want %v", c.what, c.got, c.want)
		}
	}
	if got.BLEU != b.scores() {
		t.Errorf("BLEU = %v, want %v", got.BLEU, b.scores())
	}
	strict, hit := plainRecalls(usable, texts, pictures)
	if got.TextToImage1 != strict || got.TextToImage != hit {
		t.Errorf("text → image %+v, strict %+v, want %+v and %+v", got.TextToImage, got.TextToImage1, hit, strict)
	}
	strict, hit = plainRecalls(usable, pictures, texts)
	if got.ImageToText1 != strict || got.ImageToText != hit {
		t.Errorf("image → text %+v, strict %+v, want %+v and %+v", got.ImageToText, got.ImageToText1, hit, strict)
	}
	if got.Unseen == nil || got.Unseen.N != len(usable)-4 {
		t.Errorf("unseen captions: %+v, want %d", got.Unseen, len(usable)-4)
	}
	contrastive(t, got.Contrastive, float64(r.Scale()), texts, pictures)
}

// references are all captions of a picture, as batch_decode gives them back.
func (p *plain) references(examples []dataset.Example, image string) (out []string) {
	for _, e := range examples {
		if e.Image != image {
			continue
		}
		ids, _ := p.padded(e.Caption, DefaultMaxLen)
		var tokens []int32
		for _, id := range ids {
			tokens = append(tokens, int32(id))
		}
		out = append(out, strings.ReplaceAll(p.r.Tokenizer().Decode(tokens, true), "[RET]", ""))
	}
	return out
}

// plainRecalls sorts every query's candidates.
func plainRecalls(examples []dataset.Example, queries, candidates [][]float64) (strict, hit Recall) {
	counts := func(ok func(query, candidate int) bool) Recall {
		r := Recall{N: len(queries)}
		for q := range queries {
			order := make([]int, len(candidates))
			for i := range order {
				order[i] = i
			}
			slices.SortStableFunc(order, func(a, b int) int {
				x, y := 0.0, 0.0
				for i, v := range queries[q] {
					x, y = x+v*candidates[a][i], y+v*candidates[b][i]
				}
				switch {
				case x > y:
					return -1
				case x < y:
					return 1
				}
				return 0
			})
			for k, at := range map[int]*float64{1: &r.At1, 5: &r.At5, 10: &r.At10} {
				if slices.ContainsFunc(order[:k], func(c int) bool { return ok(q, c) }) {
					*at++
				}
			}
		}
		for _, at := range []*float64{&r.At1, &r.At5, &r.At10} {
			*at = 100 * *at / float64(r.N)
		}
		return r
	}
	return counts(func(q, c int) bool { return q == c }), counts(func(q, c int) bool { return examples[q].Caption == examples[c].Caption })
}

func contrastive(t *testing.T, got, scale float64, texts, pictures [][]float64) {
	t.Helper()
	want := 0.0
	for _, side := range [][2][][]float64{{texts, pictures}, {pictures, texts}} {
		for q := range side[0] {
			var logits []float32
			for c := range side[1] {
				sum := 0.0
				for i, v := range side[0][q] {
					sum += v * side[1][c][i]
				}
				logits = append(logits, float32(scale*sum))
			}
			ce, _ := label(logits, q)
			want += ce / 2 / float64(len(texts))
		}
	}
	if math.Abs(got-want) > 1e-3*want {
		t.Errorf("contrastive loss = %v, want %v", got, want)
	}
}

// TestCaptionsResumed: an evaluation that is interrupted and gone on with says what one in one go says, and does nothing twice.
func TestCaptionsResumed(t *testing.T) {
	r := testmodel.Load(t, golden+"fromage/one-token", shaders.F32)
	examples := captioned(t)
	for range 2 {
		examples = append(examples, examples...)
	}
	features := featuresOf(t, r, examples)
	want, err := Captions(context.Background(), r, examples, features, CaptionOptions{Words: 2})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	interrupted, cancel := context.WithCancel(context.Background())
	defer cancel()
	for run, ctx := range []context.Context{interrupted, context.Background()} {
		j, err := OpenJournal(path, "captions", [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		first := true
		got, err := Captions(ctx, r, examples, features, CaptionOptions{Words: 2, Journal: j, Progress: func(p runner.Progress) {
			if run == 1 && first && p.Done != captionBatch {
				t.Errorf("goes on at %d, want %d", p.Done, captionBatch)
			}
			if first = false; p.Done == captionBatch {
				cancel()
			}
		}})
		j.Close()
		if run == 0 {
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("interrupted: %v", err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("gone on with: %+v, %v, want %+v", got, err, want)
		}
	}
}

// TestEnded: the first </s> begins a caption, the next ends it, as a newline and a late full stop do.
func TestEnded(t *testing.T) {
	r := testmodel.Load(t, golden+"fromage/one-token", shaders.F32)
	c := &captions{r: r}
	for _, x := range []struct {
		texts []string // </s> between them
		want  string
	}{
		{[]string{"", "a cat", "sat"}, "a cat"}, {[]string{"a cat", "sat"}, "a cat"}, {[]string{"", "a cat on a mat. It sat"}, "a cat on a mat"}, {[]string{"", "no. 5 on a mat"}, "no. 5 on a mat"},
		{[]string{"", "a cat\nsat"}, "a cat"}, {[]string{"", ""}, ""}, {nil, ""},
	} {
		var ids []int32
		for i, text := range x.texts {
			if i > 0 {
				ids = append(ids, int32(r.Settings().EOS))
			}
			ids = append(ids, r.Tokenizer().Encode(text, false)...)
		}
		if got := c.ended(ids); got != x.want {
			t.Errorf("ended(%q) = %q, want %q", x.texts, got, x.want)
		}
	}
}

func TestCaptionsErrors(t *testing.T) {
	r := testmodel.Load(t, golden+"fromage/one-token", shaders.F32)
	examples := captioned(t)
	features := featuresOf(t, r, examples)
	for _, c := range []struct {
		examples []dataset.Example
		opt      CaptionOptions
		want     string
	}{
		{examples[5:6], CaptionOptions{}, "none of 1 pictures can be read"},
		{examples, CaptionOptions{MaxLen: 1}, "want a max-len of 2 to 127 tokens, have 1"},
		{examples, CaptionOptions{MaxLen: 97, Words: 32}, "want a max-len of 2 to 95 tokens, have 97"},
	} {
		if _, err := Captions(context.Background(), r, c.examples, features, c.opt); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Captions(%+v): %v, want %q", c.opt, err, c.want)
		}
	}
}
