// SPDX-License-Identifier: Apache-2.0

//go:build unix

package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"fromage/assets"
	"fromage/bundle"
	"fromage/runner"
)

// gate stands before the program and lets nothing of the language model pass until it is opened.
type gate struct {
	*httptest.Server
	open chan struct{}
}

func shut(t *testing.T, p *program) *gate {
	t.Helper()
	to, err := url.Parse(p.url)
	if err != nil {
		t.Fatal(err)
	}
	from, end := languageModel(t)
	g := &gate{open: make(chan struct{})}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var at int64
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at) // without a range it is the start
		if strings.HasPrefix(r.URL.Path, "/models/") && from <= at && at < end {
			select {
			case <-g.open:
			case <-r.Context().Done():
				return
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(g.Close)
	return g
}

// languageModel is where in the program's own bundle the weights lie that pictures do not need.
func languageModel(t *testing.T) (from, to int64) {
	t.Helper()
	r, size, err := assets.Open(assets.BundleFile)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Read(r, size)
	if err != nil {
		t.Fatal(err)
	}
	early := runner.ForPictures(b.Manifest())
	for _, tensor := range b.Manifest().Tensors {
		for _, s := range tensor.Shards {
			end := s.Values.Offset + s.Values.Size
			if s.Scales != nil {
				end = max(end, s.Scales.Offset+s.Scales.Size)
			}
			if to = max(to, end); early(tensor.Name) {
				from = max(from, end)
			}
		}
	}
	return from, to
}

// TestEarly holds the language model back: the page says what can be used, and finds and takes pictures; then it comes, what was asked is answered, and
// chat works.
func TestEarly(t *testing.T) {
	path := need(t)
	g := shut(t, serve(t, build(t), "127.0.0.1:0"))
	b := show(t, path, g.URL+"/", chromedp.Flag("enable-unsafe-webgpu", true))
	b.do(t, chromedp.Navigate(g.URL+"/"))
	b.until(t, "document.getElementById('loading-usable').textContent.includes('can be used already')")
	if text := js[string](t, b, "document.getElementById('loading').innerText + document.getElementById('brief').textContent"); !strings.Contains(text, "MB of 29.0 MB") || !strings.Contains(text, "Loading 3") {
		t.Errorf("the page says %q, want how much of the model has come", text)
	}
	js[bool](t, b, "(document.getElementById('tab-search').click(), true)")
	b.drop(t, "#panel-search", "fxemoji/00252.webp")
	b.until(t, "document.getElementById('search-status').textContent.includes('best first')")
	if first := js[string](t, b, "document.querySelector('#results .hit figcaption').title"); first != "fxemoji/00252.webp" {
		t.Errorf("a picture of the gallery is most like %s, want itself", first)
	}
	b.until(t, "[...document.querySelectorAll('#results img')].slice(0, 6).every((i) => i.naturalWidth > 0)")
	b.shot(t, "early")
	b.do(t, chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile))
	b.shot(t, "small-early")
	b.do(t, chromedp.EmulateViewport(1280, 800))

	js[bool](t, b, "(document.querySelector('#search-picture button').click(), document.getElementById('search-text').focus(), true)")
	b.do(t, chromedp.KeyEvent("violin"))
	b.until(t, "document.getElementById('search-status').textContent.includes('as soon as the language model')")
	js[bool](t, b, "(document.getElementById('tab-mine').click(), true)")
	b.files(t, "#mine-files-input", chart(t, t.TempDir(), "chart.png", 200))
	b.until(t, "document.querySelectorAll('#mine .hit').length === 1 && document.getElementById('mine-progress').hidden")
	if !js[bool](t, b, "document.getElementById('send').disabled && [...document.querySelectorAll('#examples button')].every((b) => b.disabled)") {
		t.Error("chat is offered without a language model")
	}

	b.until(t, "document.getElementById('loading-text').textContent.includes('nothing is coming')")

	close(g.open)
	b.until(t, ready)
	js[bool](t, b, "(document.getElementById('tab-search').click(), true)")
	b.until(t, "document.querySelector('#results .hit')?.innerText.includes('violin')")
	js[bool](t, b, "(document.getElementById('tab-chat').click(), document.getElementById('set-numWords').value = 8, true)")
	if got := b.say(t, "ask", "What is an island?"); !strings.Contains(got, "token") {
		t.Errorf("the language model says %q, want an answer", got)
	}
	b.clean(t)
}
