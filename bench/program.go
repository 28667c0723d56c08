// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"cmp"
	"fmt"
	"slices"

	"fromage/gpu"
	"fromage/machine"
	"fromage/plan"
)

// Program is one run of one of a model's programs: what its kernels take of the time, the longest first.
type Program struct {
	Name       string   `json:"name"`
	Work       string   `json:"work"` // how much of what the run does
	Clock      string   `json:"clock"`
	Dispatches int      `json:"dispatches"`
	MS         float64  `json:"ms"` // from submit to submit of the whole, back to back
	Bytes      int64    `json:"bytes"`
	FLOPs      float64  `json:"flops"`
	GBps       float64  `json:"gb_per_s"`
	TFLOPs     float64  `json:"tflop_per_s"`
	Kernels    []Kernel `json:"kernels"`
}

// How kernels were timed: Program.Clock.
const (
	ClockDevice  = "device"  // by the device's clock, each dispatch of the run by itself
	ClockRepeats = "repeats" // by the wall's, a kernel's dispatches over and over without the rest of the run
)

// Kernel is all dispatches of one kernel in a run.
type Kernel struct {
	Kernel      string  `json:"kernel"` // with its variant
	Dispatches  int     `json:"dispatches"`
	Micros      float64 `json:"us"`    // of all of them
	Share       float64 `json:"share"` // of the kernels' times together
	Bytes       int64   `json:"bytes"` // that they have to move, as plan.Cost counts them
	FLOPs       float64 `json:"flops"` // of products that are added up
	GBps        float64 `json:"gb_per_s"`
	TFLOPs      float64 `json:"tflop_per_s"`
	CopyShare   float64 `json:"copy_share"`   // of the copy's bytes a second
	MatmulShare float64 `json:"matmul_share"` // of the matrix product's operations a second
}

// Limit is the larger of the kernel's shares of the device's ceilings.
func (k Kernel) Limit() float64 { return max(k.CopyShare, k.MatmulShare) }

// watched calls f and returns the largest run of each program that it made, in the order of their first.
func watched(m *machine.Machine, f func() error) ([]ran, error) {
	var all []ran
	m.Ran = func(p *machine.Program, dims plan.Dims, outputs []string) {
		i := slices.IndexFunc(all, func(r ran) bool { return r.p == p })
		switch {
		case i < 0:
			all = append(all, ran{p, dims, outputs})
		case rows(dims) >= rows(all[i].dims):
			all[i].dims, all[i].outputs = dims, outputs
		}
	}
	defer func() { m.Ran = nil }()
	err := f()
	return all, err
}

type ran struct {
	p       *machine.Program
	dims    plan.Dims
	outputs []string // that were wanted
}

func rows(dims plan.Dims) int { return max(dims[plan.Tokens], dims[plan.Images]) }

// measure times a run again, whose inputs are still those of the last.
func (r ran) measure(m *machine.Machine, name, work string, c Ceilings) (*Program, error) {
	steps, err := r.p.Steps(r.dims, r.outputs...)
	if err != nil {
		return nil, err
	}
	attended, err := r.attended(m.Dev)
	if err != nil {
		return nil, err
	}
	list, err := r.p.List(steps)
	if err != nil {
		return nil, err
	}
	p := &Program{Name: name, Work: work, Dispatches: list.Dispatches()}
	s, err := repeat(m.Dev, list)
	if err != nil {
		return nil, fmt.Errorf("bench: program %s: %w", name, err)
	}
	p.MS = s * 1e3
	seconds, err := r.seconds(m.Dev, list, steps, p)
	if err != nil {
		return nil, fmt.Errorf("bench: program %s: %w", name, err)
	}
	costs := r.p.Plan().Costs(steps, m.Layouts, r.dims, attended)
	p.sum(steps, costs, seconds, c)
	return p, nil
}

// seconds is how long each step takes.
func (r ran) seconds(dev gpu.Device, list *gpu.List, steps []plan.Step, p *Program) ([]float64, error) {
	p.Clock = ClockDevice
	if seconds, ok, err := clocked(dev, list); ok || err != nil {
		return seconds, err
	}
	p.Clock = ClockRepeats
	seconds := make([]float64, len(steps))
	same := map[string][]int{}
	for i, s := range steps {
		same[s.Dispatch.Kernel.Name] = append(same[s.Dispatch.Kernel.Name], i)
	}
	for _, places := range same {
		var only []plan.Step
		for _, i := range places {
			only = append(only, steps[i])
		}
		list, err := r.p.List(only)
		if err != nil {
			return nil, err
		}
		s, err := repeat(dev, list)
		if err != nil {
			return nil, err
		}
		for _, i := range places {
			seconds[i] = s / float64(len(places))
		}
	}
	return seconds, nil
}

// sum makes the rows of kernels.
func (p *Program) sum(steps []plan.Step, costs []plan.Cost, seconds []float64, c Ceilings) {
	total := 0.0
	for i, s := range steps {
		name := s.Dispatch.Kernel.Name
		at := slices.IndexFunc(p.Kernels, func(k Kernel) bool { return k.Kernel == name })
		if at < 0 {
			at = len(p.Kernels)
			p.Kernels = append(p.Kernels, Kernel{Kernel: name})
		}
		k := &p.Kernels[at]
		k.Dispatches++
		k.Micros += seconds[i] * 1e6
		k.Bytes += costs[i].Bytes()
		k.FLOPs += costs[i].FLOPs
		total += seconds[i] * 1e6
		p.Bytes += costs[i].Bytes()
		p.FLOPs += costs[i].FLOPs
	}
	for i := range p.Kernels {
		k := &p.Kernels[i]
		k.Share = over(k.Micros, total)
		k.GBps, k.TFLOPs = over(float64(k.Bytes), k.Micros*1e3), over(k.FLOPs, k.Micros*1e6)
		k.CopyShare, k.MatmulShare = over(k.GBps, c.CopyGBps), over(k.TFLOPs, c.MatmulTFLOPs)
	}
	p.GBps, p.TFLOPs = over(float64(p.Bytes), p.MS*1e6), over(p.FLOPs, p.MS*1e9)
	slices.SortStableFunc(p.Kernels, func(a, b Kernel) int { return cmp.Compare(b.Micros, a.Micros) })
}

// over is a/b, 0 where a clock was too coarse to see b.
func over(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// attended reads the run's token table, which says what its attention attends to.
func (r ran) attended(dev gpu.Device) (a plan.Attended, err error) {
	b, n := r.p.Buffer("tokens"), r.dims[plan.Tokens]
	if b == 0 || n == 0 {
		return a, nil
	}
	table := make([]uint32, plan.TokenColumns*n)
	if err := dev.Read(b, 0, machine.Bytes(table)); err != nil {
		return a, err
	}
	return attendedBy(table), nil
}

// attendedBy counts a token table (T,4).
func attendedBy(table []uint32) (a plan.Attended) {
	type span struct{ first, end int }
	var spans []span
	for t := 0; t < len(table); t += plan.TokenColumns {
		first, count := int(table[t+plan.TokenFirst]), int(table[t+plan.TokenCount])
		a.Pairs += count
		spans = append(spans, span{first, first + count})
	}
	slices.SortFunc(spans, func(x, y span) int { return cmp.Compare(x.first, y.first) })
	end := 0
	for _, s := range spans {
		a.Rows += max(0, s.end-max(end, s.first))
		end = max(end, s.end)
	}
	return a
}
