// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"fromage/bench"
	"fromage/compiler"
	"fromage/gpu"
	"fromage/model"
	"fromage/runner"
	"fromage/shaders"
)

// benchFlags are the command's own.
type benchFlags struct {
	shapes, dtypes []string
	tokens         int
	noKernels      bool
	rows           []int
	compare        string
	sandbox        bool
}

func (a *app) benchCommand() *cobra.Command {
	f := benchFlags{dtypes: []string{"f16", "q4"}, tokens: 64, rows: []int{1 << 16}}
	c := &cobra.Command{
		Use:   "bench",
		Short: "measure decoding, prefill, pictures, search and every kernel on this machine",
		Long: `Measures the model of -m, or with --shape the public OPT sizes with made-up weights: tokens, pictures, searches, and the kernels that a prompt, a token
and pictures run, with the bytes and operations that the plan predicts of them. Shares are of a copy and of the best product of matrices on the same device in
the same run. Kernels are timed by the device's clock where it has one, else by running each one's dispatches over and over.`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			old, err := readReport(f.compare)
			if err != nil {
				return err
			}
			report, err := a.bench(cmd.Context(), f)
			if err != nil {
				return err
			}
			return a.printBench(report, old)
		},
	}
	flags := c.Flags()
	flags.StringVarP(&a.model, "model", "m", "", "`BUNDLE` to measure (default: the embedded one)")
	flags.StringSliceVar(&f.shapes, "shape", nil, "sizes of OPT to measure instead, with made-up weights and ViT-L/14: "+shapeNames)
	flags.StringSliceVar(&f.dtypes, "dtype", f.dtypes, "weight formats for --shape")
	flags.IntVar(&f.tokens, "tokens", f.tokens, "tokens to decode")
	flags.BoolVar(&f.noKernels, "no-kernels", false, "leave the kernels out")
	flags.IntSliceVar(&f.rows, "rows", f.rows, "rows of the galleries to search; 0 for none")
	flags.BoolVar(&f.sandbox, "sandbox", false, "measure the model of -m in the sandbox of fromage headless too")
	flags.StringVar(&f.compare, "compare", "", "a `FILE` that bench --json wrote before: show what has become faster and slower")
	a.kvFlag(flags)
	c.AddCommand(a.benchTrainCommand())
	return c
}

// readReport reads the report of an earlier run; nil for no name.
func readReport(name string) (*bench.Report, error) {
	if name == "" {
		return nil, nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("--compare: %w", err)
	}
	r := new(bench.Report)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("--compare: %s: want what bench --json wrote: %w", name, err)
	}
	if r.Device.Adapter == "" || len(r.Models) == 0 {
		return nil, fmt.Errorf("--compare: %s: want what bench --json wrote, have JSON without a device and models", name)
	}
	return r, nil
}

func (a *app) bench(ctx context.Context, f benchFlags) (*bench.Report, error) {
	if f.tokens < 1 {
		return nil, fmt.Errorf("--tokens: want 1 or more, have %d", f.tokens)
	}
	for _, rows := range f.rows {
		if rows != 0 && (rows < 16 || rows > 1<<24) {
			return nil, fmt.Errorf("--rows: want 0 or 16 to %d, have %d", 1<<24, rows)
		}
	}
	formats, err := parseFormats(f.dtypes)
	if err != nil {
		return nil, err
	}
	dev, err := a.openDevice()
	if err != nil {
		return nil, err
	}
	report := &bench.Report{Version: version(), Device: dev.Info()}
	if report.Ceilings, err = bench.Measure(dev); err != nil {
		return nil, err
	}
	if f.sandbox && len(f.shapes) > 0 {
		return nil, errors.New("--sandbox: want a model of -m, have --shape")
	}
	if len(f.shapes) > 0 {
		return report, a.eachShape(ctx, dev, f.shapes, formats, func(name string, _ model.OPT, r *runner.Runner) error {
			return a.benchModel(ctx, name, r, f, report)
		})
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
	if err := r.SetKV(a.kv); err != nil {
		return nil, fmt.Errorf("%s: %w", a.modelName(), err)
	}
	if err := a.benchModel(ctx, b.Manifest().Name, r, f, report); err != nil || !f.sandbox {
		return report, err
	}
	return report, a.benchSandbox(ctx, dev, f.tokens, report)
}

// benchModel adds a model to the report, and searches with the first that knows pictures.
func (a *app) benchModel(ctx context.Context, name string, r *runner.Runner, f benchFlags, report *bench.Report) error {
	dtype := r.Manifest().DType
	defer a.endProgress()
	line := a.startProgress("measuring "+name+" "+dtype.String(), "measurements")
	m, err := bench.Of(ctx, r, report.Ceilings, bench.Options{Tokens: f.tokens, Kernels: !f.noKernels, Progress: func(p runner.Progress) { line.set(p.Done, p.Total) }})
	if err != nil {
		return err
	}
	if m.Name, m.DType = name, dtype; a.kv != shaders.F32 {
		m.Name += ", kv " + a.kv.String()
	}
	report.Models = append(report.Models, *m)
	if len(report.Searches) > 0 || r.Settings().SharedDim == 0 {
		return nil
	}
	for _, rows := range f.rows {
		if rows == 0 {
			continue
		}
		line := a.startProgress("making up a gallery", "rows")
		s, err := bench.SearchOf(ctx, r, rows, report.Ceilings, func(p runner.Progress) { line.set(p.Done, p.Total) })
		if err != nil {
			return err
		}
		report.Searches = append(report.Searches, *s)
	}
	return nil
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
				if err = r.SetKV(a.kv); err == nil {
					err = f("OPT-"+size+" + ViT-L/14", opt, r)
				}
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

// comparison is bench --compare --json.
type comparison struct {
	*bench.Report
	Changes  []bench.Change `json:"changes"`
	Warnings []string       `json:"warnings"`
}

func (a *app) printBench(r, old *bench.Report) error {
	c := comparison{Report: r}
	if old != nil {
		c.Changes, c.Warnings = bench.Compare(old, r)
	}
	if a.json && old != nil {
		return a.writeJSON(c)
	}
	if a.json {
		return a.writeJSON(r)
	}
	w := a.stdout
	fmt.Fprintf(w, "%s\n", describeDevice(r.Device))
	l := r.Ceilings
	fmt.Fprintf(w, "ceilings: copy %.1f GB/s (bytes read plus bytes written), product of f32 matrices %.4g TFLOP/s (%d³), a dispatch %.3g µs, a submit and a wait %.3g µs\n",
		l.CopyGBps, l.MatmulTFLOPs, l.MatmulSize, l.DispatchUS, l.SubmitUS)
	printModels(w, r.Models)
	if len(r.Searches) > 0 {
		fmt.Fprintf(w, "\n%-34s %12s %10s %8s\n", "search", "time", "GB/s", "of copy")
	}
	for _, s := range r.Searches {
		fmt.Fprintf(w, "%-34s %9.3g ms %10.2f %7.0f%%\n", fmt.Sprintf("%d of %d rows of %d", s.K, s.Rows, s.D), s.MS, s.GBps, 100*s.CopyShare)
	}
	if s := r.Sandbox; s != nil {
		fmt.Fprintf(w, "\nin the sandbox: %.1f tok/s, first token after %.1f ms, %s of memory beside the weights\n", s.Decode, s.FirstMS, byteSize(int64(s.MemoryBytes)))
	}
	for _, m := range r.Models {
		for _, p := range m.Programs {
			printProgram(w, m, p)
		}
	}
	if old != nil {
		printChanges(w, c.Changes, c.Warnings)
	}
	return nil
}

func printModels(w io.Writer, models []bench.Model) {
	fmt.Fprintf(w, "\n%-34s %-5s %12s %8s %8s %15s %18s %11s %18s\n", "model", "dtype", "decode tok/s", "GB/s", "of copy", "prompt tok/s", "first token", "pictures/s", "a token")
	for _, m := range models {
		fmt.Fprintf(w, "%-34s %-5s %12.1f %8.2f %7.0f%% %9.1f (%d) %9.1f ms (%d) %11.1f %3d dispatches, %.3g submits, %.3g reads\n",
			m.Name, m.DType, m.Decode, m.DecodeGBps, 100*m.CopyShare, m.Prefill, m.PrefillLen, m.FirstMS, m.FirstLen, m.Images, m.Dispatches, m.Submits, m.Reads)
	}
}

func printProgram(w io.Writer, m bench.Model, p bench.Program) {
	fmt.Fprintf(w, "\n%s %s: %s, %s: %.3g ms, %d dispatches, %.4g MB, %.4g GFLOP, %.2f GB/s, %.4g TFLOP/s; kernels by the %s\n",
		m.Name, m.DType, p.Name, p.Work, p.MS, p.Dispatches, float64(p.Bytes)/1e6, p.FLOPs/1e9, p.GBps, p.TFLOPs,
		map[string]string{bench.ClockDevice: "device's clock", bench.ClockRepeats: "wall's clock, one by one"}[p.Clock])
	fmt.Fprintf(w, "%-44s %10s %12s %6s %9s %9s %9s %8s %9s %8s\n", "kernel", "dispatches", "time", "share", "MB", "GB/s", "of copy", "GFLOP", "TFLOP/s", "of best")
	for _, k := range p.Kernels {
		fmt.Fprintf(w, "%-44s %10d %9.1f µs %5.1f%% %9.4g %9.2f %8.0f%% %8.4g %9.4g %7.0f%%\n",
			k.Kernel, k.Dispatches, k.Micros, 100*k.Share, float64(k.Bytes)/1e6, k.GBps, 100*k.CopyShare, k.FLOPs/1e9, k.TFLOPs, 100*k.MatmulShare)
	}
}

func printChanges(w io.Writer, changes []bench.Change, warnings []string) {
	fmt.Fprintln(w)
	for _, text := range warnings {
		fmt.Fprintf(w, "NOT THE SAME: %s\n", text)
	}
	fmt.Fprintf(w, "%-90s %12s %12s %8s\n", "compared", "before", "now", "as fast")
	for _, c := range changes {
		fmt.Fprintf(w, "%-90s %12.4g %12.4g %7.2f× %s\n", c.What, c.Old, c.New, c.Times, c.Unit)
	}
}
