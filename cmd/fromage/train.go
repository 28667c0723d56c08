// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fromage/bundle"
	"fromage/compiler"
	"fromage/dataset"
	"fromage/model"
	"fromage/runner"
	"fromage/shaders"
	"fromage/trainer"
)

// Files of a run's folder besides package trainer's.
const (
	trainArgsFile = "args.json"
	baseFile      = "base.bundle" // the frozen model, where it was compiled for the run
	skippedFile   = "skipped.json"
)

// trainArgs is args.json: what a run was started with, and is resumed with.
type trainArgs struct {
	OPT          string         `json:"opt,omitempty"`
	CLIP         string         `json:"clip,omitempty"`
	Model        string         `json:"model,omitempty"`
	DType        shaders.Format `json:"dtype"`
	VisualTokens int            `json:"n-visual-tokens"`
	SharedDim    int            `json:"shared-emb-dim"`
	TextLayers   []int          `json:"text-emb-layers"`
	Data         string         `json:"data"`
	Images       string         `json:"images"`
	Val          string         `json:"val,omitempty"`
	ValImages    string         `json:"val-images,omitempty"`
	ValLimit     int            `json:"val-limit,omitempty"`
	ValBLEU      bool           `json:"val-bleu,omitempty"`
	Cache        string         `json:"feature-cache,omitempty"`
	Memory       string         `json:"memory,omitempty"`
	FromHeads    bool           `json:"from-heads,omitempty"`
	Publish      string         `json:"publish,omitempty"`
	PublishName  string         `json:"publish-name,omitempty"`
	trainer.Recipe
}

func (a *app) trainCommand() *cobra.Command {
	t := trainArgs{DType: shaders.F16, VisualTokens: 1, SharedDim: 256, TextLayers: []int{-1}, Recipe: trainer.DefaultRecipe()}
	dtype, out, resume := t.DType.String(), "", ""
	c := &cobra.Command{
		Use:   "train --opt DIR --clip DIR --data FILE.tsv --images DIR|FILE.tar -o DIR",
		Short: "learn the maps and [RET] on captioned pictures",
		Long: `Learn FROMAGe's maps, its logit scale and the row of [RET] on a frozen OPT and a frozen CLIP. The defaults are the paper's recipe. --data is the reference's
format: a tab-separated file with a header line and the columns caption and image; --images is a folder or a .tar, .tar.gz of the pictures that it names.

The run's folder gets args.json, metrics.jsonl, TensorBoard events, report.html, checkpoint.safetensors (the latest) and best.safetensors (highest
text→image R@1 on --val). Stop it with Ctrl-C, or otherwise: --resume DIR goes on, with the same result to the bit on the same device.
Pictures go through CLIP once; their states are kept in a cache that all runs share. Pictures that cannot be read and captions that contain [RET] are
left out, counted, and listed in skipped.json. fromage export makes heads or a bundle of the result.`,
		Args: takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if resume != "" {
				if err := onlyResume(c.Flags()); err != nil {
					return err
				}
				if t, err = readTrainArgs(resume); err != nil {
					return err
				}
				return a.train(c.Context(), t, resume)
			}
			if t.DType, err = shaders.ParseFormat(dtype); err != nil {
				return fmt.Errorf("--dtype: %w", err)
			}
			t.Model = a.model
			if err := t.check(c.Flags(), out); err != nil {
				return err
			}
			if err := t.begin(out); err != nil {
				return err
			}
			return a.train(c.Context(), t, out)
		},
	}
	flags := c.Flags()
	flags.StringVar(&resume, "resume", "", "go on with the run in this `DIR`, as it was started")
	flags.StringVarP(&out, "output", "o", "", "the run's folder, a new `DIR`")
	flags.StringVar(&t.OPT, "opt", "", "the `FOLDER` of an OPT checkpoint, with its tokenizer")
	flags.StringVar(&t.CLIP, "clip", "", "the `FOLDER` of a CLIP checkpoint")
	flags.StringVar(&dtype, "dtype", dtype, "of the frozen weights with --opt and --clip: f32, f16, q8 or q4")
	a.modelFlag(flags)
	flags.Lookup("model").Usage = "in place of --opt and --clip: a `BUNDLE` whose frozen parts are trained on, quantised or not"
	flags.BoolVar(&t.FromHeads, "from-heads", false, "with -m: go on from the bundle's heads, where the default begins anew")
	flags.StringVar(&t.Data, "data", "", "the training captions, a `FILE.tsv`")
	flags.StringVar(&t.Images, "images", "", "a `FOLDER` or .tar or .tar.gz of the pictures (default: the folder of --data)")
	flags.StringVar(&t.Val, "val", "", "the validation captions, a `FILE.tsv`")
	flags.StringVar(&t.ValImages, "val-images", "", "the `FOLDER` or tar of the validation pictures (default: that of --images)")
	flags.IntVar(&t.ValLimit, "val-limit", 0, "how many validation examples to measure; 0 is all")
	flags.BoolVar(&t.ValBLEU, "val-bleu", false, "generate a caption for every validation picture and tell BLEU, which takes most of the time of an evaluation")
	flags.StringVar(&t.Cache, "feature-cache", "", "where CLIP's states of pictures are kept, a `FOLDER` (default: in the user's cache)")
	flags.StringVar(&t.Memory, "memory", "", "how much memory a run's activations may take, such as 30GB (default 6GB); longer batches are computed in parts, with the same result")
	flags.StringVar(&t.Publish, "publish", "", "after each evaluation, put the heads into this `DIR`, or publish them to the server at this URL, whose token is in "+tokenVariable)
	flags.StringVar(&t.PublishName, "publish-name", "", "the model's `NAME` at that server (default: the only one)")
	flags.IntVar(&t.VisualTokens, "n-visual-tokens", t.VisualTokens, "rows that a picture takes in a prompt")
	flags.IntVar(&t.SharedDim, "shared-emb-dim", t.SharedDim, "width of the retrieval embeddings")
	flags.IntSliceVar(&t.TextLayers, "text-emb-layers", t.TextLayers, "hidden states that the retrieval embedding of text is made of")
	t.recipeFlags(flags)
	return c
}

func (t *trainArgs) recipeFlags(flags *pflag.FlagSet) {
	r := &t.Recipe
	flags.IntVar(&r.Epochs, "epochs", r.Epochs, "how often steps-per-epoch steps are taken")
	flags.IntVar(&r.StepsPerEpoch, "steps-per-epoch", r.StepsPerEpoch, "steps between two evaluations, and units of the schedule")
	flags.IntVarP(&r.BatchSize, "batch-size", "b", r.BatchSize, "examples of a step")
	flags.Float64Var(&r.LR, "lr", r.LR, "learning rate of AdamW")
	flags.IntVar(&r.WarmupSteps, "lr-warmup-steps", r.WarmupSteps, "steps over which the rate rises from 0")
	flags.IntVar(&r.ScheduleStepSize, "lr-schedule-step-size", r.ScheduleStepSize, "epochs after which the rate is multiplied by lr-schedule-gamma")
	flags.Float64Var(&r.ScheduleGamma, "lr-schedule-gamma", r.ScheduleGamma, "what the rate is multiplied by")
	flags.IntVar(&r.Accumulation, "grad-accumulation-steps", r.Accumulation, "steps whose gradients an update sums")
	flags.Float64Var(&r.GradClip, "grad-clip", r.GradClip, "largest norm of all gradients together; 0 does not clip")
	flags.Float64Var(&r.Beta1, "beta1", r.Beta1, "of AdamW")
	flags.Float64Var(&r.Beta2, "beta2", r.Beta2, "of AdamW")
	flags.Float64Var(&r.WeightDecay, "weight-decay", r.WeightDecay, "of AdamW, for what is trained")
	flags.Float64Var(&r.CapLossScale, "cap-loss-scale", r.CapLossScale, "factor on the captioning loss")
	flags.Float64Var(&r.RetLossScale, "ret-loss-scale", r.RetLossScale, "factor on the retrieval losses")
	flags.Float64Var(&r.ConcatProb, "concat-captions-prob", r.ConcatProb, "how likely a step concatenates captions in pairs")
	flags.IntVar(&r.MaxLen, "max-len", r.MaxLen, "tokens that captions are cut to, </s> and [RET] included")
	flags.Uint64Var(&r.Seed, "seed", r.Seed, "of the order of examples and the first heads")
	flags.IntVar(&r.PrintFreq, "print-freq", r.PrintFreq, "steps between two rows of metrics")
	flags.IntVar(&r.EvalEvery, "eval-every", r.EvalEvery, "steps between two evaluations; 0 is steps-per-epoch")
	flags.IntVar(&r.CheckpointEvery, "checkpoint-every", r.CheckpointEvery, "steps between two checkpoints")
}

// onlyResume wants no flag that says how a run was started.
func onlyResume(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "resume", "device", "json", "log":
		default:
			err = fmt.Errorf("--resume: a run goes on as it was started, want no --%s", f.Name)
		}
	})
	return err
}

func (t *trainArgs) check(flags *pflag.FlagSet, out string) error {
	switch {
	case out == "":
		return errors.New("train: want -o DIR, or --resume DIR")
	case t.Data == "":
		return errors.New("train: want --data FILE.tsv")
	case t.Model == "" && (t.OPT == "" || t.CLIP == ""):
		return errors.New("train: want --opt DIR and --clip DIR, or -m BUNDLE")
	case t.Model != "" && (t.OPT != "" || t.CLIP != ""):
		return errors.New("train: want --opt and --clip, or -m, not both")
	case t.Model == "" && t.FromHeads:
		return errors.New("--from-heads: want -m BUNDLE, whose heads they are")
	}
	if t.Model != "" {
		for _, name := range []string{"dtype", "n-visual-tokens", "shared-emb-dim", "text-emb-layers"} {
			if flags.Changed(name) {
				return fmt.Errorf("--%s: the bundle of -m says it; want --opt and --clip to choose it", name)
			}
		}
	}
	if t.VisualTokens < 1 || t.VisualTokens > 64 || t.SharedDim < 1 || t.SharedDim > 1<<14 || len(t.TextLayers) == 0 {
		return fmt.Errorf("train: want 1 to 64 visual tokens, a shared width of 1 to 16384 and a text layer, have %d, %d and %d", t.VisualTokens, t.SharedDim, len(t.TextLayers))
	}
	if _, err := parseBytes(t.Memory); err != nil {
		return fmt.Errorf("--memory: %w", err)
	}
	return t.Recipe.Check()
}

// parseBytes reads a number of bytes such as 30GB; none is 0.
func parseBytes(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	var n float64
	unit := ""
	if _, err := fmt.Sscanf(s, "%g%s", &n, &unit); err != nil && unit != "" || n <= 0 {
		return 0, fmt.Errorf("want a size such as 512MB or 30GB, have %q", s)
	}
	factor, ok := map[string]float64{"": 1, "B": 1, "MB": 1e6, "GB": 1e9, "MIB": 1 << 20, "GIB": 1 << 30}[strings.ToUpper(unit)]
	if !ok || n*factor > 1<<50 {
		return 0, fmt.Errorf("want a size such as 512MB or 30GB, have %q", s)
	}
	return int(n * factor), nil
}

// begin makes the run's folder. Paths are kept absolute, so that it can be resumed from anywhere.
func (t *trainArgs) begin(dir string) error {
	if t.Images == "" {
		t.Images = filepath.Dir(t.Data)
	}
	if t.ValImages == "" && t.Val != "" {
		t.ValImages = t.Images
	}
	for _, path := range []*string{&t.OPT, &t.CLIP, &t.Model, &t.Data, &t.Images, &t.Val, &t.ValImages, &t.Cache} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	for _, path := range []string{t.Data, t.Images, t.Val, t.ValImages} {
		if _, err := os.Stat(path); path != "" && err != nil {
			return err
		}
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s: want a new or empty folder; --resume %s goes on with a run", dir, dir)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	return writeDocument(filepath.Join(dir, trainArgsFile), t)
}

// writeDocument writes a file of JSON, whole or not at all.
func writeDocument(path string, v any) error {
	return writeFile(path, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	})
}

func readTrainArgs(dir string) (t trainArgs, err error) {
	path := filepath.Join(dir, trainArgsFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, fmt.Errorf("%s: want the folder of a run, with %s in it", dir, trainArgsFile)
	}
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal(data, &t); err != nil {
		return t, fmt.Errorf("%s: %w", path, err)
	}
	if err := t.Recipe.Check(); err != nil {
		return t, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

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
	r        *runner.Runner
	examples []dataset.Example
	tokens   [][]int32
	features *dataset.Features
	run      *trainer.Run
	began    time.Time
	first    int // steps done before
}

func (a *app) train(ctx context.Context, args trainArgs, dir string) error {
	t := &training{a: a, args: &args, dir: dir}
	if err := a.base(ctx, t.args, dir); err != nil {
		return err
	}
	var err error
	if t.r, err = a.load(ctx); err != nil {
		return err
	}
	if t.r.RET() < 0 {
		return fmt.Errorf("%s: want a model with OPT, CLIP and heads", a.modelName())
	}
	if err := t.data(ctx); err != nil {
		return err
	}
	if err := t.ready(ctx); err != nil {
		return err
	}
	return t.loop(ctx)
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
	all, err := dataset.Read(t.args.Data)
	if err != nil {
		return err
	}
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
	if n := len(all) - len(t.examples); n > 0 {
		path := filepath.Join(t.dir, skippedFile)
		fmt.Fprintf(t.a.stderr, "fromage: %d of %d examples are left out: %d pictures cannot be read, %d captions contain [RET] or <pad>; %s lists them\n",
			n, len(all), len(left.Pictures), len(left.Captions), path)
		return writeDocument(path, left)
	}
	return nil
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
	return nil
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
		t.a.startProgress("", "steps")
		t.a.line.from = int64(p.Step - 1)
	}
	l := p.Losses
	t.a.line.what = fmt.Sprintf("loss %.3f (captioning %.3f, retrieval %.3f, contrastive %.3f), %.3g examples/s",
		l.Total, l.CaptioningCE, l.RetrievalCE, (l.CaptionLoss+l.ImageLoss)/2, float64(p.Step-t.first)*float64(t.args.BatchSize)/max(time.Since(t.began).Seconds(), 1e-9))
	t.a.line.set(int64(p.Step), int64(p.Steps))
}

func (t *training) loop(ctx context.Context) error {
	step, err := t.run.Start()
	if err != nil {
		return err
	}
	if step > 0 {
		fmt.Fprintf(t.a.stderr, "fromage: going on after step %d\n", step)
	}
	if err := t.r.HeadsChanged(); err != nil {
		return err
	}
	if err := t.measure(ctx, step); err != nil {
		return err
	}
	t.began, t.first = time.Now(), step
	err = t.run.Loop(ctx)
	t.a.endProgress()
	if errors.Is(err, context.Canceled) {
		fmt.Fprintf(t.a.stderr, "fromage: train --resume %s goes on\n", t.dir)
	}
	if err != nil {
		return err
	}
	return t.done()
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

// exportCommand makes heads or bundles of runs.
func (a *app) exportCommand() *cobra.Command {
	var out, reference, bundleOut, opt, clip string
	last := false
	c := &cobra.Command{
		Use:   "export DIR -o FILE.safetensors | --bundle FILE | --reference FILE.pth.tar",
		Short: "make heads or a bundle of a training run",
		Long: `Make files of what a run learnt: its best parameters where it was measured, else its last. Heads are for fromage compile --heads and fromage push; a bundle is the run's
frozen model with the new heads in it; --reference is the released layout, with model_args.json beside it, for the reference's own load_fromage.`,
		Args: takes(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" && reference == "" && bundleOut == "" {
				return errors.New("export: want -o FILE.safetensors, --bundle FILE or --reference FILE.pth.tar")
			}
			e, err := a.openRun(args[0], last)
			if err != nil {
				return err
			}
			if err := e.heads(out); err != nil {
				return err
			}
			if err := e.reference(reference, opt, clip); err != nil {
				return err
			}
			if err := e.bundle(c.Context(), bundleOut); err != nil {
				return err
			}
			return e.tell(out, reference, bundleOut)
		},
	}
	flags := c.Flags()
	flags.StringVarP(&out, "output", "o", "", "heads, a `FILE.safetensors`")
	flags.StringVar(&reference, "reference", "", "heads as the reference releases them, a `FILE.pth.tar`")
	flags.StringVar(&bundleOut, "bundle", "", "the whole model with the heads in it, a `BUNDLE`")
	flags.BoolVar(&last, "last", false, "the latest parameters, also where others were better")
	flags.StringVar(&opt, "opt-version", "", "for --reference: the `NAME` of the OPT on the hub (default: facebook/ and the folder's name)")
	flags.StringVar(&clip, "visual-encoder", "", "for --reference: the `NAME` of the CLIP on the hub (default: openai/ and the folder's name)")
	return c
}

// exporting is a run's parameters with the model that they are of.
type exporting struct {
	a     *app
	args  trainArgs
	base  *bundle.Bundle
	path  string
	state *trainer.State
	step  string
}

func (a *app) openRun(dir string, last bool) (*exporting, error) {
	e := &exporting{a: a, path: filepath.Join(dir, trainer.BestFile)}
	var err error
	if e.args, err = readTrainArgs(dir); err != nil {
		return nil, err
	}
	if _, err := os.Stat(e.path); last || errors.Is(err, fs.ErrNotExist) {
		e.path = filepath.Join(dir, trainer.CheckpointFile)
	}
	var meta map[string]string
	if e.state, meta, err = trainer.ReadState(e.path); err != nil {
		return nil, err
	}
	e.step = meta["step"]
	if a.model = e.args.Model; a.model == "" {
		a.model = filepath.Join(dir, baseFile)
	}
	e.base, err = a.openBundle()
	return e, err
}

func (e *exporting) heads(path string) error {
	if path == "" {
		return nil
	}
	return writeFile(path, func(w io.Writer) error { return trainer.WriteHeads(w, e.base.Manifest(), e.state.Weights) })
}

func (e *exporting) reference(path, opt, clip string) error {
	if path == "" {
		return nil
	}
	if opt == "" {
		opt = "facebook/" + filepath.Base(e.args.OPT)
	}
	if clip == "" {
		clip = "openai/" + filepath.Base(e.args.CLIP)
	}
	var args []byte
	err := writeFile(path, func(w io.Writer) (err error) {
		args, err = trainer.WriteReference(w, e.base.Manifest(), e.state.Weights, opt, clip)
		return err
	})
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(filepath.Dir(path), "model_args.json"), func(w io.Writer) error {
		_, err := w.Write(args)
		return err
	})
}

func (e *exporting) bundle(ctx context.Context, path string) error {
	if path == "" {
		return nil
	}
	w, err := bundle.Create(path)
	if err != nil {
		return err
	}
	defer w.Abort()
	line := e.a.startProgress("writing "+path, "B")
	defer e.a.endProgress()
	return bundle.Replace(ctx, w, e.base, e.state.Weights, line.set)
}

func (e *exporting) tell(paths ...string) error {
	var made []string
	for _, p := range paths {
		if p != "" {
			made = append(made, p)
		}
	}
	if e.a.json {
		return e.a.writeJSON(map[string]any{"files": made, "from": e.path, "step": e.step})
	}
	_, err := fmt.Fprintf(e.a.stdout, "%s: of %s, step %s\n", strings.Join(made, ", "), e.path, e.step)
	return err
}
