// SPDX-License-Identifier: Apache-2.0

package eval

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fromage/internal/testmodel"
	"fromage/runner"
	"fromage/shaders"
)

// tinyVisDial are files of dialogues, ten rounds each with so many answers, and of dense annotations.
func tinyVisDial(t *testing.T, dialogues, candidates int) (file, dense string, ids []int) {
	rng := rand.New(rand.NewPCG(21, 22))
	var questions, answers []string
	for i := range 30 {
		questions = append(questions, string(rune('a'+i%26))+strings.Repeat("s", i/26))
	}
	for i := range 150 {
		answers = append(answers, []string{"no", "yes", "a cat", "two", "it is", ""}[i%6]+string(rune('a'+i/6)))
	}
	answers[5], answers[11] = "", "no" // an empty answer, and one that comes twice
	var all, annotations []any
	for n := range dialogues {
		id := 185565 + 7*n
		ids = append(ids, id)
		var rounds []any
		for range 10 {
			options := rng.Perm(150)[:candidates]
			truth := rng.IntN(candidates)
			rounds = append(rounds, object{"question": rng.IntN(30), "answer": options[truth], "answer_options": options, "gt_index": truth})
		}
		all = append(all, object{"image_id": id, "caption": "a picture", "dialog": rounds})
		relevance := make([]float64, candidates)
		for range 1 + rng.IntN(6) {
			relevance[rng.IntN(candidates)] = float64(1+rng.IntN(5)) / 5
		}
		annotations = append(annotations, object{"image_id": id, "round_id": 1 + rng.IntN(10), "gt_relevance": relevance})
	}
	annotations[0].(object)["round_id"] = 10
	annotations[dialogues-1].(object)["round_id"] = 10
	data := object{"version": "1.0", "split": "val2018", "data": object{"questions": questions, "answers": answers, "dialogs": all}}
	return jsonFile(t, data), jsonFile(t, annotations), ids
}

// dialogFile is what the tests read of the files.
type dialogFile struct {
	Data struct {
		Questions, Answers []string
		Dialogs            []struct {
			Image  int `json:"image_id"`
			Dialog []struct {
				Question, Answer int
				Options          []int `json:"answer_options"`
				Truth            int   `json:"gt_index"`
			}
		}
	}
}

func readFile(t *testing.T, file string, to any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// plainGeneration is evals/eval_visdial_generation.py: the losses of every candidate of every round, each run whole by itself; labels are not shifted.
// next has them as a language model predicts: what is said one place before.
func plainGeneration(p *plain, d dialogFile, dir string) (losses, next [][]float64, truths []int) {
	for _, dialog := range d.Data.Dialogs {
		image, err := p.image(filepath.Join(dir, fmt.Sprintf("VisualDialog_val2018_%012d", dialog.Image)))
		if err != nil {
			p.t.Fatal(err)
		}
		var contexts []string
		for i, current := range dialog.Dialog {
			if i > 0 {
				contexts = append(contexts, "A: "+d.Data.Answers[dialog.Dialog[i-1].Answer])
			}
			contexts = append(contexts, "Q: "+d.Data.Questions[current.Question]+"?")
			caption := p.ids(strings.Join(contexts, "\n") + "\nA: ")
			condition := len(image.Prefix) + len(caption)
			var own, shifted []float64
			for _, option := range current.Options {
				answer := p.ids(d.Data.Answers[option])
				out := p.outputs(image.Prefix, append(slices.Clone(caption), answer...))
				a, b := 0.0, 0.0
				for n, id := range answer {
					ce, _ := label(out.Logits[condition+n], id)
					a += ce
					ce, _ = label(out.Logits[condition+n-1], id)
					b += ce
				}
				own, shifted = append(own, a), append(shifted, b)
			}
			losses, next, truths = append(losses, own), append(next, shifted), append(truths, current.Truth)
		}
	}
	return losses, next, truths
}

// plainMetrics is the end of the script: NDCG as its class computes it, at the place in all rounds that at says.
func plainMetrics(t *testing.T, losses [][]float64, truths []int, dense string, at func(dialog, round int) int) AnswerScores {
	var annotations []struct {
		Round     int       `json:"round_id"`
		Relevance []float64 `json:"gt_relevance"`
	}
	readFile(t, dense, &annotations)
	out := AnswerScores{Recall: Recall{N: len(losses)}}
	n := float64(len(losses))
	scores := make([][]float64, len(losses))
	for i, loss := range losses {
		for _, l := range loss {
			scores[i] = append(scores[i], -l)
		}
		preds := topk(scores[i], 100)
		rank := slices.Index(preds, truths[i]) + 1
		out.MeanRank += float64(rank) / n
		out.MRR += 100 / float64(rank) / n
		for k, to := range map[int]*float64{1: &out.At1, 5: &out.At5, 10: &out.At10} {
			if slices.Contains(preds[:k], truths[i]) {
				*to++
			}
		}
	}
	for _, to := range []*float64{&out.At1, &out.At5, &out.At10} {
		*to = 100 * *to / n
	}
	numerator, denominator := 0.0, 0.0
	for i := range annotations {
		idx := at(i, annotations[i].Round)
		if idx >= len(scores) {
			break
		}
		relevance := annotations[i].Relevance
		ranks := make([]int, len(relevance))
		for j, c := range topk(scores[idx], 100) {
			ranks[c] = j + 1
		}
		k := 0
		for _, r := range relevance {
			if r != 0 {
				k++
			}
		}
		rankings := make([]int, len(relevance))
		for c, r := range ranks {
			rankings[r-1] = c
		}
		dcg := func(order []int) (sum float64) {
			for j, c := range order {
				sum += relevance[c] / math.Log2(float64(j)+2)
			}
			return sum
		}
		numerator += dcg(rankings[:k]) / dcg(topk(relevance, 100)[:k])
		denominator++
	}
	out.NDCG = 100 * numerator / denominator
	return out
}

// plainRetrieval is evals/eval_visdial_retrieval.py: unnormalised pictures against dialogues, and the dialogue found for each picture.
func plainRetrieval(p *plain, d dialogFile, dir string) (pictureToDialog, dialogToPicture Recall) {
	var pictures, texts [][]float64
	for _, dialog := range d.Data.Dialogs {
		image, err := p.image(filepath.Join(dir, fmt.Sprintf("VisualDialog_val2018_%012d", dialog.Image)))
		if err != nil {
			p.t.Fatal(err)
		}
		var raw []float64
		for _, v := range image.Retrieval {
			raw = append(raw, float64(v))
		}
		var contexts []string
		for _, r := range dialog.Dialog {
			contexts = append(contexts, "Q: "+d.Data.Questions[r.Question]+"?", "A: "+d.Data.Answers[r.Answer]+".")
		}
		var tokens []runner.Token
		for _, id := range p.ids(strings.Join(contexts, " ") + "[RET]") {
			tokens = append(tokens, runner.Token{ID: id})
		}
		pictures, texts = append(pictures, raw), append(texts, p.last(tokens))
	}
	n := len(pictures)
	count := func(queries, candidates [][]float64) Recall {
		r := Recall{N: n}
		for i := range n {
			scores := make([]float64, n)
			for j := range n {
				scores[j] = product(queries[i], candidates[j])
			}
			preds := topk(scores, 10)
			for k, to := range map[int]*float64{1: &r.At1, 5: &r.At5, 10: &r.At10} {
				if slices.Contains(preds[:min(k, n)], i) {
					*to += 100 / float64(n)
				}
			}
		}
		return r
	}
	var normal [][]float64
	for _, raw := range pictures {
		norm := math.Sqrt(product(raw, raw))
		row := make([]float64, len(raw))
		for i, v := range raw {
			row[i] = v / norm
		}
		normal = append(normal, row)
	}
	return count(pictures, texts), count(texts, normal)
}

// TestDialogs holds the evaluation on shared keys and values to the reference's procedure on small files in the real format.
func TestDialogs(t *testing.T) {
	for name, candidates := range map[string]int{"one-token": 100, "four-tokens": 12} {
		t.Run(name, func(t *testing.T) { testDialogs(t, testmodel.Load(t, golden+"fromage/"+name, shaders.F32), candidates) })
	}
}

func testDialogs(t *testing.T, r *runner.Runner, candidates int) {
	file, dense, numbers := tinyVisDial(t, 2, candidates)
	var ids []string
	for _, n := range numbers {
		ids = append(ids, fmt.Sprintf("%012d", n))
	}
	dir, opt := images(t, r, true, ids)
	// The script opens files by their full names; which golden picture a name holds is all the same.
	for id, name := range opt.Names {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, "VisualDialog_val2018_"+id)); err != nil {
			t.Fatal(err)
		}
		opt.Names[id] = "VisualDialog_val2018_" + id
	}
	opt.Features = embedAll(t, r, dir, true, opt.Names)
	data, err := ReadVisDial(file, dense, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Dialogs(context.Background(), r, data, opt)
	if err != nil {
		t.Fatal(err)
	}
	var d dialogFile
	readFile(t, file, &d)
	p := &plain{t: t, r: r}
	losses, next, truths := plainGeneration(p, d, dir)
	published := func(i, round int) int { return i*10 + round }
	annotated := func(i, round int) int { return i*10 + round - 1 }
	for _, c := range []struct {
		what   string
		got    AnswerScores
		losses [][]float64
	}{{"published", got.Published, losses}, {"predicted", got.Predicted, next}} {
		want := plainMetrics(t, c.losses, truths, dense, annotated)
		want.NDCGPublished = plainMetrics(t, c.losses, truths, dense, published).NDCG
		if !nearScores(c.got, want) {
			t.Errorf("%s: %+v, want %+v", c.what, c.got, want)
		}
	}
	pictureToDialog, dialogToPicture := plainRetrieval(p, d, dir)
	if !nearRecall(got.PictureToDialog, pictureToDialog) || !nearRecall(got.DialogToPicture, dialogToPicture) {
		t.Errorf("picture → dialogue %+v and back %+v, want %+v and %+v", got.PictureToDialog, got.DialogToPicture, pictureToDialog, dialogToPicture)
	}
	for i, x := range got.Each {
		for n := range x.Published {
			if want := slices.Index(topk(negatives(losses[10*i+n]), 100), truths[10*i+n]); x.Published[n] != want {
				t.Errorf("dialogue %d: round %d: rank %d, want %d", i, n, x.Published[n], want)
			}
		}
	}
	opt.CLIP = randomCLIP(t, dir, opt)
	if got, err = Dialogs(context.Background(), r, data, opt); err != nil {
		t.Fatal(err)
	}
	plainDialogsWithCLIP(t, data, opt, got.CLIP)
	resumed(t, got, opt, func(opt Options) (any, error) { return Dialogs(context.Background(), r, data, opt) })
}

func negatives(x []float64) (out []float64) {
	for _, v := range x {
		out = append(out, -v)
	}
	return out
}

func nearRecall(a, b Recall) bool {
	return a.N == b.N && near64(a.At1, b.At1) && near64(a.At5, b.At5) && near64(a.At10, b.At10)
}

func nearScores(a, b AnswerScores) bool {
	return nearRecall(a.Recall, b.Recall) && near64(a.MRR, b.MRR) && near64(a.MeanRank, b.MeanRank) && near64(a.NDCG, b.NDCG) && near64(a.NDCGPublished, b.NDCGPublished)
}

// plainDialogsWithCLIP scores one answer and one dialogue at a time.
func plainDialogsWithCLIP(t *testing.T, data *VisDial, opt Options, got *DialogCLIP) {
	t.Helper()
	var ids []string
	for _, d := range data.Dialogs {
		ids = append(ids, d.Image)
	}
	var ranks, whole []int
	for i, d := range data.Dialogs {
		whole = append(whole, rankOf(plainCLIP(t, opt, transcript(d), ids), i))
		for _, r := range d.Rounds {
			var scores []float64
			for _, a := range r.Options {
				scores = append(scores, plainCLIP(t, opt, r.Question+"? "+a, ids[i:i+1])[0])
			}
			ranks = append(ranks, rankOf(scores, r.Truth))
		}
	}
	if want := recall(ranks); got.Answers.Recall != want {
		t.Errorf("CLIP: answers %+v, want %+v", got.Answers.Recall, want)
	}
	if want := recall(whole); got.DialogToPicture != want {
		t.Errorf("CLIP: dialogue → picture %+v, want %+v", got.DialogToPicture, want)
	}
}

// TestDialogsSkip leaves out dialogues without a picture and those that are longer than the model's positions.
func TestDialogsSkip(t *testing.T) {
	r := testmodel.Load(t, golden+"fromage/one-token", shaders.F32)
	_, opt := images(t, r, true, []string{"000000000001", "000000000002"})
	round := Round{"a", "no", []string{"no", "yes"}, 0}
	long := Round{strings.Repeat("long ", 60), "no", []string{"no", "yes"}, 0}
	data := &VisDial{"val", []Dialog{{Image: "000000000001", Rounds: []Round{round, round}}, {Image: "000000000009", Rounds: []Round{round}}, {Image: "000000000002", Rounds: []Round{long}}}}
	got, err := Dialogs(context.Background(), r, data, opt)
	if err != nil || got.Dialogs != 1 || got.Rounds != 2 || len(got.Skipped) != 2 || !strings.Contains(got.Skipped[0].Reason, "missing") || !strings.Contains(got.Skipped[1].Reason, "128 tokens") {
		t.Errorf("Dialogs = %+v, %v", got, err)
	}
	data.Dialogs = data.Dialogs[1:]
	if _, err := Dialogs(context.Background(), r, data, opt); err == nil || !strings.Contains(err.Error(), "none of 2 dialogues can be used") {
		t.Errorf("no dialogue left: %v", err)
	}
}

func TestReadVisDial(t *testing.T) {
	turn := object{"question": 0, "answer": 1, "answer_options": []int{0, 1}, "gt_index": 1}
	change := func(key string, value any) object {
		c := object{}
		for k, v := range turn {
			c[k] = v
		}
		c[key] = value
		return c
	}
	file := func(turns ...any) string {
		return jsonFile(t, object{"split": "val2018", "data": object{"questions": []string{"is it"}, "answers": []string{"no", "yes"},
			"dialogs": []any{object{"image_id": 185565, "dialog": turns}, object{"image_id": 3, "dialog": turns}}}})
	}
	good := file(turn, change("gt_index", 0))
	annotation := func(image, round int, relevance ...float64) object {
		return object{"image_id": image, "round_id": round, "gt_relevance": relevance}
	}
	dense := jsonFile(t, []any{annotation(185565, 2, 0.5, 1), annotation(3, 1, 0, 1)})
	got, err := ReadVisDial(good, dense, 1)
	want := &VisDial{"val2018", []Dialog{{"000000185565", []Round{{"is it", "yes", []string{"no", "yes"}, 1}, {"is it", "yes", []string{"no", "yes"}, 0}}, 2, []float64{0.5, 1}}}}
	if err != nil || !reflect.DeepEqual(got, want) || got.Picture(got.Dialogs[0].Image) != "VisualDialog_val2018_000000185565" {
		t.Errorf("ReadVisDial = %+v, %v, want %+v", got, err, want)
	}
	for _, c := range []struct{ file, dense, want string }{
		{jsonFile(t, object{}), "", "want data.dialogs"}, {file(), "", "dialogue 0: want rounds"}, {file(turn, change("question", 1)), "", "dialogue 0: round 1: want one of 1 questions, have 1"},
		{file(change("answer", -1)), "", "want one of 2 answers, have -1"}, {file(change("answer_options", []int{0, 2})), "", "want one of 2 answers, have 2"},
		{file(change("gt_index", 2)), "", "want gt_index within 2 answer_options, have 2"},
		{good, jsonFile(t, []any{annotation(185565, 1, 0, 1)}), "want annotations of 2 dialogues, have 1"},
		{good, jsonFile(t, []any{annotation(185565, 1, 0, 1), annotation(4, 1, 0, 1)}), "annotation 1: want image_id 000000000003"},
		{good, jsonFile(t, []any{annotation(185565, 3, 0, 1), annotation(3, 1, 0, 1)}), "annotation 0: want round_id 1 to 2"},
		{good, jsonFile(t, []any{annotation(185565, 1, 0), annotation(3, 1, 0, 1)}), "annotation 0: want round_id 1 to 2 with a gt_relevance"},
		{good, "nowhere.json", "nowhere.json"},
	} {
		if _, err := ReadVisDial(c.file, c.dense, 0); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ReadVisDial: %v, want %q", err, c.want)
		}
	}
}

// TestNDCG: by hand, with ties, with answers that are not relevant, and where none is.
func TestNDCG(t *testing.T) {
	ideal := 1 + 0.5/math.Log2(3)
	for _, c := range []struct {
		scores, relevance []float64
		want              float64
	}{
		{[]float64{3, 2, 1}, []float64{1, 0.5, 0}, 1},
		{[]float64{2, 3, 1}, []float64{1, 0.5, 0}, (0.5 + 1/math.Log2(3)) / ideal},
		{[]float64{1, 2, 3}, []float64{1, 0.5, 0}, 0.5 / math.Log2(3) / ideal},
		{[]float64{0, 0, 0}, []float64{0, 0.5, 1}, 0.5 / math.Log2(3) / ideal},
		{[]float64{1, 2}, []float64{0, 0.2}, 1},
		{[]float64{1, 2}, []float64{0, 0}, math.NaN()},
	} {
		if got := ndcg(c.scores, c.relevance); !(math.Abs(got-c.want) < 1e-12) && !(got != got && c.want != c.want) {
			t.Errorf("ndcg(%v, %v) = %v, want %v", c.scores, c.relevance, got, c.want)
		}
	}
}
