// SPDX-License-Identifier: Apache-2.0

package trainer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"fromage/internal/atomicfile"
)

// Recipe is how a run learns. Its JSON names are the reference's flags.
type Recipe struct {
	Epochs           int     `json:"epochs"`
	StepsPerEpoch    int     `json:"steps-per-epoch"`
	BatchSize        int     `json:"batch-size"`
	LR               float64 `json:"lr"`
	WarmupSteps      int     `json:"lr-warmup-steps"`
	ScheduleStepSize int     `json:"lr-schedule-step-size"` // epochs
	ScheduleGamma    float64 `json:"lr-schedule-gamma"`
	Accumulation     int     `json:"grad-accumulation-steps"`
	GradClip         float64 `json:"grad-clip"`
	Beta1            float64 `json:"beta1"`
	Beta2            float64 `json:"beta2"`
	WeightDecay      float64 `json:"weight-decay"`
	CapLossScale     float64 `json:"cap-loss-scale"`
	RetLossScale     float64 `json:"ret-loss-scale"`
	ConcatProb       float64 `json:"concat-captions-prob"`
	MaxLen           int     `json:"max-len"`
	Seed             uint64  `json:"seed"`
	PrintFreq        int     `json:"print-freq"`       // steps between two rows of metrics
	EvalEvery        int     `json:"eval-every"`       // steps; 0 is every epoch
	CheckpointEvery  int     `json:"checkpoint-every"` // steps; evaluations and interruptions make checkpoints too
}

// DefaultRecipe is the paper's.
func DefaultRecipe() Recipe {
	return Recipe{
		Epochs: 10, StepsPerEpoch: 2000, BatchSize: 180, LR: 3e-4, WarmupSteps: 100, ScheduleStepSize: 10, ScheduleGamma: 0.1, Accumulation: 1, GradClip: 1,
		Beta1: 0.9, Beta2: 0.95, CapLossScale: 1, RetLossScale: 1, ConcatProb: 0.5, MaxLen: 24, PrintFreq: 10, CheckpointEvery: 200,
	}
}

// Check wants numbers that training has a meaning for.
func (r Recipe) Check() error {
	for _, c := range []struct {
		name     string
		have     float64
		ok       bool
		wantText string
	}{
		{"epochs", float64(r.Epochs), r.Epochs > 0, "at least 1"},
		{"steps-per-epoch", float64(r.StepsPerEpoch), r.StepsPerEpoch > 0, "at least 1"},
		{"batch-size", float64(r.BatchSize), r.BatchSize > 1 && r.BatchSize <= 1<<16, "2 to 65536"},
		{"lr", r.LR, r.LR > 0 && r.LR < 1e3, "above 0, below 1000"},
		{"lr-warmup-steps", float64(r.WarmupSteps), r.WarmupSteps >= 0, "0 or more"},
		{"lr-schedule-step-size", float64(r.ScheduleStepSize), r.ScheduleStepSize > 0, "at least 1"},
		{"lr-schedule-gamma", r.ScheduleGamma, r.ScheduleGamma > 0 && r.ScheduleGamma <= 1, "above 0, up to 1"},
		{"grad-accumulation-steps", float64(r.Accumulation), r.Accumulation > 0, "at least 1"},
		{"grad-clip", r.GradClip, r.GradClip >= 0, "0 or more"},
		{"beta1", r.Beta1, r.Beta1 >= 0 && r.Beta1 < 1, "0 or more, below 1"},
		{"beta2", r.Beta2, r.Beta2 >= 0 && r.Beta2 < 1, "0 or more, below 1"},
		{"weight-decay", r.WeightDecay, r.WeightDecay >= 0 && r.WeightDecay < 1, "0 or more, below 1"},
		{"cap-loss-scale", r.CapLossScale, r.CapLossScale >= 0 && r.CapLossScale < 1e6, "0 or more, below 1e6"},
		{"ret-loss-scale", r.RetLossScale, r.RetLossScale >= 0 && r.RetLossScale < 1e6, "0 or more, below 1e6"},
		{"concat-captions-prob", r.ConcatProb, r.ConcatProb >= 0 && r.ConcatProb <= 1, "0 to 1"},
		{"max-len", float64(r.MaxLen), r.MaxLen >= 3, "at least 3"},
		{"print-freq", float64(r.PrintFreq), r.PrintFreq > 0, "at least 1"},
		{"eval-every", float64(r.EvalEvery), r.EvalEvery >= 0, "0 or more"},
		{"checkpoint-every", float64(r.CheckpointEvery), r.CheckpointEvery > 0, "at least 1"},
	} {
		if !c.ok {
			return fmt.Errorf("--%s: want %s, have %g", c.name, c.wantText, c.have)
		}
	}
	return nil
}

// Config returns how the recipe's steps are computed.
func (r Recipe) Config() Config {
	c := DefaultConfig()
	c.CapLossScale, c.RetLossScale, c.Accumulation, c.GradClip = r.CapLossScale, r.RetLossScale, r.Accumulation, r.GradClip
	c.Beta1, c.Beta2, c.WeightDecay = r.Beta1, r.Beta2, r.WeightDecay
	return c
}

// Steps returns how many steps the whole run has.
func (r Recipe) Steps() int { return r.Epochs * r.StepsPerEpoch }

// Metrics is a row of metrics.jsonl: the step after which it was written, and scalars under the reference's TensorBoard names.
type Metrics struct {
	Step    int                `json:"step"`
	Scalars map[string]float64 `json:"scalars"`
}

// Files of a run's folder.
const (
	CheckpointFile = "checkpoint.safetensors"
	BestFile       = "best.safetensors"
	MetricsFile    = "metrics.jsonl"
	FailedFile     = "failed.json" // the examples of a step whose loss was no number
)

// Run is a training run in a folder.
type Run struct {
	Dir     string
	Recipe  Recipe
	Trainer *Trainer
	N       int                                    // examples there are
	Batch   func(numbers []int) ([]Example, error) // returns examples by number, also while others are evaluated
	Name    func(number int) string                // of an example, for people
	// Evaluate measures the current parameters after a step: scalars under the reference's names ("val/…"), and the score of which the highest is kept.
	Evaluate func(ctx context.Context, step int) (scalars map[string]float64, score float64, err error)
	// Publish, if any, hands on the parameters after each evaluation.
	Publish func(ctx context.Context, step int, s *State) error
	// Scalars, if any, hears every row of metrics as it is written.
	Scalars func(Metrics) error
	// Progress, if any, hears of every step.
	Progress func(Progress)

	step      int // steps done
	kept      int // steps done at the last update: what a checkpoint counts
	saved     int // steps of the last checkpoint
	best      float64
	evaluated bool // whether the step that the run goes on from was measured
	metrics   *os.File
	sums      map[string]float64 // of the steps since the last row
	count     int
	since     time.Time
}

// Progress is how far a run is.
type Progress struct {
	Step, Steps int
	Examples    int // of the step
	Losses      *Losses
	Rate        float64 // of learning
}

// Start makes the run ready at its beginning, or, where its folder has a checkpoint, where that was made. It returns the steps done.
func (r *Run) Start() (int, error) {
	if r.N < 2 {
		return 0, fmt.Errorf("trainer: want at least 2 examples, have %d", r.N)
	}
	r.best = math.Inf(-1)
	path := filepath.Join(r.Dir, CheckpointFile)
	s, meta, err := ReadState(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return 0, err
	default:
		if r.step, err = strconv.Atoi(meta["step"]); err != nil || r.step < 0 || r.step > r.Recipe.Steps() {
			return 0, fmt.Errorf("trainer: checkpoint %s: step: want a number up to %d, have %q", path, r.Recipe.Steps(), meta["step"])
		}
		if r.best, err = strconv.ParseFloat(meta["best"], 64); err != nil {
			return 0, fmt.Errorf("trainer: checkpoint %s: best: want a number, have %q", path, meta["best"])
		}
		if err := r.Trainer.Restore(s); err != nil {
			return 0, err
		}
	}
	r.kept, r.saved = r.step, r.step
	return r.step, r.openMetrics()
}

// openMetrics opens metrics.jsonl for more rows, without those after the step that the run goes on from, and without a torn last line.
func (r *Run) openMetrics() error {
	path := filepath.Join(r.Dir, MetricsFile)
	rows, err := ReadMetrics(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var b bytes.Buffer
	for _, row := range rows {
		if row.Step > r.step {
			continue
		}
		if row.Step == r.step && slices.ContainsFunc(row.Names(), func(name string) bool { return strings.HasPrefix(name, "val/") }) {
			r.evaluated = true
		}
		if err := json.NewEncoder(&b).Encode(row); err != nil {
			return err
		}
	}
	f, err := atomicfile.Create(path)
	if err != nil {
		return err
	}
	if _, err := f.Write(b.Bytes()); err != nil {
		f.Abort()
		return err
	}
	if err := f.Commit(); err != nil {
		f.Abort()
		return err
	}
	r.metrics, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o644)
	return err
}

// ReadMetrics reads the rows of a metrics.jsonl; a torn last line is left out.
func ReadMetrics(path string) ([]Metrics, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var rows []Metrics
	lines := bufio.NewReader(f)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
		var row Metrics
		if err := json.Unmarshal(line, &row); err != nil {
			return nil, fmt.Errorf("trainer: %s: line %d: %w", path, n, err)
		}
		rows = append(rows, row)
	}
}

// Loop takes the steps that are left. When ctx ends it makes a checkpoint, so that nothing but the step it was at is lost, and returns ctx's error.
func (r *Run) Loop(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, r.metrics.Close()) }()
	rec := r.Recipe
	schedule := Schedule{Rate: rec.LR, WarmupSteps: rec.WarmupSteps, StepsPerEpoch: rec.StepsPerEpoch, Decay: rec.ScheduleStepSize * rec.StepsPerEpoch, Gamma: rec.ScheduleGamma}
	sampler := &Sampler{N: r.N, Batch: rec.BatchSize, Seed: rec.Seed, ConcatProb: rec.ConcatProb}
	r.since, r.sums = time.Now(), map[string]float64{}
	if r.evaluates() && !r.evaluated {
		if err := r.evaluate(ctx); err != nil {
			return r.interrupted(err)
		}
	}
	for next := r.draw(sampler, r.step); r.step < rec.Steps(); {
		batch := <-next
		next = r.draw(sampler, r.step+1)
		if err := r.one(ctx, batch, schedule); err != nil {
			return r.interrupted(err)
		}
		if r.evaluates() {
			if err := r.evaluate(ctx); err != nil {
				return r.interrupted(err)
			}
		} else if r.step%rec.CheckpointEvery == 0 {
			if err := r.checkpoint(); err != nil {
				return err
			}
		}
	}
	return nil
}

// evaluates says whether the parameters are measured after the steps done so far.
func (r *Run) evaluates() bool {
	every := r.Recipe.EvalEvery
	if every == 0 {
		every = r.Recipe.StepsPerEpoch
	}
	return r.step%every == 0 || r.step == r.Recipe.Steps()
}

// interrupted makes a last checkpoint where the run was told to stop.
func (r *Run) interrupted(err error) error {
	if !errors.Is(err, context.Canceled) {
		return err
	}
	return errors.Join(r.checkpoint(), err)
}

// drawn is the batch of a step.
type drawn struct {
	numbers  []int
	concat   bool
	examples []Example
	err      error
}

// draw reads the batch of a step while the one before is computed.
func (r *Run) draw(s *Sampler, step int) <-chan drawn {
	c := make(chan drawn, 1)
	if step < r.Recipe.Steps() {
		go func() {
			var b drawn
			b.numbers, b.concat = s.Next(step)
			b.examples, b.err = r.Batch(b.numbers)
			c <- b
		}()
	}
	return c
}

// one takes a step.
func (r *Run) one(ctx context.Context, b drawn, schedule Schedule) error {
	if b.err != nil {
		return fmt.Errorf("trainer: step %d: %w", r.step+1, b.err)
	}
	rate, norm := schedule.At(r.step), math.NaN()
	losses, err := r.Trainer.Accumulate(ctx, b.examples, b.concat)
	next := r.step + 1
	update := next%r.Recipe.Accumulation == 0 || next%r.Recipe.StepsPerEpoch == 0
	if err == nil && update {
		norm, err = r.Trainer.Update(rate)
	}
	if errors.Is(err, ErrNotFinite) {
		return r.failed(next, err, b.numbers)
	}
	if err != nil {
		return err
	}
	if r.step = next; update {
		r.kept = next
	}
	if r.Progress != nil {
		r.Progress(Progress{r.step, r.Recipe.Steps(), len(b.examples), losses, rate})
	}
	return r.tell(losses, rate, norm, len(b.examples))
}

// failed tells of a step that made no number.
func (r *Run) failed(step int, err error, numbers []int) error {
	var names []string
	for _, n := range numbers {
		names = append(names, r.Name(n))
	}
	path := filepath.Join(r.Dir, FailedFile)
	data, _ := json.MarshalIndent(map[string]any{"step": step, "error": err.Error(), "examples": names}, "", "  ")
	if e := os.WriteFile(path, data, 0o644); e != nil {
		path = e.Error()
	}
	return r.diverged(step, err, path+" lists its examples")
}

func (r *Run) diverged(step int, err error, more string) error {
	return fmt.Errorf("step %d: %w; %s; the last good checkpoint is %s; a lower --lr or a longer --lr-warmup-steps may help",
		step, err, more, filepath.Join(r.Dir, CheckpointFile))
}

// tell adds a step to the running means, and writes a row of them when it is time.
func (r *Run) tell(l *Losses, rate, norm float64, examples int) error {
	for name, x := range map[string]float64{
		"train/loss": l.Total, "train/ce_loss": (r.Recipe.CapLossScale*l.CaptioningCE + r.Recipe.RetLossScale*l.RetrievalCE) / 2, "train/captioning_ce": l.CaptioningCE, "train/retrieval_ce": l.RetrievalCE,
		"train/contrastive_loss": (l.CaptionLoss + l.ImageLoss) / 2, "train/seq_top1_acc": 100 * l.Top1, "train/seq_top5_acc": 100 * l.Top5,
		"train/t2i_top1_acc": 100 * l.T2I1, "train/t2i_top5_acc": 100 * l.T2I5, "train/i2t_top1_acc": 100 * l.I2T1, "train/i2t_top5_acc": 100 * l.I2T5,
		"metrics/examples": float64(examples),
	} {
		r.sums[name] += x
	}
	if r.count++; r.step != 1 && r.step%r.Recipe.PrintFreq != 0 {
		return nil
	}
	row := Metrics{r.step, map[string]float64{"train/lr": rate}}
	if !math.IsNaN(norm) {
		row.Scalars["train/grad_norm"] = norm
	}
	seconds := time.Since(r.since).Seconds()
	for name, x := range r.sums {
		row.Scalars[name] = x / float64(r.count)
	}
	delete(row.Scalars, "metrics/examples")
	row.Scalars["metrics/examples_per_sec"] = r.sums["metrics/examples"] / seconds
	row.Scalars["metrics/total_secs_per_batch"] = seconds / float64(r.count)
	r.since, r.sums, r.count = time.Now(), map[string]float64{}, 0
	return r.write(row)
}

func (r *Run) write(row Metrics) error {
	if err := json.NewEncoder(r.metrics).Encode(row); err != nil {
		return fmt.Errorf("trainer: %s: %w", filepath.Join(r.Dir, MetricsFile), err)
	}
	if r.Scalars == nil {
		return nil
	}
	return r.Scalars(row)
}

// evaluate measures the parameters, makes a checkpoint, keeps the best, and publishes.
func (r *Run) evaluate(ctx context.Context) error {
	if r.Evaluate == nil {
		return r.checkpoint()
	}
	scalars, score, err := r.Evaluate(ctx, r.step)
	if err != nil {
		return err
	}
	for name, x := range scalars {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return r.diverged(r.step, fmt.Errorf("%w: %s %g", ErrNotFinite, name, x), "it was measured after the step")
		}
	}
	if err := r.write(Metrics{r.step, maps.Clone(scalars)}); err != nil {
		return err
	}
	s, err := r.Trainer.Snapshot()
	if err != nil {
		return err
	}
	if score > r.best {
		r.best = score
		if err := r.keep(s, BestFile); err != nil {
			return err
		}
	}
	if err := r.keep(s, CheckpointFile); err != nil {
		return err
	}
	r.since = time.Now()
	if r.Publish == nil {
		return nil
	}
	return r.Publish(ctx, r.step, s)
}

func (r *Run) checkpoint() error {
	s, err := r.Trainer.Snapshot()
	if err != nil {
		return err
	}
	return r.keep(s, CheckpointFile)
}

func (r *Run) keep(s *State, file string) error {
	err := s.Write(filepath.Join(r.Dir, file), map[string]string{"step": strconv.Itoa(r.kept), "best": strconv.FormatFloat(r.best, 'g', -1, 64)})
	if err == nil && file == CheckpointFile {
		r.saved = r.kept
	}
	return err
}

// Saved returns the steps done at the last checkpoint, from which the run would go on.
func (r *Run) Saved() int { return r.saved }

// Names lists a row's scalars in order.
func (m Metrics) Names() []string { return slices.Sorted(maps.Keys(m.Scalars)) }
