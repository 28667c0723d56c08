// SPDX-License-Identifier: Apache-2.0

//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"fromage/bundle"
	"fromage/compiler"
	"fromage/shaders"
)

const golden = "../../testdata/golden/fromage/one-token/"

// offer compiles the golden model to some dtypes, makes an index of the same pictures with each, and returns the arguments that serve them all, and what
// each needs.
func offer(t *testing.T, exe string, dtypes ...shaders.Format) (args []string, needs map[string]bundle.Needs) {
	t.Helper()
	pictures, err := filepath.Abs("../../vision/testdata/pictures")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	needs = map[string]bundle.Needs{}
	for _, d := range dtypes {
		path, x := filepath.Join(dir, d.String()+".bundle"), filepath.Join(dir, d.String()+".index")
		if err := compiler.Compile(t.Context(), compiler.Options{
			OPT: golden + "facebook/opt-tiny", CLIP: golden + "openai/clip-tiny", Heads: golden + "fromage_model_pretrained_ckpt.pth.tar", DType: d, Out: path,
		}); err != nil {
			t.Fatal(err)
		}
		b, err := bundle.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		needs[d.String()] = b.Manifest().Needs()
		b.Close()
		index := exec.Command(exe, "index", "build", "--device", "cpu", "-m", path, "-o", x, ".")
		index.Dir = pictures
		if out, err := index.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		args = append(args, "--models", path, "--gallery", x)
	}
	return append(args, "--pictures", pictures), needs
}

// first has a script run before the page's.
func (b *tab) first(t *testing.T, script string) {
	t.Helper()
	if _, err := chromedp.Call(b.ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script}); err != nil {
		t.Fatal(err)
	}
}

const (
	weights = "[...document.querySelectorAll('#facts dt')].find((e) => e.textContent === 'Weights')?.nextSibling.textContent"
	why     = "document.getElementById('model-why').textContent"
)

// TestModels offers one model in three dtypes to devices of several sizes: the page chooses what fits and says why, and the person may choose another.
func TestModels(t *testing.T) {
	path, exe := need(t), build(t)
	args, needs := offer(t, exe, shaders.F16, shaders.Q8, shaders.Q4)
	p := serve(t, exe, "127.0.0.1:0", args...)
	between := func(a, b int64) int64 { return (a + b) / 2 }
	size := func(dtype string) int64 {
		info, err := os.Stat(args[1])
		if err != nil {
			t.Fatal(err)
		}
		return info.Size() - needs["f16"].Weights + needs[dtype].Weights
	}
	for _, c := range []struct {
		name, script, dtype string
		why                 []string
	}{
		{"large", "", "f16", []string{"f16 is what fits"}},
		{"small buffers", fmt.Sprintf("Object.defineProperty(GPUSupportedLimits.prototype, 'maxBufferSize', { get: () => %d })", between(needs["f16"].Buffer, needs["q8"].Buffer)),
			"q8", []string{"q8 is what fits", "f16 was passed over", "this GPU allows"}},
		{"little memory", fmt.Sprintf("Object.defineProperty(Navigator.prototype, 'deviceMemory', { get: () => %d / 2 ** 29 })", between(needs["q8"].Memory(), needs["q4"].Memory())),
			"q4", []string{"q4 is what fits", "f16 was passed over", "q8 was passed over", "half of which"}},
		{"little room", fmt.Sprintf("StorageManager.prototype.estimate = async () => ({ quota: %d, usage: 1000 })", between(size("f16"), size("q8"))+1000),
			"q8", []string{"q8 is what fits", "downloaded at every visit"}},
		{"too small", "Object.defineProperty(Navigator.prototype, 'deviceMemory', { get: () => 1e-9 })", "q4", []string{"q4 may not work here"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := show(t, path, p.url, chromedp.Flag("enable-unsafe-webgpu", true))
			b.first(t, c.script)
			b.do(t, chromedp.Navigate(p.url))
			b.until(t, ready)
			said := js[string](t, b, why)
			for _, want := range c.why {
				if !strings.Contains(said, want) {
					t.Errorf("the page says %q, want %q in it", said, want)
				}
			}
			if got := js[string](t, b, weights); got != c.dtype {
				t.Errorf("loaded %s, want %s", got, c.dtype)
			}
			if c.name == "small buffers" {
				b.shot(t, "models")
			}
			if c.name == "large" {
				b.switched(t)
			}
			b.clean(t)
		})
	}
}

// switched chooses another model by hand, which lasts.
func (b *tab) switched(t *testing.T) {
	options := js[string](t, b, "document.getElementById('model').innerText")
	for _, want := range []string{"f16, 5", "q8, 4", "q4, 3", " kB"} {
		if !strings.Contains(options, want) {
			t.Errorf("the page offers %q, want %q in it", options, want)
		}
	}
	if got := b.say(t, "ask", "What is this?"); !strings.Contains(got, "token") {
		t.Errorf("the first model says %q, want an answer", got)
	}
	b.act(t, "document.getElementById('tab-mine').click()")
	b.files(t, "#mine-files-input", chart(t, t.TempDir(), "my chart.png", 100))
	b.until(t, "document.querySelectorAll('#mine .hit').length === 1 && document.getElementById('mine-progress').hidden")
	js[bool](t, b, "(document.getElementById('tab-chat').click(), document.getElementById('model').value = 'q4', document.getElementById('model').dispatchEvent(new Event('change')), true)")
	b.until(t, ready+" && "+weights+" === 'q4'")
	if got := b.say(t, "ask", "And now?"); !strings.Contains(got, "token") {
		t.Errorf("the second model goes on with %q, want an answer", got)
	}
	b.act(t, "document.getElementById('tab-mine').click()")
	if got := js[string](t, b, "document.getElementById('mine-others').innerText"); !strings.Contains(got, "1 picture of yours was read by another model") {
		t.Errorf("of the pictures that another model has read the page says %q", got)
	}
	b.act(t, "document.getElementById('mine-read').click()")
	b.until(t, "document.querySelector('#mine .hit')?.innerText.includes('my chart') && document.getElementById('mine-others').hidden && document.getElementById('mine-progress').hidden")
	js[bool](t, b, "(document.getElementById('tab-search').click(), true)")
	b.drop(t, "#panel-search", "grey.jpg")
	b.until(t, "document.querySelector('#results .hit figcaption')?.title === 'grey.jpg'")
	b.do(t, chromedp.Reload())
	b.until(t, ready)
	if got, said := js[string](t, b, weights), js[string](t, b, why); got != "q4" || !strings.Contains(said, "your choice") {
		t.Errorf("after a reload: %s, %q, want the person's choice", got, said)
	}
}

// TestNoRoom has a GPU refuse the larger model's largest buffer: the page names the one that would fit, and loads it on request.
func TestNoRoom(t *testing.T) {
	path := need(t)
	exe := build(t)
	args, needs := offer(t, exe, shaders.F16, shaders.Q8)
	worker, err := os.ReadFile("../worker.js")
	if err != nil {
		t.Fatal(err)
	}
	refuse := fmt.Sprintf(`
		const {createBuffer} = GPUDevice.prototype;
		GPUDevice.prototype.createBuffer = function (what) {
			if (what.label.startsWith("model.decoder.embed_tokens") && what.size > %d) {
				throw new GPUOutOfMemoryError("no room");
			}
			return createBuffer.call(this, what);
		};`, needs["q8"].Buffer)
	p := serve(t, build(t, overlay(t, "worker.js", string(worker)+refuse)...), "127.0.0.1:0", args...)
	b := show(t, path, p.url, chromedp.Flag("enable-unsafe-webgpu", true))
	b.do(t, chromedp.Navigate(p.url))
	said := b.problem(t)
	for _, want := range []string{"does not fit", "q8 of the same model needs", "instead of", "Use q8", "Try again"} {
		if !strings.Contains(said, want) {
			t.Errorf("problem = %q, want %q in it", said, want)
		}
	}
	b.shot(t, "no-room")
	js[bool](t, b, "([...document.querySelectorAll('#problem-actions button')].find((b) => b.textContent.startsWith('Use q8')).click(), true)")
	b.until(t, ready)
	if got := js[string](t, b, weights); got != "q8" {
		t.Errorf("loaded %s, want q8", got)
	}
	// Another time the page does not choose what there was no room for.
	js[bool](t, b, "(localStorage.removeItem('model'), true)")
	b.do(t, chromedp.Reload())
	b.until(t, ready)
	if got, said := js[string](t, b, weights), js[string](t, b, why); got != "q8" || !strings.Contains(said, "this GPU had no room") {
		t.Errorf("after a reload: %s, %q, want q8 and why", got, said)
	}
}

// overlay returns the flags that build the program with another text of a file of the site.
func overlay(t *testing.T, name, text string) []string {
	t.Helper()
	dir := t.TempDir()
	old, err := filepath.Abs("../" + name)
	if err != nil {
		t.Fatal(err)
	}
	file, list := filepath.Join(dir, name), filepath.Join(dir, "overlay.json")
	data, err := json.Marshal(map[string]map[string]string{"Replace": {old: file}})
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{file: []byte(text), list: data} {
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"-overlay", list}
}
