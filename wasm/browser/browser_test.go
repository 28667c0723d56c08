// SPDX-License-Identifier: Apache-2.0

//go:build !js && unix

package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fromage/bundle"
	"fromage/gpu/cpu"
	"fromage/index"
	"fromage/runner"
)

// TestBrowser runs a model in the browser through fromage.js, with fresh files, kept ones, damaged and cut ones, and a GPU that goes away.
func TestBrowser(t *testing.T) {
	path := chromium(t)
	wasm := build(t)
	model, n := compiled(t)
	var x bytes.Buffer
	if _, err := n.x.WriteTo(&x); err != nil {
		t.Fatal(err)
	}
	var prompts []prompt
	for _, text := range []string{"show me a beaver", "Q: What is this image?\nA:", "a photo of a cat", "the", "Once upon a time", "watercolor drawing", "1 2 3 4", "é ß 日本"} {
		prompts = append(prompts, prompt{[]string{text}, map[string]any{"numWords": 16, "ignoreEOS": true}})
	}
	prompts = append(prompts, prompt{[]string{"show me", " a beaver"}, map[string]any{"numWords": 10, "ignoreEOS": true, "retScaleFactor": 100.0, "maxImgPerRet": 3}})
	long := prompt{[]string{"Q: What is this image?\nA:"}, map[string]any{"numWords": 40, "ignoreEOS": true}}
	queries := [][]string{{"a cat"}, {"watercolor drawing"}, {"a photo of a dog", " and a cat[RET]"}}
	s := &site{}
	s.show(t, path, s.handler(t, wasm, model, "testdata/page.js", x.Bytes(), map[string]any{
		"prompts": prompts, "long": long, "queries": queries, "picture": "/pictures/grey.jpg", "other": "/pictures/lossy.webp",
	}))

	s.checkLoading(t, n)
	var answers []heard
	s.get(t, "answers", &answers)
	n.same(t, "answers", answers, prompts)
	s.checkRetrieval(t, n, queries)
	s.checkScore(t, n, prompts[0].Parts[0])
	s.checkChat(t)
	s.checkMistakes(t)
	s.checkGallery(t, n)
	s.checkKept(t, n, prompts)
	s.checkLost(t, n, long)
	s.checkPoor(t, n, prompts)
}

func (s *site) checkLoading(t *testing.T, n reference) {
	for step, code := range map[string]string{"wrong address": "network", "no bundle": "model", "keys in q8": "input"} {
		var f failure
		if s.get(t, step, &f); f.Code != code || !f.Typed || f.Message == "" {
			t.Errorf("%s: have %+v, want code %s", step, f, code)
		}
	}
	var load struct {
		Info struct {
			DType, Storage       string
			DispatchesPerToken   int
			ModelBytes, GPUBytes int64
			Settings             bundle.Settings
		}
		Ready    int
		Progress struct{ Done, Total, Cached int64 }
	}
	s.get(t, "load", &load)
	dispatches, err := n.r.Dispatches()
	if err != nil {
		t.Fatal(err)
	}
	i := load.Info
	if i.DType != "f32" || i.Storage != "opfs" || i.DispatchesPerToken == 0 || i.ModelBytes <= 0 || i.GPUBytes <= i.ModelBytes || !reflect.DeepEqual(i.Settings, n.r.Settings()) {
		t.Errorf("info() = %+v, want f32, opfs, dispatches (the twins': %d), sizes, settings %+v", i, dispatches, n.r.Settings())
	}
	if p := load.Progress; load.Ready != 2 || p.Done != p.Total || p.Total != i.ModelBytes || p.Cached != 0 {
		t.Errorf("load: %d ready events, last download event %+v, want 2 and all of %d bytes", load.Ready, p, i.ModelBytes)
	}
}

func (s *site) checkRetrieval(t *testing.T, n reference, queries [][]string) {
	var hits [][]hit
	s.get(t, "hits", &hits)
	for i, q := range queries {
		var parts []runner.Part
		for _, text := range q {
			parts = append(parts, runner.Part{Text: text})
		}
		if last := &parts[len(parts)-1]; !strings.Contains(last.Text, "[RET]") {
			last.Text += "[RET]"
		}
		answer, err := n.r.Retrieve(t.Context(), parts, runner.RetrieveOptions{MaxNumRets: 1, MaxImgPerRet: 10}, n)
		if err != nil {
			t.Fatal(err)
		}
		n.sameHits(t, fmt.Sprint("retrieve ", q), hits[i], answer.Pieces[0].Images)
	}
	image := n.image(t, "../../vision/testdata/pictures/grey.jpg")
	answer, err := n.r.Retrieve(t.Context(), []runner.Part{{Image: &image}, {Text: "a cat[RET]"}}, runner.RetrieveOptions{MaxNumRets: 1, MaxImgPerRet: 3}, n)
	if err != nil {
		t.Fatal(err)
	}
	s.get(t, "picture hits", &hits)
	for _, h := range hits {
		n.sameHits(t, "retrieve with a picture", h, answer.Pieces[0].Images)
	}
	alike, err := n.Search(runner.Normalised(image.Retrieval), 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.get(t, "look", &hits)
	n.sameHits(t, "a picture's look alone", hits[0], alike)
	n.sameHits(t, "a picture without its look", hits[1], answer.Pieces[0].Images)
	n.sameHits(t, "similar", hits[2], alike)
}

func (s *site) checkScore(t *testing.T, n reference, text string) {
	image := n.image(t, "../../vision/testdata/pictures/grey.jpg")
	want, err := n.r.Score(t.Context(), []runner.Part{{Text: text}}, []runner.Part{{Image: &image}, {Text: "a cat"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []struct {
		LogLikelihood, Sum float64
		Tokens             []float32
	}
	s.get(t, "score", &got)
	for i, w := range want {
		if g := got[i]; math.Abs(g.LogLikelihood-w.Mean) > 1e-4 || math.Abs(g.Sum-w.Sum) > 1e-3 || len(g.Tokens) != len(w.Tokens) {
			t.Errorf("score %d = %+v, want %+v", i, g, w)
		}
	}
}

func (s *site) checkChat(t *testing.T) {
	var c struct {
		First, Second, Again, Retried, Stopped heard
		Turns                                  int
	}
	s.get(t, "chat", &c)
	if c.Turns != 2 || c.First.Done == nil || c.Second.Text != c.Again.Text || c.Again.Text != c.Retried.Text || !slices.Equal(c.Second.Done.IDs, c.Retried.Done.IDs) {
		t.Errorf("conversation: %+v, want two turns, and the second the same after undo and retry", c)
	}
	if d := c.Stopped.Done; d == nil || d.Stop != "aborted" || d.Tokens == 0 || d.Tokens == 40 {
		t.Errorf("aborted generation: %+v, want a part of it and stop aborted", c.Stopped)
	}
}

func (s *site) checkMistakes(t *testing.T) {
	var mistakes []failure
	s.get(t, "mistakes", &mistakes)
	for i, want := range []failure{{"FromageError", "input", "top-p", true}, {"FromageError", "input", "numWrods", true}, {"FromageError", "picture", "picture", true},
		{"FromageError", "input", "empty", true}, {"FromageError", "input", "1000", true}, {"FromageError", "input", "look", true},
		{"FromageError", "input", "one picture", true}, {"AbortError", "20", "", false}} {
		if m := mistakes[i]; m.Name != want.Name || want.Typed && m.Code != want.Code || !strings.Contains(m.Message, want.Message) {
			t.Errorf("mistake %d: have %+v, want %+v", i, m, want)
		}
	}
}

func (s *site) checkGallery(t *testing.T, n reference) {
	var add struct {
		Before, After, Row, Bytes int
		Is                        hit
		Own                       []hit
	}
	s.get(t, "add", &add)
	info, err := os.Stat("../../vision/testdata/pictures/grey.jpg")
	if err != nil {
		t.Fatal(err)
	}
	mine := hit{Path: "mine.png", Caption: "mine", Own: true}
	if add.Before != n.x.Len() || add.After != add.Before+1 || add.Row != n.x.Rows() || add.Is != mine || add.Bytes != int(info.Size()) || len(add.Own) != add.After {
		t.Errorf("add: %+v, want row %d: %+v", add, n.x.Rows(), mine)
	}
	// It is also in the gallery: both rows score the same.
	var score [2]float32
	for _, h := range add.Own {
		if h.Own {
			score[0] = h.Score
		} else if h.Path == "grey.jpg" {
			score[1] = h.Score
		}
	}
	if math.Abs(float64(score[0]-score[1])) > 1e-3 {
		t.Errorf("the same picture, own and of the gallery: scores %v", score)
	}
	var second struct {
		Size, Bytes int
		Own         []hit
		Progress    struct{ Done, Total, Cached int64 }
	}
	s.get(t, "second load", &second)
	if second.Size != add.After || len(second.Own) != 1 || second.Own[0].Path != "mine.png" || second.Bytes != add.Bytes || second.Progress.Cached != second.Progress.Total {
		t.Errorf("after a reload: %+v, want one own picture, and all bytes from the browser's files", second)
	}
}

func (s *site) checkKept(t *testing.T, n reference, prompts []prompt) {
	if got := blobs(s.fetched["second load"]); len(got) > 0 {
		t.Errorf("second load: fetched %v, want nothing but the header", got)
	}
	var healed struct {
		Answers []heard
		Notices int
	}
	s.get(t, "healed", &healed)
	n.same(t, "healed", healed.Answers, prompts)
	if got := blobs(s.fetched["healed"]); len(got) != 1 || healed.Notices == 0 {
		t.Errorf("damaged byte: fetched %v with %d notices, want one range and a notice", got, healed.Notices)
	}
	s.get(t, "continued", &healed)
	n.same(t, "continued", healed.Answers, prompts)
	var two [][]heard
	s.get(t, "two", &two)
	for _, answers := range two {
		n.same(t, "two at the same time", answers, prompts)
	}
	if got := blobs(s.fetched["continued"]); len(got) == 0 || slices.ContainsFunc(got, func(r string) bool { return strings.HasPrefix(r, "bytes=64-") }) {
		t.Errorf("half a file: fetched %v, want the other half alone", got)
	}
}

func (s *site) checkLost(t *testing.T, n reference, long prompt) {
	var lost struct {
		Lost []heard
		Idle struct {
			Caption string
			Hits    []hit
		}
		Calm heard
	}
	s.get(t, "lost", &lost)
	n.same(t, "after losses", []heard{lost.Calm}, []prompt{long})
	for i, l := range lost.Lost {
		n.same(t, fmt.Sprint("loss ", i), []heard{l}, []prompt{long})
		if !slices.Contains(l.Events, "lost") || !slices.Contains(l.Events, "recovered") {
			t.Errorf("loss %d: events %v, want lost and recovered", i, l.Events)
		}
	}
	var caption string
	if s.get(t, "caption", &caption); caption != lost.Idle.Caption {
		t.Errorf("caption(picture) = %q after a loss, %q before", lost.Idle.Caption, caption)
	}
	var hits [][]hit
	if s.get(t, "hits", &hits); len(lost.Idle.Hits) != len(hits[0]) || lost.Idle.Hits[0].Row != hits[0][0].Row {
		t.Errorf("retrieve after a loss = %+v, want %+v", lost.Idle.Hits, hits[0])
	}
	if got := blobs(s.fetched["lost"]); len(got) > 0 {
		t.Errorf("recovery: fetched %v, want all from the browser's files", got)
	}
}

// checkPoor wants a browser without OPFS, or without room, to run the model all the same, and to say what it cannot do.
func (s *site) checkPoor(t *testing.T, n reference, prompts []prompt) {
	var without []failure
	s.get(t, "without", &without)
	for i, code := range []string{"no-webgpu", "no-adapter"} {
		if f := without[i]; f.Name != "FromageError" || f.Code != code {
			t.Errorf("have %+v, want code %s", f, code)
		}
	}
	var away struct {
		Failed  failure
		Caption string
	}
	var caption string
	s.get(t, "caption", &caption)
	if s.get(t, "away", &away); away.Failed.Code != "lost" || away.Caption != caption {
		t.Errorf("a GPU that stays away for a while: %+v, want code lost, then caption %q", away, caption)
	}
	var offline []heard
	s.get(t, "offline", &offline)
	n.same(t, "offline", offline, prompts)
	for _, c := range []struct {
		step, storage, notice string
		fetches               bool
	}{
		{"cache first", "cache", "your picture", true}, {"cache second", "cache", "your picture", false},
		{"memory first", "memory", "keeps nothing", true}, {"memory second", "memory", "keeps nothing", true},
		{"small first", "opfs", "no room", true}, {"small second", "opfs", "no room", true},
	} {
		var got struct {
			Storage string
			Answers []heard
			Notices []string
			Bytes   int
		}
		s.get(t, c.step, &got)
		n.same(t, c.step, got.Answers, prompts)
		if got.Storage != c.storage || !strings.Contains(strings.Join(got.Notices, " "), c.notice) || got.Bytes == 0 {
			t.Errorf("%s: %s, %q, a picture of %d bytes; want %s and a notice of %q", c.step, got.Storage, got.Notices, got.Bytes, c.storage, c.notice)
		}
		if fetched := blobs(s.fetched[c.step]); c.fetches != (len(fetched) > 0) {
			t.Errorf("%s: fetched %v", c.step, fetched)
		}
	}
}

// languageModel is where in a bundle the weights lie that pictures do not need.
func languageModel(m *bundle.Manifest) (from, to int64) {
	early, all := runner.ForPictures(m), map[bool][]bundle.Blob{}
	for _, t := range m.Tensors {
		for _, s := range t.Shards {
			all[early(t.Name)] = append(all[early(t.Name)], s.Values)
			if s.Scales != nil {
				all[early(t.Name)] = append(all[early(t.Name)], *s.Scales)
			}
		}
	}
	for _, b := range all[true] {
		from = max(from, b.Offset+b.Size)
	}
	for _, b := range all[false] {
		to = max(to, b.Offset+b.Size)
	}
	return from, to
}

// TestEarly holds the language model back, and wants pictures to be found meanwhile, other calls to wait, and what then comes to be the model: also where
// the GPU is lost in between. A language model that does not come leaves pictures as they are.
func TestEarly(t *testing.T) {
	path := chromium(t)
	wasm := build(t)
	model, n := compiled(t)
	var x bytes.Buffer
	if _, err := n.x.WriteTo(&x); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(model)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	prompts := []prompt{{[]string{"show me a beaver"}, map[string]any{"numWords": 16, "ignoreEOS": true}}}
	from, to := languageModel(b.Manifest())
	s := &site{held: [2]int64{from, to}}
	s.show(t, path, s.handler(t, wasm, model, "testdata/early.js", x.Bytes(), map[string]any{
		"prompts": prompts, "query": "a cat", "picture": "/pictures/grey.jpg", "other": "/pictures/lossy.webp",
	}))

	for _, step := range []string{"pictures", "lost pictures"} {
		var early struct {
			Events   []string
			Hits     []hit
			Row      int
			Like     []hit
			Stopped  failure
			Progress struct {
				Done, Total int64
				Needs       struct{ Pictures, Chat int64 }
			}
		}
		s.get(t, step, &early)
		if !slices.Contains(early.Events, "pictures") || slices.Contains(early.Events, "chat") {
			t.Errorf("%s: ready events %v, want pictures alone", step, early.Events)
		}
		if p := early.Progress; step == "pictures" && (p.Done != p.Needs.Pictures || p.Total != p.Needs.Chat || p.Needs.Pictures == 0 || p.Needs.Pictures >= p.Total) {
			t.Errorf("%s: progress %+v, want all that pictures need", step, p)
		}
		image := n.image(t, "../../vision/testdata/pictures/grey.jpg")
		want, err := n.Search(runner.Normalised(image.Retrieval), 3, nil)
		if err != nil {
			t.Fatal(err)
		}
		n.sameHits(t, step, early.Hits, want)
		if early.Hits[0].Path != "grey.jpg" {
			t.Errorf("%s: a picture of the gallery is most like %s, want itself", step, early.Hits[0].Path)
		}
		if step == "pictures" && (early.Row != n.x.Rows() || len(early.Like) != 2 || !slices.ContainsFunc(early.Like, func(h hit) bool { return h.Own && h.Row == early.Row })) {
			t.Errorf("%s: an own picture, row %d, is like %+v, want itself among the best two", step, early.Row, early.Like)
		}
		if early.Stopped.Name != "AbortError" {
			t.Errorf("%s: a call that was aborted while it waited: %+v, want an AbortError", step, early.Stopped)
		}
	}
	for _, step := range []string{"whole", "lost whole"} {
		var whole struct {
			Answers []heard
			Hits    []hit
			Events  []string
		}
		s.get(t, step, &whole)
		n.same(t, step, whole.Answers, prompts)
		if recovered := slices.Contains(whole.Events, "recovered"); recovered != (step == "lost whole") || !slices.Contains(whole.Events, "ready") {
			t.Errorf("%s: events %v", step, whole.Events)
		}
		answer, err := n.r.Retrieve(t.Context(), []runner.Part{{Text: "a cat[RET]"}}, runner.RetrieveOptions{MaxNumRets: 1, MaxImgPerRet: 3}, n)
		if err != nil {
			t.Fatal(err)
		}
		n.sameHits(t, step, whole.Hits, answer.Pieces[0].Images)
	}
	for step, code := range map[string]string{"refused": "network", "aborted": "input"} {
		var failed struct {
			Ready, Call failure
			Hits        []hit
		}
		s.get(t, step, &failed)
		if failed.Call.Code != code || !failed.Call.Typed || (failed.Ready.Name == "AbortError") != (step == "aborted") || len(failed.Hits) != 3 {
			t.Errorf("%s: ready %+v, a call for the language model %+v, want code %s; pictures: %d, want 3", step, failed.Ready, failed.Call, code, len(failed.Hits))
		}
	}
}

// TestAssets runs the program's own model, after a download that was stopped and connections that broke, and logs how long things take.
func TestAssets(t *testing.T) {
	path := chromium(t)
	wasm := build(t)
	x, err := os.ReadFile("../../assets/gallery.index")
	if err != nil {
		t.Fatal(err)
	}
	const model = "../../assets/default.bundle"
	b, err := bundle.Open(model)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	// The end of the download is held back, so that it is not there when the page stops.
	_, end := languageModel(b.Manifest())
	s := &site{breaks: 4, held: [2]int64{end - 4<<20, end}}
	s.show(t, path, s.handler(t, wasm, model, "testdata/assets.js", x, nil))

	var aborted struct {
		Name string
		Done int64
	}
	if s.get(t, "aborted", &aborted); aborted.Name != "AbortError" || aborted.Done == 0 {
		t.Errorf("aborted load: %+v, want AbortError after a part", aborted)
	}
	if s.breaks != 0 {
		t.Errorf("%d connections were left to break", s.breaks)
	}
	var cold, warm struct {
		At     map[string]float64
		Answer heard
		Hits   []hit
		Info   struct{ HeapBytes, ModelBytes int64 }
	}
	s.get(t, "cold", &cold)
	s.get(t, "warm", &warm)
	t.Logf("ms, cold: %v; warm: %v; answer %+v", cold.At, warm.At, *warm.Answer.Done)
	if i := cold.Info; i.HeapBytes <= 0 || i.HeapBytes > 24<<20 || i.HeapBytes > i.ModelBytes {
		t.Errorf("Go's memory took %d bytes with a model of %d, want the weights to pass it by", i.HeapBytes, i.ModelBytes)
	}
	ends, resumed := map[string]string{}, false
	for _, r := range s.fetched["aborted"] {
		from, to, _ := strings.Cut(r, "-")
		resumed = resumed || ends[to] != "" && ends[to] != from
		ends[to] = from
	}
	if !resumed {
		t.Errorf("connections broke, and %v was asked for: want one that goes on where another ended", s.fetched["aborted"])
	}
	if first := s.fetched["cold"]; len(blobs(first)) == 0 || slices.ContainsFunc(first, func(r string) bool { return strings.HasPrefix(r, "bytes=64-") }) {
		t.Errorf("the load after one that was aborted asks for %v, want what was not there", first)
	}
	if got := blobs(s.fetched["warm"]); len(got) > 0 {
		t.Errorf("second load: fetched %v, want nothing but the header", got)
	}
	if !slices.Equal(cold.Answer.Done.IDs, warm.Answer.Done.IDs) || cold.Answer.Text != warm.Answer.Text {
		t.Errorf("cold and warm answers differ: %+v, %+v", cold.Answer, warm.Answer)
	}
	r, err := runner.Load(t.Context(), cpu.Twins(), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	gallery, err := index.Parse("gallery", x)
	if err != nil {
		t.Fatal(err)
	}
	n := reference{r, gallery}
	n.same(t, "assets", []heard{cold.Answer}, []prompt{{[]string{"a photo of a"}, map[string]any{"numWords": 32}}})
	answer, err := r.Retrieve(t.Context(), []runner.Part{{Text: "an emoji of violin[RET]"}}, runner.RetrieveOptions{MaxNumRets: 1, MaxImgPerRet: 5}, n)
	if err != nil {
		t.Fatal(err)
	}
	n.sameHits(t, "assets", cold.Hits, answer.Pieces[0].Images)
	var own struct {
		Row int
		Own hit
	}
	if s.get(t, "own", &own); own.Row != gallery.Rows() {
		t.Errorf("own picture: %+v, want row %d", own, gallery.Rows())
	}
}
