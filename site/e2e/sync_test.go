// SPDX-License-Identifier: Apache-2.0

//go:build unix

package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"fromage/assets"
	"fromage/bundle"
	"fromage/server/client"
	"fromage/server/hub"
	"fromage/server/version"
)

// live is a program that serves versions.
type live struct {
	*program
	exe, secret, data, tokens string
}

func goLive(t *testing.T) *live {
	t.Helper()
	secret, line, err := hub.NewToken("tester", hub.Scopes)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l := &live{exe: build(t), secret: secret, data: filepath.Join(dir, "data"), tokens: filepath.Join(dir, "tokens")}
	if err := os.WriteFile(l.tokens, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	l.serve(t, "127.0.0.1:0")
	return l
}

// serve starts the program, or again after its end.
func (l *live) serve(t *testing.T, listen string) {
	t.Helper()
	l.program = serve(t, l.exe, listen, "--data", l.data, "--tokens", l.tokens)
}

// run runs another one of the program's commands, with the right to publish.
func (l *live) run(t *testing.T, args ...string) string {
	t.Helper()
	c := exec.Command(l.exe, append([]string{"--device", "cpu"}, args...)...)
	c.Env = append(os.Environ(), "FROMAGE_TOKEN="+l.secret)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("fromage %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// heads publishes trained parameters.
func (l *live) heads(t *testing.T, note string, heads map[string][]float32) client.Published {
	t.Helper()
	v, err := client.PublishHeads(context.Background(), l.url, l.secret, "", note, heads)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestSync: two open pages take what is published, without loading anything anew.
func TestSync(t *testing.T) {
	path, dir := need(t), t.TempDir()
	p := goLive(t)
	folder := filepath.Join(dir, "pictures")
	names := somePictures(t, folder, 13)
	extra := names[12]
	hidden := filepath.Join(dir, filepath.Base(extra))
	if err := os.Rename(filepath.Join(folder, extra), hidden); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		return p.run(t, args...)
	}
	run("push", "gallery", "add", "--to", p.url, "--root", folder, folder)

	first := show(t, path, p.url, chromedp.Flag("enable-unsafe-webgpu", true))
	if err := chromedp.Do(first.ctx); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := chromedp.NewContext(first.ctx)
	t.Cleanup(cancel)
	second := &tab{T: t, ctx: ctx}
	if err := chromedp.Do(ctx); err != nil { // the tab lives as long as the context that it is opened with
		t.Fatal(err)
	}
	pages := []*tab{first, second}
	for _, b := range pages {
		b.do(t, chromedp.Navigate(p.url))
		b.until(t, ready)
		b.searchBy(t, hidden)
		b.until(t, found+" !== '' && "+found+" !== '"+extra+"'")
	}
	at := func(seq uint64) {
		t.Helper()
		for _, b := range pages {
			b.until(t, fmt.Sprintf("document.body.dataset.version === '%d'", seq))
		}
	}
	requests, bytes := p.requests(t, "/models/")

	t.Run("heads", func(t *testing.T) {
		before := js[float64](t, first, score)
		heads := scaled(t)
		began := time.Now()
		v := p.heads(t, "twice the scores", heads)
		at(v.Seq)
		t.Logf("two pages took new heads within %v of the publish's begin, %d bytes sent", time.Since(began).Round(10*time.Millisecond), v.Sent)
		for _, b := range pages {
			b.until(t, fmt.Sprintf("Math.abs(%s - %f) < 0.03 + 0.02 * %f", score, 2*before, before))
		}
		if notice := js[string](t, first, "document.getElementById('notice').textContent"); !strings.Contains(notice, "new heads (twice the scores)") {
			t.Errorf("the page says %q, want it to say what is new", notice)
		}
		js[bool](t, first, "(document.getElementById('tab-chat').click(), true)")
		first.say(t, "chat", "What is this?")
		first.until(t, fmt.Sprintf("document.getElementById('facts').textContent.includes('Last answer byversion %d')", v.Seq))
		js[bool](t, first, "(document.getElementById('tab-search').click(), true)")
	})
	t.Run("picture added and removed", func(t *testing.T) {
		if n := first.forget(t); n < 2 { // as another page of this browser does that is at another version
			t.Errorf("%d files of pieces, want some", n)
		}
		run("push", "gallery", "add", "--to", p.url, "--root", dir, hidden+".tsv")
		for _, b := range pages {
			b.until(t, found+" === '"+filepath.Base(hidden)+"'")
		}
		run("push", "gallery", "remove", "--to", p.url, filepath.Base(hidden))
		for _, b := range pages {
			b.until(t, found+" !== '"+filepath.Base(hidden)+"'")
			p.holds(t, b) // the heads too, which stayed as they were
		}
	})
	t.Run("embeddings", func(t *testing.T) {
		before := js[float64](t, first, score)
		run("push", "gallery", "embeddings", "q8", "--to", p.url)
		at(6)
		for _, b := range pages {
			b.until(t, fmt.Sprintf("Math.abs(%s - %f) < 0.03 + 0.02 * %f", score, before, before))
			p.holds(t, b)
		}
	})
	t.Run("rollback", func(t *testing.T) {
		twice := js[float64](t, first, score)
		out := run("admin", "rollback", "--data", p.data, "2", "--json")
		if !strings.Contains(out, `"seq": 7`) {
			t.Errorf("rollback says %s, want version 7", out)
		}
		at(7)
		for _, b := range pages {
			b.until(t, fmt.Sprintf("Math.abs(%s - %f) < 0.03 + 0.02 * %f", score, twice/2, twice))
		}
	})
	whole := t // what outlives a part is started for it
	t.Run("server killed", func(t *testing.T) {
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = p.cmd.Wait()
		run("push", "gallery", "remove", "--to", p.data, names[0]) // nobody serves it
		p.serve(whole, strings.Trim(strings.TrimPrefix(p.url, "http://"), "/"))
		at(8)
	})
	if n, b := p.requests(t, "/models/"); n != 0 {
		t.Errorf("after %d requests of %d bytes for the first load the model was asked for %d times again, %d bytes", requests, bytes, n, b)
	}
	t.Run("page comes back", func(t *testing.T) {
		second.do(t, chromedp.Navigate(p.url))
		second.until(t, ready)
		before := sent(t, p.url)
		second.do(t, chromedp.Navigate(p.url))
		second.until(t, ready)
		second.until(t, "document.getElementById('facts').textContent.includes('Heads and picturesversion 8')")
		if n := sent(t, p.url) - before; n > 500 {
			t.Errorf("a page that has the current version was sent %d bytes", n)
		}
	})
	t.Run("late", func(t *testing.T) { // a page that is at a newer version has noted it
		newer, _ := p.current(t)
		newer.Time = newer.Time.Add(time.Hour)
		document, id, err := newer.Encode()
		if err != nil {
			t.Fatal(err)
		}
		name, file := "sync-"+newer.Models[0].Name, append(id[:], document...)
		second.put(t, name, file)
		at(p.heads(t, "in between", retrained(t, 5)).Seq)
		time.Sleep(time.Second) // for what is not to come
		have := second.kept(t)
		if want := fmt.Sprintf("%x", sha256.Sum256(file)); have[name] != want {
			t.Errorf("a late page wrote its version over a newer one")
		}
		for _, piece := range pieces(newer) {
			if have["piece-"+piece.Hash.String()] == "" {
				t.Errorf("a late page removed piece %s of a newer version", piece.Hash)
			}
		}
	})
}

const (
	found = "(document.querySelector('#results figcaption')?.title ?? '')"
	score = "Number(document.querySelector('#results small')?.textContent.match(/score (-?[0-9.]+)/)?.[1] ?? NaN)"
)

// searchBy has pictures searched that are like a file's.
func (b *tab) searchBy(t *testing.T, file string) {
	t.Helper()
	js[bool](t, b, "(document.getElementById('tab-search').click(), true)")
	b.files(t, "#search-file", file)
}

// somePictures puts pictures of the embedded gallery in a folder, the last with a list of its own beside the folder.
func somePictures(t *testing.T, folder string, n int) (names []string) {
	t.Helper()
	x, err := assets.Gallery()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		m, err := x.Row(i * x.Len() / n)
		if err != nil {
			t.Fatal(err)
		}
		file, err := assets.Picture(m.Path)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.ReplaceAll(m.Path, "/", "-")
		if err := os.WriteFile(filepath.Join(folder, name), file, 0o666); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	last := names[n-1]
	if err := os.WriteFile(filepath.Join(filepath.Dir(folder), last+".tsv"), []byte("caption\timage\nthe picture\t"+last+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	return names
}

// scaled are the embedded model's heads with a logit_scale that doubles scores, and added_tokens as they are.
func scaled(t *testing.T) map[string][]float32 {
	t.Helper()
	b, err := assets.Bundle()
	if err != nil {
		t.Fatal(err)
	}
	heads := map[string][]float32{}
	for i, w := range b.Manifest().Model.Weights {
		if w.Name != "logit_scale" && w.Name != "visual_fc.bias" {
			continue
		}
		heads[w.Name] = floatsOf(t, b, b.Manifest().Tensors[i].Shards[0].Values)[:w.Rows*w.Cols]
	}
	heads["logit_scale"][0] += 0.6931472
	heads["visual_fc.bias"][0] += 1e-3
	return heads
}

func floatsOf(t *testing.T, b *bundle.Bundle, blob bundle.Blob) []float32 {
	t.Helper()
	var raw []byte
	err := b.Chunks(context.Background(), blob, func(_ int64, chunk []byte) error {
		raw = append(raw, chunk...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return version.Floats(raw)
}

// sent is how many bytes the server has sent over websockets.
func sent(t *testing.T, url string) (n int) {
	t.Helper()
	response, err := http.Get(url + "metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\nfromage_sync_sent_bytes_total ")
	var f float64
	if _, err := fmt.Sscan(rest, &f); !ok || err != nil {
		t.Fatalf("/metrics: %v: %.200s", err, text)
	}
	return int(f)
}
