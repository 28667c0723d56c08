// SPDX-License-Identifier: Apache-2.0

//go:build unix

// Package e2e tests the page as a person uses it: the program serves it, a headless Chromium shows it, and the embedded model answers on WebGPU.
package e2e

import (
	"bufio"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"fromage/internal/browserhost"
	"fromage/site"
)

// patience is how long anything may take: the machine may be busy with other things, and a page that hangs is the exception.
const patience = 5 * time.Minute

// out is where screenshots go, for people to look at.
const out = "../../out"

// need returns the browser's path; without one, or without the built page, it skips, loudly, and fails where FROMAGE_REQUIRE_BROWSER is 1.
func need(t *testing.T) string {
	t.Helper()
	path, err := browserhost.Find()
	if err == nil {
		var f interface{ Close() error }
		if f, err = site.Dist().Open("fromage.wasm.br"); err == nil {
			f.Close()
			return path
		}
		err = fmt.Errorf("the page's program was not built (make site): %w", err)
	}
	if browserhost.Required() {
		t.Fatal(err)
	}
	t.Skipf("SKIPPED, NOTHING TESTED: %v", err)
	return ""
}

// program is fromage serve.
type program struct {
	url, log string
	cmd      *exec.Cmd
}

// serve starts the program at a free port, or again at the port of before.
func serve(t *testing.T, exe, listen string, more ...string) *program {
	t.Helper()
	p := &program{log: filepath.Join(t.TempDir(), "serve.log")}
	p.cmd = exec.Command(exe, append([]string{"serve", "--no-open", "--listen", listen, "--log", p.log}, more...)...)
	p.cmd.Stderr = os.Stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("fromage serve: %v", err)
	}
	p.url = strings.TrimSpace(line)
	return p
}

// stop ends the program as Ctrl-C does.
func (p *program) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("fromage serve ended with %v after Ctrl-C, want 0", err)
	}
}

// requests counts the requests so far whose path begins with this, and the bytes that were sent for them.
func (p *program) requests(t *testing.T, prefix string) (n, bytes int) {
	t.Helper()
	data, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		_, rest, found := strings.Cut(line, " path="+prefix)
		if !found {
			continue
		}
		n++
		_, rest, _ = strings.Cut(rest, " bytes=")
		var sent int
		if _, err := fmt.Sscan(rest, &sent); err != nil {
			t.Fatalf("log: %q: %v", line, err)
		}
		bytes += sent
	}
	return n, bytes
}

func build(t *testing.T, flags ...string) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "fromage")
	if out, err := exec.Command("go", append(append([]string{"build", "-o", exe}, flags...), "fromage/cmd/fromage")...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return exe
}

// tab is a page in a browser.
type tab struct {
	T   *testing.T // of the whole browser: what is started for it lives as long
	ctx context.Context
	mu  sync.Mutex
	bad []string // requests to other hosts, exceptions, what the browser refused
}

// show opens a browser with an empty profile. A machine without a GPU has WebGPU by SwiftShader.
func show(t *testing.T, path, address string, flags ...chromedp.ExecAllocatorOption) *tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1280, 800),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WSURLReadTimeout(patience))
	alloc, stop := chromedp.NewExecAllocator(context.Background(), append(options, flags...)...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	b := &tab{T: t, ctx: ctx}
	home, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Listen(ctx, func(e any) {
		if e, ok := e.(*network.EventRequestWillBeSent); ok {
			if u, err := url.Parse(e.Request.URL); err == nil && u.Host != home.Host && u.Scheme != "blob" && u.Scheme != "data" {
				b.note("request to " + e.Request.URL)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	go func() {
		for m := range chromedp.Console(ctx) { // ends with ctx
			unseen := strings.Contains(m.URL, "/gallery/pictures/") && strings.Contains(m.Text, "ERR_FAILED") // without a network
			if m.IsException() || m.Type == "error" && !unseen {
				b.note("console: " + m.String() + " " + m.URL)
			}
		}
	}()
	return b
}

func (b *tab) note(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bad = append(b.bad, s)
}

// clean fails for what should not have happened so far.
func (b *tab) clean(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.bad {
		t.Error(s)
	}
	b.bad = nil
}

type step = chromedp.Action[chromedp.Void]

func (b *tab) do(t *testing.T, steps ...step) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

// js evaluates an expression, or the promise that it is.
func js[T any](t *testing.T, b *tab, expression string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits for an expression to become true; the page's problem, if it has one, is what the failure tells.
func (b *tab) until(t *testing.T, expression string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if js[bool](t, b, "!!("+expression+")") {
			return
		}
		if problem := js[string](t, b, "document.getElementById('problem')?.hidden === false ? document.getElementById('problem').innerText : ''"); problem != "" || time.Now().After(end) {
			b.shot(t, "failed")
			t.Fatalf("waited for %s: problem %q, loading %q, notice %q", expression, problem, js[string](t, b, "document.getElementById('loading-text').textContent"), js[string](t, b, "document.getElementById('notice').textContent"))
		}
	}
}

// problem waits for the page to say that something went wrong, and returns what it says.
func (b *tab) problem(t *testing.T) string {
	t.Helper()
	for end := time.Now().Add(patience); js[bool](t, b, "document.getElementById('problem')?.hidden !== false"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			b.shot(t, "failed")
			t.Fatal("the page says nothing")
		}
	}
	return js[string](t, b, "document.getElementById('problem').innerText")
}

func (b *tab) shot(t *testing.T, name string) {
	t.Helper()
	data, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(out, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "page-"+name+".png"), data, 0o666); err != nil {
		t.Fatal(err)
	}
}

const (
	ready = "document.getElementById('light').classList.contains('good') && document.getElementById('loading').hidden"
	idle  = "document.getElementById('stop').hidden && !document.querySelector('[aria-busy]')"
	last  = "document.querySelector('.turn:last-child .answer')"
)

// say writes a message and sends it by the keyboard, and waits for the answer.
func (b *tab) say(t *testing.T, mode, text string) string {
	t.Helper()
	js[bool](t, b, fmt.Sprintf("(document.getElementById('mode').value = %q, document.getElementById('input').focus(), true)", mode))
	before := js[int](t, b, "document.querySelectorAll('.turn').length")
	b.do(t, chromedp.KeyEvent(text), chromedp.KeyEvent(kb.Enter))
	b.until(t, fmt.Sprintf("document.querySelectorAll('.turn').length > %d && %s", before, idle))
	return js[string](t, b, last+".innerText")
}

// drop drops a picture of the gallery onto an element.
func (b *tab) drop(t *testing.T, onto, path string) {
	t.Helper()
	js[bool](t, b, fmt.Sprintf(`(async () => {
		const blob = await (await fetch('/gallery/pictures/%s')).blob();
		const dataTransfer = new DataTransfer();
		dataTransfer.items.add(new File([blob], 'dropped.webp', { type: 'image/webp' }));
		document.querySelector(%q).dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
		return true;
	})()`, path, onto))
}

func (b *tab) files(t *testing.T, input string, paths ...string) {
	t.Helper()
	b.do(t, chromedp.SetUploadFiles(chromedp.CSS(input), paths, chromedp.NodeReady))
}

// TestPage goes through the page in one browser; each part goes on from the one before.
func TestPage(t *testing.T) {
	path := need(t)
	exe := build(t)
	p := serve(t, exe, "127.0.0.1:0")
	b := show(t, path, p.url, chromedp.Flag("enable-unsafe-webgpu", true), chromedp.Flag("use-fake-device-for-media-stream", true), chromedp.Flag("use-fake-ui-for-media-stream", true))
	pictures := t.TempDir()
	for _, part := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"first load", func(t *testing.T) { b.firstLoad(t, p) }},
		{"offline at once", func(t *testing.T) {
			b.offline(t, p)
			p = serve(b.T, exe, strings.TrimSuffix(strings.TrimPrefix(p.url, "http://"), "/"))
			js[bool](t, b, "(document.getElementById('reset').click(), true)")
		}},
		{"examples", b.examples},
		{"chat", b.chat},
		{"compose", b.compose},
		{"camera", b.camera},
		{"seeds", b.seeds},
		{"retrieval", b.retrieval},
		{"stop, undo, retry", b.control},
		{"search", b.search},
		{"my pictures", func(t *testing.T) { b.mine(t, pictures) }},
		{"lost GPU", b.lost},
		{"files", b.exchange},
		{"hostile files", b.hostile},
		{"drawing", b.drawing},
		{"reload", func(t *testing.T) { b.reload(t, p) }},
		{"keyboard", b.keyboard},
		{"small", b.small},
		{"accessible", b.accessible},
		{"offline", func(t *testing.T) {
			b.offline(t, p)
			b.until(t, last+".querySelector('.hit img')?.naturalWidth") // it was seen before
			b.shot(t, "offline")
		}},
		{"new version", func(t *testing.T) { b.update(t, p) }},
	} {
		if !t.Run(part.name, func(t *testing.T) {
			part.run(t)
			b.clean(t)
		}) {
			return
		}
	}
}

func (b *tab) firstLoad(t *testing.T, p *program) {
	if _, err := chromedp.Call(b.ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	b.first(t, `addEventListener('DOMContentLoaded', () => {
		const text = document.getElementById('loading');
		window.loading = new Set();
		new MutationObserver(() => loading.add(text.innerText)).observe(text, { subtree: true, childList: true, characterData: true });
	})`)
	b.do(t, chromedp.Navigate(p.url))
	b.until(t, ready)
	if said := js[string](t, b, "[...loading].join('\\n')"); !strings.Contains(said, "of 29.0 MB") || !strings.Contains(said, "MB/s") || !strings.Contains(said, "can be used already") {
		t.Errorf("while it loads, the page says %q, want how far it is and what can be used", said)
	}
	facts := js[string](t, b, "document.getElementById('facts').innerText")
	for _, want := range []string{"q8", "software", "OPFS", "MB", "pictures"} {
		if !strings.Contains(facts, want) {
			t.Errorf("status = %q, want %q in it", facts, want)
		}
	}
	b.until(t, "navigator.serviceWorker.controller")
	requests, all := p.requests(t, "/")
	t.Logf("first visit: %d requests, %.1f MB", requests, float64(all)/1e6)
	if n, sent := p.requests(t, "/models/"); sent < 20e6 {
		t.Errorf("%d requests for %d bytes of the model, want all of it", n, sent)
	}
	b.shot(t, "welcome")
}

// examples tries each of them.
func (b *tab) examples(t *testing.T) {
	for i, want := range []string{"monkey", "an emoji of microscope", "beer mug", "an emoji of volcano"} {
		turns := 1
		if i == 3 {
			turns = 4
		}
		js[bool](t, b, fmt.Sprintf("(document.querySelectorAll('#examples button')[%d].click(), true)", i))
		b.until(t, fmt.Sprintf("document.querySelectorAll('.turn').length === %d && %s", turns, idle))
		if got := js[string](t, b, "document.getElementById('log').innerText"); !strings.Contains(got, want) {
			t.Errorf("example %d: %q, want %q in it", i, got, want)
		}
		b.until(t, "[...document.querySelectorAll('#log img')].every((i) => i.naturalWidth > 0 || i.loading === 'lazy')")
		if i == 3 {
			b.shot(t, "story")
		}
		js[bool](t, b, "(document.getElementById('reset').click(), true)")
		b.until(t, "document.querySelectorAll('.turn').length === 0")
	}
}

func (b *tab) chat(t *testing.T) {
	b.drop(t, "#composer", "fluent3d/00564.webp")
	b.until(t, "document.querySelector('#input .pic img')?.naturalWidth")
	js[bool](t, b, "(window.seen = new Set(), new MutationObserver(() => seen.add(document.querySelector('.turn:last-child .text')?.textContent)).observe(document.getElementById('log'), { subtree: true, childList: true, characterData: true }), true)")
	got := b.say(t, "raw", "A picture of")
	if !strings.Contains(got, "monkey") || !strings.Contains(got, "tok/s") {
		t.Errorf("A picture of = %q, want a monkey and the speed", got)
	}
	t.Logf("the answer: %q", got)
	if n := js[int](t, b, "seen.size"); n < 3 {
		t.Errorf("the answer came in %d pieces, want it streamed", n)
	}
	if n := js[int](t, b, "document.querySelectorAll('.turn .said img').length"); n != 1 {
		t.Errorf("the message shows %d pictures, want 1", n)
	}
	if heard := js[string](t, b, "document.getElementById('announce').textContent"); !strings.Contains(heard, "monkey") {
		t.Errorf("a screen reader hears %q, want the answer", heard)
	}
	b.say(t, "find", "an emoji of microscope")
	b.until(t, "document.querySelectorAll('.turn:last-child .hit img').length === 3 && [...document.querySelectorAll('.turn img')].every((i) => i.naturalWidth > 0)")
	b.shot(t, "chat")
}

func (b *tab) retrieval(t *testing.T) {
	js[bool](t, b, "(document.getElementById('reset').click(), true)")
	b.until(t, "document.querySelectorAll('.turn').length === 0")
	got := b.say(t, "raw", "an emoji of microscope")
	b.until(t, last+".querySelectorAll('.hit img').length === 3 && ["+"..."+last+".querySelectorAll('.hit img')].every((i) => i.naturalWidth > 0)")
	if !strings.Contains(got, "microscope") || !strings.Contains(got, "score") {
		t.Errorf("an emoji of microscope = %q, want captions and scores", got)
	}
	if got := b.say(t, "ask", "Show me a violin"); !strings.Contains(got, "violin") || !strings.Contains(got, "Found for") {
		t.Errorf("Show me a violin = %q, want pictures", got)
	}
	js[bool](t, b, "("+last+".querySelector('.hit button').click(), true)")
	b.until(t, "document.querySelector('#input .pic')")
	if got := b.say(t, "ask", "What is this?"); js[int](t, b, "document.querySelectorAll('.turn:last-child .said img').length") != 1 || got == "" {
		t.Errorf("a retrieved picture as a prompt: %q", got)
	}
}

func (b *tab) control(t *testing.T) {
	n := js[int](t, b, "document.querySelectorAll('.turn').length")
	js[bool](t, b, "(document.getElementById('undo').click(), true)")
	b.until(t, fmt.Sprintf("document.querySelectorAll('.turn').length === %d", n-1))
	if !js[bool](t, b, "document.querySelector('#input .pic') && document.getElementById('input').innerText.includes('What is this?')") {
		t.Error("Undo does not give the message back")
	}
	js[bool](t, b, "(document.getElementById('input').replaceChildren(), document.getElementById('set-numWords').value = 200, document.getElementById('mode').value = 'raw', document.getElementById('input').focus(), true)")
	b.act(t, `const stop = document.getElementById('stop');
		const watch = new MutationObserver(() => { if (document.querySelector('.turn:last-child .text')) { watch.disconnect(); window.stopped = true; stop.click() } });
		watch.observe(document.getElementById('log'), { subtree: true, childList: true })`)
	b.do(t, chromedp.KeyEvent("Once upon a time"), chromedp.KeyEvent(kb.Enter))
	b.until(t, "window.stopped && "+idle)
	if got := js[string](t, b, last+".innerText"); !strings.Contains(got, "stopped") {
		t.Errorf("after Stop: %q, want that said", got)
	}
	b.act(t, last+".dataset.old = 1; document.getElementById('set-numWords').value = 6; document.getElementById('retry').click(); document.getElementById('retry').click()")
	b.until(t, last+" && "+last+".dataset.old !== '1' && "+idle)
	if got := js[string](t, b, last+".innerText"); !strings.Contains(got, "token") || strings.Contains(got, "stopped") {
		t.Errorf("after Stop and Retry: %q, want an answer", got)
	}
	if got := js[int](t, b, "document.querySelectorAll('.turn').length"); got != n {
		t.Errorf("%d turns after two presses of Retry, want %d", got, n)
	}
}

func (b *tab) search(t *testing.T) {
	results := func(query string) string {
		b.until(t, "document.getElementById('search-status').textContent.includes('best first')")
		return js[string](t, b, "[...document.querySelectorAll('#results .hit')].slice(0, 6).map((h) => h.innerText).join('\\n')")
	}
	js[bool](t, b, "(document.getElementById('tab-search').click(), document.getElementById('search-text').focus(), true)")
	b.do(t, chromedp.KeyEvent("violin"))
	if got := results("violin"); !strings.Contains(got, "violin") {
		t.Errorf("search(violin) = %q, want a violin", got)
	}
	b.until(t, "[...document.querySelectorAll('#results img')].slice(0, 6).every((i) => i.naturalWidth > 0)")
	b.shot(t, "search")
	js[bool](t, b, "(document.getElementById('search-text').value = '', document.getElementById('search-status').textContent = '', true)")
	b.drop(t, "#panel-search", "fxemoji/00252.webp")
	if got := results("a picture"); got == "" {
		t.Error("search by a picture finds nothing")
	}
	js[bool](t, b, "(document.getElementById('search-text').focus(), document.getElementById('search-status').textContent = '', true)")
	b.do(t, chromedp.KeyEvent("monkey"))
	if got := results("both"); got == "" {
		t.Error("search by a picture and a text finds nothing")
	}
}

// chart is a picture that is like none of the gallery.
func chart(t *testing.T, dir, name string, hue uint8) string {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 96, 64))
	for y := range 64 {
		for x := range 96 {
			m.Set(x, y, color.RGBA{uint8(2 * x), uint8(4 * y), hue, 255})
		}
	}
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, m); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func (b *tab) mine(t *testing.T, dir string) {
	js[bool](t, b, "(document.getElementById('tab-mine').click(), true)")
	size := func() int {
		facts := js[string](t, b, "document.getElementById('facts').innerText.replaceAll(',', '')")
		var n int
		_, rest, _ := strings.Cut(facts, "Gallery\n")
		if _, err := fmt.Sscan(rest, &n); err != nil {
			t.Fatalf("status = %q, want the gallery's size in it", facts)
		}
		return n
	}
	before := size()
	if err := os.WriteFile(filepath.Join(dir, "broken.png"), []byte("not a picture"), 0o666); err != nil {
		t.Fatal(err)
	}
	b.files(t, "#mine-files-input", chart(t, dir, "purple_chart.png", 200), chart(t, dir, "green.png", 10), filepath.Join(dir, "broken.png"))
	b.until(t, "document.querySelectorAll('#mine .hit').length === 2 && document.getElementById('mine-progress').hidden")
	if notice := js[string](t, b, "document.getElementById('notice').textContent"); !strings.Contains(notice, "broken.png") {
		t.Errorf("notice = %q, want broken.png named", notice)
	}
	b.until(t, "[...document.querySelectorAll('#mine img')].every((i) => i.naturalWidth > 0)")
	if after := size(); after != before+2 {
		t.Errorf("the gallery has %d pictures, want %d and 2 of one's own", after, before)
	}
	b.shot(t, "mine")
	js[bool](t, b, "(document.querySelector('#mine [aria-label=\"Remove: green\"]').click(), true)")
	b.until(t, "document.querySelectorAll('#mine .hit').length === 1")
}

// lost takes the GPU away between two answers.
func (b *tab) lost(t *testing.T) {
	js[bool](t, b, "(document.getElementById('tab-chat').click(), true)")
	js[bool](t, b, `import('/fromage.js').then(({ Fromage }) => {
		const retrieve = Fromage.prototype.retrieve;
		Fromage.prototype.retrieve = function (...args) {
			Fromage.prototype.retrieve = retrieve;
			setTimeout(() => this.loseDevice(), 100);
			return retrieve.apply(this, args);
		};
		return true;
	})`)
	b.say(t, "find", "an emoji of volcano")
	b.until(t, "document.getElementById('notice').textContent.includes('GPU')") // during the search, or after it
	if got := b.say(t, "find", "an emoji of microscope"); !strings.Contains(got, "microscope") {
		t.Errorf("after the GPU was lost: %q, want a microscope", got)
	}
	b.until(t, ready+" && document.getElementById('notice').textContent.includes('back on the GPU')")
}

func (b *tab) reload(t *testing.T, p *program) {
	turns := js[int](t, b, "document.querySelectorAll('.turn').length")
	wasm, _ := p.requests(t, "/fromage.wasm")
	_, before := p.requests(t, "/models/")
	b.do(t, chromedp.Reload())
	b.until(t, ready)
	// What is kept is held to the bundle's header, which may be asked for.
	if n, sent := p.requests(t, "/models/"); sent-before > 1e6 {
		t.Errorf("%d bytes in %d requests for the model after a reload, want it from the browser's storage", sent-before, n)
	}
	if n, _ := p.requests(t, "/fromage.wasm"); n != wasm {
		t.Errorf("%d requests for the program after a reload, want it from the browser's storage", n-wasm)
	}
	if n := js[int](t, b, "document.querySelectorAll('.turn').length"); n != turns {
		t.Errorf("%d turns after a reload, want %d", n, turns)
	}
	b.until(t, "document.querySelectorAll('#mine .hit').length === 1")
	js[bool](t, b, "(document.getElementById('set-numWords').value = 8, true)")
	if got := b.say(t, "ask", "What is an island?"); !strings.Contains(got, "token") {
		t.Errorf("the conversation goes on with %q, want an answer", got)
	}
}

func (b *tab) small(t *testing.T) {
	b.do(t, chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile, chromedp.EmulateTouch))
	b.colours(t, "dark")
	for _, name := range []string{"search", "mine", "chat"} {
		js[bool](t, b, fmt.Sprintf("(document.getElementById('tab-%s').click(), true)", name))
		b.shot(t, "small-"+name)
		wide := js[string](t, b, "[...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.closest('.sr, aside, .skip') && e.getBoundingClientRect().right > 360.5).map((e) => e.outerHTML.slice(0, 90)).join('\\n')")
		if w := js[int](t, b, "document.documentElement.scrollWidth"); w > 360 || wide != "" {
			t.Errorf("%s: the page is %d wide on a screen of 360: %s", name, w, wide)
		}
	}
	js[bool](t, b, "(document.getElementById('side-button').click(), true)")
	b.shot(t, "small-side")
	js[bool](t, b, "(document.getElementById('side-button').click(), document.getElementById('reset').click(), true)")
	b.until(t, "document.querySelectorAll('.turn').length === 0")
	b.shot(t, "small-welcome")
	b.do(t, chromedp.EmulateViewport(1280, 800))
	b.shot(t, "dark")
	b.colours(t, "light")
}

func (b *tab) colours(t *testing.T, scheme string) {
	t.Helper()
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		t.Fatal(err)
	}
}

// accessible looks for controls without a name, pictures without a text and texts that cannot be reached.
func (b *tab) accessible(t *testing.T) {
	got := js[[]string](t, b, `[...document.querySelectorAll('button, input, select, [role=textbox], [role=tab], img')].filter((e) => e.checkVisibility()).filter((e) =>
		e.tagName === 'IMG' ? !e.hasAttribute('alt') : !(e.innerText || e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim())).map((e) => e.outerHTML.slice(0, 120))`)
	if len(got) > 0 {
		t.Errorf("controls without a name: %q", got)
	}
	b.do(t, chromedp.Focus(chromedp.CSS("#tab-chat")), chromedp.KeyEvent(kb.ArrowRight))
	if !js[bool](t, b, "document.activeElement.id === 'tab-search' && !document.getElementById('panel-search').hidden && document.getElementById('panel-chat').hidden") {
		t.Error("the arrow keys do not move between the tabs")
	}
	b.do(t, chromedp.KeyEvent(kb.ArrowLeft))
}

func (b *tab) offline(t *testing.T, p *program) {
	p.stop(t)
	b.do(t, chromedp.Reload())
	b.until(t, ready)
	js[bool](t, b, "(document.getElementById('set-numWords').value = 8, true)")
	if got := b.say(t, "find", "an emoji of microscope"); !strings.Contains(got, "microscope") {
		t.Errorf("without a network: %q, want a microscope", got)
	}
}

// update puts a program with another style sheet in the place of the one that served before.
func (b *tab) update(t *testing.T, p *program) {
	serve(b.T, build(t, overlay(t, "style.css", "/* new */")...), strings.TrimSuffix(strings.TrimPrefix(p.url, "http://"), "/"))
	const text = "fetch('/style.css').then((r) => r.text())"
	b.do(t, chromedp.Reload())
	b.until(t, "!document.getElementById('update').hidden")
	if got := js[string](t, b, text); got == "/* new */" {
		t.Error("the new version came among the files of the old one")
	}
	js[bool](t, b, "(window.old = true, document.getElementById('update').click(), true)")
	b.until(t, "!window.old && document.readyState === 'complete' && "+ready)
	if got := js[string](t, b, text); got != "/* new */" {
		t.Errorf("after the update style.css is %.30q, want the new one", got)
	}
}

// TestLarge tells the page that the model is large: it asks before it downloads.
func TestLarge(t *testing.T) {
	path := need(t)
	p := serve(t, build(t), "127.0.0.1:0")
	b := show(t, path, p.url, chromedp.Flag("enable-unsafe-webgpu", true))
	const large = `const { json } = Response.prototype;
		Response.prototype.json = async function () {
			const doc = await json.call(this);
			doc.models?.forEach((m) => { m.bytes *= 100; });
			return doc;
		};`
	b.first(t, large)
	b.do(t, chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile), chromedp.Navigate(p.url))
	b.until(t, "document.getElementById('loading-start').checkVisibility()")
	if got := js[string](t, b, "document.getElementById('loading').innerText"); !strings.Contains(got, "2.9 GB") {
		t.Errorf("the page asks %q, want the size in it", got)
	}
	if n, _ := p.requests(t, "/models/"); n != 0 {
		t.Errorf("%d requests for the model before the person agreed", n)
	}
	b.shot(t, "large")
	b.do(t, chromedp.Click(chromedp.CSS("#loading-start")))
	b.until(t, ready)
	b.clean(t)
}

// TestWithoutWebGPU shows the page to browsers that cannot run the model, and looks for what it advises.
func TestWithoutWebGPU(t *testing.T) {
	path := need(t)
	exe := build(t)
	local, all := serve(t, exe, "127.0.0.1:0"), serve(t, exe, "0.0.0.0:0")
	for _, c := range []struct {
		name, url, script string
		want              []string
	}{
		{"no-adapter", local.url, "", []string{"No GPU", "graphics driver", "--enable-unsafe-webgpu", "Try again"}},
		{"no-webgpu", local.url, "delete Navigator.prototype.gpu", []string{"no WebGPU", "Chrome", "Safari", "Firefox", "fromage program"}},
		{"insecure", strings.Replace(all.url, "localhost", "page.test", 1), "", []string{"not secure", "https://", "http://localhost"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := show(t, path, c.url, chromedp.Flag("host-resolver-rules", "MAP page.test 127.0.0.1"))
			b.first(t, c.script)
			b.do(t, chromedp.Navigate(c.url))
			got := b.problem(t)
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("problem = %q, want %q in it", got, want)
				}
			}
			b.shot(t, c.name)
		})
	}
}
