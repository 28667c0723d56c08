// SPDX-License-Identifier: Apache-2.0

package eval

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"fromage/dataset"
	"fromage/machine"
	"fromage/runner"
)

// CaptionOptions say how captions are evaluated.
type CaptionOptions struct {
	MaxLen int // tokens of a caption, the leading </s> and [RET] included; longer ones are cut, as in training. 0 means 24
	Words  int // tokens of a generated caption, 32 in the reference; 0 leaves generation and BLEU out
	// Train, where given, are the examples that the model was trained on: retrieval is then also told for captions that are not among theirs.
	Train    []dataset.Example
	CLIP     *CLIP // where given, retrieval is compared with CLIP's own
	Journal  *Journal
	Progress func(runner.Progress) // counts examples
}

// DefaultMaxLen is the reference's max-len.
const DefaultMaxLen = 24

// DefaultWords is how many tokens the reference's validation generates.
const DefaultWords = 32

// CaptionScores are what the reference's validation (fromage/evaluate.py) tells of a set of captioned pictures. Shares are in percent. A picture counts as
// found where it or another of the same caption is among the first; the strict recalls want the very one, as the reference does. CE and accuracy are means
// over all labelled tokens of the set, where the reference takes the mean of the batches' means.
type CaptionScores struct {
	Examples    int        `json:"examples"`
	Skipped     int        `json:"skipped"` // examples without a readable picture
	Tokens      int        `json:"tokens"`  // labelled
	CE          float64    `json:"ce"`      // natural logarithm
	Top1        float64    `json:"top1"`
	Top5        float64    `json:"top5"`
	BLEU        [4]float64 `json:"bleu"`        // of greedy captions, as torchmetrics computes it; 0 where none were generated
	BLEUEnded   [4]float64 `json:"bleu_ended"`  // of the same captions, where </s> or a newline ends them too, as it does for people
	Contrastive float64    `json:"contrastive"` // ½(CE over rows + CE over columns) over the whole set
	Retrieval
	CLIP *Retrieval `json:"clip,omitempty"` // by CLIP's own towers

	Each []CaptionResult `json:"-"` // by example whose picture is readable
}

// Retrieval is how often captions and pictures find each other.
type Retrieval struct {
	TextToImage  Recall  `json:"text_to_image"`
	ImageToText  Recall  `json:"image_to_text"`
	TextToImage1 Recall  `json:"text_to_image_strict"`
	ImageToText1 Recall  `json:"image_to_text_strict"`
	Unseen       *Recall `json:"text_to_image_unseen,omitempty"` // text→image of captions that Train has not
}

// Match is how a caption and its picture find each other among all. Ranks are from 0.
type Match struct {
	TextRank  int    `json:"text_to_image"` // of the best picture with this caption among all
	ImageRank int    `json:"image_to_text"` // of this caption among all
	Strict    [2]int `json:"strict"`        // the same of the very picture and the very line
	Found     []int  `json:"found"`         // the best pictures for the caption, as numbers of examples
}

// CaptionResult is one example.
type CaptionResult struct {
	Image     string  `json:"image"`
	Caption   string  `json:"caption"`
	NLL       float64 `json:"nll"`    // sum over its tokens
	Tokens    int     `json:"tokens"` // labelled
	Top1      int     `json:"top1"`   // how many of them were the most likely
	Top5      int     `json:"top5"`
	Generated string  `json:"generated,omitempty"` // up to the first full stop after six characters, as the reference has it
	Ended     string  `json:"ended,omitempty"`     // the same up to </s> or a newline
	Match
	CLIP *Match `json:"clip,omitempty"` // what CLIP makes of it, where it is compared

	Text []byte `json:"text_embedding,omitempty"` // f32, in the journal alone
}

// CaptionTokens returns a caption as the reference's CsvDataset has it, without padding: the tokens of caption + "[RET]", the leading </s> first, cut to
// maxLen with [RET] as the last then.
func CaptionTokens(r *runner.Runner, caption string, maxLen int) []int {
	var tokens []int
	for _, id := range r.Tokenizer().Encode(caption+"[RET]", true) {
		tokens = append(tokens, int(id))
	}
	if len(tokens) > maxLen {
		tokens = tokens[:maxLen]
		tokens[maxLen-1] = r.RET()
	}
	return tokens
}

// Captions evaluates captioning and retrieval over the examples whose pictures have features, with the runner's present heads.
func Captions(ctx context.Context, r *runner.Runner, examples []dataset.Example, features *dataset.Features, opt CaptionOptions) (*CaptionScores, error) {
	if r.RET() < 0 || r.Tokenizer() == nil {
		return nil, errors.New("eval: captions: the model has no heads or no tokenizer")
	}
	if opt.MaxLen == 0 {
		opt.MaxLen = DefaultMaxLen
	}
	if most := r.Settings().MaxPositions - r.Settings().VisualTokens - opt.Words; opt.MaxLen < 2 || opt.MaxLen > most {
		return nil, fmt.Errorf("eval: captions: want a max-len of 2 to %d tokens, have %d", most, opt.MaxLen)
	}
	usable := features.Usable(examples)
	if len(usable) == 0 {
		return nil, fmt.Errorf("eval: captions: none of %d pictures can be read", len(examples))
	}
	c := &captions{r: r, features: features, opt: opt, examples: usable}
	var todo []int
	var err error
	if c.results, todo, err = resume[CaptionResult](opt.Journal, len(usable)); err != nil {
		return nil, err
	}
	for at := 0; at < len(todo); at += captionBatch {
		progress(opt.Progress).say("captions", len(usable)-len(todo)+at, len(usable))
		if err := c.batch(ctx, todo[at:min(at+captionBatch, len(todo))]); err != nil {
			return nil, err
		}
	}
	scores, err := c.scores(ctx)
	if err != nil {
		return nil, err
	}
	scores.Skipped = len(examples) - len(usable)
	return scores, c.compare(ctx, scores)
}

// compare adds what CLIP finds.
func (c *captions) compare(ctx context.Context, s *CaptionScores) error {
	if c.opt.CLIP == nil {
		return nil
	}
	var names, captions []string
	for _, e := range c.examples {
		names, captions = append(names, e.Image), append(captions, e.Caption)
	}
	pictures, err := c.opt.CLIP.Pictures(ctx, names)
	if err != nil {
		return err
	}
	texts, err := c.opt.CLIP.Texts(ctx, captions, c.opt.Progress)
	if err != nil {
		return err
	}
	matches, _, err := match(ctx, c.examples, texts, pictures, 1)
	if err != nil {
		return err
	}
	for i := range matches {
		c.results[i].CLIP = &matches[i]
	}
	r := recalls(c.examples, matches, c.opt.Train)
	s.CLIP = &r
	return nil
}

// captionBatch is how many examples run packed together.
const captionBatch = 32

// captions is an evaluation at work.
type captions struct {
	r        *runner.Runner
	features *dataset.Features
	opt      CaptionOptions
	examples []dataset.Example
	results  []CaptionResult
}

// images returns pictures of examples as the present heads see them.
func (c *captions) images(ctx context.Context, examples []dataset.Example) ([]runner.Image, error) {
	var names []string
	for _, e := range examples {
		names = append(names, e.Image)
	}
	v, err := c.features.Rows(names...)
	if err != nil {
		return nil, err
	}
	return c.r.Maps(ctx, v)
}

// batch fills the results of the examples with these numbers.
func (c *captions) batch(ctx context.Context, numbers []int) error {
	var examples []dataset.Example
	for _, i := range numbers {
		examples = append(examples, c.examples[i])
	}
	images, err := c.images(ctx, examples)
	if err != nil {
		return err
	}
	batch := make([]CaptionResult, len(examples))
	var captioning, retrieval []*runner.Sequence
	defer func() {
		for _, s := range retrieval {
			s.Close()
		}
	}()
	for i, e := range examples {
		batch[i].Image, batch[i].Caption = e.Image, e.Caption
		tokens := CaptionTokens(c.r, e.Caption, c.opt.MaxLen)
		captioning = append(captioning, c.sequence(images[i].Prefix, untilRET(tokens, c.r.RET())))
		retrieval = append(retrieval, c.sequence(nil, tokens))
	}
	if err := c.likelihoods(ctx, captioning, batch); err != nil {
		return err
	}
	embeddings, err := c.r.Retrievals(ctx, retrieval...)
	if err != nil {
		return err
	}
	if err := c.generate(ctx, images, batch); err != nil {
		return err
	}
	for n, i := range numbers {
		batch[n].Text = machine.Bytes(embeddings[n])
		if err := c.opt.Journal.add(i, batch[n]); err != nil {
			return err
		}
		c.results[i] = batch[n]
	}
	return nil
}

// untilRET is the part of a caption that has labels: what comes before the first [RET].
func untilRET(tokens []int, ret int) []int {
	for i, id := range tokens {
		if id == ret {
			return tokens[:i]
		}
	}
	return tokens
}

func (c *captions) sequence(prefix [][]float32, tokens []int) *runner.Sequence {
	s := c.r.NewSequence()
	for _, row := range prefix {
		s.AppendTokens(runner.Token{Visual: row})
	}
	for _, id := range tokens {
		s.AppendTokens(runner.Token{ID: id})
	}
	return s
}

// likelihoods scores every token after the picture, the leading </s> too, as the reference's labels do.
func (c *captions) likelihoods(ctx context.Context, sequences []*runner.Sequence, batch []CaptionResult) error {
	all, err := c.r.ScoreSequences(ctx, sequences)
	if err != nil {
		return err
	}
	for i, l := range all {
		batch[i].NLL, batch[i].Tokens, batch[i].Top1, batch[i].Top5 = -l.Sum, len(l.Tokens), l.Top1, l.Top5
	}
	return nil
}

// generate writes greedy captions. [RET] is never generated, and </s> does not end them, as in the reference.
func (c *captions) generate(ctx context.Context, images []runner.Image, batch []CaptionResult) error {
	if c.opt.Words == 0 {
		return nil
	}
	var sequences []*runner.Sequence
	for _, image := range images {
		s := c.sequence(image.Prefix, nil)
		defer s.Close()
		sequences = append(sequences, s)
	}
	done := func(ids []int32) bool {
		_, cut := untilStop(c.r.Tokenizer().Decode(ids, true))
		return cut
	}
	generated, err := c.r.Greedy(ctx, sequences, c.opt.Words, []int{c.r.RET()}, done)
	if err != nil {
		return err
	}
	for i, ids := range generated {
		batch[i].Generated, _ = untilStop(c.r.Tokenizer().Decode(ids, true))
		batch[i].Ended = c.ended(ids)
	}
	return nil
}

// ended is what people would be shown of generated tokens: without the </s> that begins every text, which the model has learned to say first, up to the
// next, to a newline, or to the full stop.
func (c *captions) ended(ids []int32) string {
	if len(ids) > 0 && ids[0] == int32(c.r.Settings().BOS) {
		ids = ids[1:]
	}
	if end := slices.Index(ids, int32(c.r.Settings().EOS)); end >= 0 {
		ids = ids[:end]
	}
	text, _ := untilStop(c.r.Tokenizer().Decode(ids, true))
	text, _, _ = strings.Cut(text, "\n")
	return text
}

// untilStop cuts a caption at its first full stop, unless that is within the first six characters.
func untilStop(text string) (string, bool) {
	at := strings.IndexByte(text, '.')
	if at >= 0 && utf8.RuneCountInString(text[:at]) > 5 {
		return text[:at], true
	}
	return text, false
}

// scores makes the scores of all results.
func (c *captions) scores(ctx context.Context) (*CaptionScores, error) {
	s := &CaptionScores{Examples: len(c.results), Each: c.results}
	for i := range c.results {
		x := &c.results[i]
		s.CE += x.NLL
		s.Tokens += x.Tokens
		s.Top1 += 100 * float64(x.Top1)
		s.Top5 += 100 * float64(x.Top5)
	}
	n := float64(s.Tokens)
	s.CE, s.Top1, s.Top5 = s.CE/n, s.Top1/n, s.Top5/n
	if c.opt.Words > 0 {
		s.BLEU = c.bleu(func(x CaptionResult) string { return x.Generated })
		s.BLEUEnded = c.bleu(func(x CaptionResult) string { return x.Ended })
	}
	return s, c.retrieve(ctx, s)
}

// bleu holds generated captions against all captions of their picture, which are cut as the model sees them.
func (c *captions) bleu(text func(CaptionResult) string) [4]float64 {
	references := map[string][]string{}
	for _, e := range c.examples {
		var ids []int32
		for _, id := range CaptionTokens(c.r, e.Caption, c.opt.MaxLen) {
			ids = append(ids, int32(id))
		}
		caption := strings.ReplaceAll(c.r.Tokenizer().Decode(ids, true), "[RET]", "")
		references[e.Image] = append(references[e.Image], caption)
	}
	var b bleu
	for i, x := range c.results {
		b.add(text(x), references[c.examples[i].Image])
	}
	return b.scores()
}

// retrieve scores all captions against all pictures.
func (c *captions) retrieve(ctx context.Context, s *CaptionScores) error {
	var texts, pictures [][]float32
	for i := range c.results {
		x := &c.results[i]
		e := floats(x.Text)
		if len(e) != c.r.Settings().SharedDim {
			return fmt.Errorf("eval: captions: example %d: want an embedding of %d values, have %d", i, c.r.Settings().SharedDim, len(e))
		}
		texts, x.Text = append(texts, runner.Normalised(e)), nil
	}
	for at := 0; at < len(c.examples); at += 256 {
		images, err := c.images(ctx, c.examples[at:min(at+256, len(c.examples))])
		if err != nil {
			return err
		}
		for _, image := range images {
			pictures = append(pictures, runner.Normalised(image.Retrieval))
		}
	}
	matches, contrastive, err := match(ctx, c.examples, texts, pictures, float64(c.r.Scale()))
	if err != nil {
		return err
	}
	for i := range c.results {
		c.results[i].Match = matches[i]
	}
	s.Contrastive = contrastive
	s.Retrieval = recalls(c.examples, matches, c.opt.Train)
	return nil
}

// match ranks every example's picture for its caption and its caption for its picture, given normalised embeddings of both, and returns ½(CE over rows +
// CE over columns) of scale times the cosines as well.
func match(ctx context.Context, examples []dataset.Example, texts, pictures [][]float32, scale float64) ([]Match, float64, error) {
	matches, losses := make([]Match, len(examples)), make([][2]float64, len(examples))
	same := func(i int) func(int) bool {
		return func(j int) bool { return examples[j].Caption == examples[i].Caption }
	}
	err := each(ctx, texts, pictures, func(i int, scores []float64) {
		m := &matches[i]
		m.TextRank, m.Strict[0], m.Found = rankOf(scores, bestOf(scores, same(i))), rankOf(scores, i), topOf(scores, 5)
		losses[i][0] = crossEntropy(scores, i, scale)
	})
	if err != nil {
		return nil, 0, err
	}
	err = each(ctx, pictures, texts, func(i int, scores []float64) {
		m := &matches[i]
		m.ImageRank, m.Strict[1] = rankOf(scores, bestOf(scores, same(i))), rankOf(scores, i)
		losses[i][1] = crossEntropy(scores, i, scale)
	})
	contrastive := 0.0
	for _, l := range losses {
		contrastive += (l[0] + l[1]) / 2 / float64(len(losses))
	}
	return matches, contrastive, err
}

// recalls counts the ranks of all matches.
func recalls(examples []dataset.Example, matches []Match, train []dataset.Example) Retrieval {
	known := map[string]bool{}
	for _, e := range train {
		known[e.Caption] = true
	}
	var ranks [4][]int
	var unseen []int
	for i, m := range matches {
		for k, rank := range []int{m.TextRank, m.ImageRank, m.Strict[0], m.Strict[1]} {
			ranks[k] = append(ranks[k], rank)
		}
		if !known[examples[i].Caption] {
			unseen = append(unseen, m.TextRank)
		}
	}
	out := Retrieval{TextToImage: recall(ranks[0]), ImageToText: recall(ranks[1]), TextToImage1: recall(ranks[2]), ImageToText1: recall(ranks[3])}
	if train != nil {
		r := recall(unseen)
		out.Unseen = &r
	}
	return out
}

// crossEntropy is −log softmax(scale·scores) at label.
func crossEntropy(scores []float64, label int, scale float64) float64 {
	largest := scores[bestOf(scores, func(int) bool { return true })]
	sum := 0.0
	for _, s := range scores {
		sum += math.Exp(scale * (s - largest))
	}
	return math.Log(sum) - scale*(scores[label]-largest)
}

// floats reads little-endian f32.
func floats(b []byte) []float32 {
	x := make([]float32, len(b)/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return x
}
