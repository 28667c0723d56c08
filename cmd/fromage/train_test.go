// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fromage/gpu"
	"fromage/internal/atomicfile"
	"fromage/trainer"
)

// captioned makes a folder of small pictures and a TSV of them, and returns the TSV.
func captioned(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	rows := "caption\timage\n"
	for i := range n {
		m := image.NewRGBA(image.Rect(0, 0, 8+i, 9))
		for x := range 8 + i {
			for y := range 9 {
				m.Set(x, y, color.RGBA{uint8(31 * i), uint8(20 * x), uint8(200 - 20*y), 255})
			}
		}
		var b bytes.Buffer
		if err := png.Encode(&b, m); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%d.png", i)
		write(t, filepath.Join(dir, name), b.Bytes())
		rows += fmt.Sprintf("number %d of some pictures\t%s\n", i, name)
	}
	return write(t, filepath.Join(dir, "all.tsv"), []byte(rows))
}

// frozen are the flags of the golden model's frozen parts, and of a short run; more follow and win.
func frozen(tsv, out string, more ...string) []string {
	return append([]string{
		"train", "--device", "cpu", "--opt", golden + "/facebook/opt-tiny", "--clip", golden + "/openai/clip-tiny", "--data", tsv, "-o", out,
		"--feature-cache", filepath.Join(filepath.Dir(tsv), "cache"), "-b", "3", "--epochs", "2", "--steps-per-epoch", "3",
		"--lr", "0.01", "--lr-warmup-steps", "1", "--print-freq", "1", "--checkpoint-every", "2",
	}, more...)
}

// stopper is a standard error that cancels when a text has been written to it.
type stopper struct {
	bytes.Buffer
	text   string
	cancel context.CancelFunc
}

func (s *stopper) Write(p []byte) (int, error) {
	n, err := s.Buffer.Write(p)
	if s.text == "" || strings.Contains(s.String(), s.text) {
		s.cancel()
	}
	return n, err
}

// stopped runs the program until it writes text, or from the start without one, as Ctrl-C does.
func stopped(t *testing.T, text string, args ...string) (code int, stderr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	errs := &stopper{text: text, cancel: cancel}
	if text == "" {
		cancel()
	}
	code = runMain(ctx, cancel, args, strings.NewReader(""), &out, errs)
	return code, errs.String()
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// resumed goes on with a run and wants the files of one that was left alone, to the bit.
func resumed(t *testing.T, dir, whole string) {
	t.Helper()
	ok(t, "train", "--resume", dir)
	for _, name := range []string{trainer.CheckpointFile, trainer.BestFile} {
		if !bytes.Equal(read(t, filepath.Join(dir, name)), read(t, filepath.Join(whole, name))) {
			t.Errorf("%s: differs from that of a run that was left alone", filepath.Join(dir, name))
		}
	}
}

// TestTrainInterrupted stops a run where it prepares and where it measures, again and again, and damages what a kill damages.
func TestTrainInterrupted(t *testing.T) {
	tsv, base := captioned(t, 7), t.TempDir()
	whole := filepath.Join(base, "whole")
	out := ok(t, frozen(tsv, whole, "--val", tsv)...)
	for _, want := range []string{whole, "6 steps over 7 examples"} {
		if !strings.Contains(out, want) {
			t.Errorf("train = %q, want %q in it", out, want)
		}
	}
	for _, name := range []string{trainArgsFile, baseFile, reportFile, trainer.MetricsFile} {
		read(t, filepath.Join(whole, name))
	}

	dir := filepath.Join(base, "stopped")
	args := frozen(tsv, dir, "--val", tsv)
	for _, text := range []string{"", "step 0:", "step 3:", "step 6:"} {
		code, errs := stopped(t, text, args...)
		if code != exitInterrupted || !strings.Contains(errs, "train --resume "+dir) {
			t.Fatalf("stopped at %q: %d, %q, want 130 and how to go on", text, code, errs)
		}
		args = []string{"train", "--device", "cpu", "--resume", dir}
	}
	resumed(t, dir, whole)

	// A kill leaves a torn last line and a temporary file.
	torn := filepath.Join(base, "torn")
	if code, errs := stopped(t, "step 3:", frozen(tsv, torn, "--val", tsv)...); code != exitInterrupted {
		t.Fatalf("stopped: %d, %q", code, errs)
	}
	metrics := filepath.Join(torn, trainer.MetricsFile)
	write(t, metrics, append(read(t, metrics), `{"step":4,"scal`...))
	write(t, filepath.Join(torn, "."+trainer.CheckpointFile+".123.part"), []byte("half"))
	resumed(t, torn, whole)
	if left, _ := filepath.Glob(filepath.Join(torn, ".*")); left != nil {
		t.Errorf("the run leaves %v behind", left)
	}
	rows, err := trainer.ReadMetrics(metrics)
	if err != nil {
		t.Fatal(err)
	}
	var steps []int
	for _, r := range rows {
		steps = append(steps, r.Step)
	}
	if want := []int{0, 1, 2, 3, 3, 4, 5, 6, 6}; !slices.Equal(steps, want) {
		t.Errorf("rows of metrics are of steps %v, want %v", steps, want)
	}
	// A run that has ended goes on to nothing.
	resumed(t, torn, whole)
}

// TestTrainWithoutVal: there is no best checkpoint, the last one is exported.
func TestTrainWithoutVal(t *testing.T) {
	tsv, dir := captioned(t, 4), filepath.Join(t.TempDir(), "run")
	var said struct {
		Steps, Examples int
		Checkpoint      string
	}
	// Fewer examples than a batch, an odd number of them, always in pairs; three steps an update, of which an epoch's last is alone.
	out := ok(t, frozen(tsv, dir, "-b", "3", "--concat-captions-prob", "1", "--grad-accumulation-steps", "2", "--json")...)
	if err := json.Unmarshal([]byte(out), &said); err != nil || said.Steps != 6 || said.Examples != 4 || said.Checkpoint != filepath.Join(dir, trainer.CheckpointFile) {
		t.Errorf("train --json = %s, %v", out, err)
	}
	s, meta, err := trainer.ReadState(said.Checkpoint)
	if err != nil || meta["step"] != "6" || s.Updates != 4 {
		t.Errorf("the checkpoint is of step %s and %d updates, %v, want 6 and 4", meta["step"], s.Updates, err)
	}
	small := filepath.Join(t.TempDir(), "run")
	ok(t, frozen(tsv, small, "-b", "180", "--epochs", "1")...)
	heads := filepath.Join(t.TempDir(), "h.safetensors")
	if out := ok(t, "export", small, "-o", heads); !strings.Contains(out, "step 3") {
		t.Errorf("export = %q, want step 3 in it", out)
	}
}

// TestExport: heads, a bundle and the reference's layout of a run are the same heads.
func TestExport(t *testing.T) {
	tsv := captioned(t, 5)
	for _, c := range []struct {
		name, dtype string
		layers      []int
		more        []string
	}{
		{"one token", "f16", []int{-1}, nil},
		{"four tokens and two layers", "q8", []int{-1, 0}, []string{"--n-visual-tokens", "4", "--text-emb-layers", "-1,0", "--dtype", "q8"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			made, at := filepath.Join(dir, "run"), func(name string) string { return filepath.Join(dir, name) }
			ok(t, frozen(tsv, made, append(c.more, "--val", tsv, "--val-bleu", "--publish", at("published"))...)...)
			if err := os.Mkdir(at("released"), 0o777); err != nil {
				t.Fatal(err)
			}
			out := ok(t, "export", made, "-o", at("heads.safetensors"), "--bundle", at("whole.bundle"), "--reference", at("released/pretrained_ckpt.pth.tar"), "--json")
			var said struct {
				Files      []string
				From, Step string
			}
			if err := json.Unmarshal([]byte(out), &said); err != nil || len(said.Files) != 3 || said.From != filepath.Join(made, trainer.BestFile) {
				t.Errorf("export --json = %s, %v", out, err)
			}
			var args struct {
				OPT    string `json:"opt_version"`
				CLIP   string `json:"visual_encoder"`
				Layers []int  `json:"text_emb_layers"`
			}
			if err := json.Unmarshal(read(t, at("released/model_args.json")), &args); err != nil || args.OPT != "facebook/opt-tiny" || args.CLIP != "openai/clip-tiny" || !slices.Equal(args.Layers, c.layers) {
				t.Errorf("model_args.json = %+v, %v", args, err)
			}
			want := headsHash(t, at("whole.bundle"))
			if want == headsHash(t, filepath.Join(made, baseFile)) {
				t.Error("the exported bundle has the heads of the frozen model")
			}
			for _, heads := range []string{"heads.safetensors", "released", "released/pretrained_ckpt.pth.tar"} {
				ok(t, "compile", "--opt", golden+"/facebook/opt-tiny", "--clip", golden+"/openai/clip-tiny", "--heads", at(heads), "--dtype", c.dtype, "-o", at("again.bundle"))
				if have := headsHash(t, at("again.bundle")); have != want {
					t.Errorf("compiled with %s: heads_hash %s, want %s as in the exported bundle", heads, have, want)
				}
			}
			ok(t, "info", "--verify", at("whole.bundle"))
			ok(t, "export", made, "--last", "-o", at("last.safetensors"))
			for _, name := range []string{"heads.safetensors", "heads-000006.safetensors"} {
				if !bytes.Equal(read(t, filepath.Join(at("published"), name)), read(t, at("last.safetensors"))) {
					t.Errorf("the published %s is not what export --last makes", name)
				}
			}
			picture := filepath.Join(filepath.Dir(tsv), "0.png")
			ok(t, "ask", "-m", at("whole.bundle"), "--num-words", "3", "--image", picture, "What is this?")
			if code, _, errs := run(t, "hello\n", "chat", "-m", at("whole.bundle"), "--num-words", "3"); code != exitOK {
				t.Errorf("chat with the exported bundle = %d, %q", code, errs)
			}
		})
	}
}

func headsHash(t *testing.T, path string) string {
	t.Helper()
	var said struct {
		Settings struct {
			HeadsHash string `json:"heads_hash"`
		}
	}
	out := ok(t, "info", "--json", path)
	if err := json.Unmarshal([]byte(out), &said); err != nil || len(said.Settings.HeadsHash) != 64 {
		t.Fatalf("info --json %s = %.200s, %v, want a heads_hash", path, out, err)
	}
	return said.Settings.HeadsHash
}

// TestTrainOnBundle: a run on a bundle begins anew, or with --from-heads where the bundle is; its heads go back into the bundle.
func TestTrainOnBundle(t *testing.T) {
	tsv, dir := captioned(t, 5), t.TempDir()
	model := filepath.Join(dir, "q8.bundle")
	ok(t, "compile", "--opt", golden+"/facebook/opt-tiny", "--clip", golden+"/openai/clip-tiny", "--heads", golden+"/fromage_model_pretrained_ckpt.pth.tar", "--dtype", "q8", "-o", model)
	var measured struct{ CE float64 }
	out := ok(t, "eval", "-m", model, "--val", tsv, "--words", "0", "--feature-cache", filepath.Join(dir, "cache"), "--json")
	if err := json.Unmarshal([]byte(out), &measured); err != nil || measured.CE == 0 {
		t.Fatalf("eval --json = %s, %v", out, err)
	}
	for i, from := range []bool{false, true} {
		folder, bundle := filepath.Join(dir, fmt.Sprint("run", from)), filepath.Join(dir, "out.bundle")
		args := []string{
			"train", "-m", model, "--data", tsv, "--val", tsv, "-o", folder, "--feature-cache", filepath.Join(dir, "cache"), "-b", "2",
			"--epochs", "1", "--steps-per-epoch", "2", "--lr-warmup-steps", "0", fmt.Sprintf("--from-heads=%t", from),
			"--activations", []string{"f32", "f16"}[i],
		}
		ok(t, args...)
		rows, err := trainer.ReadMetrics(filepath.Join(folder, trainer.MetricsFile))
		if err != nil || len(rows) < 2 {
			t.Fatalf("%d rows of metrics, %v", len(rows), err)
		}
		if have := rows[0].Scalars["val/ce_loss"]; (have == measured.CE) != from {
			t.Errorf("--from-heads=%t: captioning begins at %g, the bundle's is %g", from, have, measured.CE)
		}
		ok(t, "export", folder, "--last", "--bundle", bundle)
		ok(t, "ask", "-m", bundle, "--num-words", "2", "x")
		if headsHash(t, bundle) == headsHash(t, model) {
			t.Errorf("--from-heads=%t: the exported bundle has the old heads", from)
		}
		if have := strings.Contains(string(read(t, filepath.Join(folder, trainArgsFile))), `"activations": "f16"`); have != from {
			t.Errorf("%s says f16: %v, want %v", trainArgsFile, have, from)
		}
		code, _, errs := run(t, "", "export", folder, "--reference", filepath.Join(dir, "x.pth.tar"))
		if code != exitBad || !strings.Contains(errs, "--opt-version") {
			t.Errorf("export --reference of a run on a bundle = %d, %q, want 2 and --opt-version", code, errs)
		}
		ok(t, "export", folder, "--reference", filepath.Join(dir, "x.pth.tar"), "--opt-version", "a/b", "--visual-encoder", "c/d")
	}
}

// TestTrainOddData: what cannot be used is left out, counted and listed; the rest is trained on.
func TestTrainOddData(t *testing.T) {
	tsv := captioned(t, 3)
	dir := filepath.Dir(tsv)
	write(t, filepath.Join(dir, "text.png"), []byte("this is no picture"))
	odd := "caption\timage\r\n" +
		"\"a \"\"quoted\"\"\tcaption\r\nover lines\"\t0.png\r\n" + // quotes, a tab, CRLF within and without
		"\t1.png\r\n" + // empty
		strings.Repeat("long caption ", 800) + "\t2.png\r\n" +
		"a picture [RET] of something\t0.png\r\n" +
		"missing\tnone.png\r\n" +
		"missing again\tnone.png\r\n" +
		"no picture\ttext.png\r\n" +
		"outside\t../secret.png\r\n"
	path, folder := write(t, filepath.Join(dir, "odd.tsv"), []byte(odd)), filepath.Join(t.TempDir(), "run")
	code, out, errs := run(t, "", frozen(path, folder, "--images", dir, "--val", path)...)
	if code != exitOK || !strings.Contains(out, "over 3 examples") {
		t.Fatalf("train = %d, %q, %q, want 0 and 3 examples", code, out, errs)
	}
	if want := "5 of 8 examples are left out: 3 pictures cannot be read, 1 captions contain [RET] or <pad>"; !strings.Contains(errs, want) {
		t.Errorf("standard error = %q, want %q in it", errs, want)
	}
	var left skipped
	if err := json.Unmarshal(read(t, filepath.Join(folder, skippedFile)), &left); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range left.Pictures {
		if names = append(names, p.Image); !strings.HasPrefix(p.Error, p.Image+": ") {
			t.Errorf("skipped: %+v, want an error that names the picture", p)
		}
	}
	if !slices.Equal(names, []string{"none.png", "text.png", "../secret.png"}) || !slices.Equal(left.Captions, []string{"a picture [RET] of something"}) {
		t.Errorf("skipped: %+v", left)
	}
}

// TestTrainDiverges: a loss that is no number ends the run, with the step, its examples and the last good checkpoint.
func TestTrainDiverges(t *testing.T) {
	tsv := captioned(t, 6)
	for seed := 0; ; seed++ {
		if seed == 20 {
			t.Fatal("no seed makes the loss infinite")
		}
		folder := filepath.Join(t.TempDir(), "run")
		code, _, errs := run(t, "", frozen(tsv, folder, "--lr", "900", "--lr-warmup-steps", "0", "--beta1", "0", "--seed", fmt.Sprint(seed))...)
		if code == exitOK {
			continue
		}
		line, _, more := strings.Cut(strings.TrimSpace(errs), "\n")
		if code != exitBad || more || strings.Contains(line, "--resume") {
			t.Errorf("train = %d, %q, want 2 and one line that does not say --resume", code, errs)
		}
		for _, want := range []string{"fromage: step ", "not a finite number", filepath.Join(folder, trainer.FailedFile), filepath.Join(folder, trainer.CheckpointFile)} {
			if !strings.Contains(line, want) {
				t.Errorf("standard error = %q, want %q in it", line, want)
			}
		}
		var failed struct {
			Step     int
			Examples []string
		}
		if err := json.Unmarshal(read(t, filepath.Join(folder, trainer.FailedFile)), &failed); err != nil || failed.Step == 0 || len(failed.Examples) != 3 {
			t.Errorf("%s = %+v, %v, want a step and 3 examples", trainer.FailedFile, failed, err)
		}
		if _, _, err := trainer.ReadState(filepath.Join(folder, trainer.CheckpointFile)); err != nil {
			t.Error(err)
		}
		return
	}
}

// TestTrainBadInput: one line, exit code 2, and no folder left of a run that did not begin.
func TestTrainBadInput(t *testing.T) {
	tsv := captioned(t, 4)
	dir := filepath.Dir(tsv)
	rows := func(name, text string) string { return write(t, filepath.Join(dir, name), []byte(text)) }
	file := rows("file", "x")
	done := filepath.Join(t.TempDir(), "done")
	ok(t, frozen(tsv, done, "--epochs", "1")...)
	opt := filepath.Join(t.TempDir(), "opt.bundle")
	ok(t, "compile", "--opt", golden+"/facebook/opt-tiny", "-o", opt)
	for _, c := range []struct {
		name string
		more []string
		want []string
	}{
		{"header", []string{"--data", rows("header.tsv", "text\turl\na\tb\n")}, []string{"header.tsv", "line 1", "caption"}},
		{"validation's header", []string{"--val", rows("val.tsv", "a,b\n")}, []string{"val.tsv", "line 1"}},
		{"row", []string{"--data", rows("row.tsv", "caption\timage\na\n")}, []string{"row.tsv", "line 2"}},
		{"no data", []string{"--data", dir + "/none.tsv"}, []string{"none.tsv"}},
		{"no pictures", []string{"--images", dir + "/none"}, []string{dir + "/none"}},
		{"pictures in a text", []string{"--images", file}, []string{file}},
		{"all pictures missing", []string{"--images", t.TempDir()}, []string{tsv, "0 of 4", "0.png"}},
		{"all validation pictures missing", []string{"--val", tsv, "--val-images", t.TempDir()}, []string{tsv, "have 0"}},
		{"one example", []string{"--data", rows("one.tsv", "caption\timage\na\t0.png\n")}, []string{"one.tsv", "1 of 1"}},
		{"captions with [RET]", []string{"--data", rows("ret.tsv", "caption\timage\na[RET]\t0.png\n[RET]\t1.png\n")}, []string{"ret.tsv", "0 of 2", "[RET]"}},
		{"no OPT", []string{"--opt", dir}, []string{dir, "config.json"}},
		{"no CLIP", []string{"--clip", golden + "/facebook/opt-tiny"}, []string{"opt-tiny"}},
		{"both ways", []string{"-m", opt}, []string{"-m, not both"}},
		{"OPT alone", []string{"--opt", "", "--clip", "", "-m", opt}, []string{opt, "heads"}},
		{"no bundle", []string{"--opt", "", "--clip", "", "-m", file}, []string{file}},
		{"heads of no bundle", []string{"--from-heads"}, []string{"--from-heads", "-m"}},
		{"tokens of a bundle", []string{"--opt", "", "--clip", "", "-m", opt, "--n-visual-tokens", "2"}, []string{"--n-visual-tokens"}},
		{"learning rate", []string{"--lr", "-1"}, []string{"--lr"}},
		{"learning rate that is no number", []string{"--lr", "NaN"}, []string{"--lr"}},
		{"batch of one", []string{"-b", "1"}, []string{"--batch-size"}},
		{"probability", []string{"--concat-captions-prob", "1.5"}, []string{"--concat-captions-prob"}},
		{"length", []string{"--max-len", "100"}, []string{"--max-len", "128 positions"}},
		{"short length", []string{"--max-len", "2"}, []string{"--max-len"}},
		{"layer", []string{"--text-emb-layers", "7"}, []string{"text_emb_layers", "7"}},
		{"no visual tokens", []string{"--n-visual-tokens", "0"}, []string{"--n-visual-tokens"}},
		{"memory", []string{"--memory", "much"}, []string{"--memory", "much"}},
		{"activations", []string{"--activations", "q4"}, []string{"--activations", "f32 or f16", "q4"}},
		{"dtype", []string{"--dtype", "q5"}, []string{"--dtype", "q5"}},
		{"a name in a folder", []string{"--publish", dir, "--publish-name", "x"}, []string{"--publish-name"}},
		{"measures of nothing", []string{"--val-bleu"}, []string{"--val FILE"}},
		{"onto a file", []string{"-o", file}, []string{file}},
		{"into a file", []string{"-o", file + "/run"}, []string{file}},
		{"onto a run", []string{"-o", done}, []string{done, "--resume"}},
		{"nowhere", []string{"-o", ""}, []string{"-o DIR"}},
	} {
		folder := filepath.Join(t.TempDir(), "run")
		bad(t, c.name, c.want, frozen(tsv, folder, c.more...)...)
		if _, err := os.Lstat(folder); err == nil {
			t.Errorf("%s: %s was left behind", c.name, folder)
		}
	}
}

// bad wants one line of error and exit code 2.
func bad(t *testing.T, name string, want []string, args ...string) {
	t.Helper()
	code, _, errs := run(t, "", args...)
	line, rest, _ := strings.Cut(strings.TrimSpace(errs), "\n")
	if code != exitBad || rest != "" || !strings.HasPrefix(line, "fromage: ") {
		t.Errorf("%s: fromage %q = %d, %q, want 2 and one line", name, args, code, errs)
	}
	for _, w := range want {
		if !strings.Contains(line, w) {
			t.Errorf("%s: standard error = %q, want %q in it", name, line, w)
		}
	}
}

// TestResumeBad: folders that are no runs, or runs that were damaged, say what is wrong and stay as they are.
func TestResumeBad(t *testing.T) {
	tsv := captioned(t, 4)
	good := filepath.Join(t.TempDir(), "run")
	if code, errs := stopped(t, "step 3:", frozen(tsv, good, "--val", tsv)...); code != exitInterrupted {
		t.Fatalf("stopped: %d, %q", code, errs)
	}
	args := string(read(t, filepath.Join(good, trainArgsFile)))
	for _, c := range []struct {
		name, file string
		change     func(data string) string
		want       []string
	}{
		{"no arguments", trainArgsFile, nil, []string{"folder of a run", trainArgsFile}},
		{"arguments of garbage", trainArgsFile, func(string) string { return "{" }, []string{trainArgsFile}},
		{"two arguments", trainArgsFile, func(string) string { return args + args }, []string{trainArgsFile, "more"}},
		{"negative batch", trainArgsFile, func(s string) string { return strings.Replace(s, `"batch-size": 3`, `"batch-size": -3`, 1) }, []string{trainArgsFile, "--batch-size", "-3"}},
		{"batch in words", trainArgsFile, func(s string) string { return strings.Replace(s, `"batch-size": 3`, `"batch-size": "three"`, 1) }, []string{trainArgsFile, "batch-size"}},
		{"unknown argument", trainArgsFile, func(s string) string { return strings.Replace(s, `"lr"`, `"rate"`, 1) }, []string{trainArgsFile, "rate"}},
		{"no data", trainArgsFile, func(s string) string { return strings.Replace(s, "all.tsv", "none.tsv", 2) }, []string{"none.tsv"}},
		{"fewer steps", trainArgsFile, func(s string) string {
			return strings.NewReplacer(`"epochs": 2`, `"epochs": 1`, `"steps-per-epoch": 3`, `"steps-per-epoch": 2`).Replace(s)
		}, []string{trainer.CheckpointFile, "step"}},
		{"memory", trainArgsFile, func(s string) string { return strings.Replace(s, `"data"`, `"memory": "-1GB", "data"`, 1) }, []string{trainArgsFile, "--memory"}},
		{"flipped checkpoint", trainer.CheckpointFile, func(s string) string { return s[:len(s)-9] + "\x7f" + s[len(s)-8:] }, []string{trainer.CheckpointFile, "damaged"}},
		{"short checkpoint", trainer.CheckpointFile, func(s string) string { return s[:len(s)/2] }, []string{trainer.CheckpointFile}},
		{"empty checkpoint", trainer.CheckpointFile, func(string) string { return "" }, []string{trainer.CheckpointFile}},
		{"metrics", trainer.MetricsFile, func(s string) string { return strings.Replace(s, "scalars", "sca\nlars", 1) }, []string{trainer.MetricsFile, "line 1"}},
		{"base", baseFile, func(s string) string { return s[:len(s)/2] }, []string{baseFile}},
	} {
		dir := filepath.Join(t.TempDir(), "run")
		if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, c.file)
		if c.change == nil {
			os.Remove(path)
		} else {
			write(t, path, []byte(c.change(string(read(t, path)))))
		}
		before := names(t, dir)
		bad(t, c.name, c.want, "train", "--resume", dir)
		if after := names(t, dir); !slices.Equal(before, after) {
			t.Errorf("%s: the folder held %v, and now %v", c.name, before, after)
		}
	}
	bad(t, "a file", []string{tsv}, "train", "--resume", tsv)
	bad(t, "nothing", []string{"none"}, "train", "--resume", filepath.Join(good, "none"))
	bad(t, "an empty name", []string{"folder of a run"}, "train", "--resume", "")
	bad(t, "with other flags", []string{"--resume", "--lr"}, "train", "--resume", good, "--lr", "1")
	bad(t, "with a model", []string{"--resume", "--model"}, "train", "--resume", good, "-m", "x")
	bad(t, "exporting no run", []string{"folder of a run"}, "export", filepath.Dir(tsv), "-o", filepath.Join(t.TempDir(), "x"))
	bad(t, "exporting to nothing", []string{"-o FILE"}, "export", good)
	bad(t, "exporting into nothing", []string{"none"}, "export", good, "-o", filepath.Join(good, "none", "x"))
	f, err := os.Open(filepath.Join(good, trainArgsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := atomicfile.Lock(f); err != nil {
		t.Fatal(err)
	}
	bad(t, "twice at once", []string{good, "another program"}, "train", "--resume", good)
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// TestTrainLost: a device that is lost is told in one line, with how to go on.
func TestTrainLost(t *testing.T) {
	var errs bytes.Buffer
	a := &app{stderr: &errs, log: discard}
	made := &training{a: a, dir: "runs/mine", run: &trainer.Run{}}
	code := a.exit(made.finish(t.Context(), fmt.Errorf("gpu/native: submit: %w", gpu.ErrLost)))
	if want := "fromage: gpu/native: submit: device lost; fromage train --resume runs/mine goes on after step 0\n"; code != exitBad || errs.String() != want {
		t.Errorf("exit = %d, %q, want 2 and %q", code, errs.String(), want)
	}
}

// TestBenchTrain measures training of a small bundle, as JSON and as a table.
func TestBenchTrain(t *testing.T) {
	model := tiny(t)
	args := []string{"bench", "train", "-m", model, "--batch", "3", "--tokens", "5", "--seconds", "0"}
	var said benchTrainReport
	out := ok(t, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &said); err != nil || len(said.Models) != 1 || said.Device.Host != "cpu" {
		t.Fatalf("bench train --json = %s, %v, want one model", out, err)
	}
	if m := said.Models[0]; m.Batch != 3 || m.Tokens != 5 || !(m.ExamplesPS > 0) || len(m.Parts) != len(trainer.Parts) || m.Memory.Weights == 0 {
		t.Errorf("bench train --json = %+v", m)
	}
	table := ok(t, args...)
	for _, want := range append(slices.Clone(trainer.Parts), "examples/s", "batches of 3 captions of 5 tokens", "rest") {
		if !strings.Contains(table, want) {
			t.Errorf("bench train = %q, want %q in it", table, want)
		}
	}
	for _, c := range [][]string{{"--batch", "1"}, {"--tokens", "1"}, {"--seconds", "-1"}, {"--seconds", "NaN"}, {"--memory", "x"}, {"--activations", "q8"}, {"--activations", "f8"}, {"--dtype", "q5"}, {"--shape", "7b"}} {
		bad(t, c[0], []string{c[0]}, "bench", "train", c[0], c[1])
	}
	bad(t, "long captions", []string{"captions of 2 to 63 tokens"}, "bench", "train", "-m", model, "--tokens", "100")
}
