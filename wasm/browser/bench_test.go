// SPDX-License-Identifier: Apache-2.0

//go:build !js && unix

package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"fromage/bench"
	"fromage/tune"
)

// TestBench measures in the browser, and has it choose other forms of kernels, which answer the same.
func TestBench(t *testing.T) {
	path := chromium(t)
	wasm := build(t)
	model, _ := compiled(t)
	s := &site{}
	s.show(t, path, s.handler(t, wasm, model, "testdata/bench.js", nil, nil))

	var measured struct {
		Report bench.Report
		Pieces int
		Text   string
	}
	s.get(t, "bench", &measured)
	r := measured.Report
	if len(r.Models) != 1 || len(r.Models[0].Programs) != 4 || len(r.Searches) != 1 || r.Searches[0].Rows != 200 || r.Device.Host != "browser" || !(r.Ceilings.CopyGBps > 0) {
		t.Fatalf("bench = %+v", r)
	}
	m := r.Models[0]
	if !(m.Decode > 0 && m.Images > 0 && m.Dispatches > 10 && m.Submits >= 1) || measured.Pieces < 6 {
		t.Errorf("bench: %+v, %d pieces", m, measured.Pieces)
	}
	for _, p := range m.Programs {
		if p.Clock != bench.ClockRepeats || !(p.MS > 0) || len(p.Kernels) == 0 || !strings.Contains(measured.Text, p.Kernels[0].Kernel) {
			t.Errorf("program %+v, want it timed by repeats and shown", p)
		}
	}
	if !slices.ContainsFunc(m.Programs, func(p bench.Program) bool {
		return slices.ContainsFunc(p.Kernels, func(k bench.Kernel) bool {
			return strings.HasPrefix(k.Kernel, "attention") && strings.HasSuffix(k.Kernel, ".f16.vec4")
		})
	}) {
		t.Errorf("programs are %+v, want attention over f16 among their kernels", m.Programs)
	}
	var tuned struct {
		Table   tune.Table
		Answers []struct {
			IDs     []int32
			Choices map[string]string
		}
	}
	s.get(t, "tune", &tuned)
	if len(tuned.Table.Results) == 0 || len(tuned.Answers) != 3 {
		t.Fatalf("tune = %+v", tuned)
	}
	rule, chosen, nonsense := tuned.Answers[0], tuned.Answers[1], tuned.Answers[2]
	if !maps.Equal(chosen.Choices, tuned.Table.Choices) || len(rule.Choices)+len(nonsense.Choices) != 0 {
		t.Errorf("choices are %v, %v, %v, want those of the table where there is one: %v", rule.Choices, chosen.Choices, nonsense.Choices, tuned.Table.Choices)
	}
	if len(rule.IDs) != 8 || !slices.Equal(rule.IDs, chosen.IDs) || !slices.Equal(rule.IDs, nonsense.IDs) {
		t.Errorf("answers are %v, %v, %v, want three times the same", rule.IDs, chosen.IDs, nonsense.IDs)
	}
}
