// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fromage/internal/testmodel"
)

// captionsFile is a list of the golden pictures, one of them missing, some concepts in several styles.
const captionsFile = "caption\timage\na black icon of cat\tgray_50x70.png\nan emoji of a cat\tgradient_97x61.png\n\"a \"\"big\"\" dog\"\tphoto_301x177.jpg\r\n" +
	"an emoji of owl\tgone.png\na clipart drawing of dog\tnoise_40x200.png\nan emoji of dog\twide_600x9.png\n"

// clipBundle is a bundle of a random CLIP with its text tower.
func clipBundle(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	testmodel.WriteCLIP(t, dir, testmodel.CLIPConfig(1))
	testmodel.WriteCLIPTokenizer(t, dir)
	out := filepath.Join(t.TempDir(), "clip.bundle")
	ok(t, "compile", "--clip", dir, "--clip-text", "--dtype", "f32", "-o", out)
	return out
}

// wantFiles wants an evaluation's folder to hold what it should, and n examples.
func wantFiles(t *testing.T, dir string, n int, parts ...string) {
	t.Helper()
	for _, name := range []string{"scores.json", "examples.jsonl", "report.html", "journal.jsonl"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case "scores.json":
			if !json.Valid(data) {
				t.Errorf("%s: %.100q is not JSON", name, data)
			}
		case "examples.jsonl":
			if lines := strings.Count(string(data), "\n"); lines != n {
				t.Errorf("%s: %d lines, want %d", name, lines, n)
			}
		case "report.html":
			for _, part := range append(parts, "data:image/", "R@1") {
				if !strings.Contains(string(data), part) {
					t.Errorf("%s has no %q", name, part)
				}
			}
		}
	}
}

// TestEvalCaptions measures twice, the second time from the journal, and in the short form.
func TestEvalCaptions(t *testing.T) {
	model, images, cache, out := tiny(t), pictures(t), t.TempDir(), filepath.Join(t.TempDir(), "out")
	data := write(t, filepath.Join(t.TempDir(), "val.tsv"), []byte(captionsFile))
	args := []string{"eval", "captions", "-m", model, "--data", data, "--images", images, "--feature-cache", cache, "--words", "4", "--clip", clipBundle(t), "--train", data, "-o", out}
	code, text, errs := run(t, "", args...)
	if code != exitOK || !strings.Contains(text, "5 captioned pictures, 1 left out") || !strings.Contains(text, "CLIP: text → image") || !strings.Contains(errs, "left out: gone.png: ") {
		t.Fatalf("eval captions = %d, %s%s", code, text, errs)
	}
	wantFiles(t, out, 5, "a &#34;big&#34; dog", "found by CLIP")
	if again := ok(t, args...); again != text {
		t.Errorf("from the journal: %s, want %s", again, text)
	}
	var scores struct {
		Examples int     `json:"examples"`
		CE       float64 `json:"ce"`
		T2I      struct {
			R10 float64 `json:"r10"`
		} `json:"text_to_image"`
	}
	short := ok(t, "eval", "-m", model, "--val", data, "--images", images, "--feature-cache", cache, "--words", "0", "--limit", "2", "--json")
	if err := json.Unmarshal([]byte(short), &scores); err != nil || scores.Examples != 2 || scores.CE <= 0 || scores.T2I.R10 != 100 {
		t.Errorf("eval --val --limit 2 --json = %s, %v", short, err)
	}
	code, _, errs = run(t, "", append(args, "--words", "5")...)
	if code != exitBad || !strings.Contains(errs, "another model, other data or other options") {
		t.Errorf("another option in the same folder: %d, %s", code, errs)
	}
}

func TestEvalCompose(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	data := write(t, filepath.Join(t.TempDir(), "val.tsv"), []byte(captionsFile))
	text := ok(t, "eval", "compose", "-m", tiny(t), "--data", data, "--images", pictures(t), "--feature-cache", t.TempDir(), "--clip", clipBundle(t), "-o", out)
	if !strings.Contains(text, "4 compositions over 5 pictures, 1 left out") || strings.Count(text, "\n") != 8 {
		t.Errorf("eval compose = %s", text)
	}
	wantFiles(t, out, 4, "as an emoji", "the model says")
}

// storiesFile is a story-in-sequence file over pictures 0 … 5, of which the last is missing in the second story.
func storiesFile(t *testing.T) string {
	t.Helper()
	var images, annotations []any
	for i := range 6 {
		images = append(images, map[string]any{"id": fmt.Sprint(i), "url_o": "https://example.org"})
	}
	for story := range 2 {
		for n := range 5 {
			annotations = append(annotations, []any{map[string]any{"story_id": fmt.Sprint("s", story), "text": fmt.Sprint("this is ", n), "photo_flickr_id": fmt.Sprint(n + story)}})
		}
	}
	data, err := json.Marshal(map[string]any{"images": images, "annotations": annotations})
	if err != nil {
		t.Fatal(err)
	}
	return write(t, filepath.Join(t.TempDir(), "sis.json"), data)
}

// numbered copies golden pictures to names of their own.
func numbered(t *testing.T, names ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "numbered")
	if err := os.MkdirAll(filepath.Join(dir, "deep"), 0o777); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("../../testdata/golden/clip/vision/images/gradient_97x61.png")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		write(t, filepath.Join(dir, "deep", name), data)
	}
	return dir
}

func TestEvalVIST(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	code, text, errs := run(t, "", "eval", "vist", "-m", tiny(t), "--sis", storiesFile(t), "--images", numbered(t, "0.png", "1.png", "2.png", "3.png", "4.png"),
		"--feature-cache", t.TempDir(), "--clip", clipBundle(t), "-o", out)
	if code != exitOK || !strings.Contains(text, "1 stories over 5 pictures, 1 left out") || !strings.Contains(text, "18.2") || !strings.Contains(errs, "left out: s1: picture 5 is missing") {
		t.Errorf("eval vist = %d, %s%s", code, text, errs)
	}
	wantFiles(t, out, 1, "story s0", "this is 4", "51.8")
}

func TestEvalVisDial(t *testing.T) {
	var rounds []any
	for n := range 3 {
		rounds = append(rounds, map[string]any{"question": n % 2, "answer": n, "answer_options": []int{0, 1, 2}, "gt_index": n})
	}
	dialogs, err := json.Marshal(map[string]any{"split": "val2018", "data": map[string]any{"questions": []string{"is it a cat", "what is it"}, "answers": []string{"no", "yes", "a dog"},
		"dialogs": []any{map[string]any{"image_id": 7, "dialog": rounds}, map[string]any{"image_id": 9, "dialog": rounds}}}})
	if err != nil {
		t.Fatal(err)
	}
	dense := `[{"image_id": 7, "round_id": 2, "gt_relevance": [0, 1, 0.5]}, {"image_id": 9, "round_id": 1, "gt_relevance": [1, 0, 0]}]`
	out := filepath.Join(t.TempDir(), "out")
	code, text, errs := run(t, "", "eval", "visdial", "-m", tiny(t), "--dialogs", write(t, filepath.Join(t.TempDir(), "d.json"), dialogs),
		"--dense", write(t, filepath.Join(t.TempDir(), "dense.json"), []byte(dense)), "--images", numbered(t, "VisualDialog_val2018_000000000007.png"),
		"--feature-cache", t.TempDir(), "--clip", clipBundle(t), "-o", out)
	if code != exitOK || !strings.Contains(text, "1 dialogues of 3 rounds, 1 left out") || !strings.Contains(text, "as published") || !strings.Contains(errs, "left out: 000000000009: ") {
		t.Errorf("eval visdial = %d, %s%s", code, text, errs)
	}
	wantFiles(t, out, 1, "is it a cat", "of 3)")
}

// TestEvalErrors: bad input is one line that names the file or the flag.
func TestEvalErrors(t *testing.T) {
	data := write(t, filepath.Join(t.TempDir(), "val.tsv"), []byte(captionsFile))
	bad := write(t, filepath.Join(t.TempDir(), "bad.tsv"), []byte("text\turl\na\tb\n"))
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"captions"}, "want --data FILE"},
		{[]string{"vist"}, "want --sis FILE"},
		{[]string{"visdial"}, "want --dialogs FILE"},
		{[]string{"compose"}, "want --data FILE"},
		{[]string{"captions", "--data", bad}, bad + ": line 1: want a header with the columns caption and image"},
		{[]string{"captions", "--data", "nowhere.tsv"}, "nowhere.tsv"},
		{[]string{"captions", "--data", data, "--limit", "-1"}, "--limit"},
		{[]string{"captions", "--data", data, "--baseline", "blip"}, `--baseline: want clip, have "blip"`},
		{[]string{"captions", "--data", data, "--images", "nowhere"}, "nowhere"},
		{[]string{"captions", "--data", data, "--images", bad}, bad},
		{[]string{"vist", "--sis", bad}, bad},
		{[]string{"compose", "--data", data, "nonsense"}, "want 0, have 1"},
	} {
		code, out, errs := run(t, "", append([]string{"eval"}, c.args...)...)
		if code != exitBad || out != "" || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("eval %q = %d, %q, want %d and one line with %q", c.args, code, out+errs, exitBad, c.want)
		}
	}
	code, _, errs := run(t, "", "eval", "captions", "-m", tiny(t), "--data", data, "--images", pictures(t), "--feature-cache", t.TempDir(), "--baseline", "clip")
	if code != exitBad || !strings.Contains(errs, "no CLIP text tower") || !strings.Contains(errs, "--clip-text") {
		t.Errorf("a baseline that the bundle has not: %d, %s", code, errs)
	}
}

// TestRetrieveWithCLIP finds pictures of an index by CLIP's towers.
func TestRetrieveWithCLIP(t *testing.T) {
	model, folder := tiny(t), pictures(t)
	index := filepath.Join(t.TempDir(), "a.index")
	ok(t, "index", "build", "-m", model, "-o", index, folder)
	args := []string{"retrieve", "-m", model, "-i", index, "--with", "clip", "--clip", clipBundle(t), "--feature-cache", t.TempDir(), "-k", "3", "the cat"}
	if out := ok(t, args...); strings.Count(out, "\n") != 3 || !strings.Contains(out, folder) {
		t.Errorf("retrieve --with clip = %s, want 3 of the folder's pictures", out)
	}
	for _, c := range []struct{ with, want string }{{"blip", "--with: want clip"}} {
		if code, _, errs := run(t, "", "retrieve", "--with", c.with, "the cat"); code != exitBad || !strings.Contains(errs, c.want) {
			t.Errorf("retrieve --with %s = %d, %s", c.with, code, errs)
		}
	}
	code, _, errs := run(t, "", append(args, "--image", filepath.Join(folder, "gray_50x70.png"))...)
	if code != exitBad || !strings.Contains(errs, "text alone") {
		t.Errorf("retrieve --with clip and a picture = %d, %s", code, errs)
	}
}
