// SPDX-License-Identifier: Apache-2.0

//go:build unix

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// act runs statements in the page.
func (b *tab) act(t *testing.T, statements string) {
	t.Helper()
	js[bool](t, b, "(() => {"+statements+"; return true})()")
}

func (b *tab) reset(t *testing.T) {
	t.Helper()
	b.act(t, "document.getElementById('reset').click()")
	b.until(t, "document.querySelectorAll('.turn').length === 0 && "+idle)
}

// pieces is what a message consists of, in its order: its words, and * for a picture.
func (b *tab) pieces(t *testing.T, message string) string {
	t.Helper()
	return js[string](t, b, fmt.Sprintf(`[...document.querySelector(%q).childNodes].map((n) => n.nodeType === 3 ? n.data.trim() : n.matches('img, .pic') ? '*' : '').filter(Boolean).join(' ')`, message))
}

// compose writes a message of texts and pictures that come in every way there is.
func (b *tab) compose(t *testing.T) {
	b.reset(t)
	b.drop(t, "#composer", "fxemoji/00252.webp")
	b.until(t, "document.querySelectorAll('#input .pic').length === 1")
	b.act(t, "document.getElementById('input').focus()")
	b.do(t, chromedp.KeyEvent("and "))
	b.files(t, "#files", chart(t, t.TempDir(), "chart.png", 100))
	b.until(t, "document.querySelectorAll('#input .pic').length === 2")
	b.do(t, chromedp.KeyEvent(" and "))
	js[bool](t, b, `(async () => {
		const clipboardData = new DataTransfer();
		clipboardData.items.add(new File([await (await fetch('/gallery/pictures/noto/00316.webp')).blob()], 'pasted.webp', { type: 'image/webp' }));
		document.getElementById('input').dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
		return true;
	})()`)
	b.until(t, "document.querySelectorAll('#input .pic').length === 3")
	if got, want := b.pieces(t, "#input"), "* and * and *"; got != want {
		t.Errorf("the message is %q, want %q", got, want)
	}
	b.do(t, chromedp.KeyEvent(kb.Backspace), chromedp.KeyEvent(kb.Backspace), chromedp.KeyEvent("so"))
	b.shot(t, "compose")
	b.act(t, "document.getElementById('set-numWords').value = 8")
	b.do(t, chromedp.KeyEvent(kb.Enter))
	b.until(t, "document.querySelectorAll('.turn').length === 1 && "+idle)
	if got, want := b.pieces(t, ".said"), "* and * andso"; got != want {
		t.Errorf("what was sent is %q, want %q", got, want)
	}
	if js[string](t, b, "document.activeElement.id") != "input" {
		t.Error("after an answer the message field has not the keyboard")
	}
}

// camera takes a picture from the browser's make-believe camera.
func (b *tab) camera(t *testing.T) {
	b.act(t, "document.getElementById('add-camera').click()")
	b.until(t, "document.getElementById('camera-box').open && !document.getElementById('camera-take').disabled")
	b.shot(t, "camera")
	if !js[bool](t, b, "document.activeElement.id === 'camera-take'") {
		t.Error("the camera's button has not the keyboard")
	}
	b.do(t, chromedp.KeyEvent(kb.Enter))
	b.until(t, "document.querySelector('#input .pic img')?.naturalWidth > 100")
	if !js[bool](t, b, "!document.getElementById('camera-box').open && !document.getElementById('camera-view').srcObject") {
		t.Error("the camera is still on")
	}
	b.act(t, "document.getElementById('add-camera').click()")
	b.until(t, "document.getElementById('camera-view').srcObject")
	b.do(t, chromedp.KeyEvent(kb.Escape))
	b.until(t, "!document.getElementById('camera-box').open && !document.getElementById('camera-view').srcObject")
	b.act(t, "document.querySelector('#input .pic button').click(); navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotFoundError') }; document.getElementById('add-camera').click()")
	b.until(t, "document.getElementById('notice').textContent.includes('no camera')")
}

// seeds has the same seed give the same answer, Retry take the next one, and Reset be undone.
func (b *tab) seeds(t *testing.T) {
	b.reset(t)
	b.act(t, "for (const [name, v] of Object.entries({ temperature: 1.2, seed: 7, numWords: 12 })) { const n = document.getElementById('set-' + name); n.value = v; n.dispatchEvent(new Event('change', { bubbles: true })) }")
	const words = last + ".querySelector('.text').textContent"
	b.say(t, "raw", "Once upon a time")
	one := js[string](t, b, words)
	b.act(t, "document.getElementById('undo').click()")
	b.until(t, "document.querySelectorAll('.turn').length === 0")
	b.act(t, "document.getElementById('input').focus()")
	b.do(t, chromedp.KeyEvent(kb.Enter))
	b.until(t, "document.querySelectorAll('.turn').length === 1 && "+idle)
	if again := js[string](t, b, words); again != one {
		t.Errorf("the same seed says %q, then %q", one, again)
	}
	b.act(t, last+".dataset.old = 1; document.getElementById('retry').click()")
	b.until(t, last+" && "+last+".dataset.old !== '1' && "+idle)
	if got := js[string](t, b, last+".innerText"); !strings.Contains(got, "seed 8") || js[string](t, b, "document.getElementById('set-seed').value") != "8" {
		t.Errorf("Retry says %q, want the next seed in it", got)
	}
	said := js[string](t, b, log)
	const turns = "document.querySelectorAll('.turn').length"
	// Undo comes before the worker has said that it began anew.
	if got := js[string](t, b, "(document.getElementById('reset').click(), "+turns+") + ' ' + (document.getElementById('undo').click(), "+turns+")"); got != "0 1" {
		t.Errorf("turns after Reset and Undo: %s, want 0 1", got)
	}
	if got := js[string](t, b, log); got != said {
		t.Errorf("after Reset and Undo the conversation is %q, want %q", got, said)
	}
	b.act(t, "document.getElementById('settings-reset').click()")
}

// keyboard goes through the page without a mouse.
func (b *tab) keyboard(t *testing.T) {
	focus := func() string { return js[string](t, b, "document.activeElement.id") }
	b.act(t, "document.getElementById('tab-chat').click(); document.getElementById('input').focus()")
	var way []string
	for range 6 {
		b.do(t, chromedp.KeyEvent(kb.Tab))
		way = append(way, focus())
	}
	if got, want := strings.Join(way, " "), "add-picture add-camera mode undo retry more-button"; got != want {
		t.Errorf("Tab goes to %s, want %s", got, want)
	}
	b.do(t, chromedp.KeyEvent(kb.Enter))
	if got := focus(); got != "reset" {
		t.Errorf("the menu gives the keyboard to %q, want its first entry", got)
	}
	b.do(t, chromedp.KeyEvent(kb.Escape))
	if got := focus(); got != "more-button" || js[bool](t, b, "document.getElementById('more').checkVisibility()") {
		t.Errorf("Escape leaves the keyboard at %q, want the menu closed and its button", got)
	}
	b.do(t, chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile), chromedp.Focus(chromedp.CSS("#side-button")), chromedp.KeyEvent(kb.Enter))
	if !js[bool](t, b, "document.getElementById('side').contains(document.activeElement)") {
		t.Errorf("the settings opened, and %q has the keyboard", focus())
	}
	b.do(t, chromedp.KeyEvent(kb.Escape))
	if got := focus(); got != "side-button" || js[bool](t, b, "document.getElementById('side').checkVisibility()") {
		t.Errorf("Escape leaves the keyboard at %q, want the settings closed and their button", got)
	}
	b.do(t, chromedp.EmulateViewport(1280, 800))
}
