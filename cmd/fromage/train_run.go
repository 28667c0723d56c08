// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"fromage/compiler"
	"fromage/dataset"
	"fromage/internal/atomicfile"
	"fromage/model"
	"fromage/runner"
	"fromage/trainer"
)

// base opens the frozen model of a run, compiling it the first time.
func (a *app) base(ctx context.Context, t *trainArgs, dir string) error {
	if t.Model != "" {
		a.model = t.Model
		return nil
	}
	a.model = filepath.Join(dir, baseFile)
	if _, err := os.Stat(a.model); err == nil {
		return nil
	}
	return a.compile(ctx, compiler.Options{
		OPT: t.OPT, CLIP: t.CLIP, DType: t.DType, Out: a.model,
		NewHeads: &model.Heads{VisualTokens: t.VisualTokens, SharedDim: t.SharedDim, TextLayers: t.TextLayers},
	}, 0)
}

// training is a run with everything it needs open.
type training struct {
	a        *app
	args     *trainArgs
	dir      string
	captions []dataset.Example // all of --data
	val      []dataset.Example // those of --val that are measured
	r        *runner.Runner
	examples []dataset.Example // those that are trained on
	tokens   [][]int32
	features *dataset.Features
	run      *trainer.Run
	began    time.Time // when the progress line did
	seen     int       // examples since
}

// startRun begins a run in a new folder. An error before its first step leaves nothing behind.
func (a *app) startRun(ctx context.Context, args trainArgs, dir string) error {
	if err := args.absolute(); err != nil {
		return err
	}
	t := &training{a: a, args: &args, dir: dir}
	if err := t.read(); err != nil {
		return err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s: want a new or empty folder; --resume %s goes on with a run", dir, dir)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	failed := false
	a.atEnd(func() { // after all files in it are closed
		if failed {
			t.remove()
		}
	})
	err := writeDocument(filepath.Join(dir, trainArgsFile), args)
	if err == nil {
		err = t.prepare(ctx)
	}
	if failed = err != nil && !errors.Is(err, context.Canceled); failed {
		return err
	}
	return t.finish(ctx, err)
}

// remove takes away what a run makes before its first step, and its folder if that is all.
func (t *training) remove() {
	made, _ := filepath.Glob(filepath.Join(t.dir, "events.out.tfevents.*"))
	for _, name := range []string{trainArgsFile, baseFile, skippedFile, trainer.MetricsFile} {
		made = append(made, filepath.Join(t.dir, name))
	}
	for _, name := range made {
		os.Remove(name)
	}
	os.Remove(t.dir)
}

// resumeRun goes on with a run.
func (a *app) resumeRun(ctx context.Context, args trainArgs, dir string) error {
	t := &training{a: a, args: &args, dir: dir}
	if err := t.read(); err != nil {
		return err
	}
	err := t.prepare(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return t.finish(ctx, err)
}

// read reads the captions.
func (t *training) read() (err error) {
	if t.captions, err = dataset.Read(t.args.Data); err != nil || t.args.Val == "" {
		return err
	}
	if t.val, err = dataset.Read(t.args.Val); err == nil && t.args.ValLimit > 0 {
		t.val = t.val[:min(t.args.ValLimit, len(t.val))]
	}
	return err
}

// prepare opens all that the run needs and puts it where it left off.
func (t *training) prepare(ctx context.Context) error {
	if err := t.lock(); err != nil {
		return err
	}
	if err := t.a.base(ctx, t.args, t.dir); err != nil {
		return err
	}
	var err error
	if t.r, err = t.a.load(ctx); err != nil {
		return err
	}
	if t.r.RET() < 0 {
		return fmt.Errorf("%s: want a model with OPT, CLIP and heads", t.a.modelName())
	}
	s, longest := t.r.Settings(), t.args.MaxLen+t.r.Settings().VisualTokens
	if t.args.ConcatProb > 0 {
		longest *= 2
	}
	if longest > s.MaxPositions {
		return fmt.Errorf("--max-len: a sequence of pictures and captions would take %d tokens, the model has %d positions", longest, s.MaxPositions)
	}
	if err := t.data(ctx); err != nil {
		return err
	}
	return t.ready(ctx)
}

// lock keeps a second program out of the folder.
func (t *training) lock() error {
	f, err := os.OpenFile(filepath.Join(t.dir, trainArgsFile), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	t.a.atEnd(func() { f.Close() })
	if err := atomicfile.Lock(f); err != nil {
		return fmt.Errorf("%s: another program is at work on this run", t.dir)
	}
	return nil
}

// finish takes the steps, unless err has ended the preparation, and says how to go on where they end early.
func (t *training) finish(ctx context.Context, err error) error {
	if err == nil {
		err = t.run.Loop(ctx)
	}
	t.a.endProgress()
	switch {
	case err == nil:
		return t.done()
	case errors.Is(err, trainer.ErrNotFinite):
		return err
	}
	goesOn := fmt.Sprintf("fromage train --resume %s goes on", t.dir)
	if t.run != nil {
		goesOn += fmt.Sprintf(" after step %d", t.run.Saved())
	}
	if !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w; %s", err, goesOn)
	}
	fmt.Fprintln(t.a.stderr, "fromage:", goesOn)
	return err
}

// skipped is skipped.json: what training leaves out, and why.
type skipped struct {
	Pictures []skippedPicture `json:"pictures"`
	Captions []string         `json:"captions"`
}

type skippedPicture struct {
	Image string `json:"image"`
	Error string `json:"error"`
}

// data reads captions, puts pictures through CLIP, and leaves out what cannot be used.
func (t *training) data(ctx context.Context) error {
	all := t.captions
	var err error
	if t.features, _, err = t.embed(ctx, all, t.args.Images); err != nil {
		return err
	}
	left := skipped{Pictures: []skippedPicture{}, Captions: []string{}}
	for _, p := range t.features.Skipped {
		left.Pictures = append(left.Pictures, skippedPicture{p.Name, p.Error()})
	}
	ret, pad := int32(t.r.RET()), int32(t.r.Settings().Pad)
	for _, e := range t.features.Usable(all) {
		tokens, ok := trainer.Tokenize(t.r.Tokenizer(), e.Caption, ret, pad, t.args.MaxLen)
		if !ok {
			left.Captions = append(left.Captions, e.Caption)
			continue
		}
		t.examples, t.tokens = append(t.examples, e), append(t.tokens, tokens)
	}
	t.captions = nil
	n := len(all) - len(t.examples)
	if len(t.examples) < 2 {
		return fmt.Errorf("%s: want at least 2 examples to train on, have %d of %d%s", t.args.Data, len(t.examples), len(all), left.first())
	}
	if n == 0 {
		return nil
	}
	path := filepath.Join(t.dir, skippedFile)
	fmt.Fprintf(t.a.stderr, "fromage: %d of %d examples are left out: %d pictures cannot be read, %d captions contain [RET] or <pad>; %s lists them\n",
		n, len(all), len(left.Pictures), len(left.Captions), path)
	return writeDocument(path, left)
}

// first says why something was left out, for an error.
func (s skipped) first() string {
	switch {
	case len(s.Pictures) > 0:
		return ": " + s.Pictures[0].Error
	case len(s.Captions) > 0:
		return fmt.Sprintf(": %.80q contains [RET] or <pad>", s.Captions[0])
	}
	return ""
}

// embed computes or finds CLIP's states of the examples' pictures.
func (t *training) embed(ctx context.Context, examples []dataset.Example, images string) (*dataset.Features, *dataset.Pictures, error) {
	defer t.a.endProgress()
	pictures, err := dataset.OpenPictures(ctx, images, t.a.watch("B"))
	if err != nil {
		return nil, nil, err
	}
	t.a.atEnd(pictures.Close)
	names := make([]string, len(examples))
	for i, e := range examples {
		names[i] = e.Image
	}
	f, err := dataset.Embed(ctx, t.r, names, pictures, dataset.FeatureOptions{Cache: t.args.Cache, Progress: t.a.watch("pictures")})
	if err != nil {
		return nil, nil, err
	}
	t.a.atEnd(f.Close)
	return f, pictures, nil
}

// ready makes the trainer and puts the run where it left off.
func (t *training) ready(ctx context.Context) error {
	c := t.args.Recipe.Config()
	var err error
	if c.Memory, err = parseBytes(t.args.Memory); err != nil {
		return err
	}
	c.Activations = t.args.Activations
	c.Shrunk = func(err error, memory, tokens int) {
		t.a.endProgress()
		fmt.Fprintf(t.a.stderr, "fromage: the device has no room for so long a run; from now on up to %d tokens in %s\n", tokens, byteSize(int64(memory)))
		t.a.log.Warn("no room", "error", err, "memory", memory, "tokens", tokens)
	}
	m := t.r.Machine()
	if _, err := os.Stat(filepath.Join(t.dir, trainer.CheckpointFile)); errors.Is(err, fs.ErrNotExist) && !t.args.FromHeads {
		heads, err := trainer.Initial(ctx, m, t.args.Seed, t.args.Model != "")
		if err != nil {
			return err
		}
		if err := t.r.SetHeads(heads); err != nil {
			return err
		}
	}
	learner, err := trainer.New(ctx, m, c)
	if err != nil {
		return err
	}
	t.a.atEnd(learner.Close)
	t.run = &trainer.Run{
		Dir: t.dir, Recipe: t.args.Recipe, Trainer: learner, N: len(t.examples), Batch: t.batch,
		Name:     func(i int) string { return t.examples[i].Image + "\t" + t.examples[i].Caption },
		Progress: t.progress,
	}
	step, err := t.run.Start()
	if err != nil {
		return err
	}
	if step > 0 {
		fmt.Fprintf(t.a.stderr, "fromage: going on after step %d of %d\n", step, t.args.Steps())
	}
	if err := t.r.HeadsChanged(); err != nil {
		return err
	}
	return t.measure(ctx, step)
}

// batch returns examples by number.
func (t *training) batch(numbers []int) ([]trainer.Example, error) {
	names := make([]string, len(numbers))
	for i, n := range numbers {
		names[i] = t.examples[n].Image
	}
	rows, err := t.features.Rows(names...)
	if err != nil {
		return nil, err
	}
	batch := make([]trainer.Example, len(numbers))
	for i, n := range numbers {
		batch[i] = trainer.Example{Tokens: t.tokens[n], V: rows[i]}
	}
	return batch, nil
}

func (t *training) progress(p trainer.Progress) {
	if t.a.line == nil {
		t.a.startProgress("", "steps").from = int64(p.Step)
		t.began, t.seen = time.Now(), 0
		return
	}
	t.seen += p.Examples
	l := p.Losses
	t.a.line.what = fmt.Sprintf("loss %.3f (captioning %.3f, retrieval %.3f, contrastive %.3f), %.3g examples/s",
		l.Total, l.CaptioningCE, l.RetrievalCE, (l.CaptionLoss+l.ImageLoss)/2, float64(t.seen)/max(time.Since(t.began).Seconds(), 1e-9))
	t.a.line.set(int64(p.Step), int64(p.Steps))
}

// done says what was made.
func (t *training) done() error {
	path := filepath.Join(t.dir, trainer.BestFile)
	if _, err := os.Stat(path); err != nil {
		path = filepath.Join(t.dir, trainer.CheckpointFile)
	}
	if t.a.json {
		return t.a.writeJSON(map[string]any{"run": t.dir, "steps": t.args.Steps(), "examples": len(t.examples), "checkpoint": path})
	}
	_, err := fmt.Fprintf(t.a.stdout, "%s: %d steps over %d examples; fromage export %s -o heads.safetensors makes heads of %s\n", t.dir, t.args.Steps(), len(t.examples), t.dir, path)
	return err
}
