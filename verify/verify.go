// SPDX-License-Identifier: Apache-2.0

// Package verify holds the program to numbers that the public PyTorch implementations print: it compiles the checkpoint beside them, runs it on a
// device, and compares tensor by tensor.
//
// What enters is a folder in one of three layouts (see testdata/golden/README.md): an OPT or a CLIP checkpoint with expected.safetensors, or a whole
// FROMAGe with expected.json too. What leaves is a Report. The package refuses to know how anything is computed.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"fromage/bundle"
	"fromage/compiler"
	"fromage/gpu"
	"fromage/runner"
	"fromage/shaders"
)

// Check is the comparison of one tensor, list or text.
type Check struct {
	Name      string  `json:"name"`
	Values    int     `json:"values"`               // numbers compared
	MaxError  float64 `json:"max_error"`            // largest |difference|
	Tolerance float64 `json:"tolerance"`            // most that is allowed
	Mismatch  string  `json:"mismatch,omitempty"`   // what differs, where it is beyond tolerance
	Close     string  `json:"close_call,omitempty"` // a difference that is allowed, such as a token chosen between two equal logits
}

// OK says whether the check is within tolerance.
func (c Check) OK() bool { return c.Mismatch == "" }

// Report is all checks of one folder.
type Report struct {
	Dir    string         `json:"dir"`
	Layout string         `json:"layout"` // "opt", "clip" or "fromage"
	DType  shaders.Format `json:"dtype"`
	Checks []Check        `json:"checks"`
}

// OK says whether every check is.
func (r *Report) OK() bool {
	for _, c := range r.Checks {
		if !c.OK() {
			return false
		}
	}
	return len(r.Checks) > 0
}

// relative is how far a tensor may be off, as a part of its largest value: what float32 on another device should meet.
const relative = 2e-4

// logitGap is how near two logits must lie for a different choice between them to be allowed.
const logitGap = 1e-3

// Run verifies one folder on dev with weights in the given format.
func Run(ctx context.Context, dev gpu.Device, dir string, dtype shaders.Format) (*Report, error) {
	v := &verification{ctx: ctx, dev: dev, dir: dir, report: &Report{Dir: dir, DType: dtype}}
	var err error
	if v.want, err = openExpected(filepath.Join(dir, "expected.safetensors")); err != nil {
		return nil, err
	}
	defer v.want.Close()
	switch {
	case exists(filepath.Join(dir, "expected.json")):
		v.report.Layout = "fromage"
		err = v.fromage()
	case v.want.has("pooler_output"):
		v.report.Layout = "clip"
		err = v.clip()
	case v.want.has("input_ids"):
		v.report.Layout = "opt"
		err = v.opt()
	default:
		err = fmt.Errorf("verify: %s: expected.safetensors has neither input_ids nor pooler_output", dir)
	}
	return v.report, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

type verification struct {
	ctx    context.Context
	dev    gpu.Device
	dir    string
	want   *expected
	r      *runner.Runner
	report *Report
}

// load compiles the checkpoints into a temporary bundle and loads it; the returned function undoes both.
func (v *verification) load(o compiler.Options) (func(), error) {
	temp, err := os.MkdirTemp("", "fromage-verify")
	if err != nil {
		return nil, err
	}
	o.DType, o.Out = v.report.DType, filepath.Join(temp, "model.bundle")
	cleanup := func() { os.RemoveAll(temp) }
	if err := compiler.Compile(v.ctx, o); err != nil {
		cleanup()
		return nil, err
	}
	b, err := bundle.Open(o.Out)
	if err != nil {
		cleanup()
		return nil, err
	}
	defer b.Close()
	if v.r, err = runner.Load(v.ctx, v.dev, b, nil); err != nil {
		cleanup()
		return nil, err
	}
	return func() { v.r.Close(); cleanup() }, nil
}

func (v *verification) add(c Check) { v.report.Checks = append(v.report.Checks, c) }

// tensor compares got with the expected tensor of that name.
func (v *verification) tensor(name string, got []float32) error {
	want, err := v.want.floats(name)
	if err != nil {
		return err
	}
	v.add(compare(name, got, want, relative))
	return nil
}

// compare allows a difference of part of the largest finite magnitude expected; an infinity has to be met.
func compare(name string, got, want []float32, part float64) Check {
	c := Check{Name: name, Values: len(want)}
	if len(got) != len(want) {
		c.Mismatch = fmt.Sprintf("want %d values, have %d", len(want), len(got))
		return c
	}
	largest, worst := 0.0, 0
	for i, w := range want {
		if math.IsInf(float64(w), 0) && got[i] == w {
			continue
		}
		if !math.IsInf(float64(w), 0) {
			largest = max(largest, math.Abs(float64(w)))
		}
		if d := math.Abs(float64(got[i]) - float64(w)); d > c.MaxError || d != d {
			c.MaxError, worst = d, i
		}
	}
	if c.Tolerance = part * largest; !(c.MaxError <= c.Tolerance) {
		c.Mismatch = fmt.Sprintf("[%d]: want %g, have %g", worst, want[worst], got[worst])
	}
	return c
}

// ids compares chosen tokens; logits, where given, holds the row that each was chosen from and allows a choice between near equals. What follows such
// a choice is not compared, since it continues another text.
func (v *verification) ids(name string, got, want []int, logits [][]float32) {
	c := Check{Name: name, Values: len(want)}
	for i, w := range want {
		if i < len(got) && got[i] == w {
			continue
		}
		if i < len(got) && i < len(logits) && math.Abs(float64(logits[i][w]-logits[i][got[i]])) <= logitGap {
			c.Close = fmt.Sprintf("[%d]: %d and %d have logits %g and %g", i, w, got[i], logits[i][w], logits[i][got[i]])
			break
		}
		c.Mismatch = fmt.Sprintf("[%d]: want %v, have %v", i, want, got)
		break
	}
	if len(got) != len(want) && c.Mismatch == "" && c.Close == "" {
		c.Mismatch = fmt.Sprintf("want %d tokens, have %d", len(want), len(got))
	}
	v.add(c)
}

func (v *verification) text(name, got, want string) {
	c := Check{Name: name, Values: 1}
	if got != want {
		c.Mismatch = fmt.Sprintf("want %q, have %q", want, got)
	}
	v.add(c)
}

func flat(rows [][]float32) []float32 {
	var out []float32
	for _, r := range rows {
		out = append(out, r...)
	}
	return out
}
