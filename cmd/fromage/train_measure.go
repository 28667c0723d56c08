// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"fromage/dataset"
	"fromage/eval"
	"fromage/server/client"
	"fromage/trainer"
	"fromage/trainer/events"
	"fromage/trainer/report"
)

// reportFile is the page that shows a run, made anew after each evaluation.
const reportFile = "report.html"

// Of a run's report: how many validation pictures it shows, how many tokens their captions may have, and how many pictures are shown as found.
const (
	samples     = 12
	sampleWords = 24
	sampleFound = 3
)

// measuring evaluates a run as it goes.
type measuring struct {
	t        *training
	examples []dataset.Example
	features *dataset.Features
	pictures *dataset.Pictures
	events   *events.Writer
}

// measure opens what evaluations need; without --val there are none.
func (t *training) measure(ctx context.Context, step int) error {
	w, err := events.Create(t.dir, time.Now(), step)
	if err != nil {
		return err
	}
	t.a.atEnd(func() { w.Close() })
	m := &measuring{t: t, events: w}
	t.run.Scalars = m.scalars
	if t.args.Publish != "" {
		t.run.Publish = t.publish
	}
	if t.args.Val == "" {
		return nil
	}
	if m.features, m.pictures, err = t.embed(ctx, t.val, t.args.ValImages); err != nil {
		return err
	}
	if m.examples = m.features.Usable(t.val); len(m.examples) < 2 {
		return fmt.Errorf("%s: want at least 2 examples whose pictures can be read, have %d of them", t.args.Val, len(m.examples))
	}
	t.run.Evaluate = m.evaluate
	return nil
}

// scalars puts a row of metrics into TensorBoard's file, as it is.
func (m *measuring) scalars(row trainer.Metrics) error {
	var all []events.Scalar
	for _, name := range row.Names() {
		all = append(all, events.Scalar{Tag: name, Value: row.Scalars[name]})
	}
	return m.events.Write(time.Now(), row.Step, all...)
}

// evaluate measures the parameters. The score is the reference's, text→image R@1.
func (m *measuring) evaluate(ctx context.Context, step int) (map[string]float64, float64, error) {
	t := m.t
	defer t.a.endProgress()
	if err := t.r.HeadsChanged(); err != nil {
		return nil, 0, err
	}
	words := 0
	if t.args.ValBLEU {
		words = eval.DefaultWords
	}
	s, err := eval.Captions(ctx, t.r, m.examples, m.features, eval.CaptionOptions{MaxLen: t.args.MaxLen, Words: words, Progress: t.a.watch("captions")})
	if err != nil {
		return nil, 0, err
	}
	t.a.endProgress()
	t2i, i2t := s.TextToImage, s.ImageToText
	scalars := map[string]float64{
		"val/ce_loss": s.CE, "val/seq_top1_acc": s.Top1, "val/seq_top5_acc": s.Top5, "val/contrastive_loss": s.Contrastive,
		"val/t2i_top1_acc": t2i.At1, "val/t2i_top5_acc": t2i.At5, "val/t2i_top10_acc": t2i.At10,
		"val/i2t_top1_acc": i2t.At1, "val/i2t_top5_acc": i2t.At5, "val/i2t_top10_acc": i2t.At10,
		"val/top1_acc": (t2i.At1 + i2t.At1) / 2, "val/top5_acc": (t2i.At5 + i2t.At5) / 2,
	}
	if t.args.ValBLEU {
		for i, b := range s.BLEU {
			scalars["val/bleu"+strconv.Itoa(i+1)] = b
		}
	}
	fmt.Fprintf(t.a.stderr, "fromage: step %d: captioning %.4f, text→image R@1/5/10 %.1f/%.1f/%.1f, image→text %.1f/%.1f/%.1f\n",
		step, s.CE, t2i.At1, t2i.At5, t2i.At10, i2t.At1, i2t.At5, i2t.At10)
	return scalars, t2i.At1, m.report(ctx, step, scalars, s)
}

// report writes the run's page.
func (m *measuring) report(ctx context.Context, step int, scalars map[string]float64, s *eval.CaptionScores) error {
	t := m.t
	rows, err := trainer.ReadMetrics(filepath.Join(t.dir, trainer.MetricsFile))
	if err != nil {
		return err
	}
	page := report.Run{Title: "fromage train: " + filepath.Base(t.dir), Facts: m.facts()}
	for _, row := range append(rows, trainer.Metrics{Step: step, Scalars: scalars}) {
		page.Rows = append(page.Rows, report.Row(row))
	}
	// Spread over the set, so that sources in order of their kind are all seen.
	var chosen []dataset.Example
	var numbers []int
	for i := range min(samples, len(m.examples)) {
		n := i * len(m.examples) / min(samples, len(m.examples))
		chosen, numbers = append(chosen, m.examples[n]), append(numbers, n)
	}
	said, err := eval.Captions(ctx, t.r, chosen, m.features, eval.CaptionOptions{MaxLen: t.args.MaxLen, Words: sampleWords})
	if err != nil {
		return err
	}
	for i, e := range chosen {
		sample := report.Sample{Picture: m.picture(e.Image), Caption: e.Caption, Generated: said.Each[i].Ended}
		found := s.Each[numbers[i]].Found
		for _, n := range found[:min(sampleFound, len(found))] {
			sample.Retrieved = append(sample.Retrieved, report.Found{Picture: m.picture(m.examples[n].Image), Right: m.examples[n].Caption == e.Caption})
		}
		page.Samples = append(page.Samples, sample)
	}
	return report.Save(filepath.Join(t.dir, reportFile), page)
}

// picture is a picture's bytes; a report can do without.
func (m *measuring) picture(name string) report.Picture {
	data, err := m.pictures.Read(name)
	if err != nil {
		m.t.a.log.Warn("report", "picture", name, "error", err)
	}
	return report.Picture{Path: name, Data: data}
}

func (m *measuring) facts() []report.Fact {
	t := m.t
	info := t.r.Device().Info()
	all := []report.Fact{
		{Name: "model", Value: t.r.Manifest().Name}, {Name: "frozen weights", Value: t.r.Manifest().DType.String()},
		{Name: "visual tokens", Value: strconv.Itoa(t.r.Settings().VisualTokens)},
		{Name: "training examples", Value: strconv.Itoa(len(t.examples))}, {Name: "validation examples", Value: strconv.Itoa(len(m.examples))},
		{Name: "device", Value: info.Host + ": " + info.Adapter},
	}
	recipe := map[string]any{
		"steps": t.args.Steps(), "batch-size": t.args.BatchSize, "lr": t.args.LR, "lr-warmup-steps": t.args.WarmupSteps, "max-len": t.args.MaxLen,
		"lr-schedule":          fmt.Sprintf("× %g every %d epochs of %d steps", t.args.ScheduleGamma, t.args.ScheduleStepSize, t.args.StepsPerEpoch),
		"concat-captions-prob": t.args.ConcatProb, "grad-clip": t.args.GradClip, "seed": t.args.Seed,
	}
	for _, name := range slices.Sorted(maps.Keys(recipe)) {
		all = append(all, report.Fact{Name: name, Value: fmt.Sprint(recipe[name])})
	}
	return all
}

// publish hands on the heads of an evaluation. Training does not end because nobody takes them: it says so.
func (t *training) publish(ctx context.Context, step int, s *trainer.State) error {
	err := t.hand(ctx, step, s)
	if err != nil && ctx.Err() == nil {
		t.a.endProgress()
		fmt.Fprintf(t.a.stderr, "fromage: step %d was not published: %v\n", step, err)
		t.a.log.Warn("publish", "step", step, "error", err)
	}
	return ctx.Err()
}

// hand puts heads into a folder, as one file for each step and as heads.safetensors, or has a server publish them.
func (t *training) hand(ctx context.Context, step int, s *trainer.State) error {
	to := t.args.Publish
	if strings.Contains(to, "://") {
		_, err := client.PublishHeads(ctx, to, os.Getenv(tokenVariable), t.args.PublishName, fmt.Sprintf("training step %d", step), s.Weights)
		return err
	}
	if err := os.MkdirAll(to, 0o777); err != nil {
		return err
	}
	for _, name := range []string{fmt.Sprintf("heads-%06d.safetensors", step), "heads.safetensors"} {
		err := writeFile(filepath.Join(to, name), func(w io.Writer) error { return trainer.WriteHeads(w, t.r.Manifest(), s.Weights) })
		if err != nil {
			return err
		}
	}
	return nil
}
