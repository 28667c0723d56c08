// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"fromage/bench"
	"fromage/compiler"
	"fromage/gpu"
	"fromage/model"
	"fromage/runner"
	"fromage/shaders"
)

// benchReport is what bench measured.
type benchReport struct {
	Device   gpu.Info       `json:"device"`
	CopyGBps float64        `json:"copy_gb_per_s"`
	Models   []benchModel   `json:"models"`
	Kernels  []bench.Kernel `json:"kernels"`
}

type benchModel struct {
	Name  string         `json:"name"`
	DType shaders.Format `json:"dtype"`
	bench.Model
}

// benchFlags are the command's own.
type benchFlags struct {
	shapes, dtypes []string
	tokens         int
	noKernels      bool
}

func (a *app) benchCommand() *cobra.Command {
	f := benchFlags{dtypes: []string{"f16", "q4"}, tokens: 64}
	c := &cobra.Command{
		Use:   "bench",
		Short: "measure decoding, prefill, pictures and every kernel on this machine",
		Long: "Measures the model of -m, or with --shape the public OPT sizes with made-up weights, and the kernels at the last model's widths. Shares are of the\n" +
			"device's own copy bandwidth, measured in the same run.",
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := a.bench(cmd.Context(), f)
			if err != nil {
				return err
			}
			return a.printBench(report)
		},
	}
	c.Flags().StringVarP(&a.model, "model", "m", "", "bundle to measure (default: the embedded one)")
	c.Flags().StringSliceVar(&f.shapes, "shape", nil, "sizes of OPT to measure instead, with made-up weights and ViT-L/14: 125m, 350m, 1.3b, 2.7b, 6.7b, 13b, 30b, 66b")
	c.Flags().StringSliceVar(&f.dtypes, "dtype", f.dtypes, "weight formats for --shape")
	c.Flags().IntVar(&f.tokens, "tokens", f.tokens, "tokens to decode")
	c.Flags().BoolVar(&f.noKernels, "no-kernels", false, "leave the kernels out")
	return c
}

func (a *app) bench(ctx context.Context, f benchFlags) (*benchReport, error) {
	if f.tokens < 1 {
		return nil, fmt.Errorf("--tokens: want 1 or more, have %d", f.tokens)
	}
	var formats []shaders.Format
	for _, name := range f.dtypes {
		format, err := shaders.ParseFormat(name)
		if err != nil {
			return nil, fmt.Errorf("--dtype: %w", err)
		}
		formats = append(formats, format)
	}
	dev, err := a.openDevice()
	if err != nil {
		return nil, err
	}
	report := &benchReport{Device: dev.Info()}
	if report.CopyGBps, err = bench.Copy(dev, 256<<20); err != nil {
		return nil, err
	}
	shape, err := a.benchModels(ctx, dev, f, formats, report)
	if err != nil || f.noKernels {
		return report, err
	}
	report.Kernels, err = bench.Kernels(ctx, dev, shape, []shaders.Format{shaders.F32, shaders.F16, shaders.Q8, shaders.Q4}, report.CopyGBps)
	return report, err
}

// benchModels measures the models that the flags name and returns the last one's widths.
func (a *app) benchModels(ctx context.Context, dev gpu.Device, f benchFlags, formats []shaders.Format, report *benchReport) (bench.Shape, error) {
	if len(f.shapes) == 0 {
		return a.benchBundle(ctx, dev, f, report)
	}
	var shape bench.Shape
	shapes, clip := model.OPTShapes(), model.CLIPShapes()["l14"]
	for _, name := range f.shapes {
		opt, ok := shapes[strings.TrimPrefix(strings.ToLower(name), "opt-")]
		if !ok {
			return shape, fmt.Errorf("--shape: want a size of OPT (125m, 350m, 1.3b, 2.7b, 6.7b, 13b, 30b, 66b), have %q", name)
		}
		shape = bench.Shape{Hidden: opt.HiddenSize, FFN: opt.FFN, Heads: opt.Heads}
		heads := &model.Heads{VisualTokens: 1, SharedDim: 256, TextLayers: []int{-1}}
		for _, format := range formats {
			manifest, err := compiler.Blank(model.Config{OPT: &opt, CLIP: &clip, Heads: heads, Vocabulary: 50267}, format)
			if err != nil {
				return shape, err
			}
			line := a.startProgress("making up OPT-"+name+" "+format.String(), "B")
			r, err := runner.LoadRandom(ctx, dev, manifest, func(p runner.Progress) { line.set(p.Done, p.Total) })
			a.endProgress()
			if err != nil {
				return shape, fmt.Errorf("OPT-%s in %s: %w", name, format, err)
			}
			m, err := bench.Of(ctx, r, f.tokens, report.CopyGBps)
			r.Close()
			if err != nil {
				return shape, fmt.Errorf("OPT-%s in %s: %w", name, format, err)
			}
			report.Models = append(report.Models, benchModel{"OPT-" + name + " + ViT-L/14", format, *m})
		}
	}
	return shape, nil
}

func (a *app) benchBundle(ctx context.Context, dev gpu.Device, f benchFlags, report *benchReport) (bench.Shape, error) {
	b, err := a.openBundle()
	if err != nil {
		return bench.Shape{}, err
	}
	r, err := runner.Load(ctx, dev, b, nil)
	if err != nil {
		return bench.Shape{}, err
	}
	defer r.Close()
	m, err := bench.Of(ctx, r, f.tokens, report.CopyGBps)
	if err != nil {
		return bench.Shape{}, err
	}
	report.Models = append(report.Models, benchModel{b.Manifest().Name, b.Manifest().DType, *m})
	s := r.Settings()
	return bench.Shape{Hidden: s.HiddenDim, FFN: 4 * s.HiddenDim, Heads: max(1, s.HiddenDim/64)}, nil
}

func (a *app) printBench(r *benchReport) error {
	if a.json {
		return a.writeJSON(r)
	}
	w := a.stdout
	fmt.Fprintf(w, "%s\ncopy %.1f GB/s (bytes read plus bytes written)\n\n", describeDevice(r.Device), r.CopyGBps)
	fmt.Fprintf(w, "%-34s %-5s %12s %10s %8s %14s %12s %11s %10s\n", "model", "dtype", "decode tok/s", "GB/s", "of copy", "prefill tok/s", "first token", "pictures/s", "dispatches")
	for _, m := range r.Models {
		fmt.Fprintf(w, "%-34s %-5s %12.1f %10.2f %7.0f%% %14.1f %9.1f ms %11.1f %10d\n",
			m.Name, m.DType, m.Decode, m.DecodeGBps, 100*m.CopyShare, m.Prefill, m.FirstMS, m.Images, m.Dispatches)
	}
	if len(r.Kernels) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\n%-34s %-34s %12s %10s %8s %10s\n", "kernel", "size", "time", "GB/s", "of copy", "TFLOP/s")
	for _, k := range r.Kernels {
		fmt.Fprintf(w, "%-34s %-34s %9.1f µs %10.2f %7.0f%% %10.4f\n", k.Kernel, k.Shape, k.Micros, k.GBps, 100*k.Share, k.TFLOPs)
	}
	return nil
}
