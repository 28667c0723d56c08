// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fromage/runner"
	"fromage/shaders"
	"fromage/verify"
)

func TestCaption(t *testing.T) {
	const want = "gallery:fxemoji/00090.webp\tan emoji of beer mug\n"
	if got := ok(t, "caption", "gallery:fxemoji/00090.webp"); got != want {
		t.Errorf("caption = %q, want %q", got, want)
	}
}

// TestCaptionGoesOn captions what it can and says what it cannot.
func TestCaptionGoesOn(t *testing.T) {
	code, out, errs := run(t, "", "caption", "--json", "none.png", "gallery:fxemoji/00090.webp")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != exitBad || len(lines) != 2 || !strings.Contains(lines[0], "none.png") || !strings.Contains(lines[1], "beer mug") {
		t.Errorf("caption = %d, %q, %q, want 2 and two lines", code, out, errs)
	}
}

func TestAsk(t *testing.T) {
	var e exchange
	out := ok(t, "ask", "--json", "--max-img-per-ret", "3", "an emoji of microscope")
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		t.Fatal(err)
	}
	if len(e.Answer) != 1 || !e.Answer[0].RET || len(e.Answer[0].Pictures) != 3 || !strings.Contains(e.Answer[0].Pictures[0].Caption, "microscope") {
		t.Fatalf("ask = %s, want 3 pictures, first a microscope", out)
	}
	for _, p := range e.Answer[0].Pictures {
		if _, err := readPicture(p.Path); err != nil || p.Licence == "" {
			t.Errorf("retrieved %+v, %v, want a picture with a licence", p, err)
		}
	}
	text := ok(t, "ask", "--max-img-per-ret", "3", "an emoji of microscope")
	if want := "  [1] " + e.Answer[0].Pictures[0].String() + "\n"; !strings.Contains(text, want) {
		t.Errorf("ask = %q, want %q in it, as the JSON says", text, want)
	}
	for _, kv := range []string{"f32", "f16"} {
		if got, want := ok(t, "ask", "--kv", kv, `Q: Show me a microscope.\nA:`), "Here is a black icon of microscope.\n"; got != want {
			t.Errorf("ask --kv %s = %q, want %q", kv, got, want)
		}
	}
}

// TestKV: what loads a model for a command has it keep keys and values as --kv says.
func TestKV(t *testing.T) {
	for _, kv := range []shaders.Format{shaders.F32, shaders.F16} {
		a := &app{stderr: io.Discard, log: discard, device: "cpu", kv: kv}
		r, err := a.load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Machine().Layouts["kv.0"].Format; got != kv {
			t.Errorf("--kv %v: keys and values are in %v", kv, got)
		}
		a.close()
	}
}

// TestAgree: a model agrees with itself wholly, and with itself on keys and values in f16 nearly.
func TestAgree(t *testing.T) {
	model, text := tiny(t), write(t, filepath.Join(t.TempDir(), "text"), []byte(strings.Repeat("the quick brown fox jumps over the lazy dog ", 9)))
	var whole, half verify.Agreement
	for kv, g := range map[string]*verify.Agreement{"f32": &whole, "f16": &half} {
		if err := json.Unmarshal([]byte(ok(t, "agree", "--json", "--length", "40", "--kv", kv, model, model, text)), g); err != nil {
			t.Fatal(err)
		}
	}
	if whole.Same != whole.Positions || whole.Positions < 50 || whole.LossA != whole.LossB {
		t.Errorf("agree = %+v, want all the same", whole)
	}
	if half.LossA != whole.LossA || half.LossB == half.LossA || math.Abs(half.LossB-half.LossA) > 1e-3 {
		t.Errorf("agree --kv f16 = %+v, want the second a little apart from the first, which is %+v", half, whole)
	}
}

func TestRetrieve(t *testing.T) {
	var e exchange
	if err := json.Unmarshal([]byte(ok(t, "retrieve", "--json", "an emoji of alarm clock")), &e); err != nil {
		t.Fatal(err)
	}
	if len(e.Answer) != 1 || len(e.Answer[0].Pictures) != 5 {
		t.Fatalf("retrieve = %+v, want 5 pictures", e)
	}
	found := 0
	for i, p := range e.Answer[0].Pictures {
		if strings.Contains(p.Caption, "clock") {
			found++
		}
		if i > 0 && p.Score > e.Answer[0].Pictures[i-1].Score {
			t.Errorf("pictures are not in the order of their scores: %+v", e.Answer[0].Pictures)
		}
	}
	if found == 0 {
		t.Errorf("retrieve(an emoji of alarm clock) = %+v, want a clock among them", e.Answer[0].Pictures)
	}
	lines := strings.Split(strings.TrimSpace(ok(t, "retrieve", "-k", "2", "a cat [RET] a dog [RET]")), "\n")
	if len(lines) != 6 {
		t.Errorf("retrieve of two [RET]s = %q, want two headings with 2 pictures each", lines)
	}
}

func TestChat(t *testing.T) {
	save := filepath.Join(t.TempDir(), "chat.html")
	code, out, errs := run(t, strings.Join([]string{
		"gallery:fxemoji/00090.webp", "/undo", "/set num-words 4", "/set top-p 0.5", "/set frob 1", "/frob",
		"gallery:fxemoji/00090.webp What is this?", "/retry", "none.png who?", "/find an emoji of violin", "/find", "/show", "/save " + save, "/quit", "What?",
	}, "\n"), "chat", "--json")
	if code != exitOK {
		t.Fatalf("chat = %d, %s", code, errs)
	}
	var all []exchange
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		var e exchange
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("chat --json: %q: %v", line, err)
		}
		all = append(all, e)
	}
	if len(all) != 4 || len(all[3].Answer[0].Pictures) != 4 || !strings.Contains(all[0].Answer[0].Text, "beer mug") || all[1].Tokens != 4 || all[1].Answer[0].Text != all[2].Answer[0].Text {
		t.Errorf("chat = %s, want a caption, twice the same answer of 4 words, and 4 pictures", out)
	}
	for _, want := range []string{"top-p", "no setting frob", "no command /frob", "temperature is 0", "none.png", "want /find TEXT", "num-words         4", "1 turns"} {
		if !strings.Contains(errs, want) {
			t.Errorf("chat wrote %q, want %q in it", errs, want)
		}
	}
	page, err := os.ReadFile(save)
	if err != nil || !strings.Contains(string(page), "data:image/webp;base64,") {
		t.Errorf("the saved page has %d bytes, %v, want one with a picture", len(page), err)
	}
}

// newChat is a conversation with the embedded model.
func newChat(t *testing.T) (*chat, *bytes.Buffer) {
	var out bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &out, device: "cpu", log: discard}
	t.Cleanup(a.close)
	r, err := a.load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ch := &chat{a: a, r: r, w: &out, seq: r.NewSequence(), opt: runner.DefaultOptions()}
	t.Cleanup(ch.close)
	return ch, &out
}

// TestChatFull fills the model's positions.
func TestChatFull(t *testing.T) {
	ch, _ := newChat(t)
	ch.opt.NumWords = 2
	if err := ch.say(context.Background(), "hello"); err != nil {
		t.Fatal(err)
	}
	at := ch.seq.Len()
	err := ch.say(context.Background(), strings.Repeat("very ", 600)+"long")
	if err == nil || !strings.Contains(err.Error(), "/reset") || ch.seq.Len() != at || len(ch.turns) != 1 {
		t.Errorf("say(a long line) = %v, %d tokens, %d turns, want /reset advised, %d tokens, 1 turn", err, ch.seq.Len(), len(ch.turns), at)
	}
}

// TestChatStopped stops an answer before its first word; the conversation goes on.
func TestChatStopped(t *testing.T) {
	ch, out := newChat(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := ch.say(ctx, "hello"); err != nil || len(ch.turns) != 1 || ch.turns[0].Stop != "stopped" || !strings.Contains(out.String(), "stopped") {
		t.Errorf("say = %v, %d turns, %q, want it stopped", err, len(ch.turns), out)
	}
	ch.opt.NumWords = 2
	if err := ch.say(context.Background(), "hello"); err != nil || len(ch.turns) != 2 {
		t.Errorf("say after a stop = %v, %d turns, want 2", err, len(ch.turns))
	}
}

func TestDemo(t *testing.T) {
	html := filepath.Join(t.TempDir(), "out", "demo.html")
	out := ok(t, "demo", "--once", "--html", html)
	page, err := os.ReadFile(html)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(page, []byte("data:image/webp;base64,")); n < 10 {
		t.Errorf("the page has %d pictures, want 10 or more", n)
	}
	for _, bad := range []string{"src=\"http", "href=", "ZgotmplZ", "#Z"} {
		if bytes.Contains(page, []byte(bad)) {
			t.Errorf("the page has %q in it", bad)
		}
	}
	if !strings.Contains(out, "gallery:") || !strings.Contains(out, html) {
		t.Errorf("demo = %q, want pictures and the page named", out)
	}
}

func TestSheetEscapes(t *testing.T) {
	var b bytes.Buffer
	err := writeSheet(&b, "<b>", []exchange{{Prompt: []item{{Text: "<script>"}}, Answer: []piece{{Text: "</p>", Pictures: []picture{{Path: `x" onerror="`, Caption: "<i>"}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"<b>", "<script>", "<i>", `onerror="`} {
		if strings.Contains(b.String(), bad) {
			t.Errorf("the page has %s in it", bad)
		}
	}
}
