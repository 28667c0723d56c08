// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"fromage/bench/train"
	"fromage/gpu"
	"fromage/model"
	"fromage/runner"
	"fromage/shaders"
)

// benchTrainFlags are those of bench train.
type benchTrainFlags struct {
	shapes, dtypes []string
	batch, tokens  int
	memory         string
	activations    shaders.Format
	seconds        float64
}

// benchTrainReport is what bench train measured.
type benchTrainReport struct {
	Device gpu.Info          `json:"device"`
	Models []benchTrainModel `json:"models"`
}

type benchTrainModel struct {
	Name  string         `json:"name"`
	DType shaders.Format `json:"dtype"`
	train.Training
}

// Batches where --batch does not say: the paper's, and one that a CPU computes within seconds.
const (
	paperBatch    = 180
	softwareBatch = 12
)

func (a *app) benchTrainCommand() *cobra.Command {
	f := benchTrainFlags{dtypes: []string{"f16"}, tokens: 13, seconds: 5}
	c := &cobra.Command{
		Use:   "train",
		Short: "measure steps of training: examples/s, TFLOP/s, memory, and how the time divides",
		Long: `Measures steps of training as fromage train takes them, half of them with captions in pairs, on the model of -m, or with --shape on public sizes of OPT with
made-up weights. Pictures are CLIP's states that were computed before. TFLOP/s count matrix products alone. Shares are of steps that wait for each of
their parts; where a step takes less than a second, the speed is of others that do not.`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := a.benchTrain(cmd.Context(), f)
			if err != nil {
				return err
			}
			return a.printBenchTrain(report)
		},
	}
	flags := c.Flags()
	a.modelFlag(flags)
	flags.StringSliceVar(&f.shapes, "shape", nil, "sizes of OPT to measure instead, with made-up weights and ViT-L/14: "+shapeNames)
	flags.StringSliceVar(&f.dtypes, "dtype", f.dtypes, "weight formats for --shape")
	flags.IntVarP(&f.batch, "batch", "b", 0, fmt.Sprintf("examples of a step (default: %d as in the paper, %d where a CPU computes)", paperBatch, softwareBatch))
	flags.IntVar(&f.tokens, "tokens", f.tokens, "tokens of a caption, </s> and [RET] included")
	flags.StringVar(&f.memory, "memory", "", "how much memory a run's activations may take, such as 30GB (default 6GiB)")
	activationsFlag(flags, &f.activations)
	flags.Float64Var(&f.seconds, "seconds", f.seconds, "how long to take undisturbed steps; two at least")
	return c
}

func (a *app) benchTrain(ctx context.Context, f benchTrainFlags) (*benchTrainReport, error) {
	formats, err := parseFormats(f.dtypes)
	if err != nil {
		return nil, err
	}
	switch {
	case f.batch != 0 && f.batch < 2 || f.batch > 1<<16:
		return nil, fmt.Errorf("--batch: want 2 to 65536, have %d", f.batch)
	case f.tokens < 2:
		return nil, fmt.Errorf("--tokens: want 2 or more, have %d", f.tokens)
	case !(f.seconds >= 0 && f.seconds < 1e6):
		return nil, fmt.Errorf("--seconds: want 0 or more, have %g", f.seconds)
	}
	o := train.Options{Batch: f.batch, Tokens: f.tokens, Activations: f.activations, Budget: time.Duration(f.seconds * float64(time.Second))}
	if o.Memory, err = parseBytes(f.memory); err != nil {
		return nil, fmt.Errorf("--memory: %w", err)
	}
	dev, err := a.openDevice()
	if err != nil {
		return nil, err
	}
	report := &benchTrainReport{Device: dev.Info()}
	if o.Batch == 0 {
		if o.Batch = paperBatch; report.Device.Software {
			o.Batch = softwareBatch
		}
	}
	measure := func(name string, r *runner.Runner) error {
		line := a.startProgress("training "+name+" "+r.Manifest().DType.String(), "GFLOP")
		defer a.endProgress()
		o.Progress = func(p runner.Progress) { line.set(p.Done, p.Total) }
		m, err := train.Measure(ctx, r, o)
		if err == nil {
			report.Models = append(report.Models, benchTrainModel{name, r.Manifest().DType, *m})
		}
		return err
	}
	if len(f.shapes) > 0 {
		err := a.eachShape(ctx, dev, f.shapes, formats, func(name string, _ model.OPT, r *runner.Runner) error { return measure(name, r) })
		return report, err
	}
	b, err := a.openBundle()
	if err != nil {
		return nil, err
	}
	r, err := runner.Load(ctx, dev, b, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.modelName(), err)
	}
	defer r.Close()
	return report, measure(b.Manifest().Name, r)
}

func (a *app) printBenchTrain(r *benchTrainReport) error {
	if a.json {
		return a.writeJSON(r)
	}
	w := a.stdout
	fmt.Fprintln(w, describeDevice(r.Device))
	for _, m := range r.Models {
		fmt.Fprintf(w, "\n%s, %s: batches of %d captions of %d tokens\n", m.Name, m.DType, m.Batch, m.Tokens)
		fmt.Fprintf(w, "%10.1f examples/s, %.1f ms a step, %.3g TFLOP/s\n", m.ExamplesPS, m.StepMS, m.TFLOPs)
		fmt.Fprintf(w, "memory: weights %s, activations %s, keys and values %s, gradients and moments %s; up to %d tokens a run\n",
			byteSize(int64(m.Memory.Weights)), byteSize(int64(m.Memory.Activations)), byteSize(int64(m.Memory.KV)), byteSize(int64(m.Memory.Optimizer)), m.Memory.Tokens)
		fmt.Fprintf(w, "%-20s %10s %7s %10s\n", "part", "time", "share", "TFLOP/s")
		for _, p := range m.Parts {
			fmt.Fprintf(w, "%-20s %7.1f ms %5.1f %% %10.3g\n", p.Part, p.MS, 100*p.Share, p.TFLOPs)
		}
		fmt.Fprintf(w, "%-20s %7.1f ms %5.1f %%\n", "rest", m.WatchedMS*m.Rest, 100*m.Rest)
	}
	return nil
}
