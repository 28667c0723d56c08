// SPDX-License-Identifier: Apache-2.0

package eval

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"fromage/machine"
	"fromage/runner"
)

// VisDial is dialogues about pictures, as the files of Visual Dialog 1.0 have them.
type VisDial struct {
	Split   string // val2018
	Dialogs []Dialog
}

// Dialog is questions about a picture, and for each the answers to choose from.
type Dialog struct {
	Image  string // its number, twelve digits
	Rounds []Round
	// Dense annotations: how relevant each answer of one round is. Annotated is that round, from 1, as the file has it; 0 without annotations.
	Annotated int
	Relevance []float64
}

// Round is a question with its candidate answers.
type Round struct {
	Question string
	Answer   string
	Options  []string
	Truth    int // which of the options is right
}

// ReadVisDial reads dialogues (visdial_1.0_val.json) and, where dense is not "", their dense annotations (visdial_1.0_val_dense_annotations.json). limit,
// if above 0, leaves the first dialogues alone in the set.
func ReadVisDial(file, dense string, limit int) (*VisDial, error) {
	var raw struct {
		Split string `json:"split"`
		Data  struct {
			Questions []string  `json:"questions"`
			Answers   []string  `json:"answers"`
			Dialogs   []dialogs `json:"dialogs"`
		} `json:"data"`
	}
	if err := readJSON(file, &raw); err != nil {
		return nil, err
	}
	if len(raw.Data.Dialogs) == 0 {
		return nil, fmt.Errorf("eval: %s: want data.dialogs, have none", file)
	}
	d := &VisDial{Split: raw.Split}
	for i, one := range raw.Data.Dialogs {
		if limit > 0 && i == limit {
			break
		}
		next := Dialog{Image: fmt.Sprintf("%012d", one.Image)}
		for n, turn := range one.Dialog {
			r, err := turn.round(raw.Data.Questions, raw.Data.Answers)
			if err != nil {
				return nil, fmt.Errorf("eval: %s: dialogue %d: round %d: %w", file, i, n, err)
			}
			next.Rounds = append(next.Rounds, r)
		}
		if len(next.Rounds) == 0 {
			return nil, fmt.Errorf("eval: %s: dialogue %d: want rounds, have none", file, i)
		}
		d.Dialogs = append(d.Dialogs, next)
	}
	if dense == "" {
		return d, nil
	}
	return d, d.readDense(dense, len(raw.Data.Dialogs))
}

// dialogs is one dialogue in the file.
type dialogs struct {
	Image  int64  `json:"image_id"`
	Dialog []turn `json:"dialog"`
}

// turn is a round in the file: places in the lists of questions and answers.
type turn struct {
	Question int   `json:"question"`
	Answer   int   `json:"answer"`
	Options  []int `json:"answer_options"`
	Truth    int   `json:"gt_index"`
}

func (t turn) round(questions, answers []string) (Round, error) {
	if t.Question < 0 || t.Question >= len(questions) {
		return Round{}, fmt.Errorf("want one of %d questions, have %d", len(questions), t.Question)
	}
	if t.Truth < 0 || t.Truth >= len(t.Options) {
		return Round{}, fmt.Errorf("want gt_index within %d answer_options, have %d", len(t.Options), t.Truth)
	}
	for _, a := range append(t.Options, t.Answer) {
		if a < 0 || a >= len(answers) {
			return Round{}, fmt.Errorf("want one of %d answers, have %d", len(answers), a)
		}
	}
	r := Round{Question: questions[t.Question], Answer: answers[t.Answer], Truth: t.Truth}
	for _, a := range t.Options {
		r.Options = append(r.Options, answers[a])
	}
	return r, nil
}

// readDense enters the dense annotations, which come in the order of the dialogues.
func (d *VisDial) readDense(file string, total int) error {
	var raw []struct {
		Image     int64     `json:"image_id"`
		Round     int       `json:"round_id"`
		Relevance []float64 `json:"gt_relevance"`
	}
	if err := readJSON(file, &raw); err != nil {
		return err
	}
	if len(raw) != total {
		return fmt.Errorf("eval: %s: want annotations of %d dialogues, have %d", file, total, len(raw))
	}
	for i := range d.Dialogs {
		x := &d.Dialogs[i]
		if id := fmt.Sprintf("%012d", raw[i].Image); id != x.Image {
			return fmt.Errorf("eval: %s: annotation %d: want image_id %s as in the dialogues, have %s", file, i, x.Image, id)
		}
		if n := raw[i].Round; n < 1 || n > len(x.Rounds) || len(raw[i].Relevance) != len(x.Rounds[n-1].Options) {
			return fmt.Errorf("eval: %s: annotation %d: want round_id 1 to %d with a gt_relevance for every answer, have %d with %d",
				file, i, len(x.Rounds), n, len(raw[i].Relevance))
		}
		x.Annotated, x.Relevance = raw[i].Round, raw[i].Relevance
	}
	return nil
}

// Picture is the name, without extension, that the picture of a number has in Visual Dialog's archives.
func (d *VisDial) Picture(id string) string { return "VisualDialog_" + d.Split + "_" + id }

// AnswerScores tell how well candidate answers are ranked, each by its summed loss. NDCG is at the round that the dense annotation is of; NDCGPublished is
// where the reference's script looks, one round later, which the published number is of.
type AnswerScores struct {
	Recall
	MRR           float64 `json:"mrr"` // percent, as all
	MeanRank      float64 `json:"mean_rank"`
	NDCG          float64 `json:"ndcg"`
	NDCGPublished float64 `json:"ndcg_published"`
}

// DialogScores tell of answers and pictures. The reference's scripts do not shift labels: they take each token's loss from what the model says at the
// token's own place (Published), where a language model's prediction of it stands one place earlier (Predicted). And the script of picture retrieval finds
// the dialogue for each picture (PictureToDialog); DialogToPicture is the other way about.
type DialogScores struct {
	Dialogs         int            `json:"dialogs"`
	Rounds          int            `json:"rounds"`
	Skipped         []Skip         `json:"skipped"`
	Published       AnswerScores   `json:"answers_published"`
	Predicted       AnswerScores   `json:"answers_predicted"`
	PictureToDialog Recall         `json:"picture_to_dialogue"`
	DialogToPicture Recall         `json:"dialogue_to_picture"`
	CLIP            *DialogCLIP    `json:"clip,omitempty"`
	Each            []DialogResult `json:"-"`
}

// DialogCLIP is what CLIP makes of the same: answers ranked by the cosine of the picture and "question? answer", dialogues cut where its text tower ends.
type DialogCLIP struct {
	Answers         AnswerScores `json:"answers"`
	PictureToDialog Recall       `json:"picture_to_dialogue"`
	DialogToPicture Recall       `json:"dialogue_to_picture"`
}

// DialogResult is one dialogue. Ranks are from 0.
type DialogResult struct {
	Image     string   `json:"image"`
	Published []int    `json:"published"` // rank of the right answer, by round
	Predicted []int    `json:"predicted"`
	Best      []string `json:"best"`    // the answer of least predicted loss, by round
	Picture   int      `json:"picture"` // rank of the dialogue's picture among all
	Found     []int    `json:"found"`   // the best pictures, as numbers of dialogues

	// In the journal alone, f32: losses of the candidates by round, as published and as predicted; their cosines by CLIP; the dialogue's embedding.
	Own  [][]byte `json:"own,omitempty"`
	Next [][]byte `json:"next,omitempty"`
	CLIP [][]byte `json:"clip,omitempty"`
	Text []byte   `json:"text,omitempty"`
}

// visdial is an evaluation at work.
type visdial struct {
	r       *runner.Runner
	opt     Options
	dialogs []Dialog
	results []DialogResult
	prompts *runner.Branches
}

// Dialogs evaluates answers and picture retrieval over dialogues: evals/eval_visdial_generation.py and eval_visdial_retrieval.py. The dialogue before a
// question runs once for all its answers, and what rounds have in common once for all rounds. A dialogue whose picture cannot be read is left out.
func Dialogs(ctx context.Context, r *runner.Runner, data *VisDial, opt Options) (*DialogScores, error) {
	if r.RET() < 0 || r.Tokenizer() == nil {
		return nil, errors.New("eval: visdial: the model has no heads or no tokenizer")
	}
	v := &visdial{r: r, opt: opt, prompts: r.NewBranches()}
	defer v.prompts.Close()
	scores := &DialogScores{Skipped: []Skip{}}
	for _, d := range data.Dialogs {
		if reason := v.unfit(d); reason != "" {
			scores.Skipped = append(scores.Skipped, Skip{d.Image, reason})
		} else {
			v.dialogs = append(v.dialogs, d)
		}
	}
	if len(v.dialogs) == 0 {
		return nil, fmt.Errorf("eval: visdial: none of %d dialogues can be used; the first: %s", len(data.Dialogs), scores.Skipped[0].Reason)
	}
	results, todo, err := resume[DialogResult](opt.Journal, len(v.dialogs))
	if err != nil {
		return nil, err
	}
	v.results = results
	for n, i := range todo {
		progress(opt.Progress).say("dialogues", len(v.dialogs)-len(todo)+n, len(v.dialogs))
		if results[i], err = v.dialog(ctx, v.dialogs[i]); err != nil {
			return nil, err
		}
		if err := opt.Journal.add(i, results[i]); err != nil {
			return nil, err
		}
	}
	scores.Dialogs, scores.Each = len(v.dialogs), v.results
	return scores, v.score(ctx, scores)
}

// unfit says why a dialogue cannot be used.
func (v *visdial) unfit(d Dialog) string {
	if !v.opt.has(d.Image) {
		return "its picture is missing or cannot be read"
	}
	longest, last := 0, len(d.Rounds)-1
	for _, a := range d.Rounds[last].Options {
		longest = max(longest, len(textTokens(v.r, a)))
	}
	tokens := v.r.Settings().VisualTokens + len(textTokens(v.r, asked(d, last))) + longest
	tokens = max(tokens, len(textTokens(v.r, transcript(d)+"[RET]")))
	if most := v.r.Settings().MaxPositions; tokens > most {
		return fmt.Sprintf("want at most the model's %d tokens, have %d", most, tokens)
	}
	return ""
}

// asked is the dialogue up to the question of a round, as the reference writes it where answers are ranked.
func asked(d Dialog, round int) string {
	var lines []string
	for i, r := range d.Rounds[:round+1] {
		if i > 0 {
			lines = append(lines, "A: "+d.Rounds[i-1].Answer)
		}
		lines = append(lines, "Q: "+r.Question+"?")
	}
	return strings.Join(lines, "\n") + "\nA: "
}

// transcript is the whole dialogue, as the reference writes it where pictures are retrieved.
func transcript(d Dialog) string {
	var parts []string
	for _, r := range d.Rounds {
		parts = append(parts, "Q: "+r.Question+"?", "A: "+r.Answer+".")
	}
	return joinTexts(parts)
}

func joinTexts(texts []string) string { return strings.Join(texts, " ") }

// dialog ranks the answers of all rounds, and embeds the dialogue.
func (v *visdial) dialog(ctx context.Context, d Dialog) (DialogResult, error) {
	x := DialogResult{Image: d.Image}
	images, err := v.opt.images(ctx, v.r, []string{d.Image})
	if err != nil {
		return x, err
	}
	for i, r := range d.Rounds {
		var options [][]int
		for _, a := range r.Options {
			var ids []int
			for _, token := range textTokens(v.r, a) {
				ids = append(ids, token.ID)
			}
			options = append(options, ids)
		}
		losses, err := v.prompts.Score(ctx, append(visual(images[0]), textTokens(v.r, asked(d, i))...), options)
		if err != nil {
			return x, err
		}
		own, next := make([]float32, len(losses)), make([]float32, len(losses))
		for n, l := range losses {
			own[n], next[n] = float32(l.Own), float32(l.Next)
		}
		x.Own, x.Next = append(x.Own, machine.Bytes(own)), append(x.Next, machine.Bytes(next))
	}
	if x.CLIP, err = v.clipAnswers(ctx, d); err != nil {
		return x, err
	}
	s := v.r.NewSequence()
	defer s.Close()
	s.AppendTokens(textTokens(v.r, transcript(d)+"[RET]")...)
	e, err := v.r.Retrievals(ctx, s)
	if err != nil {
		return x, err
	}
	x.Text = machine.Bytes(e[0])
	return x, nil
}

// clipAnswers returns CLIP's cosines of a dialogue's picture with "question? answer" for all answers of each round.
func (v *visdial) clipAnswers(ctx context.Context, d Dialog) ([][]byte, error) {
	if v.opt.CLIP == nil {
		return nil, nil
	}
	picture, err := v.opt.clipCandidates(ctx, []string{d.Image})
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, r := range d.Rounds {
		var answers []string
		for _, a := range r.Options {
			answers = append(answers, r.Question+"? "+a)
		}
		texts, err := v.opt.CLIP.Texts(ctx, answers, nil)
		if err != nil {
			return nil, err
		}
		cosines := make([]float32, len(texts))
		for n, t := range texts {
			cosines[n] = float32(dot(picture[0], t))
		}
		out = append(out, machine.Bytes(cosines))
	}
	return out, nil
}

func (v *visdial) score(ctx context.Context, scores *DialogScores) error {
	var own, next, clip [][]float64
	for i := range v.results {
		x, d := &v.results[i], v.dialogs[i]
		for _, c := range []struct {
			raw  [][]byte
			sign float64
			all  *[][]float64
		}{{x.Own, -1, &own}, {x.Next, -1, &next}, {x.CLIP, 1, &clip}} {
			rows, err := candidateScores(d, c.raw, c.sign)
			if err != nil {
				return err
			}
			*c.all = append(*c.all, rows...)
		}
		at := len(own) - len(d.Rounds)
		for n, r := range d.Rounds {
			x.Published, x.Predicted = append(x.Published, rankOf(own[at+n], r.Truth)), append(x.Predicted, rankOf(next[at+n], r.Truth))
			x.Best = append(x.Best, r.Options[topOf(next[at+n], 1)[0]])
		}
		x.Own, x.Next, x.CLIP = nil, nil, nil
	}
	scores.Rounds = len(own)
	scores.Published, scores.Predicted = answerScores(v.dialogs, own), answerScores(v.dialogs, next)
	if err := v.retrieve(ctx, scores); err != nil {
		return err
	}
	return v.compare(ctx, scores, clip)
}

// candidateScores reads a dialogue's numbers by round and candidate, times sign.
func candidateScores(d Dialog, raw [][]byte, sign float64) ([][]float64, error) {
	if len(raw) != 0 && len(raw) != len(d.Rounds) {
		return nil, fmt.Errorf("eval: visdial: dialogue %s: want numbers of %d rounds, have %d", d.Image, len(d.Rounds), len(raw))
	}
	out := make([][]float64, len(raw))
	for i, b := range raw {
		for _, x := range floats(b) {
			out[i] = append(out[i], sign*float64(x))
		}
		if len(out[i]) != len(d.Rounds[i].Options) {
			return nil, fmt.Errorf("eval: visdial: dialogue %s: round %d: want numbers of %d answers, have %d", d.Image, i, len(d.Rounds[i].Options), len(out[i]))
		}
	}
	return out, nil
}

// retrieve finds pictures for dialogues and dialogues for pictures. For one picture the reference's not normalising it changes no rank.
func (v *visdial) retrieve(ctx context.Context, scores *DialogScores) error {
	var texts [][]float32
	var ids []string
	for i := range v.results {
		x := &v.results[i]
		e := floats(x.Text)
		if len(e) != v.r.Settings().SharedDim {
			return fmt.Errorf("eval: visdial: dialogue %s: want an embedding of %d values, have %d", x.Image, v.r.Settings().SharedDim, len(e))
		}
		texts, ids, x.Text = append(texts, runner.Normalised(e)), append(ids, x.Image), nil
	}
	pictures, err := v.opt.candidates(ctx, v.r, ids)
	if err != nil {
		return err
	}
	scores.DialogToPicture, err = ownRecall(ctx, texts, pictures, func(i int, s []float64) {
		v.results[i].Picture, v.results[i].Found = rankOf(s, i), topOf(s, 5)
	})
	if err != nil {
		return err
	}
	scores.PictureToDialog, err = ownRecall(ctx, pictures, texts, nil)
	return err
}

// ownRecall counts how often a query's own candidate, that of the same number, is found.
func ownRecall(ctx context.Context, queries, candidates [][]float32, seen func(query int, scores []float64)) (Recall, error) {
	ranks := make([]int, len(queries))
	err := each(ctx, queries, candidates, func(i int, scores []float64) {
		if ranks[i] = rankOf(scores, i); seen != nil {
			seen(i, scores)
		}
	})
	return recall(ranks), err
}

// compare adds what CLIP finds.
func (v *visdial) compare(ctx context.Context, scores *DialogScores, answers [][]float64) error {
	if v.opt.CLIP == nil {
		return nil
	}
	var ids, whole []string
	for _, d := range v.dialogs {
		ids, whole = append(ids, d.Image), append(whole, transcript(d))
	}
	pictures, err := v.opt.clipCandidates(ctx, ids)
	if err != nil {
		return err
	}
	texts, err := v.opt.CLIP.Texts(ctx, whole, v.opt.Progress)
	if err != nil {
		return err
	}
	c := &DialogCLIP{Answers: answerScores(v.dialogs, answers)}
	if c.DialogToPicture, err = ownRecall(ctx, texts, pictures, nil); err != nil {
		return err
	}
	c.PictureToDialog, err = ownRecall(ctx, pictures, texts, nil)
	scores.CLIP = c
	return err
}
