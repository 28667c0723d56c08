// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/cobra"
)

var discard = slog.New(slog.DiscardHandler)

const golden = "../../testdata/golden/fromage/one-token"

// run runs the program on the cpu device and returns what it wrote.
func run(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = doMain(append(args, "--device", "cpu"), strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// ok runs the program and fails the test unless it exits with 0.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := run(t, "", args...)
	if code != exitOK {
		t.Fatalf("fromage %q = %d, want 0; %s", args, code, errs)
	}
	return out
}

var tinyOnce struct {
	sync.Once
	data []byte
}

// tiny is a bundle of the golden model with one visual token, of the test's own.
func tiny(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tiny.bundle")
	tinyOnce.Do(func() {
		ok(t, "compile", "--opt", golden+"/facebook/opt-tiny", "--clip", golden+"/openai/clip-tiny",
			"--heads", golden+"/fromage_model_pretrained_ckpt.pth.tar", "--dtype", "f32", "-o", path, "--note", "licence=none")
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		tinyOnce.data = data
	})
	write(t, path, tinyOnce.data)
	return path
}

func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// pictures copies the golden pictures to a folder of the test's own.
func pictures(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pictures")
	if err := os.CopyFS(dir, os.DirFS("../../testdata/golden/clip/vision/images")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestBadUsage(t *testing.T) {
	model, pics := tiny(t), pictures(t)
	raw, err := os.ReadFile(model)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	short := write(t, filepath.Join(dir, "short.bundle"), raw[:len(raw)/2])
	flipped := bytes.Clone(raw)
	flipped[200] ^= 1
	bad := write(t, filepath.Join(dir, "flipped.bundle"), flipped)
	text := write(t, filepath.Join(dir, "text.png"), []byte("this is no picture"))
	unreadable := t.TempDir()
	write(t, filepath.Join(unreadable, "text.png"), []byte("this is no picture"))
	picture := filepath.Join(pics, "exact_32x32.png")
	gallery := filepath.Join(dir, "tiny.index")
	ok(t, "index", "build", "-m", model, "-o", gallery, pics)
	broken := write(t, filepath.Join(dir, "broken.index"), []byte("fromagei, but no more"))

	for _, c := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"unknown command", []string{"frob"}, exitBad, []string{"frob"}},
		{"unknown command of index", []string{"index", "frob"}, exitBad, []string{"frob"}},
		{"help on nothing", []string{"help", "frob"}, exitBad, []string{"frob"}},
		{"too many arguments", []string{"doctor", "x"}, exitBad, []string{"doctor", "want 0, have 1"}},
		{"too few arguments", []string{"index", "info"}, exitBad, []string{"info", "want 1, have 0"}},
		{"bundle onto a folder", []string{"compile", "--opt", golden + "/facebook/opt-tiny", "-o", pics}, exitBad, []string{pics}},
		{"folder as a picture", []string{"caption", pics}, exitBad, []string{pics, "have a folder"}},
		{"import of no pickle", []string{"index", "import", "-m", model, "-o", dir + "/z", picture}, exitBad, []string{"exact_32x32.png"}},
		{"import of nothing", []string{"index", "import", "-m", model, "-o", dir + "/z", dir + "/none.pkl"}, exitBad, []string{"none.pkl"}},
		{"index of unreadable pictures", []string{"index", "build", "-m", model, "-o", dir + "/y", unreadable}, exitBad, []string{"text.png", "none of 1"}},
		{"unknown flag", []string{"ask", "--frob", "x"}, exitBad, []string{"--frob"}},
		{"unknown device", []string{"version", "--device", "tpu"}, exitBad, []string{"--device", "tpu"}},
		{"flag that is no number", []string{"ask", "--num-words", "many", "x"}, exitBad, []string{"num-words", "many"}},
		{"temperature below 0", []string{"ask", "--temperature", "-1", "x"}, exitBad, []string{"temperature", "-1"}},
		{"keys of no format", []string{"ask", "--kv", "f8", "x"}, exitBad, []string{"--kv", "f8"}},
		{"keys in q8", []string{"ask", "--kv", "q8", "x"}, exitBad, []string{"--kv", "f32 or f16", "q8"}},
		{"top-p without temperature", []string{"ask", "--top-p", "0.5", "x"}, exitBad, []string{"top-p"}},
		{"k of 0", []string{"retrieve", "-k", "0", "x"}, exitBad, []string{"-k"}},
		{"empty prompt", []string{"ask", "-m", model, "-i", gallery}, exitBad, []string{"empty"}},
		{"nothing to score", []string{"score", "-m", model, "--candidate", "", "x"}, exitBad, []string{"text to predict"}},
		{"missing model", []string{"ask", "-m", dir + "/none.bundle", "x"}, exitBad, []string{"none.bundle"}},
		{"truncated model", []string{"ask", "-m", short, "x"}, exitBad, []string{"short.bundle"}},
		{"flipped bit", []string{"ask", "-m", bad, "-i", gallery, "x"}, exitBad, []string{"flipped.bundle"}},
		{"flipped bit, verified", []string{"info", "--verify", bad}, exitNo, []string{"flipped.bundle"}},
		{"picture as model", []string{"info", picture}, exitBad, []string{"exact_32x32.png"}},
		{"missing index", []string{"ask", "-m", model, "-i", dir + "/none.index", "x"}, exitBad, []string{"none.index"}},
		{"broken index", []string{"info", broken}, exitBad, []string{"broken.index"}},
		{"text as picture", []string{"ask", "-m", model, "-i", gallery, "--image", text, "x"}, exitBad, []string{"text.png"}},
		{"missing picture", []string{"ask", "-m", model, "-i", gallery, "none.png", "x"}, exitBad, []string{"none.png"}},
		{"prompt too long", []string{"ask", "-m", model, "-i", gallery, strings.Repeat("x y ", 5000)}, exitBad, []string{"too long", "tokens"}},
		{"prompt to score too long", []string{"score", "-m", model, strings.Repeat("x y ", 5000)}, exitBad, []string{"tokens"}},
		{"unreadable picture", []string{"caption", "-m", model, text}, exitBad, []string{"text.png"}},
		{"dtype", []string{"compile", "--opt", golden, "--dtype", "q5", "-o", dir + "/x"}, exitBad, []string{"q5"}},
		{"nothing to compile", []string{"compile", "-o", dir + "/x"}, exitBad, []string{"--opt"}},
		{"no checkpoint", []string{"compile", "--opt", pics, "-o", dir + "/x"}, exitBad, []string{pics}},
		{"index that is there", []string{"index", "build", "-m", model, "-o", gallery, pics}, exitBad, []string{"tiny.index", "add"}},
		{"index of no pictures", []string{"index", "build", "-m", model, "-o", dir + "/y", t.TempDir()}, exitBad, []string{"no pictures"}},
		{"row that is not there", []string{"index", "remove", "-i", gallery, "nothing.png"}, exitBad, []string{"nothing.png"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			args := append([]string{"--device", "cpu"}, c.args...)
			code := doMain(args, strings.NewReader(""), &out, &errs)
			if code != c.code {
				t.Errorf("fromage %q = %d, want %d", c.args, code, c.code)
			}
			lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
			last := lines[len(lines)-1]
			if !strings.HasPrefix(last, "fromage: ") || len(lines) > 2 || strings.Contains(errs.String(), "goroutine") {
				t.Errorf("standard error = %q, want one line of fromage:", errs.String())
			}
			for _, w := range c.want {
				if !strings.Contains(errs.String(), w) {
					t.Errorf("standard error = %q, want %q in it", errs.String(), w)
				}
			}
		})
	}
	for _, name := range []string{"x", "y", "z"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s was left behind", name)
		}
	}
}

// TestOtherModelsIndex asks one model with the index of another.
func TestOtherModelsIndex(t *testing.T) {
	model, pics := tiny(t), pictures(t)
	other := filepath.Join(t.TempDir(), "other.bundle")
	ok(t, "compile", "--opt", golden+"/facebook/opt-tiny", "--clip", golden+"/openai/clip-tiny", "--heads", golden+"/initial_ckpt.pth.tar", "--dtype", "f32", "-o", other)
	gallery := filepath.Join(t.TempDir(), "other.index")
	ok(t, "index", "build", "-m", other, "-o", gallery, pics)
	for _, args := range [][]string{{"ask", "-m", model, "-i", gallery, "x"}, {"index", "add", "-m", model, "-i", gallery, pics}} {
		code, _, errs := run(t, "", args...)
		if code != exitBad || !strings.Contains(errs, "other.index") {
			t.Errorf("fromage %q = %d, %q, want 2 and the index's name", args, code, errs)
		}
	}
}

func TestPromptOrder(t *testing.T) {
	existing := filepath.Join(t.TempDir(), "with space.png")
	write(t, existing, nil)
	for _, c := range []struct {
		args []string
		want []item
	}{
		{[]string{"a", "--image", "1.png", "b"}, []item{{Text: "a"}, {Image: "1.png"}, {Text: "b"}}},
		{[]string{"--image=1", "--image", "2", "b", "--image", "3"}, []item{{Image: "1"}, {Image: "2"}, {Text: "b"}, {Image: "3"}}},
		{[]string{`Q: x?\nA:`, `a\\n`}, []item{{Text: "Q: x?\nA:"}, {Text: `a\n`}}},
		{[]string{"--no-escapes", `Q: x?\nA:`}, []item{{Text: `Q: x?\nA:`}}},
		{[]string{"b.JPG", "gallery:x/y.webp", "not a.png"}, []item{{Image: "b.JPG"}, {Image: "gallery:x/y.webp"}, {Text: "not a.png"}}},
		{[]string{existing, ".png", "a.txt"}, []item{{Image: existing}, {Text: ".png"}, {Text: "a.txt"}}},
		{[]string{"a", "-", "--image", "1"}, []item{{Text: "a"}, {Text: "from\nstdin"}, {Image: "1"}}},
	} {
		var got []item
		cmd := &cobra.Command{Use: "x", SilenceErrors: true, SilenceUsage: true}
		p := newPromptFlags(cmd)
		cmd.RunE = func(_ *cobra.Command, args []string) (err error) {
			got, err = p.items(t.Context(), args, strings.NewReader("from\nstdin\n"))
			return err
		}
		cmd.SetArgs(c.args)
		if err := cmd.Execute(); err != nil {
			t.Errorf("items(%q): %v", c.args, err)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("items(%q) = %q, want %q", c.args, got, c.want)
		}
	}
}

// full is a disk that is full.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestFullOutput(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"info"}, {"help"}, {"info", "--json"}, {"score", "--device", "cpu", "a cat"}, {"ask", "--device", "cpu", "a cat"}} {
		var errs bytes.Buffer
		if code := doMain(args, strings.NewReader(""), full{}, &errs); code != exitBad || !strings.Contains(errs.String(), "no space left") {
			t.Errorf("fromage %q onto a full disk = %d, %q, want 2 and why", args, code, errs.String())
		}
	}
}

// TestReadTextStops reads from an input that says nothing and does not end.
func TestReadTextStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	defer w.Close()
	cancel()
	if text, err := readText(ctx, r); !errors.Is(err, context.Canceled) {
		t.Errorf("readText(cancelled) = %q, %v, want %v", text, err, context.Canceled)
	}
}

func TestParseLine(t *testing.T) {
	dir := t.TempDir()
	spaced := write(t, filepath.Join(dir, "a b.png"), nil)
	odd := write(t, filepath.Join(dir, `it's "b".png`), nil)
	shell := "'" + strings.ReplaceAll(odd, "'", `'\''`) + "'"
	escaped := strings.ReplaceAll(spaced, " ", `\ `)
	for _, c := range []struct {
		line string
		want []item
	}{
		{"hello there", []item{{Text: "hello there"}}},
		{"what is a.png?", []item{{Text: "what is"}, {Image: "a.png"}, {Text: "?"}}},
		{"a.png b.jpg which?", []item{{Image: "a.png"}, {Image: "b.jpg"}, {Text: "which?"}}},
		{"'" + spaced + "' what?", []item{{Image: spaced}, {Text: "what?"}}},
		{`"` + spaced + `"`, []item{{Image: spaced}}},
		{escaped + " what?", []item{{Image: spaced}, {Text: "what?"}}},
		{"file://" + strings.ReplaceAll(spaced, " ", "%20") + " what?", []item{{Image: spaced}, {Text: "what?"}}},
		{shell + " what?", []item{{Image: odd}, {Text: "what?"}}},
		{`"` + strings.ReplaceAll(odd, `"`, `\"`) + `"`, []item{{Image: odd}}},
		{"is '" + spaced + "'?", []item{{Text: "is"}, {Image: spaced}, {Text: "?"}}},
		{"'" + spaced + "' or '" + spaced + "'", []item{{Image: spaced}, {Text: "or"}, {Image: spaced}}},
		{"it's Tom's cat", []item{{Text: "it's Tom's cat"}}},
		{`say "hello"  to me`, []item{{Text: `say "hello"  to me`}}},
		{"gallery:noto/1.webp", []item{{Image: "gallery:noto/1.webp"}}},
		{`back\slash \`, []item{{Text: `back\slash \`}}},
		{"a .png file", []item{{Text: "a .png file"}}},
		{"'", []item{{Text: "'"}}},
		{"  ", nil},
	} {
		if got := parseLine(c.line); !reflect.DeepEqual(got, c.want) {
			t.Errorf("parseLine(%q) = %q, want %q", c.line, got, c.want)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	for _, s := range []string{"what is a.png?", `'a b.png' "c`, `file:///a%20b.png \`, "~/x.webp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		for _, it := range parseLine(line) {
			if (it.Text == "") == (it.Image == "") {
				t.Errorf("parseLine(%q): want a text or a picture, have %q", line, it)
			}
		}
	})
}

func TestDress(t *testing.T) {
	for _, c := range []struct {
		raw      bool
		in, want []item
	}{
		{false, []item{{Text: "who?"}}, []item{{Text: "Q: who?\nA:"}}},
		{false, []item{{Image: "1"}, {Text: "who?"}}, []item{{Image: "1"}, {Text: "Q: who?\nA:"}}},
		{false, []item{{Text: "is"}, {Image: "1"}, {Text: "it?"}}, []item{{Text: "Q: is"}, {Image: "1"}, {Text: " it?\nA:"}}},
		{false, []item{{Text: "who is"}, {Image: "1"}}, []item{{Text: "Q: who is"}, {Image: "1"}, {Text: "\nA:"}}},
		{false, []item{{Image: "1"}}, []item{{Image: "1"}}},
		{true, []item{{Text: "who?"}}, []item{{Text: "who?"}}},
	} {
		if got := (&chat{raw: c.raw}).dress(c.in); !reflect.DeepEqual(got, c.want) {
			t.Errorf("dress(%q) = %q, want %q", c.in, got, c.want)
		}
	}
	later := &chat{turns: make([]turn, 1)}
	if got, want := later.dress([]item{{Image: "1"}}), []item{{Image: "1"}, {Text: "Q: What is this?\nA:"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("dress(a picture later) = %q, want %q", got, want)
	}
}

func TestInfo(t *testing.T) {
	model := tiny(t)
	out := ok(t, "info", "--verify", "--programs", model)
	for _, want := range []string{"every byte", "opt-tiny", "visual_tokens", "licence", "model.decoder.embed_tokens.weight", "program vision", "program lm", "linear("} {
		if !strings.Contains(out, want) {
			t.Errorf("info = %q, want %q in it", out, want)
		}
	}
	var m struct {
		Settings struct {
			VisualTokens int `json:"visual_tokens"`
		}
	}
	if err := json.Unmarshal([]byte(ok(t, "info", "--json", model)), &m); err != nil || m.Settings.VisualTokens != 1 {
		t.Errorf("info --json: visual_tokens = %d, %v, want 1", m.Settings.VisualTokens, err)
	}
}

func TestScore(t *testing.T) {
	model := tiny(t)
	var ranked []scored
	out := ok(t, "score", "-m", model, "--json", "--tokens", "a b", "--candidate", " c", "--candidate", " d e")
	if err := json.Unmarshal([]byte(out), &ranked); err != nil || len(ranked) != 2 || ranked[0].Sum < ranked[1].Sum {
		t.Fatalf("score --candidate = %s, %v, want two, the likelier first", out, err)
	}
	var whole, before []scored
	for text, into := range map[string]*[]scored{"a b" + ranked[0].Text: &whole, "a b": &before} {
		if err := json.Unmarshal([]byte(ok(t, "score", "-m", model, "--json", text)), into); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := ranked[0].Sum, whole[0].Sum-before[0].Sum; got-want > 1e-3 || want-got > 1e-3 {
		t.Errorf("log p(%q | a b) = %g, want %g, that of the whole less that of the prompt", ranked[0].Text, got, want)
	}
}

func TestVersion(t *testing.T) {
	if out := ok(t, "version"); !strings.HasPrefix(out, "fromage ") {
		t.Errorf("version = %q, want fromage …", out)
	}
}

func TestProgressText(t *testing.T) {
	p := &progressLine{what: "indexing", unit: "pictures"}
	if got, want := p.text(30, 90, 3e9), "indexing: 30/90 pictures, 10/s, 7s left"; got != want {
		t.Errorf("text = %q, want %q", got, want)
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1 kB", 27290845: "27.3 MB", 999_600: "1 MB"} {
		if got := byteSize(n); got != want {
			t.Errorf("byteSize(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	if got, want := printable("a\x1b[2J\tb\nc é"), "a\uFFFD[2J\uFFFDb\nc é"; got != want {
		t.Errorf("printable = %q, want %q", got, want)
	}
}
