// SPDX-License-Identifier: Apache-2.0

// Package tune finds by measurement which form of each kernel is the fastest on a device.
//
// What enters is an open device, or the bytes of a table that was made before; what leaves is a Table, whose Choices go into gpu.Info. It refuses to know
// files, models and what kernels compute: all forms of a class compute the same, so a table can make things slow and never wrong.
package tune

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"fromage/gpu"
	"fromage/machine"
	"fromage/shaders"
)

// Table is what was measured on one adapter.
type Table struct {
	Adapter string            `json:"adapter"`
	Vendor  string            `json:"vendor,omitempty"`
	Backend string            `json:"backend,omitempty"`
	Driver  string            `json:"driver,omitempty"`
	Has     gpu.Features      `json:"features"`
	Kernels string            `json:"kernels"` // shaders.Hash of the texts
	Quick   bool              `json:"quick"`   // only some classes were measured, and not long
	Choices map[string]string `json:"choices"` // by class, where something is faster than the rule's form
	Results []Result          `json:"results"`
}

// Result is what was measured of one class.
type Result struct {
	Class  string  `json:"class"`
	Rule   string  `json:"rule"` // the kernel that the rule chooses
	RuleUS float64 `json:"rule_us"`
	Best   string  `json:"best"` // the fastest; the rule's unless another is faster by more than noise
	BestUS float64 `json:"best_us"`
	Forms  int     `json:"forms"` // measured
}

// Gain is how many times as fast the best is as the rule's.
func (r Result) Gain() float64 { return r.RuleUS / r.BestUS }

// Fits says why a table is not of a device, or not of these kernels; nil where it is.
func (t *Table) Fits(info gpu.Info) error {
	for _, c := range []struct{ what, want, have string }{
		{"adapter", info.Adapter, t.Adapter}, {"vendor", info.Vendor, t.Vendor}, {"backend", info.Backend, t.Backend}, {"driver", info.Driver, t.Driver},
		{"kernels", shaders.Hash(), t.Kernels},
	} {
		if c.want != c.have {
			return fmt.Errorf("tune: table of another %s: want %s, have %s", c.what, c.want, c.have)
		}
	}
	if !reflect.DeepEqual(t.Has, info.Features) {
		return fmt.Errorf("tune: table of other features: want %+v, have %+v", info.Features, t.Has)
	}
	return nil
}

// maxTable bounds the bytes of a table.
const maxTable = 1 << 20

// Parse reads a table that JSON was made of.
func Parse(data []byte) (*Table, error) {
	if len(data) > maxTable {
		return nil, fmt.Errorf("tune: table: want at most %d bytes, have %d", maxTable, len(data))
	}
	t := new(Table)
	if err := json.Unmarshal(data, t); err != nil {
		return nil, fmt.Errorf("tune: table: %w", err)
	}
	if t.Adapter == "" || len(t.Kernels) != 64 {
		return nil, fmt.Errorf("tune: table: want the name of an adapter and the hash of kernels, have %q and %q", t.Adapter, t.Kernels)
	}
	return t, nil
}

// Options say how long to measure.
type Options struct {
	Quick    bool // few classes, in a second or two
	Formats  []shaders.Format
	Progress func(machine.Progress) // counts classes
}

// How long measuring takes at most; tests make it short.
var wholeBudget, quickBudget = 50 * time.Second, 1500 * time.Millisecond

// How a form is measured.
const (
	formTime = 2 * time.Millisecond // of a list of one form's dispatches
	rounds   = 3                    // lists, of which the fastest counts
	hopeless = 4                    // times as slow as the best so far: not measured further
	noise    = 0.95                 // of the rule's time: what is slower than that does not replace it
)

// Measure measures the classes in the order of their weight until they are done or time is up; classes that were not reached keep the rule. Where ctx ends,
// nothing comes out.
func Measure(ctx context.Context, dev gpu.Device, o Options) (*Table, error) {
	info := dev.Info()
	if info.Backend == "go" {
		return nil, fmt.Errorf("tune: %s runs each kernel in one form; want a WebGPU device", info.Adapter)
	}
	t := &Table{
		Adapter: info.Adapter, Vendor: info.Vendor, Backend: info.Backend, Driver: info.Driver, Has: info.Features,
		Kernels: shaders.Hash(), Quick: o.Quick, Choices: map[string]string{}, Results: []Result{},
	}
	classes, budget := shaders.Classes(info.Software, o.Formats...), wholeBudget
	if o.Quick {
		classes, budget = quick(classes), quickBudget
	}
	began := time.Now()
	for i, c := range classes {
		r, err := measure(ctx, dev, c, began.Add(budget))
		if err != nil {
			return nil, fmt.Errorf("tune: %s: %w", c.Name, err)
		}
		if r == nil {
			break
		}
		t.Results = append(t.Results, *r)
		if r.Best != r.Rule {
			t.Choices[r.Class] = r.Best
		}
		if o.Progress != nil {
			reached := float64(i+1) * float64(budget) / float64(time.Since(began)) // of the classes, when time is up
			o.Progress(machine.Progress{Done: int64(i + 1), Total: max(int64(i+1), min(int64(len(classes)), int64(reached))), What: "classes of kernels"})
		}
	}
	return t, nil
}

// quick are the classes that decide most: single tokens and long prompts.
func quick(classes []shaders.Class) []shaders.Class {
	var few []shaders.Class
	for i, c := range classes {
		if i < len(classes)/6 || i >= len(classes)*5/6 {
			few = append(few, c)
		}
	}
	return few
}

// measure finds the fastest form of a class; nil where there was no time.
func measure(ctx context.Context, dev gpu.Device, c shaders.Class, until time.Time) (*Result, error) {
	buffers, err := fill(dev, c)
	defer func() {
		for _, b := range buffers {
			_ = dev.Free(b)
		}
	}()
	if err != nil {
		return nil, err
	}
	r := &Result{Class: c.Name}
	best := time.Duration(0)
	for i, d := range c.Forms(dev.Info()) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if time.Now().After(until) {
			return nil, nil
		}
		took, err := one(dev, d, buffers, best)
		if err != nil {
			return nil, err
		}
		us := took.Seconds() * 1e6
		r.Forms++
		if i == 0 {
			r.Rule, r.RuleUS = d.Kernel.Name, us
		}
		if i == 0 || took < best && us < noise*r.RuleUS {
			best, r.Best, r.BestUS = took, d.Kernel.Name, us
		}
	}
	return r, nil
}

// fill makes the buffers that a class's forms run on. Those that were made are returned with an error, too.
func fill(dev gpu.Device, c shaders.Class) (buffers []gpu.Buffer, err error) {
	for i, size := range c.Bytes {
		b, err := dev.NewBuffer("tune", machine.Padded(size))
		if err != nil {
			return buffers, err
		}
		buffers = append(buffers, b)
		if i == c.At {
			if err := dev.Write(b, 0, machine.Bytes(c.Tokens)); err != nil {
				return buffers, err
			}
		}
	}
	return buffers, nil
}

// one is how long a dispatch of a form takes among several; roughly where it is hopeless beside the best, 0 for none yet.
func one(dev gpu.Device, d shaders.Dispatch, buffers []gpu.Buffer, best time.Duration) (time.Duration, error) {
	p, err := dev.Compile(d.Kernel)
	if err != nil {
		return 0, err
	}
	run := func(n int) (time.Duration, error) {
		var list gpu.List
		for range n {
			list.Dispatch(p, d.Groups, d.Params, buffers...)
		}
		began := time.Now()
		if err := dev.Submit(&list); err != nil {
			return 0, err
		}
		err := dev.Wait()
		return time.Since(began) / time.Duration(n), err
	}
	if _, err := run(1); err != nil { // drivers finish compiling at the first run
		return 0, err
	}
	least, err := run(1)
	if err != nil || best > 0 && least > hopeless*best+time.Millisecond {
		return least, err
	}
	// What a submit and a wait cost by themselves becomes small among many dispatches.
	for n, i := 1, 0; least*time.Duration(n) < formTime && n < 256 || i < rounds; {
		if least*time.Duration(n) < formTime && n < 256 {
			n *= 4
		} else {
			i++
		}
		took, err := run(n)
		if err != nil {
			return 0, err
		}
		least = min(least, took)
	}
	return least, nil
}

// Changed lists the results where the rule was not the best, the largest gain first.
func (t *Table) Changed() []Result {
	changed := slices.DeleteFunc(slices.Clone(t.Results), func(r Result) bool { return r.Best == r.Rule })
	slices.SortStableFunc(changed, func(a, b Result) int { return cmp.Compare(b.Gain(), a.Gain()) })
	return changed
}
