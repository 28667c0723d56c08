// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
	Activations  shaders.Format `json:"activations,omitempty"`
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
left out, counted, and listed in skipped.json. Where the device has no room for --memory, runs are made shorter. A loss that is no number ends the run,
with its examples in failed.json. fromage export makes heads or a bundle of the result.`,
		Args: takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if c.Flags().Changed("resume") {
				if err := onlyResume(c.Flags()); err != nil {
					return err
				}
				if t, err = readTrainArgs(resume); err != nil {
					return err
				}
				return a.resumeRun(c.Context(), t, resume)
			}
			if t.DType, err = shaders.ParseFormat(dtype); err != nil {
				return fmt.Errorf("--dtype: %w", err)
			}
			t.Model = a.model
			if err := t.checkFlags(c.Flags(), out); err != nil {
				return err
			}
			return a.startRun(c.Context(), t, out)
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
	flags.StringVar(&t.Memory, "memory", "", "how much memory a run's activations may take, such as 30GB (default 6GiB); longer batches are computed in parts")
	activationsFlag(flags, &t.Activations)
	flags.StringVar(&t.Publish, "publish", "", "after each evaluation, put the heads into this `DIR`, as heads.safetensors and under the step's number, or publish them to the server at this URL, whose token is in "+tokenVariable)
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
	flags.IntVar(&r.StepsPerEpoch, "steps-per-epoch", r.StepsPerEpoch, "steps of an epoch, over as many passes through the data as they take")
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
	flags.IntVar(&r.EvalEvery, "eval-every", r.EvalEvery, "with --val, steps between two evaluations; 0 is steps-per-epoch")
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

// checkFlags wants flags that go together, and what check wants.
func (t *trainArgs) checkFlags(flags *pflag.FlagSet, out string) error {
	if out == "" {
		return errors.New("train: want -o DIR, or --resume DIR")
	}
	if t.Model != "" {
		for _, name := range []string{"dtype", "n-visual-tokens", "shared-emb-dim", "text-emb-layers"} {
			if flags.Changed(name) {
				return fmt.Errorf("--%s: the bundle of -m says it; want --opt and --clip to choose it", name)
			}
		}
	}
	return t.check()
}

// check wants arguments that training has a meaning for.
func (t *trainArgs) check() error {
	switch {
	case t.Data == "":
		return errors.New("train: want --data FILE.tsv")
	case t.Model == "" && (t.OPT == "" || t.CLIP == ""):
		return errors.New("train: want --opt DIR and --clip DIR, or -m BUNDLE")
	case t.Model != "" && (t.OPT != "" || t.CLIP != ""):
		return errors.New("train: want --opt and --clip, or -m, not both")
	case t.Model == "" && t.FromHeads:
		return errors.New("--from-heads: want -m BUNDLE, whose heads they are")
	case t.Val == "" && (t.ValImages != "" || t.ValLimit != 0 || t.ValBLEU || t.EvalEvery != 0):
		return errors.New("--val-images, --val-limit, --val-bleu, --eval-every: want --val FILE.tsv, which is measured")
	case t.ValLimit < 0 || t.ValLimit == 1:
		return fmt.Errorf("--val-limit: want 2 or more, or 0 for all, have %d", t.ValLimit)
	case t.PublishName != "" && !strings.Contains(t.Publish, "://"):
		return errors.New("--publish-name: want --publish URL, the server where the model has that name")
	case t.VisualTokens < 1 || t.VisualTokens > 64:
		return fmt.Errorf("--n-visual-tokens: want 1 to 64, have %d", t.VisualTokens)
	case t.SharedDim < 1 || t.SharedDim > 1<<14:
		return fmt.Errorf("--shared-emb-dim: want 1 to %d, have %d", 1<<14, t.SharedDim)
	case len(t.TextLayers) == 0:
		return errors.New("--text-emb-layers: want at least one layer, have none")
	}
	if _, err := parseBytes(t.Memory); err != nil {
		return fmt.Errorf("--memory: %w", err)
	}
	if err := checkWide(t.Activations); err != nil {
		return fmt.Errorf("--activations: %w", err)
	}
	return t.Recipe.Check()
}

// activationsFlag adds --activations.
func activationsFlag(flags *pflag.FlagSet, f *shaders.Format) {
	flags.Var(wide{f}, "activations", "the `FORMAT` in which activations wait for the way back: f32, or f16, so that twice as many tokens fit into --memory")
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

// absolute makes all paths absolute, so that the run can be resumed from anywhere, and wants the data to be there.
func (t *trainArgs) absolute() error {
	if t.Images == "" {
		t.Images = filepath.Dir(t.Data)
	}
	if t.ValImages == "" && t.Val != "" {
		t.ValImages = t.Images
	}
	for _, path := range []*string{&t.OPT, &t.CLIP, &t.Model, &t.Data, &t.Images, &t.Val, &t.ValImages, &t.Cache, &t.Publish} {
		if *path == "" || strings.Contains(*path, "://") {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	for _, path := range []string{t.OPT, t.CLIP, t.Model, t.Images, t.ValImages} {
		if _, err := os.Stat(path); path != "" && err != nil {
			return err
		}
	}
	return nil
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
		return t, fmt.Errorf("%q: want the folder of a run, with %s in it", dir, trainArgsFile)
	}
	if err != nil {
		return t, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return t, fmt.Errorf("%s: %w", path, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return t, fmt.Errorf("%s: want one JSON object, have more after it", path)
	}
	if err := t.check(); err != nil {
		return t, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}
