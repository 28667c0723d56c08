// SPDX-License-Identifier: Apache-2.0

package eval

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"fromage/dataset"
	"fromage/machine"
	"fromage/runner"
)

// VIST is stories of Visual Storytelling, as its story-in-sequence files have them.
type VIST struct {
	Stories []Story
	Images  []string // numbers of the pictures that are used, in the file's order
}

// Story is captions and the numbers of their pictures, in order.
type Story struct {
	ID       string
	Captions []string
	Images   []string
}

// ReadVIST reads a story-in-sequence file (val.story-in-sequence.json). Stories come in the order of their first annotation, and their captions in the
// file's order, as the reference takes them. limit, if above 0, leaves the first stories alone in the set.
func ReadVIST(file string, limit int) (*VIST, error) {
	var raw struct {
		Images []struct {
			ID string `json:"id"`
		} `json:"images"`
		Annotations [][]struct {
			Story string `json:"story_id"`
			Text  string `json:"text"`
			Image string `json:"photo_flickr_id"`
		} `json:"annotations"`
	}
	if err := readJSON(file, &raw); err != nil {
		return nil, err
	}
	v := &VIST{}
	at := map[string]int{}
	for i, list := range raw.Annotations {
		if len(list) != 1 || list[0].Story == "" || list[0].Image == "" {
			return nil, fmt.Errorf("eval: %s: annotation %d: want one with story_id, text and photo_flickr_id, have %d", file, i, len(list))
		}
		a := list[0]
		n, ok := at[a.Story]
		if !ok {
			n = len(v.Stories)
			at[a.Story] = n
			v.Stories = append(v.Stories, Story{ID: a.Story})
		}
		s := &v.Stories[n]
		s.Captions, s.Images = append(s.Captions, a.Text), append(s.Images, a.Image)
	}
	if len(v.Stories) == 0 {
		return nil, fmt.Errorf("eval: %s: want annotations of stories, have none", file)
	}
	if limit > 0 {
		v.Stories = v.Stories[:min(limit, len(v.Stories))]
	}
	used := map[string]bool{}
	for _, s := range v.Stories {
		for _, id := range s.Images {
			used[id] = true
		}
	}
	for _, image := range raw.Images {
		if used[image.ID] {
			v.Images = append(v.Images, image.ID)
			used[image.ID] = false
		}
	}
	return v, nil
}

func readJSON(file string, to any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("eval: %w", err)
	}
	err = json.Unmarshal(data, to)
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return fmt.Errorf("eval: %s: byte %d: %s: have a JSON %s, which cannot be there", file, kind.Offset, cmp.Or(kind.Field, "the file"), kind.Value)
	}
	if err != nil {
		return fmt.Errorf("eval: %s: %w", file, err)
	}
	return nil
}

// Skip is an example that was left out.
type Skip struct {
	Example string `json:"example"`
	Reason  string `json:"reason"`
}

// Options are what the evaluations over stories, dialogues and compositions have in common.
type Options struct {
	// Names says which file a picture is in, by its number in the data. Features has them.
	Names    map[string]string
	Features *dataset.Features
	CLIP     *CLIP // where given, what CLIP finds is told beside
	Journal  *Journal
	Progress func(runner.Progress) // counts examples
}

// has says whether a picture is there and readable.
func (o *Options) has(id string) bool {
	name, ok := o.Names[id]
	return ok && o.Features.Has(name)
}

// images returns pictures as the present heads see them.
func (o *Options) images(ctx context.Context, r *runner.Runner, ids []string) ([]runner.Image, error) {
	var names []string
	for _, id := range ids {
		names = append(names, o.Names[id])
	}
	v, err := o.Features.Rows(names...)
	if err != nil {
		return nil, err
	}
	return r.Maps(ctx, v)
}

// candidates returns the normalised retrieval embeddings of pictures.
func (o *Options) candidates(ctx context.Context, r *runner.Runner, ids []string) ([][]float32, error) {
	var out [][]float32
	for at := 0; at < len(ids); at += 256 {
		images, err := o.images(ctx, r, ids[at:min(at+256, len(ids))])
		if err != nil {
			return nil, err
		}
		for _, image := range images {
			out = append(out, runner.Normalised(image.Retrieval))
		}
	}
	return out, nil
}

// clipCandidates is candidates by CLIP.
func (o *Options) clipCandidates(ctx context.Context, ids []string) ([][]float32, error) {
	var names []string
	for _, id := range ids {
		names = append(names, o.Names[id])
	}
	return o.CLIP.Pictures(ctx, names)
}

// Settings of the contextual retrieval of stories' last pictures, in the order of VISTScores.Settings.
const (
	OneCaption     = iota // the last caption
	FiveCaptions          // all captions
	FiveUnseen            // all captions, where the story's own pictures do not count as found
	FiveWithImages        // all captions with the pictures between them, the same; the reference's script
	vistSettings
)

// SettingNames names the settings.
var SettingNames = [vistSettings]string{"1 caption", "5 captions", "5 captions, seen pictures excluded", "5 captions, 4 pictures, seen excluded"}

// VISTScores tell how often the picture of a story's last caption is found among all pictures.
type VISTScores struct {
	Stories    int           `json:"stories"`
	Candidates int           `json:"candidates"`
	Skipped    []Skip        `json:"skipped"`
	Settings   []VISTSetting `json:"settings"`
	Each       []StoryResult `json:"-"`
}

// VISTSetting is one way to ask. CLIP cannot take pictures between captions.
type VISTSetting struct {
	Name    string  `json:"setting"`
	Fromage Recall  `json:"fromage"`
	CLIP    *Recall `json:"clip,omitempty"`
}

// StoryResult is one story. Ranks are from 0, by setting.
type StoryResult struct {
	Story string                 `json:"story"`
	Truth string                 `json:"truth"` // the last picture
	Ranks [vistSettings]int      `json:"ranks"`
	Found [vistSettings][]string `json:"found"`                // the best pictures
	CLIP  []int                  `json:"clip_ranks,omitempty"` // of the first three settings

	Embeddings [3][]byte `json:"embeddings,omitzero"` // of OneCaption, FiveCaptions, FiveWithImages; in the journal alone
}

// storyLength is how many pictures a story has.
const storyLength = 5

// seenPenalty is what the reference takes off the score of a picture that the story has shown before.
const seenPenalty = 10000

// vist is an evaluation at work.
type vist struct {
	r          *runner.Runner
	opt        Options
	stories    []Story
	candidates []string // numbers of pictures
	results    []StoryResult
}

// Stories evaluates contextual image retrieval: evals/eval_vist_retrieval.py. Every caption begins with its own </s>, [RET] follows the last, and candidates
// are all pictures of the set that can be read. A story of which a picture cannot be read, or that has fewer than five, is left out.
func Stories(ctx context.Context, r *runner.Runner, data *VIST, opt Options) (*VISTScores, error) {
	if r.RET() < 0 || r.Tokenizer() == nil {
		return nil, errors.New("eval: vist: the model has no heads or no tokenizer")
	}
	v := &vist{r: r, opt: opt}
	for _, id := range data.Images {
		if opt.has(id) {
			v.candidates = append(v.candidates, id)
		}
	}
	scores := &VISTScores{Candidates: len(v.candidates), Skipped: []Skip{}}
	for _, s := range data.Stories {
		if reason := v.unfit(s); reason != "" {
			scores.Skipped = append(scores.Skipped, Skip{s.ID, reason})
		} else {
			v.stories = append(v.stories, s)
		}
	}
	if len(v.stories) == 0 {
		return nil, fmt.Errorf("eval: vist: none of %d stories can be used; the first: %s", len(data.Stories), scores.Skipped[0].Reason)
	}
	if err := v.run(ctx); err != nil {
		return nil, err
	}
	scores.Stories, scores.Each = len(v.stories), v.results
	return scores, v.score(ctx, scores)
}

// unfit says why a story cannot be used.
func (v *vist) unfit(s Story) string {
	if len(s.Images) < storyLength {
		return fmt.Sprintf("want %d pictures, have %d", storyLength, len(s.Images))
	}
	for _, id := range s.Images {
		if !v.opt.has(id) {
			return fmt.Sprintf("picture %s is missing or cannot be read", id)
		}
	}
	tokens := (len(s.Images) - 1) * v.r.Settings().VisualTokens
	for _, p := range v.texts(s.Captions) {
		tokens += len(p)
	}
	if most := v.r.Settings().MaxPositions; tokens > most {
		return fmt.Sprintf("want at most the model's %d tokens, have %d", most, tokens)
	}
	return ""
}

// texts returns captions' tokens, [RET] after the last.
func (v *vist) texts(captions []string) [][]runner.Token {
	out := make([][]runner.Token, len(captions))
	for i, c := range captions {
		if i == len(captions)-1 {
			c += "[RET]"
		}
		out[i] = textTokens(v.r, c)
	}
	return out
}

// textTokens returns a text's tokens, the leading </s> first.
func textTokens(r *runner.Runner, text string) []runner.Token {
	var out []runner.Token
	for _, id := range r.Tokenizer().Encode(text, true) {
		out = append(out, runner.Token{ID: int(id)})
	}
	return out
}

// visual returns a picture's places in a prompt.
func visual(image runner.Image) []runner.Token {
	var out []runner.Token
	for _, row := range image.Prefix {
		out = append(out, runner.Token{Visual: row})
	}
	return out
}

// storyBatch is how many stories run packed together, three prompts each.
const storyBatch = 8

func (v *vist) run(ctx context.Context) error {
	results, todo, err := resume[StoryResult](v.opt.Journal, len(v.stories))
	if err != nil {
		return err
	}
	v.results = results
	for at := 0; at < len(todo); at += storyBatch {
		progress(v.opt.Progress).say("stories", len(v.stories)-len(todo)+at, len(v.stories))
		if err := v.batch(ctx, todo[at:min(at+storyBatch, len(todo))]); err != nil {
			return err
		}
	}
	return nil
}

func (v *vist) batch(ctx context.Context, numbers []int) error {
	var prompts []*runner.Sequence
	defer func() {
		for _, s := range prompts {
			s.Close()
		}
	}()
	for _, i := range numbers {
		three, err := v.prompts(ctx, v.stories[i])
		if err != nil {
			return err
		}
		prompts = append(prompts, three[:]...)
	}
	embeddings, err := v.r.Retrievals(ctx, prompts...)
	if err != nil {
		return err
	}
	for n, i := range numbers {
		x := StoryResult{Story: v.stories[i].ID, Truth: v.stories[i].Images[len(v.stories[i].Images)-1]}
		for k := range x.Embeddings {
			x.Embeddings[k] = machine.Bytes(embeddings[3*n+k])
		}
		if err := v.opt.Journal.add(i, x); err != nil {
			return err
		}
		v.results[i] = x
	}
	return nil
}

// prompts are the three that a story is asked by: its last caption, all captions, all captions and the pictures between them.
func (v *vist) prompts(ctx context.Context, s Story) (out [3]*runner.Sequence, err error) {
	last := len(s.Images) - 1
	images, err := v.opt.images(ctx, v.r, s.Images[:last])
	if err != nil {
		return out, err
	}
	for i := range out {
		out[i] = v.r.NewSequence()
	}
	for i, text := range v.texts(s.Captions) {
		if i == last {
			out[0].AppendTokens(text...)
		}
		out[1].AppendTokens(text...)
		out[2].AppendTokens(text...)
		if i < last {
			out[2].AppendTokens(visual(images[i])...)
		}
	}
	return out, nil
}

// score ranks all stories' last pictures.
func (v *vist) score(ctx context.Context, scores *VISTScores) error {
	pictures, err := v.opt.candidates(ctx, v.r, v.candidates)
	if err != nil {
		return err
	}
	var queries [3][][]float32
	for i := range v.results {
		for k, raw := range v.results[i].Embeddings {
			e := floats(raw)
			if len(e) != v.r.Settings().SharedDim {
				return fmt.Errorf("eval: vist: story %s: want an embedding of %d values, have %d", v.results[i].Story, v.r.Settings().SharedDim, len(e))
			}
			queries[k] = append(queries[k], runner.Normalised(e))
		}
		v.results[i].Embeddings = [3][]byte{}
	}
	asked := [vistSettings]int{OneCaption: 0, FiveCaptions: 1, FiveUnseen: 1, FiveWithImages: 2}
	for setting, k := range asked {
		ranks, err := v.rank(ctx, queries[k], pictures, setting, func(i int, found []string) { v.results[i].Found[setting] = found })
		if err != nil {
			return err
		}
		for i, rank := range ranks {
			v.results[i].Ranks[setting] = rank
		}
		scores.Settings = append(scores.Settings, VISTSetting{Name: SettingNames[setting], Fromage: recall(ranks)})
	}
	return v.compare(ctx, scores)
}

// rank returns the rank of each story's last picture, and tells the best pictures.
func (v *vist) rank(ctx context.Context, queries, pictures [][]float32, setting int, found func(i int, best []string)) ([]int, error) {
	at := map[string]int{}
	for i, id := range v.candidates {
		at[id] = i
	}
	ranks := make([]int, len(queries))
	err := each(ctx, queries, pictures, func(i int, scores []float64) {
		images := v.stories[i].Images
		if last := len(images) - 1; setting == FiveUnseen || setting == FiveWithImages {
			for _, id := range images[:last] {
				scores[at[id]] -= seenPenalty
			}
		}
		ranks[i] = rankOf(scores, at[images[len(images)-1]])
		var best []string
		for _, j := range topOf(scores, 5) {
			best = append(best, v.candidates[j])
		}
		found(i, best)
	})
	return ranks, err
}

// compare adds what CLIP finds by the captions, joined by spaces.
func (v *vist) compare(ctx context.Context, scores *VISTScores) error {
	if v.opt.CLIP == nil {
		return nil
	}
	pictures, err := v.opt.clipCandidates(ctx, v.candidates)
	if err != nil {
		return err
	}
	var last, all []string
	for _, s := range v.stories {
		last = append(last, s.Captions[len(s.Captions)-1])
		all = append(all, joinTexts(s.Captions))
	}
	queries := map[int][][]float32{}
	if queries[OneCaption], err = v.opt.CLIP.Texts(ctx, last, v.opt.Progress); err != nil {
		return err
	}
	if queries[FiveCaptions], err = v.opt.CLIP.Texts(ctx, all, v.opt.Progress); err != nil {
		return err
	}
	queries[FiveUnseen] = queries[FiveCaptions]
	for setting := range FiveWithImages {
		ranks, err := v.rank(ctx, queries[setting], pictures, setting, func(int, []string) {})
		if err != nil {
			return err
		}
		for i, rank := range ranks {
			v.results[i].CLIP = append(v.results[i].CLIP, rank)
		}
		r := recall(ranks)
		scores.Settings[setting].CLIP = &r
	}
	return nil
}
