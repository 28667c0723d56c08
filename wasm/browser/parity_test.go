// SPDX-License-Identifier: Apache-2.0

//go:build !js && unix

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"fromage/assets"
	"fromage/bundle"
	"fromage/gpu/cpu"
	"fromage/index"
	"fromage/runner"
)

// parityBundle names the environment variable with another bundle of the default model's checkpoints, for TestParity.
const parityBundle = "FROMAGE_PARITY_BUNDLE"

const (
	parityTokens = 32
	parityHits   = 10
	logitTie     = 1e-3 // tokens whose logits are closer may change places
	scoreTie     = 2e-3 // so may rows with closer scores
)

// parityPrompt is a text, and before it the path of one of the gallery's pictures, or "".
type parityPrompt struct {
	Picture string `json:"picture"`
	Text    string `json:"text"`
}

var parityPrompts = []parityPrompt{
	{"/album/twemoji/00321.webp", "Q: What is this image?\nA:"}, {"", "a photo of a"}, {"", "Once upon a time"}, {"", "é ß 日本 and"},
	{"/album/noto/00578.webp", "This is"}, {"", "1, 2, 3, 4,"}, {"", "She opened the door and"}, {"", "watercolor drawing of"},
	{"/album/gameicons/00883.webp", "a drawing of"}, {"", "Q: What is the capital of France?\nA:"}, {"", "In the beginning"}, {"", "He had never seen such a"},
	{"/album/openclipart/00052.webp", "Once upon a time there was"}, {"", "The government of the United States"}, {"", "Water is made of"}, {"", "My dear friend,"},
	{"", "The old man looked at"}, {"", "A cat and a dog"}, {"", "show me a picture of"}, {"", "Of all the animals in the forest, the fox"},
}

var parityQueries = []string{
	"an emoji of violin", "a cat", "a photo of a dog", "watercolor drawing of a tree", "the flag of Japan", "a red heart", "a house", "a ship at sea",
	"a smiling face", "a sword", "an icon of a book", "a bird", "a castle and a dragon", "fruit", "music", "a car on the road", "snow", "a king",
	"something to eat", "the sun, the moon and the stars",
}

// served is the plan's page with these files, until it is done.
func served(t *testing.T, model string, x []byte, plan any) *site {
	t.Helper()
	path := chromium(t)
	s := &site{}
	mux := http.NewServeMux()
	mux.Handle("/", s.handler(t, build(t), model, "testdata/parity.js", x, plan))
	mux.HandleFunc("GET /album/{path...}", func(w http.ResponseWriter, r *http.Request) {
		data, err := assets.Picture(r.PathValue("path"))
		if err != nil {
			t.Error(err)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})
	s.show(t, path, mux)
	return s
}

// TestParity wants the program's own model to say in the browser what it says natively: the same tokens, until two are as likely as each other, and
// the same pictures for the same texts.
func TestParity(t *testing.T) {
	model := "../../assets/" + assets.BundleFile
	if other := os.Getenv(parityBundle); other != "" {
		model = other
	}
	x := galleryFor(t, model)
	prompts, queries := parityPrompts, parityQueries
	if testing.Short() {
		t.Logf("short: 5 of %d prompts, 5 of %d queries", len(prompts), len(queries))
		prompts, queries = prompts[:5], queries[:5]
	}
	s := served(t, model, x, map[string]any{
		"prompts": prompts, "queries": queries, "k": parityHits, "length": parityTokens, "options": map[string]any{"ignoreEOS": true},
	})
	var got struct {
		Answers [][]int32
		Hits    [][]hit
		MS      struct{ Answers, Hits float64 }
	}
	s.get(t, "parity", &got)
	if len(got.Answers) != len(prompts) || len(got.Hits) != len(queries) {
		t.Fatalf("have %d answers and %d lists, want %d and %d", len(got.Answers), len(got.Hits), len(prompts), len(queries))
	}
	began := time.Now()
	n := native(t, model, x)
	n.sameTokens(t, prompts, got.Answers)
	spent := time.Since(began)
	n.sameRows(t, queries, got.Hits)
	t.Logf("browser: %.1f s of answers, %.1f s of searches; native: %v and %v", got.MS.Answers/1000, got.MS.Hits/1000, spent, time.Since(began)-spent)
}

// galleryFor is the program's gallery, said to be the model's: the same heads in another dtype go by another hash.
func galleryFor(t *testing.T, model string) []byte {
	t.Helper()
	x, err := os.ReadFile("../../assets/" + assets.IndexFile)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(model)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	id, err := hex.DecodeString(b.Manifest().Settings.HeadsHash)
	if err != nil {
		t.Fatal(err)
	}
	copy(x[24:56], id)
	binary.LittleEndian.PutUint32(x[60:], crc32.Checksum(x[:60], crc32.MakeTable(crc32.Castagnoli)))
	return x
}

// native is a model on the Go twins, with a gallery.
func native(t *testing.T, model string, x []byte) (n reference) {
	t.Helper()
	b, err := bundle.Open(model)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	if n.r, err = runner.Load(t.Context(), cpu.Twins(), b, nil); err != nil {
		t.Fatal(err)
	}
	if n.x, err = index.Parse("gallery", x); err != nil {
		t.Fatal(err)
	}
	return n
}

// sameTokens wants the reference's tokens. Where the reference's logits of two differing tokens are within logitTie, the rest of that prompt is not
// compared; one prompt of twenty may be such.
func (n reference) sameTokens(t *testing.T, prompts []parityPrompt, got [][]int32) {
	t.Helper()
	ties, compared := 0, 0
	for i, p := range prompts {
		parts := n.parts(t, p)
		want := n.tokens(t, parts)
		at := 0
		for at < min(len(got[i]), len(want)) && got[i][at] == want[at] {
			at++
		}
		compared += at
		if at == parityTokens && len(got[i]) == parityTokens {
			continue
		}
		if at == min(len(got[i]), len(want)) {
			t.Errorf("%+v: have %d tokens, want %d", p, len(got[i]), parityTokens)
			continue
		}
		gap := n.gap(t, parts, want[:at], want[at], got[i][at])
		if gap > logitTie {
			t.Errorf("%+v: generate = %v, want %v: the logits at token %d differ by %g", p, got[i], want, at, gap)
			continue
		}
		t.Logf("%+v: token %d = %d, want %d: a tie, the logits differ by %g", p, at, got[i][at], want[at], gap)
		ties++
	}
	if ties > 1 {
		t.Errorf("%d of %d prompts end in a tie, want at most 1", ties, len(prompts))
	}
	t.Logf("%d of %d tokens the same, %d prompts end in a tie", compared, len(prompts)*parityTokens, ties)
}

func (n reference) parts(t *testing.T, p parityPrompt) []runner.Part {
	t.Helper()
	if p.Picture == "" {
		return []runner.Part{{Text: p.Text}}
	}
	data, err := assets.Picture(p.Picture[len("/album/"):])
	if err != nil {
		t.Fatal(err)
	}
	image := n.embedded(t, data)
	return []runner.Part{{Image: &image}, {Text: p.Text}}
}

// tokens continues a prompt as parity.js does.
func (n reference) tokens(t *testing.T, parts []runner.Part) (ids []int32) {
	t.Helper()
	seq := n.r.NewSequence()
	defer seq.Close()
	if err := seq.Append(parts...); err != nil {
		t.Fatal(err)
	}
	o := runner.DefaultOptions()
	o.IgnoreEOS = true
	for len(ids) < parityTokens {
		o.NumWords = parityTokens - len(ids)
		answer, err := seq.Generate(t.Context(), o, n, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(answer.IDs) == 0 {
			t.Fatalf("no token after %v: %s", ids, answer.Stop)
		}
		ids = append(ids, answer.IDs...)
	}
	return ids
}

// gap is how much higher a's logit is than b's after a prompt and said tokens.
func (n reference) gap(t *testing.T, parts []runner.Part, said []int32, a, b int32) float32 {
	t.Helper()
	seq := n.r.NewSequence()
	defer seq.Close()
	if err := seq.Append(parts...); err != nil {
		t.Fatal(err)
	}
	for _, id := range said {
		seq.AppendTokens(runner.Token{ID: int(id)})
	}
	out, err := n.r.Outputs(t.Context(), seq)
	if err != nil {
		t.Fatal(err)
	}
	logits := out.Logits[len(out.Logits)-1]
	return logits[a] - logits[b]
}

// sameRows wants the reference's best rows in its order, where rows whose scores are within scoreTie may change places, also over the list's end.
func (n reference) sameRows(t *testing.T, queries []string, got [][]hit) {
	t.Helper()
	same, off := 0, 0.0
	for i, q := range queries {
		answer, err := n.r.Retrieve(t.Context(), []runner.Part{{Text: q + "[RET]"}}, runner.RetrieveOptions{MaxNumRets: 1, MaxImgPerRet: n.x.Len()}, n)
		if err != nil {
			t.Fatal(err)
		}
		all := answer.Pieces[0].Images
		if len(got[i]) != parityHits || len(all) != n.x.Len() {
			t.Errorf("retrieve(%q): %d rows, want %d", q, len(got[i]), parityHits)
			continue
		}
		score, seen := map[int]float32{}, map[int]bool{}
		for _, h := range all {
			score[h.Row] = h.Score
		}
		for j, g := range got[i] {
			w := all[j]
			s, ok := score[g.Row]
			off = max(off, abs(g.Score-s))
			if !ok || seen[g.Row] || abs(s-w.Score) > scoreTie || abs(g.Score-s) > scoreTie {
				t.Errorf("retrieve(%q)[%d] = %+v, want row %d, score %g; that row's is %g", q, j, g, w.Row, w.Score, s)
			}
			if seen[g.Row] = true; g.Row == w.Row {
				same++
			}
		}
	}
	t.Logf("%d of %d rows the same; scores differ by up to %g", same, len(queries)*parityHits, off)
}

func abs(x float32) float64 { return math.Abs(float64(x)) }

// TestLosses wants an answer to be the undisturbed one when the GPU goes away at any time while it is made.
func TestLosses(t *testing.T) {
	model, n := compiled(t)
	var x bytes.Buffer
	if _, err := n.x.WriteTo(&x); err != nil {
		t.Fatal(err)
	}
	count := 20
	if testing.Short() {
		t.Logf("short: 5 of %d losses", count)
		count = 5
	}
	random := rand.New(rand.NewPCG(2023, 32))
	points := make([]float64, count)
	for i := range points {
		points[i] = random.Float64()
	}
	long := prompt{[]string{"zebra"}, map[string]any{"numWords": 32, "ignoreEOS": true}}
	s := served(t, model, x.Bytes(), map[string]any{"points": points, "long": long.Parts, "options": long.Options})
	var got struct {
		Calm heard
		Lost []struct {
			heard
			Point     float64
			At, Tries int
		}
		Pieces   int
		Each, MS float64
	}
	s.get(t, "losses", &got)
	n.same(t, "undisturbed", []heard{got.Calm}, []prompt{long})
	if got.Calm.Done.Tokens != 32 {
		t.Fatalf("the undisturbed answer has %d tokens, want 32", got.Calm.Done.Tokens)
	}
	var at []int
	for _, l := range got.Lost {
		if l.Text != got.Calm.Text || l.Done == nil || !slices.Equal(l.Done.IDs, got.Calm.Done.IDs) {
			t.Errorf("loss at %.3f of the answer: %+v, want %+v", l.Point, l.heard, got.Calm)
		}
		if slices.Contains(l.Events, "lost") && slices.Contains(l.Events, "recovered") {
			at = append(at, l.At)
		}
	}
	if len(at) != count {
		t.Errorf("%d losses before the answer's end, want %d", len(at), count)
	}
	t.Logf("%d losses in %.1f s, %d tries, after so many of %d pieces of text: %v; undisturbed: %.1f ms a token", len(at), got.MS/1000, len(got.Lost), got.Pieces, at, got.Each)
}
