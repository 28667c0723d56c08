// SPDX-License-Identifier: Apache-2.0

package eval

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"fromage/dataset"
	"fromage/machine"
	"fromage/runner"
)

// Composition asks for what one picture shows, in another style: the picture of a beaver and "as a black icon" for a caption "a black icon of a beaver".
type Composition struct {
	Example int    // the picture that is given
	Style   string // "a black icon"
	Caption string // of a picture that is right
	concept string
}

// Compositions makes all that a set of captions "STYLE of CONCEPT" allows: for each example, every other style in which the set has its concept. Concepts
// are equal where they differ in case and in a leading a or an alone.
func Compositions(examples []dataset.Example) []Composition {
	concepts := map[string][]int{}
	var order []string
	for i, e := range examples {
		if _, concept, ok := styled(e.Caption); ok {
			if concepts[concept] == nil {
				order = append(order, concept)
			}
			concepts[concept] = append(concepts[concept], i)
		}
	}
	var out []Composition
	for _, concept := range order {
		for _, given := range concepts[concept] {
			style, _, _ := styled(examples[given].Caption)
			asked := map[string]bool{style: true}
			for _, other := range concepts[concept] {
				if style, _, _ := styled(examples[other].Caption); !asked[style] {
					asked[style] = true
					out = append(out, Composition{given, style, examples[other].Caption, concept})
				}
			}
		}
	}
	return out
}

// styled takes a caption "STYLE of CONCEPT" apart; the concept is lowered and without its article.
func styled(caption string) (style, concept string, ok bool) {
	style, concept, ok = strings.Cut(caption, " of ")
	concept = strings.ToLower(concept)
	for _, article := range []string{"a ", "an "} {
		if rest, cut := strings.CutPrefix(concept, article); cut {
			return style, rest, ok
		}
	}
	return style, concept, ok
}

// Ways to ask for a composition, in the order of ComposeScores.Ways: those of FROMAGe, then those of CLIP.
const (
	WithPicture   = iota // the picture, then "as STYLE" and [RET]
	TextAlone            // "as STYLE" and [RET]
	PictureAlone         // the picture and [RET]
	Said                 // the model completes "STYLE of" after the picture; then what it said, and [RET], by themselves
	CLIPWithBoth         // the sum of CLIP's normalised embeddings of the picture and of STYLE
	CLIPTextAlone        // CLIP's embedding of STYLE
	composeWays

	fromageWays = CLIPWithBoth
)

// WayNames names the ways.
var WayNames = [composeWays]string{
	"picture, \"as STYLE\"", "text alone: \"as STYLE\"", "picture alone", "picture, \"STYLE of …\" completed", "CLIP: picture + \"STYLE\"", "CLIP: text alone",
}

// ComposeScores tell how often a picture of the same concept in the style that is asked for is found among all pictures but the one that is given.
type ComposeScores struct {
	Questions  int             `json:"questions"`
	Candidates int             `json:"candidates"`
	Skipped    int             `json:"skipped"` // examples without a readable picture
	Ways       []ComposeWay    `json:"ways"`
	Each       []ComposeResult `json:"-"`
}

// ComposeWay is one way to ask.
type ComposeWay struct {
	Name string `json:"way"`
	Recall
}

// ComposeResult is one question. Ranks are from 0, by way.
type ComposeResult struct {
	Image string     `json:"image"`
	Style string     `json:"style"`
	Right string     `json:"right"` // caption of a picture that is right
	Said  string     `json:"said"`  // what the model sees, in the style
	Ranks []int      `json:"ranks"`
	Found [][]string `json:"found"` // the best pictures

	Embeddings [fromageWays][]byte `json:"embeddings,omitzero"` // in the journal alone
}

// compose is an evaluation at work.
type compose struct {
	r         *runner.Runner
	opt       Options
	examples  []dataset.Example
	questions []Composition
	results   []ComposeResult
}

// Compose evaluates compositions over the examples whose pictures can be read.
func Compose(ctx context.Context, r *runner.Runner, examples []dataset.Example, opt Options) (*ComposeScores, error) {
	if r.RET() < 0 || r.Tokenizer() == nil {
		return nil, errors.New("eval: compose: the model has no heads or no tokenizer")
	}
	c := &compose{r: r, opt: opt, examples: opt.Features.Usable(examples)}
	if c.questions = Compositions(c.examples); len(c.questions) == 0 {
		return nil, fmt.Errorf(`eval: compose: want captions "STYLE of CONCEPT" with a concept in several styles, have none in %d examples`, len(c.examples))
	}
	results, todo, err := resume[ComposeResult](opt.Journal, len(c.questions))
	if err != nil {
		return nil, err
	}
	c.results = results
	for at := 0; at < len(todo); at += composeBatch {
		progress(opt.Progress).say("compositions", len(c.questions)-len(todo)+at, len(c.questions))
		if err := c.batch(ctx, todo[at:min(at+composeBatch, len(todo))]); err != nil {
			return nil, err
		}
	}
	scores := &ComposeScores{Questions: len(c.questions), Candidates: len(c.examples), Skipped: len(examples) - len(c.examples), Each: c.results}
	return scores, c.score(ctx, scores)
}

// composeBatch is how many questions run packed together, a few prompts each.
const composeBatch = 16

func (c *compose) batch(ctx context.Context, numbers []int) error {
	var names []string
	for _, i := range numbers {
		names = append(names, c.examples[c.questions[i].Example].Image)
	}
	v, err := c.opt.Features.Rows(names...)
	if err != nil {
		return err
	}
	images, err := c.r.Maps(ctx, v)
	if err != nil {
		return err
	}
	said, err := c.say(ctx, numbers, images)
	if err != nil {
		return err
	}
	var prompts []*runner.Sequence
	add := func(tokens ...runner.Token) {
		s := c.r.NewSequence()
		s.AppendTokens(tokens...)
		prompts = append(prompts, s)
	}
	defer func() {
		for _, s := range prompts {
			s.Close()
		}
	}()
	for n, i := range numbers {
		text := textTokens(c.r, "as "+c.questions[i].Style+"[RET]")
		add(append(visual(images[n]), text...)...)
		add(text...)
		add(append(visual(images[n]), textTokens(c.r, "[RET]")...)...)
		add(textTokens(c.r, said[n]+"[RET]")...)
	}
	embeddings, err := c.r.Retrievals(ctx, prompts...)
	if err != nil {
		return err
	}
	for n, i := range numbers {
		q := c.questions[i]
		x := ComposeResult{Image: names[n], Style: q.Style, Right: q.Caption, Said: said[n]}
		for k := range x.Embeddings {
			x.Embeddings[k] = machine.Bytes(embeddings[fromageWays*n+k])
		}
		if err := c.opt.Journal.add(i, x); err != nil {
			return err
		}
		c.results[i] = x
	}
	return nil
}

// saidWords is the most tokens that complete "STYLE of".
const saidWords = 12

// say completes "STYLE of" for pictures by the most likely tokens, up to [RET], </s>, a newline or a full stop.
func (c *compose) say(ctx context.Context, numbers []int, images []runner.Image) ([]string, error) {
	var prompts []*runner.Sequence
	for n, i := range numbers {
		s := c.r.NewSequence()
		defer s.Close()
		s.AppendTokens(append(visual(images[n]), textTokens(c.r, c.questions[i].Style+" of")...)...)
		prompts = append(prompts, s)
	}
	ends := func(id int32) bool {
		return int(id) == c.r.RET() || int(id) == c.r.Settings().EOS || strings.ContainsAny(c.r.Tokenizer().Text(id), ".\n")
	}
	generated, err := c.r.Greedy(ctx, prompts, saidWords, nil, func(ids []int32) bool { return ends(ids[len(ids)-1]) })
	if err != nil {
		return nil, err
	}
	out := make([]string, len(numbers))
	for n, i := range numbers {
		ids := generated[n]
		if ends(ids[len(ids)-1]) {
			ids = ids[:len(ids)-1]
		}
		out[n] = c.questions[i].Style + " of" + c.r.Tokenizer().Decode(ids, true)
	}
	return out, nil
}

func (c *compose) score(ctx context.Context, scores *ComposeScores) error {
	var names []string
	for _, e := range c.examples {
		names = append(names, e.Image)
	}
	var pictures [][]float32
	for at := 0; at < len(names); at += 256 {
		v, err := c.opt.Features.Rows(names[at:min(at+256, len(names))]...)
		if err != nil {
			return err
		}
		images, err := c.r.Maps(ctx, v)
		if err != nil {
			return err
		}
		for _, image := range images {
			pictures = append(pictures, runner.Normalised(image.Retrieval))
		}
	}
	for way := range fromageWays {
		var queries [][]float32
		for i := range c.results {
			e := floats(c.results[i].Embeddings[way])
			if len(e) != c.r.Settings().SharedDim {
				return fmt.Errorf("eval: compose: question %d: want an embedding of %d values, have %d", i, c.r.Settings().SharedDim, len(e))
			}
			queries = append(queries, runner.Normalised(e))
		}
		if err := c.rank(ctx, scores, way, queries, pictures); err != nil {
			return err
		}
	}
	for i := range c.results {
		c.results[i].Embeddings = [fromageWays][]byte{}
	}
	return c.compare(ctx, scores, names)
}

// rank enters how one way of asking does.
func (c *compose) rank(ctx context.Context, scores *ComposeScores, way int, queries, pictures [][]float32) error {
	ranks := make([]int, len(queries))
	err := each(ctx, queries, pictures, func(i int, s []float64) {
		q := c.questions[i]
		s[q.Example] -= seenPenalty
		ranks[i] = rankOf(s, bestOf(s, func(j int) bool {
			style, concept, _ := styled(c.examples[j].Caption)
			return style == q.Style && concept == q.concept
		}))
		var best []string
		for _, j := range topOf(s, 5) {
			best = append(best, c.examples[j].Image)
		}
		c.results[i].Ranks, c.results[i].Found = append(c.results[i].Ranks, ranks[i]), append(c.results[i].Found, best)
	})
	scores.Ways = append(scores.Ways, ComposeWay{WayNames[way], recall(ranks)})
	return err
}

// compare adds CLIP's ways.
func (c *compose) compare(ctx context.Context, scores *ComposeScores, names []string) error {
	if c.opt.CLIP == nil {
		return nil
	}
	pictures, err := c.opt.CLIP.Pictures(ctx, names)
	if err != nil {
		return err
	}
	var styles []string
	for _, q := range c.questions {
		styles = append(styles, q.Style)
	}
	texts, err := c.opt.CLIP.Texts(ctx, styles, c.opt.Progress)
	if err != nil {
		return err
	}
	both := make([][]float32, len(texts))
	for i, t := range texts {
		both[i] = make([]float32, len(t))
		for j := range t {
			both[i][j] = t[j] + pictures[c.questions[i].Example][j]
		}
	}
	if err := c.rank(ctx, scores, CLIPWithBoth, both, pictures); err != nil {
		return err
	}
	return c.rank(ctx, scores, CLIPTextAlone, texts, pictures)
}
