// SPDX-License-Identifier: Apache-2.0

//go:build !js && unix

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fromage/bundle"
	"fromage/compiler"
	"fromage/gpu/browser"
	"fromage/gpu/cpu"
	"fromage/index"
	"fromage/internal/browserhost"
	"fromage/internal/wasmbuild"
	"fromage/runner"
	"fromage/shaders"
)

// patience is how long a page may take for all that it does: the machine may be busy with other things, and a page that hangs is the exception.
const patience = 20 * time.Minute

// chromium returns the browser's path; without one it skips, loudly, and fails where FROMAGE_REQUIRE_BROWSER is 1.
func chromium(t *testing.T) string {
	t.Helper()
	path, err := browserhost.Find()
	if err != nil && browserhost.Required() {
		t.Fatal(err)
	}
	if err != nil {
		t.Skipf("SKIPPED, NOTHING TESTED: %v", err)
	}
	return path
}

func command(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// build builds fromage.wasm.
func build(t *testing.T) string {
	program, err := wasmbuild.Build(t.Context(), "js", "fromage/wasm/browser")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "fromage.wasm")
	if err := os.WriteFile(out, program, 0o666); err != nil {
		t.Fatal(err)
	}
	return out
}

// site serves what `fromage serve` does, and the test's page, and notes which bytes of the model are asked for.
type site struct {
	mu      sync.Mutex
	ranges  []string                   // of the model, since they were last taken
	asked   []string                   // every request, for what a failure says
	steps   map[string]json.RawMessage // what the page reported
	fetched map[string][]string        // ranges asked for before each report
	done    chan struct{}
	breaks  int // responses with a part of the model that are still to be cut short

	held   [2]int64      // requests that begin within these bytes of the model get no answer while gate is shut
	gate   chan struct{} // the page's report "hold" shuts it; "release", "refuse" and "aborted" open it
	refuse bool          // what is behind the gate is not to be had
}

// poor are browsers that lack something, by the folder under which they are served: what a worker there does first.
var poor = map[string]string{
	"cache":  `StorageManager.prototype.getDirectory = async () => { throw new DOMException("not here", "SecurityError"); };`,
	"memory": `StorageManager.prototype.getDirectory = undefined; CacheStorage.prototype.open = async () => { throw new DOMException("not here", "SecurityError"); };`,
	"small":  `StorageManager.prototype.estimate = async () => ({quota: 2000, usage: 1000});`,

	"nogpu":     `Object.defineProperty(navigator, "gpu", {value: undefined});`,
	"noadapter": `GPU.prototype.requestAdapter = async () => null;`,
	"away":      `let n = 0; const ask = GPU.prototype.requestAdapter; GPU.prototype.requestAdapter = async function (o) { n++; return n > 1 && n < 7 ? null : ask.call(this, o); };`,
	"offline":   `const {fetch} = self; self.fetch = (url, o) => String(url).includes("/models/") ? Promise.reject(new TypeError("offline")) : fetch(url, o);`,
}

const testPage = `<!doctype html><title>fromage</title><link rel="icon" href="data:,"><script type="module" src="/page.js"></script>`

func (s *site) handler(t *testing.T, wasm, model, page string, x []byte, plan any) http.Handler {
	goroot := command(t, nil, "go", "env", "GOROOT")
	mux := http.NewServeMux()
	bytesAt := func(url, kind string, data []byte) {
		mux.HandleFunc("GET "+url, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		})
	}
	file := func(url, path string) {
		mux.HandleFunc("GET "+url, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) })
	}
	for _, name := range []string{"fromage.js", "worker.js", "store.js", "bench.js", "dom.js"} {
		file("/"+name, "../../site/"+name)
	}
	for folder, script := range poor {
		file("/"+folder+"/fromage.js", "../../site/fromage.js")
		bytesAt("/"+folder+"/worker.js", "text/javascript", []byte(`import "./take.js"; import "/worker.js";`))
		bytesAt("/"+folder+"/take.js", "text/javascript", []byte(script))
	}
	file("/fromage.wasm", wasm)
	file("/wasm_exec.js", filepath.Join(goroot, "lib", "wasm", "wasm_exec.js"))
	file("/page.js", page)
	mux.Handle("GET /pictures/", http.StripPrefix("/pictures/", http.FileServer(http.Dir("../../vision/testdata/pictures"))))
	bytesAt("/{$}", "text/html", []byte(testPage))
	bytesAt("/gpu.js", "text/javascript", []byte(browser.Script))
	bytesAt("/gallery/gallery.index", "application/octet-stream", x)
	described, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	bytesAt("/plan.json", "application/json", described)
	mux.HandleFunc("GET /models/default.bundle", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.ranges = append(s.ranges, r.Header.Get("Range"))
		if s.breaks > 0 && r.Header.Get("Range") != "bytes=0-63" {
			s.breaks--
			w = &broken{w, 1 << 20}
		}
		s.mu.Unlock()
		if !s.pass(r) {
			http.NotFound(w, r)
			return
		}
		http.ServeFile(w, r, model)
	})
	mux.HandleFunc("POST /report", func(_ http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		step := r.FormValue("step")
		t.Logf("%s: %s", step, data[:min(len(data), 300)])
		s.mu.Lock()
		defer s.mu.Unlock()
		s.steps[step], s.fetched[step], s.ranges = data, s.ranges, nil
		switch step {
		case "hold":
			s.gate, s.refuse = make(chan struct{}), false
		case "release", "refuse", "aborted":
			s.refuse = step == "refuse"
			close(s.gate)
		case "done":
			close(s.done)
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.String()+" "+r.Header.Get("Range"))
		s.mu.Unlock()
		w.Header().Set("Content-Security-Policy", "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; worker-src 'self'")
		w.Header().Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

// pass waits where the gate is shut before what a request asks for, and says whether it may have that.
func (s *site) pass(r *http.Request) bool {
	var from int64
	_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from) // without a range it is the start
	if from < s.held[0] || from >= s.held[1] {
		return true
	}
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	select {
	case <-gate:
	case <-r.Context().Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.refuse
}

// broken is a connection that breaks after so many bytes.
type broken struct {
	http.ResponseWriter
	left int
}

func (b *broken) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		time.Sleep(3 * time.Second) // so that a busy page has what was sent before
		panic(http.ErrAbortHandler)
	}
	return b.ResponseWriter.Write(p)
}

// show runs the page until it says done.
func (s *site) show(t *testing.T, path string, handler http.Handler) {
	t.Helper()
	s.steps, s.fetched, s.done = map[string]json.RawMessage{}, map[string][]string{}, make(chan struct{})
	s.gate = make(chan struct{})
	server := httptest.NewServer(handler)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- browserhost.Open(ctx, path, server.URL+"/") }()
	select {
	case <-s.done:
		cancel()
		<-ended
	case err := <-ended:
		s.mu.Lock()
		defer s.mu.Unlock()
		t.Fatalf("the page did not end within %v: %v; it asked for %v", patience, err, s.asked[max(0, len(s.asked)-30):])
	}
	var failed string
	s.get(t, "done", &failed)
	if failed != "" {
		t.Fatalf("the page failed: %s", failed)
	}
}

// get reads what the page reported at a step.
func (s *site) get(t *testing.T, step string, v any) {
	t.Helper()
	data, ok := s.steps[step]
	if !ok {
		t.Fatalf("the page did not come to step %q: %s", step, s.steps["done"])
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%s: %s: %v", step, data, err)
	}
}

type prompt struct {
	Parts   []string       `json:"parts"`
	Options map[string]any `json:"options"`
}

type heard struct {
	Text   string
	Images []hit
	Events []string
	Done   *struct {
		Stop   string
		Tokens int
		IDs    []int32

		MSFirst, TokPerS float64
	}
}

type hit struct {
	Row                    int
	Path, Caption, Licence string
	Own                    bool
	Score                  float32
}

type failure struct {
	Name, Code, Message string
	Typed               bool
}

// reference is the same model on the Go twins.
type reference struct {
	r *runner.Runner
	x *index.Index
}

// Search implements runner.Searcher.
func (n reference) Search(e []float32, k int, seen []int) ([]index.Hit, error) {
	hits, err := n.x.Search(e, k, index.Options{Seen: seen})
	for i := range hits {
		hits[i].Score *= n.r.Scale()
	}
	return hits, err
}

const golden = "../../testdata/golden/fromage/one-token/"

// compiled makes the golden FROMAGe's bundle and an index of pictures.
func compiled(t *testing.T) (path string, n reference) {
	path = filepath.Join(t.TempDir(), "default.bundle")
	err := compiler.Compile(t.Context(), compiler.Options{
		OPT: golden + "facebook/opt-tiny", CLIP: golden + "openai/clip-tiny", Heads: golden + "fromage_model_pretrained_ckpt.pth.tar", DType: shaders.F32, Out: path,
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	dev := cpu.Twins()
	if n.r, err = runner.Load(t.Context(), dev, b, nil); err != nil {
		t.Fatal(err)
	}
	id, err := hex.DecodeString(n.r.Settings().HeadsHash)
	if err != nil {
		t.Fatal(err)
	}
	if n.x, err = index.New(index.Header{D: n.r.Settings().SharedDim, DType: index.F32, Model: [32]byte(id)}); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob("../../vision/testdata/pictures/*.*")
	if err != nil || len(names) < 12 {
		t.Fatalf("want 12 pictures, have %d, %v", len(names), err)
	}
	var rows []index.Row
	for _, name := range names {
		rows = append(rows, index.Row{Meta: index.Meta{Path: filepath.Base(name), Caption: "caption " + filepath.Base(name), Licence: "CC0"}, Embedding: n.image(t, name).Retrieval})
	}
	if err := n.x.Append(rows); err != nil {
		t.Fatal(err)
	}
	return path, n
}

func (n reference) image(t *testing.T, name string) runner.Image {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return n.embedded(t, data)
}

// embedded reads a picture's file.
func (n reference) embedded(t *testing.T, data []byte) runner.Image {
	t.Helper()
	h, w := n.r.Vision().Shape()
	pixels := make([]float32, 3*h*w)
	if err := n.r.Vision().Process(data, pixels); err != nil {
		t.Fatal(err)
	}
	images, err := n.r.Embed(t.Context(), [][]float32{pixels}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return images[0]
}

// same wants what the page heard for the prompts to be the reference's tokens and texts.
func (n reference) same(t *testing.T, step string, got []heard, prompts []prompt) {
	t.Helper()
	if len(got) != len(prompts) {
		t.Fatalf("%s: want %d answers, have %d", step, len(prompts), len(got))
	}
	for i, p := range prompts {
		o := runner.DefaultOptions()
		o.NumWords, o.IgnoreEOS = p.Options["numWords"].(int), true
		if scale, ok := p.Options["retScaleFactor"]; ok {
			o.RetScaleFactor, o.MaxImgPerRet = scale.(float64), 3
		}
		seq := n.r.NewSequence()
		for _, text := range p.Parts {
			if err := seq.Append(runner.Part{Text: text}); err != nil {
				t.Fatal(err)
			}
		}
		want, err := seq.Generate(t.Context(), o, n, nil)
		if err != nil {
			t.Fatal(err)
		}
		seq.Close()
		text := ""
		var images []index.Hit
		for _, piece := range want.Pieces {
			text += piece.Text
			images = append(images, piece.Images...)
		}
		g := got[i]
		if g.Done == nil || !slices.Equal(g.Done.IDs, want.IDs) || g.Text != text || g.Done.Stop != want.Stop {
			t.Errorf("%s: generate(%q) = %+v, want tokens %v, text %q, stop %s", step, p.Parts, g, want.IDs, text, want.Stop)
		}
		n.sameHits(t, step, g.Images, images)
	}
}

// sameHits wants the same pictures in order, but for neighbours whose scores differ by rounding alone.
func (n reference) sameHits(t *testing.T, step string, got []hit, want []index.Hit) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: want %d pictures, have %d", step, len(want), len(got))
		return
	}
	for i, w := range want {
		m, err := n.x.Row(w.Row)
		if err != nil {
			t.Fatal(err)
		}
		off := math.Abs(float64(got[i].Score - w.Score))
		close := i > 0 && want[i-1].Score-w.Score < 1e-3 || i+1 < len(want) && w.Score-want[i+1].Score < 1e-3
		if off > 2e-3 || got[i].Row != w.Row && !close || got[i].Row == w.Row && (got[i].Path != m.Path || got[i].Caption != m.Caption || got[i].Own) {
			t.Errorf("%s: picture %d: have %+v, want row %d, %s, score %g", step, i, got[i], w.Row, m.Path, w.Score)
		}
	}
}

// blobs are the ranges that are neither the header nor the manifest.
func blobs(ranges []string) (out []string) {
	for _, r := range ranges {
		if r != "bytes=0-63" {
			out = append(out, r)
		}
	}
	return out
}
