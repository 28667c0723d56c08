// SPDX-License-Identifier: Apache-2.0

//go:build js && wasm

package main

import (
	"context"
	"fmt"

	"fromage/bench"
	"fromage/gpu"
	"fromage/runner"
	"fromage/shaders"
	"fromage/tune"
)

// bench measures the GPU and the model: {tokens, rows} → bench.Report. Each piece says how far it is.
func (s *session) bench(ctx context.Context, c *call) (any, error) {
	dev := s.r.Device()
	report := &bench.Report{Device: dev.Info()}
	step := func(p runner.Progress) { c.emit(map[string]any{"done": p.Done, "total": p.Total, "what": p.What}) }
	c.emit(map[string]any{"done": 0, "total": 1, "what": "ceilings"})
	var err error
	if report.Ceilings, err = bench.Measure(dev); err != nil {
		return nil, err
	}
	tokens, rows := c.args.Get("tokens").Int(), c.args.Get("rows").Int()
	if tokens < 1 || tokens > 1<<12 || rows < 0 || rows > 1<<20 {
		return nil, coded("input", fmt.Errorf("bench: want 1 to 4096 tokens and up to 1048576 rows, have %d and %d", tokens, rows))
	}
	m, err := bench.Of(ctx, s.r, report.Ceilings, bench.Options{Tokens: tokens, Kernels: true, Progress: step})
	if err != nil {
		return nil, err
	}
	m.Name, m.DType = s.manifest.Name, s.manifest.DType
	report.Models = append(report.Models, *m)
	if rows == 0 {
		return report, nil
	}
	found, err := bench.SearchOf(ctx, s.r, rows, report.Ceilings, step)
	if err != nil {
		return nil, err
	}
	report.Searches = append(report.Searches, *found)
	return report, nil
}

// tune measures which form of each kernel is the fastest on this GPU: {quick} → tune.Table, for the next load.
func (s *session) tune(ctx context.Context, c *call) (any, error) {
	return tune.Measure(ctx, s.r.Device(), tune.Options{
		Quick: c.args.Get("quick").Truthy(), Formats: []shaders.Format{s.manifest.DType},
		Progress: func(p runner.Progress) { c.emit(map[string]any{"done": p.Done, "total": p.Total, "what": p.What}) },
	})
}

// choices is browser.Options.Choices: those of the table that the page kept, where it is of this GPU and these kernels.
func (s *session) choices(info gpu.Info) map[string]string {
	if s.kernels == "" {
		return nil
	}
	t, err := tune.Parse([]byte(s.kernels))
	if err != nil || t.Fits(info) != nil {
		return nil
	}
	return t.Choices
}
