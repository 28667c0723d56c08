// SPDX-License-Identifier: Apache-2.0

package eval

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fromage/compiler"
	"fromage/dataset"
	"fromage/internal/testmodel"
	"fromage/runner"
	"fromage/shaders"
	"fromage/vision"
)

func jsonFile(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "data.json")
	if err := os.WriteFile(file, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return file
}

type object = map[string]any

// goldenImages are the names of the golden pictures.
func goldenImages(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(golden + "clip/vision/images")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// images puts golden pictures into a folder under numbers of their own, a damaged one with them, and returns their features and which file each is in.
func images(t *testing.T, r *runner.Runner, squash bool, ids []string, damaged ...string) (dir string, opt Options) {
	t.Helper()
	dir = t.TempDir()
	names := goldenImages(t)
	opt.Names = map[string]string{}
	for i, id := range ids {
		data, err := os.ReadFile(golden + "clip/vision/images/" + names[i%len(names)])
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(damaged, id) {
			data = data[:20]
		}
		file := id + filepath.Ext(names[i%len(names)])
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o666); err != nil {
			t.Fatal(err)
		}
		opt.Names[id] = file
	}
	opt.Features = embedAll(t, r, dir, squash, opt.Names)
	return dir, opt
}

// embedAll returns the features of a folder's pictures.
func embedAll(t *testing.T, r *runner.Runner, dir string, squash bool, names map[string]string) *dataset.Features {
	t.Helper()
	pictures, err := dataset.OpenPictures(context.Background(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pictures.Close)
	f, err := dataset.Embed(context.Background(), r, slices.Sorted(maps.Values(names)), pictures, dataset.FeatureOptions{Cache: t.TempDir(), Squash: squash})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// image is get_image_from_url and get_visual_embs in both modes: one picture, squashed.
func (p *plain) image(file string) (runner.Image, error) {
	p.t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		return runner.Image{}, err
	}
	picture, _, err := vision.Decode(data, vision.Limits{})
	if err != nil {
		return runner.Image{}, err
	}
	h, w := p.r.Vision().Shape()
	pixels := make([]float32, 3*h*w)
	if err := p.r.Vision().Preprocess(picture.Resized(224, 224), pixels); err != nil {
		return runner.Image{}, err
	}
	out, err := p.r.Embed(context.Background(), [][]float32{pixels}, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return out[0], nil
}

// ids is tokenizer(text, add_special_tokens=True).
func (p *plain) ids(text string) (out []int) {
	for _, token := range textTokens(p.r, text) {
		out = append(out, token.ID)
	}
	return out
}

// last is the normalised retrieval embedding at the last place of a prompt.
func (p *plain) last(parts []runner.Token) []float64 {
	s := p.r.NewSequence()
	defer s.Close()
	s.AppendTokens(parts...)
	out, err := p.r.Outputs(context.Background(), s)
	if err != nil {
		p.t.Fatal(err)
	}
	return unit(out.Retrieval[len(out.Retrieval)-1])
}

func product(a, b []float64) (sum float64) {
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}

// topk is torch.topk over scores, equal ones in their order.
func topk(scores []float64, k int) []int {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case scores[a] > scores[b]:
			return -1
		case scores[a] < scores[b]:
			return 1
		}
		return 0
	})
	return order[:min(k, len(order))]
}

// tinyVIST is a story-in-sequence file: stories share pictures, one has a picture twice, one names a picture that is gone, one a picture that is damaged,
// one has four pictures alone.
func tinyVIST(t *testing.T) (file string, there []string) {
	rng := rand.New(rand.NewPCG(11, 12))
	words := strings.Fields("we went to the park and saw a dog it was fun my friend has new hat here is our cake [male] ran in")
	sentence := func() string {
		var out []string
		for range 2 + rng.IntN(4) {
			out = append(out, words[rng.IntN(len(words))])
		}
		return strings.Join(out, " ") + "."
	}
	var pictures, annotations []any
	for i := range 16 {
		image := object{"id": fmt.Sprint(100 + i), "title": "a title", "album_id": "7", "datetaken": "2004-05-08 10:14:47", "width": "240"}
		if i != 14 {
			image["url_o"] = "https://example.org/" + fmt.Sprint(100+i) + "_o.jpg"
			there = append(there, fmt.Sprint(100+i))
		}
		pictures = append(pictures, image)
	}
	order := 0
	story := func(id int, images ...int) {
		for n, image := range images {
			annotations = append(annotations, []any{object{
				"original_text": "x", "text": sentence(), "story_id": fmt.Sprint(id), "photo_flickr_id": fmt.Sprint(100 + image), "worker_arranged_photo_order": n, "tier": "story-in-sequence",
			}})
		}
		order++
	}
	for id := range 9 {
		var images []int
		for range 5 {
			images = append(images, rng.IntN(13))
		}
		story(200+id, images...)
	}
	story(300, 1, 2, 2, 3, 2)  // its last picture is among those that it has shown
	story(301, 1, 2, 14, 3, 4) // a picture without an address
	story(302, 1, 2, 15, 3, 4) // a damaged picture
	return jsonFile(t, object{"images": pictures, "annotations": annotations, "type": "story-in-sequence"}), there
}

// plainVIST is evals/eval_vist_retrieval.py, for a way to make a prompt of captions and visual embeddings, with and without seen pictures excluded.
func plainVIST(p *plain, file, dir string, names map[string]string, exclude bool, prompt func(captions []string, images []runner.Image) []runner.Token) (Recall, int) {
	var raw struct {
		Images []struct {
			ID  string `json:"id"`
			URL string `json:"url_o"`
		}
		Annotations [][]struct {
			Story string `json:"story_id"`
			Text  string `json:"text"`
			Image string `json:"photo_flickr_id"`
		}
	}
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &raw)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	type line struct{ caption, image string }
	var order []string
	stories, used := map[string][]line{}, map[string]bool{}
	for _, a := range raw.Annotations {
		if stories[a[0].Story] == nil {
			order = append(order, a[0].Story)
		}
		stories[a[0].Story] = append(stories[a[0].Story], line{a[0].Text, a[0].Image})
		used[a[0].Image] = true
	}
	url := map[string]string{}
	var all []string
	var matrix [][]float64
	for _, image := range raw.Images {
		if !used[image.ID] || image.URL == "" {
			continue
		}
		url[image.ID] = filepath.Join(dir, names[image.ID])
		if e, err := p.image(url[image.ID]); err == nil {
			all, matrix = append(all, image.ID), append(matrix, unit(e.Retrieval))
		}
	}
	r := Recall{}
	for _, id := range order {
		story := stories[id]
		skip := false
		for _, s := range story {
			skip = skip || !slices.Contains(all, s.image) || url[s.image] == ""
		}
		if skip {
			continue
		}
		var captions []string
		var context []runner.Image
		for i, s := range story {
			captions = append(captions, s.caption)
			if i < len(story)-1 {
				e, _ := p.image(url[s.image])
				context = append(context, e)
			}
		}
		e := p.last(prompt(captions, context))
		scores := make([]float64, len(matrix))
		for i, m := range matrix {
			scores[i] = product(e, m)
		}
		for _, s := range story[:len(story)-1] {
			if exclude {
				scores[slices.Index(all, s.image)] -= 10000
			}
		}
		preds := topk(scores, 10)
		truth := slices.Index(all, story[len(story)-1].image)
		r.N++
		for k, at := range map[int]*float64{1: &r.At1, 5: &r.At5, 10: &r.At10} {
			if slices.Contains(preds[:k], truth) {
				*at++
			}
		}
	}
	for _, at := range []*float64{&r.At1, &r.At5, &r.At10} {
		*at = 100 * *at / float64(r.N)
	}
	return r, len(all)
}

// prompts of the four settings, as the script makes the last.
func vistPrompts(p *plain) map[int]func([]string, []runner.Image) []runner.Token {
	interleaved := func(captions []string, images []runner.Image) (out []runner.Token) {
		for i, c := range captions {
			if i == len(captions)-1 {
				c += "[RET]"
			}
			for _, id := range p.ids(c) {
				out = append(out, runner.Token{ID: id})
			}
			if i < len(images) {
				for _, row := range images[i].Prefix {
					out = append(out, runner.Token{Visual: row})
				}
			}
		}
		return out
	}
	captions := func(captions []string, _ []runner.Image) []runner.Token { return interleaved(captions, nil) }
	return map[int]func([]string, []runner.Image) []runner.Token{
		OneCaption:     func(all []string, _ []runner.Image) []runner.Token { return interleaved(all[len(all)-1:], nil) },
		FiveCaptions:   captions,
		FiveUnseen:     captions,
		FiveWithImages: interleaved,
	}
}

// TestStories holds the packed evaluation to the reference's procedure on a small set in the real format, with models of one and four visual tokens.
func TestStories(t *testing.T) {
	for _, name := range []string{"one-token", "four-tokens"} {
		r := testmodel.Load(t, golden+"fromage/"+name, shaders.F32)
		file, there := tinyVIST(t)
		dir, opt := images(t, r, true, there, "115")
		opt.CLIP = randomCLIP(t, dir, opt)
		data, err := ReadVIST(file, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Stories(context.Background(), r, data, opt)
		if err != nil {
			t.Fatal(err)
		}
		p := &plain{t: t, r: r}
		for setting, prompt := range vistPrompts(p) {
			want, candidates := plainVIST(p, file, dir, opt.Names, setting >= FiveUnseen, prompt)
			if s := got.Settings[setting]; s.Fromage != want || s.Name != SettingNames[setting] || got.Candidates != candidates {
				t.Errorf("%s: %s: %+v over %d pictures, want %+v over %d", name, s.Name, s.Fromage, got.Candidates, want, candidates)
			}
		}
		var skipped []string
		for _, s := range got.Skipped {
			skipped = append(skipped, s.Example+": "+s.Reason)
		}
		if want := []string{"301: picture 114 is missing or cannot be read", "302: picture 115 is missing or cannot be read"}; !slices.Equal(skipped, want) {
			t.Errorf("%s: skipped %q, want %q", name, skipped, want)
		}
		if got.Stories != 10 || got.Settings[FiveWithImages].CLIP != nil {
			t.Errorf("%s: %d stories, want 10; CLIP with pictures: %v", name, got.Stories, got.Settings[FiveWithImages].CLIP)
		}
		plainVISTWithCLIP(t, data, opt, got)
		resumed(t, got, opt, func(opt Options) (any, error) { return Stories(context.Background(), r, data, opt) })
	}
}

// randomCLIP is a CLIP of its own, with other towers than the model's, over the same pictures.
func randomCLIP(t *testing.T, dir string, opt Options) *CLIP {
	t.Helper()
	checkpoint := t.TempDir()
	testmodel.WriteCLIP(t, checkpoint, testmodel.CLIPConfig(1))
	testmodel.WriteCLIPTokenizer(t, checkpoint)
	b, r := testmodel.Bundle(t, compiler.Options{CLIP: checkpoint, Text: true, DType: shaders.F32})
	c, err := NewCLIP(b, r, embedAll(t, r, dir, true, opt.Names))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// plainCLIP scores one text at a time.
func plainCLIP(t *testing.T, opt Options, text string, ids []string) []float64 {
	t.Helper()
	e, err := opt.CLIP.Texts(context.Background(), []string{text}, nil)
	if err != nil {
		t.Fatal(err)
	}
	pictures, err := opt.clipCandidates(context.Background(), ids)
	if err != nil {
		t.Fatal(err)
	}
	scores := make([]float64, len(ids))
	for i, p := range pictures {
		scores[i] = product(unit(e[0]), unit(p))
	}
	return scores
}

// plainVISTWithCLIP checks CLIP's numbers one story at a time.
func plainVISTWithCLIP(t *testing.T, data *VIST, opt Options, got *VISTScores) {
	t.Helper()
	var ids []string
	for _, id := range data.Images {
		if opt.has(id) {
			ids = append(ids, id)
		}
	}
	for setting := range FiveWithImages {
		var ranks []int
		for _, s := range data.Stories[:10] {
			text := strings.Join(s.Captions, " ")
			if setting == OneCaption {
				text = s.Captions[4]
			}
			scores := plainCLIP(t, opt, text, ids)
			for _, id := range s.Images[:4] {
				if setting == FiveUnseen {
					scores[slices.Index(ids, id)] -= 10000
				}
			}
			ranks = append(ranks, slices.Index(topk(scores, len(scores)), slices.Index(ids, s.Images[4])))
		}
		if want := recall(ranks); *got.Settings[setting].CLIP != want {
			t.Errorf("CLIP: %s: %+v, want %+v", SettingNames[setting], *got.Settings[setting].CLIP, want)
		}
	}
}

// resumed runs an evaluation again with a journal: once interrupted, once to its end, and once from the journal alone. It wants the same scores.
func resumed(t *testing.T, want any, opt Options, run func(Options) (any, error)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	again := func(opt Options, progress func(runner.Progress)) (any, error) {
		j, err := OpenJournal(path, "test", [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		opt.Journal, opt.Progress = j, progress
		return run(opt)
	}
	stop := errors.New("stop")
	func() {
		defer func() {
			if x := recover(); x != stop {
				t.Fatalf("the evaluation ended by %v, want a stop in the middle", x)
			}
		}()
		// Like a kill: nothing after this runs.
		got, err := again(opt, func(p runner.Progress) {
			if p.Done > 0 && p.Done < p.Total {
				panic(stop)
			}
		})
		t.Fatalf("%v, %v", got, err)
	}()
	first := int64(-1)
	for range 2 {
		got, err := again(opt, func(p runner.Progress) {
			if first < 0 {
				first = p.Done
			}
		})
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("gone on with: %.300v, %v, want %.300v", got, err, want)
		}
	}
	if first <= 0 {
		t.Errorf("goes on at %d, want after what was done", first)
	}
}

// TestReadVIST reads what the format allows, and refuses what it does not, naming file and annotation.
func TestReadVIST(t *testing.T) {
	line := func(story, image, text string) any {
		return []any{object{"story_id": story, "photo_flickr_id": image, "text": text}}
	}
	file := jsonFile(t, object{"images": []any{object{"id": "3"}, object{"id": "9"}, object{"id": "2"}, object{"id": "2"}, object{"id": "1"}},
		"annotations": []any{line("b", "1", "x"), line("a", "2", "y"), line("b", "3", "z"), line("c", "9", "")}})
	got, err := ReadVIST(file, 2)
	want := &VIST{[]Story{{"b", []string{"x", "z"}, []string{"1", "3"}}, {"a", []string{"y"}, []string{"2"}}}, []string{"3", "2", "1"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("ReadVIST = %+v, %v, want %+v", got, err, want)
	}
	if got, err := ReadVIST(file, 0); err != nil || len(got.Stories) != 3 || len(got.Images) != 4 {
		t.Errorf("ReadVIST of all = %+v, %v", got, err)
	}
	for _, c := range []struct {
		data any
		want string
	}{
		{object{}, "have none"}, {[]any{1}, "the file: have a JSON array"}, {object{"annotations": []any{[]any{}}}, "annotation 0: want one"},
		{object{"annotations": []any{line("a", "1", "x"), line("", "1", "x")}}, "annotation 1: want one with story_id"},
	} {
		file := jsonFile(t, c.data)
		if _, err := ReadVIST(file, 0); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), file) {
			t.Errorf("ReadVIST(%v): %v, want %q and the file", c.data, err, c.want)
		}
	}
	if _, err := ReadVIST("nowhere.json", 0); err == nil || !strings.Contains(err.Error(), "nowhere.json") {
		t.Errorf("ReadVIST(nowhere.json): %v", err)
	}
}

// TestStoriesSkip: a story with fewer than five pictures is left out, one that is longer than the model's positions too; without any left it is an error.
func TestStoriesSkip(t *testing.T) {
	r := testmodel.Load(t, golden+"fromage/one-token", shaders.F32)
	_, opt := images(t, r, true, []string{"1", "2", "3", "4", "5"})
	five := []string{"1", "2", "3", "4", "5"}
	long := []string{"a", "b", "c", "d", strings.Repeat("long ", 99)}
	data := &VIST{[]Story{{"short", five[:4], five[:4]}, {"long", long, five}, {"good", five, five}}, five}
	got, err := Stories(context.Background(), r, data, opt)
	if err != nil || got.Stories != 1 || len(got.Skipped) != 2 || got.Skipped[0] != (Skip{"short", "want 5 pictures, have 4"}) || !strings.Contains(got.Skipped[1].Reason, "model's 128 tokens") {
		t.Errorf("Stories = %+v, %v", got, err)
	}
	data.Stories = data.Stories[:2]
	if _, err := Stories(context.Background(), r, data, opt); err == nil || !strings.Contains(err.Error(), "none of 2 stories can be used; the first: want 5 pictures") {
		t.Errorf("no story left: %v", err)
	}
}
