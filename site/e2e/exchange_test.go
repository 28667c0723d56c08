// SPDX-License-Identifier: Apache-2.0

//go:build unix

package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
)

// exported is a conversation's file.
type exported struct {
	Format, Model, Made string
	Turns               []struct {
		Mode   string
		Prompt []struct{ Text, Picture, Name string }
		Answer []struct {
			Text, Note string
			Images     []struct {
				Path, Caption, Licence, Picture string
				Score                           float64
			}
		}
	}
}

// log is what a person sees of the conversation, in words.
const log = "[...document.querySelectorAll('.turn')].map((t) => t.innerText).join('\\n--\\n')"

// exchange saves the conversation in each way, begins anew, and imports it: it is the same.
func (b *tab) exchange(t *testing.T) {
	dir := t.TempDir()
	if _, err := chromedp.CallBrowser(b.ctx, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{Behavior: "allow", DownloadPath: dir}); err != nil {
		t.Fatal(err)
	}
	b.act(t, "document.getElementById('tab-chat').click(); document.getElementById('set-numWords').value = 8")
	b.drop(t, "#composer", "fxemoji/00252.webp")
	b.until(t, "document.querySelector('#input .pic')")
	b.say(t, "ask", "What is this?")
	b.say(t, "find", "an emoji of microscope")
	turns, words := js[int](t, b, "document.querySelectorAll('.turn').length"), js[string](t, b, log)
	said, found := js[int](t, b, "document.querySelectorAll('.said img').length"), js[int](t, b, "document.querySelectorAll('.turn .hit').length")
	if said == 0 || found == 0 {
		t.Fatalf("the conversation has %d pictures and found %d, want some", said, found)
	}
	js[bool](t, b, "(document.getElementById('tab-chat').click(), ['export', 'save-html', 'save-image'].forEach((id) => document.getElementById(id).click()), true)")
	saved := func(name, end string) []byte {
		for last := time.Now().Add(patience); time.Now().Before(last); time.Sleep(50 * time.Millisecond) {
			if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil && bytes.HasSuffix(bytes.TrimSpace(data), []byte(end)) {
				return data
			}
		}
		t.Fatalf("%s was not downloaded; notice %q", name, js[string](t, b, "document.getElementById('notice').textContent"))
		return nil
	}
	doc := read(t, saved("conversation.json", "]\n}"))
	if len(doc.Turns) != turns || doc.Format != "fromage-conversation" || doc.Model == "" || doc.Made == "" {
		t.Errorf("the export: %d turns, %s, %s, %s, want %d", len(doc.Turns), doc.Format, doc.Model, doc.Made, turns)
	}
	for _, turn := range doc.Turns {
		for _, p := range turn.Prompt {
			if strings.HasPrefix(p.Picture, "data:image/") {
				said--
			}
		}
		for _, a := range turn.Answer {
			for _, h := range a.Images {
				if strings.HasPrefix(h.Picture, "data:image/") && h.Path != "" && h.Caption != "" && h.Licence != "" && h.Score != 0 {
					found--
				}
			}
		}
	}
	if said != 0 || found != 0 {
		t.Errorf("the export lacks %d pictures that were shown and %d that were found", said, found)
	}
	html := string(saved("conversation.html", "</html>"))
	if !strings.Contains(html, "data:image/webp;base64,") || strings.Contains(html, "src=\"/") || strings.Contains(html, "http:") || !strings.Contains(html, "Apache-2.0") {
		t.Error("the saved page lacks pictures or their licences, or asks for some")
	}
	drawn := saved("conversation.png", "IEND\xaeB`\x82")
	if m, err := png.Decode(bytes.NewReader(drawn)); err != nil || m.Bounds().Dx() < 600 || m.Bounds().Dy() < 1000 {
		t.Errorf("the image: %v, %v", m, err)
	}
	if err := os.WriteFile(filepath.Join(out, "page-conversation.png"), drawn, 0o666); err != nil {
		t.Fatal(err)
	}
	js[bool](t, b, "(document.getElementById('reset').click(), true)")
	b.until(t, "document.querySelectorAll('.turn').length === 0")
	b.files(t, "#import-file", filepath.Join(dir, "conversation.html"))
	b.until(t, "document.getElementById('notice').textContent.includes('not JSON')")
	b.files(t, "#import-file", filepath.Join(dir, "conversation.json"))
	b.until(t, fmt.Sprintf("document.querySelectorAll('.turn').length === %d", turns))
	if got := js[string](t, b, log); got != words {
		t.Errorf("imported: %q, want %q", got, words)
	}
	b.until(t, "[...document.querySelectorAll('.said img')].every((i) => i.naturalWidth > 0)")
	if err := os.Remove(filepath.Join(dir, "conversation.json")); err != nil {
		t.Fatal(err)
	}
	js[bool](t, b, "(document.getElementById('export').click(), true)")
	again := read(t, saved("conversation.json", "]\n}"))
	if again.Made = doc.Made; !reflect.DeepEqual(again, doc) {
		t.Error("the conversation that was imported is exported as another")
	}
}

func read(t *testing.T, data []byte) (doc exported) {
	t.Helper()
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// drawing draws a conversation of two pictures in colours of their own, and looks for them, and for its words, in the image.
func (b *tab) drawing(t *testing.T) {
	const script = `import('/drawing.js').then(async ({ toPNG }) => {
		const square = (fill) => {
			const canvas = new OffscreenCanvas(50, 50), c = canvas.getContext('2d');
			c.fillStyle = fill;
			c.fillRect(0, 0, 50, 50);
			return canvas.convertToBlob();
		};
		const found = { path: 'a.png', caption: 'a square', licence: 'CC0', score: 1, blob: await square('#0000ff') };
		const turns = [{ mode: 'ask', prompt: [{ text: 'What is this?' }, { blob: await square('#ff00ff'), name: 'a' }, { text: 'x'.repeat(%d) }],
			answer: [{ text: 'A square.\n\nOf one colour.' }, { images: [found, found, found, found, { ...found, blob: null }] }] }];
		const png = await toPNG(turns, { title: 'T', model: 'M', made: '2026-01-01T' }, async (h) => h.blob ?? Promise.reject(1));
		return btoa(Array.from(new Uint8Array(await png.arrayBuffer()), (b) => String.fromCharCode(b)).join(''));
	}).catch((e) => e.message)`
	data, err := base64.StdEncoding.DecodeString(js[string](t, b, fmt.Sprintf(script, 300)))
	if err != nil {
		t.Fatal(err)
	}
	m, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "page-drawing.png"), data, 0o666); err != nil {
		t.Fatal(err)
	}
	// Two pixels for one; the corners are round.
	for _, c := range []struct {
		name    string
		r, g, b uint32
		least   int
	}{{"the picture that was shown", 255, 0, 255, 4 * 90 * 90}, {"those that were found", 0, 0, 255, 4 * 4 * 160 * 160}, {"the words", 0x22, 0x1d, 0x10, 1000}} {
		if n := count(m, c.r, c.g, c.b); n < c.least {
			t.Errorf("%s: %d pixels, want %d or more", c.name, n, c.least)
		}
	}
	if got := js[string](t, b, fmt.Sprintf(script, 100_000)); !strings.Contains(got, "too long") {
		t.Errorf("a conversation that is too long for an image: %.100q, want that said", got)
	}
}

func count(m image.Image, r, g, b uint32) (n int) {
	for y := range m.Bounds().Dy() {
		for x := range m.Bounds().Dx() {
			if pr, pg, pb, _ := m.At(x, y).RGBA(); pr>>8 == r && pg>>8 == g && pb>>8 == b {
				n++
			}
		}
	}
	return n
}

// hostile imports conversations that someone else may have written.
func (b *tab) hostile(t *testing.T) {
	for turn, want := range map[string]string{
		`{"mode": "ask", "prompt": [{"text": "a"}], "answer": [{"text": "b"}]}`:                "1 turn",
		`{"mode": "ask", "prompt": [{"picture": "data:text/html;base64,PGI+"}], "answer": []}`: "Turn 1",
		`{"mode": "ask", "prompt": [{"picture": "https://example.org/x.png"}], "answer": []}`:  "Turn 1",
		`{"mode": "ask", "prompt": [null], "answer": []}`:                                      "Turn 1",
		`{"mode": "ask", "prompt": [], "answer": [{"images": [{"path": 1}]}]}`:                 "Turn 1",
		`{"mode": "eval", "prompt": [], "answer": []}`:                                         "Turn 1",
		`null`: "Turn 1",
		`{"mode": "ask", "prompt": [], "answer": [{"images": [{"path": "//example.org/x.png", "caption": "<b>\"x"}]}]}`: "1 turn",
	} {
		got := js[string](t, b, fmt.Sprintf(`import('/transcript.js').then((m) => m.fromJSON(new Blob([%q]))).then((turns) => turns.length + ' turn', (e) => e.message)`,
			`{"format": "fromage-conversation", "version": 1, "turns": [`+turn+`]}`))
		if !strings.Contains(got, want) {
			t.Errorf("import of %s = %q, want %q", turn, got, want)
		}
	}
	html := js[string](t, b, `import('/transcript.js').then((m) => m.toHTML([{ mode: 'ask', prompt: [{ text: '<script>' }], answer: [{ text: '</p><i>' }, { images: [{ path: '"x', caption: '<img>' }] }] }], { title: '<title>', model: '<b>', made: '<u>' }, () => Promise.reject(1)))`)
	for _, bad := range []string{"<script>", "<i>", "<img>", "<title><title>", "<b>", "<u>", `"x`} {
		if strings.Contains(html, bad) {
			t.Errorf("the saved page has %s in it: %s", bad, html)
		}
	}
}
