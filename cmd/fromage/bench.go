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
	c.Flags().StringSliceVar(&f.shapes, "shape", nil, "sizes of OPT to measure instead, with made-up weights and ViT-L/14: "+shapeNames)
	c.Flags().StringSliceVar(&f.dtypes, "dtype", f.dtypes, "weight formats for --shape")
	c.Flags().IntVar(&f.tokens, "tokens", f.tokens, "tokens to decode")
	c.Flags().BoolVar(&f.noKernels, "no-kernels", false, "leave the kernels out")
	c.AddCommand(a.benchTrainCommand())
	return c
}

func (a *app) bench(ctx context.Context, f benchFlags) (*benchReport, error) {
	if f.tokens < 1 {
		return nil, fmt.Errorf("--tokens: want 1 or more, have %d", f.tokens)
	}
	formats, err := parseFormats(f.dtypes)
	if err != nil {
		return nil, err
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
	err := a.eachShape(ctx, dev, f.shapes, formats, func(name string, opt model.OPT, r *runner.Runner) error {
		shape = bench.Shape{Hidden: opt.HiddenSize, FFN: opt.FFN, Heads: opt.Heads}
		m, err := bench.Of(ctx, r, f.tokens, report.CopyGBps)
		if err == nil {
			report.Models = append(report.Models, benchModel{name, r.Manifest().DType, *m})
		}
		return err
	})
	return shape, err
}

// benchShapes are the sizes of OPT that can be measured with made-up weights.
func benchShapes() map[string]model.OPT {
	shapes := model.OPTShapes()
	mini := shapes["125m"]
	mini.HiddenSize, mini.WordEmbedProjDim, mini.Layers, mini.FFN, mini.Heads, mini.VocabSize, mini.MaxPositions = 384, 384, 8, 1536, 6, 8200, 512
	shapes["mini"] = mini
	return shapes
}

// shapeNames is how people are told of benchShapes.
const shapeNames = "mini, 125m, 350m, 1.3b, 2.7b, 6.7b, 13b, 30b, 66b"

// eachShape calls f with models of sizes of OPT and CLIP's ViT-L/14 in each of the formats, their weights made up.
func (a *app) eachShape(ctx context.Context, dev gpu.Device, sizes []string, formats []shaders.Format, f func(name string, opt model.OPT, r *runner.Runner) error) error {
	shapes, clip := benchShapes(), model.CLIPShapes()["l14"]
	for _, size := range sizes {
		opt, ok := shapes[strings.TrimPrefix(strings.ToLower(size), "opt-")]
		if !ok {
			return fmt.Errorf("--shape: want a size of OPT (%s), have %q", shapeNames, size)
		}
		// The published tables have rows to spare that no token has.
		c := model.Config{OPT: &opt, CLIP: &clip, Heads: &model.Heads{VisualTokens: 1, SharedDim: 256, TextLayers: []int{-1}}, Vocabulary: opt.VocabSize - 5}
		for _, format := range formats {
			manifest, err := compiler.Blank(c, format)
			if err != nil {
				return err
			}
			line := a.startProgress("making up OPT-"+size+" "+format.String(), "B")
			r, err := runner.LoadRandom(ctx, dev, manifest, func(p runner.Progress) { line.set(p.Done, p.Total) })
			a.endProgress()
			if err == nil {
				err = f("OPT-"+size+" + ViT-L/14", opt, r)
				r.Close()
			}
			if err != nil {
				return fmt.Errorf("OPT-%s in %s: %w", size, format, err)
			}
		}
	}
	return nil
}

// parseFormats reads --dtype.
func parseFormats(names []string) ([]shaders.Format, error) {
	var formats []shaders.Format
	for _, name := range names {
		format, err := shaders.ParseFormat(name)
		if err != nil {
			return nil, fmt.Errorf("--dtype: %w", err)
		}
		formats = append(formats, format)
	}
	return formats, nil
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
