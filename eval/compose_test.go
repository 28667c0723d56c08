// SPDX-License-Identifier: Apache-2.0

package eval

import (
	"context"
	"slices"
	"strings"
	"testing"

	"fromage/dataset"
	"fromage/internal/testmodel"
	"fromage/runner"
	"fromage/shaders"
)

// styles are captions with concepts in several styles, over golden pictures by number.
var styles = []string{
	"a black icon of cat", "an emoji of a Cat", "a clipart drawing of Dog", "an emoji of flag of Peru", "a black icon of flag of Peru", "flag of Peru",
	"an emoji of a cat", "nothing", "a clipart drawing of an owl", "a black icon of owl", "a clipart drawing of a dog", "a black icon of an apple",
}

func TestCompositions(t *testing.T) {
	var examples []dataset.Example
	for _, c := range styles {
		examples = append(examples, dataset.Example{Caption: c})
	}
	got := Compositions(examples)
	want := []Composition{
		{0, "an emoji", "an emoji of a Cat", "cat"}, {1, "a black icon", "a black icon of cat", "cat"}, {6, "a black icon", "a black icon of cat", "cat"},
		{3, "a black icon", "a black icon of flag of Peru", "flag of peru"}, {4, "an emoji", "an emoji of flag of Peru", "flag of peru"},
		{8, "a black icon", "a black icon of owl", "owl"}, {9, "a clipart drawing", "a clipart drawing of an owl", "owl"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("Compositions = %+v, want %+v", got, want)
	}
}

// TestCompose holds every way of asking to prompts that run one by one.
func TestCompose(t *testing.T) {
	for _, name := range []string{"one-token", "four-tokens"} {
		r := testmodel.Load(t, golden+"fromage/"+name, shaders.F32)
		var ids []string
		for i := range styles {
			ids = append(ids, string(rune('a'+i)))
		}
		dir, opt := images(t, r, true, ids, "h")
		var examples, usable []dataset.Example
		for i, c := range styles {
			examples = append(examples, dataset.Example{Caption: c, Image: opt.Names[ids[i]]})
		}
		usable = slices.Delete(slices.Clone(examples), 7, 8)
		opt.CLIP = randomCLIP(t, dir, opt)
		got, err := Compose(context.Background(), r, examples, opt)
		if err != nil {
			t.Fatal(err)
		}
		if got.Questions != 7 || got.Candidates != 11 || got.Skipped != 1 || len(got.Ways) != int(composeWays) {
			t.Fatalf("%s: %+v, want 7 questions over 11 pictures, one skipped", name, got)
		}
		p := &plain{t: t, r: r}
		plainCompose(p, dir, usable, opt, got)
		// Enough for a second batch, before which it can be interrupted.
		examples = slices.Concat(examples, examples, examples)
		if got, err = Compose(context.Background(), r, examples, opt); err != nil {
			t.Fatal(err)
		}
		resumed(t, got, opt, func(opt Options) (any, error) { return Compose(context.Background(), r, examples, opt) })
	}
}

// plainCompose ranks each question's candidates by sorting them.
func plainCompose(p *plain, dir string, usable []dataset.Example, opt Options, got *ComposeScores) {
	p.t.Helper()
	var pictures []runner.Image
	var names []string
	for _, e := range usable {
		image, err := p.image(dir + "/" + e.Image)
		if err != nil {
			p.t.Fatal(err)
		}
		pictures, names = append(pictures, image), append(names, e.Image)
	}
	clip, err := opt.CLIP.Pictures(context.Background(), names)
	if err != nil {
		p.t.Fatal(err)
	}
	for i, q := range Compositions(usable) {
		said := p.said(pictures[q.Example].Prefix, q.Style+" of")
		if got.Each[i].Said != said {
			p.t.Errorf("question %d: said %q, want %q", i, got.Each[i].Said, said)
		}
		prefix := visual(pictures[q.Example])
		text := textTokens(p.r, "as "+q.Style+"[RET]")
		style, err := opt.CLIP.Texts(context.Background(), []string{q.Style}, nil)
		if err != nil {
			p.t.Fatal(err)
		}
		both := unit(clip[q.Example])
		for j, v := range unit(style[0]) {
			both[j] += v
		}
		queries := [composeWays][]float64{
			p.last(append(slices.Clone(prefix), text...)), p.last(text), p.last(append(slices.Clone(prefix), textTokens(p.r, "[RET]")...)),
			p.last(textTokens(p.r, said+"[RET]")), both, unit(style[0]),
		}
		for way, query := range queries {
			scores := make([]float64, len(usable))
			for j := range usable {
				if way < fromageWays {
					scores[j] = product(query, unit(pictures[j].Retrieval))
				} else {
					scores[j] = product(query, unit(clip[j]))
				}
			}
			scores[q.Example] -= 10000
			want := slices.IndexFunc(topk(scores, len(scores)), func(j int) bool {
				style, concept, ok := strings.Cut(usable[j].Caption, " of ")
				concept = strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(concept), "a "), "an ")
				return ok && style == q.Style && concept == q.concept
			})
			if got.Each[i].Ranks[way] != want {
				p.t.Errorf("question %d: %s: rank %d, want %d", i, WayNames[way], got.Each[i].Ranks[way], want)
			}
		}
	}
	for way, w := range got.Ways {
		var ranks []int
		for _, x := range got.Each {
			ranks = append(ranks, x.Ranks[way])
		}
		if w.Recall != recall(ranks) || w.Name != WayNames[way] {
			p.t.Errorf("%s: %+v, want %+v", w.Name, w.Recall, recall(ranks))
		}
	}
}

// said continues a text after a picture, a whole run for each token.
func (p *plain) said(prefix [][]float32, text string) string {
	ids := p.ids(text)
	var made []int32
	for range saidWords {
		out := p.outputs(prefix, ids)
		logits := out.Logits[len(out.Logits)-1]
		best := 0
		for i, l := range logits {
			if l > logits[best] {
				best = i
			}
		}
		if best == p.r.RET() || best == p.r.Settings().EOS || strings.ContainsAny(p.r.Tokenizer().Text(int32(best)), ".\n") {
			break
		}
		ids, made = append(ids, best), append(made, int32(best))
	}
	return text + p.r.Tokenizer().Decode(made, true)
}

func TestComposeErrors(t *testing.T) {
	r := testmodel.Load(t, golden+"fromage/one-token", shaders.F32)
	examples := captioned(t)
	_, err := Compose(context.Background(), r, examples, Options{Features: featuresOf(t, r, examples)})
	if err == nil || !strings.Contains(err.Error(), "a concept in several styles") {
		t.Errorf("Compose of captions without styles: %v", err)
	}
}
