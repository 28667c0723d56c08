// SPDX-License-Identifier: Apache-2.0

// Package bench says how fast a device and a model on it are, and how far from the device's own limits: tokens, pictures, searches, and every kernel of
// the programs that make them, with the bytes and operations that the plan predicts.
//
// What enters is an open device and a loaded runner; what leaves is numbers, and their ratios to those of an earlier run. Shares are of a copy and of the
// best product of matrices on the same device in the same run, since only ratios taken in one run can be compared. The package judges nothing, and
// refuses to know files and flags.
package bench

import (
	"errors"
	"slices"
	"time"

	"fromage/gpu"
	"fromage/shaders"
)

// Report is all that one run measured.
type Report struct {
	Version  string   `json:"version"`
	Device   gpu.Info `json:"device"`
	Ceilings Ceilings `json:"ceilings"`
	Models   []Model  `json:"models"`
	Searches []Search `json:"searches,omitempty"`
	Sandbox  *Sandbox `json:"sandbox,omitempty"`
}

// Sandbox is the speed of a model that runs as a WebAssembly guest, as its host sees it.
type Sandbox struct {
	Model       string  `json:"model"`
	Decode      float64 `json:"decode_tok_per_s"`
	FirstMS     float64 `json:"first_token_ms"`
	MemoryBytes int     `json:"memory_bytes"` // of the guest, without weights
}

// Ceilings are what the device reaches at its best.
type Ceilings struct {
	CopyGBps     float64 `json:"copy_gb_per_s"` // bytes read plus bytes written
	MatmulTFLOPs float64 `json:"matmul_tflop_per_s"`
	MatmulSize   int     `json:"matmul_size"` // of square matrices in f32 that reached it
	DispatchUS   float64 `json:"dispatch_us"` // of a dispatch with next to nothing to do, among many
	SubmitUS     float64 `json:"submit_us"`   // of a list with one such dispatch that is waited for
}

// budget is how long one measurement runs, after shorter ones that are not counted; tests make it short.
var budget = 300 * time.Millisecond

// Measure finds a device's ceilings.
func Measure(dev gpu.Device) (c Ceilings, err error) {
	if c.CopyGBps, err = Copy(dev, 256<<20); err != nil {
		return c, err
	}
	if c.DispatchUS, c.SubmitUS, err = overheads(dev); err != nil {
		return c, err
	}
	for n := 256; n <= 4096; n *= 2 {
		s, err := matmul(dev, n)
		if err != nil {
			return c, err
		}
		if t := 2 * float64(n) * float64(n) * float64(n) / s / 1e12; t > c.MatmulTFLOPs {
			c.MatmulTFLOPs, c.MatmulSize = t, n
		}
		if s > budget.Seconds()/4 { // the next takes eight times as long
			break
		}
	}
	return c, nil
}

// Copy is the device's memory bandwidth in GB/s, bytes read plus bytes written, over copies of size bytes.
func Copy(dev gpu.Device, size int) (gbps float64, err error) {
	size = min(size, dev.Info().Limits.MaxBinding) / 16 * 16
	b, free, err := buffers(dev, size, size)
	if err != nil {
		return 0, err
	}
	defer free()
	var list gpu.List
	list.Copy(b[1], 0, b[0], 0, size)
	s, err := least(dev, &list)
	return 2 * float64(size) / s / 1e9, err
}

// buffers makes buffers of sizes in bytes, and returns what frees them.
func buffers(dev gpu.Device, sizes ...int) (b []gpu.Buffer, free func(), err error) {
	free = func() {
		for _, b := range b {
			_ = dev.Free(b)
		}
	}
	for _, size := range sizes {
		one, err := dev.NewBuffer("bench", max(16, (size+15)/16*16))
		if err != nil {
			free()
			return nil, nil, err
		}
		b = append(b, one)
	}
	return b, free, nil
}

// matmul is the seconds that a product of two matrices (n,n) in f32 takes.
func matmul(dev gpu.Device, n int) (seconds float64, err error) {
	d := shaders.Linear(dev.Info(), shaders.F32, shaders.LinearParams{T: uint32(n), K: uint32(n), F: uint32(n), Stride: uint32(n)})
	p, err := dev.Compile(d.Kernel)
	if err != nil {
		return 0, err
	}
	size := 4 * n * n
	b, free, err := buffers(dev, size, size, 16, 16, 16, size)
	if err != nil {
		return 0, err
	}
	defer free()
	var list gpu.List
	list.Dispatch(p, d.Groups, d.Params, b...)
	return least(dev, &list)
}

// overheads are the microseconds of a dispatch among many that depend on one another, and of a submitted list that is waited for.
func overheads(dev gpu.Device) (dispatch, submit float64, err error) {
	d := shaders.Add(dev.Info(), shaders.AddParams{N: 1})
	p, err := dev.Compile(d.Kernel)
	if err != nil {
		return 0, 0, err
	}
	b, free, err := buffers(dev, 16, 16, 16)
	if err != nil {
		return 0, 0, err
	}
	defer free()
	const n = 256
	var one, many gpu.List
	one.Dispatch(p, d.Groups, d.Params, b...)
	for range n {
		many.Dispatch(p, d.Groups, d.Params, b...)
	}
	s, err := repeat(dev, &many)
	if err != nil {
		return 0, 0, err
	}
	alone, err := median(func() error { return once(dev, &one) })
	return s / n * 1e6, alone.Seconds() * 1e6, err
}

// least is repeat at its fastest, over parts of the budget, after a run that is not counted: memory is often not there before it is touched.
func least(dev gpu.Device, list *gpu.List) (seconds float64, err error) {
	const parts = 5
	if err := once(dev, list); err != nil {
		return 0, err
	}
	for began := time.Now(); seconds == 0 || time.Since(began) < budget; {
		s, err := repeatFor(budget/parts, dev, list)
		if err != nil {
			return 0, err
		}
		if seconds == 0 || s < seconds {
			seconds = s
		}
	}
	return seconds, nil
}

// once runs a list.
func once(dev gpu.Device, list *gpu.List) error {
	if err := dev.Submit(list); err != nil {
		return err
	}
	return dev.Wait()
}

// median is Median over the budget.
func median(f func() error) (time.Duration, error) { return Median(budget, f) }

// Median calls f until so much time is spent, once at least, after a call that is not counted, and returns the median of how long it took.
func Median(budget time.Duration, f func() error) (time.Duration, error) {
	var all []time.Duration
	if err := f(); err != nil {
		return 0, err
	}
	for began := time.Now(); len(all) == 0 || time.Since(began) < budget && len(all) < 1<<12; {
		start := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		all = append(all, time.Since(start))
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

// repeat is repeatFor over the budget.
func repeat(dev gpu.Device, list *gpu.List) (seconds float64, err error) {
	return repeatFor(budget, dev, list)
}

// repeatFor returns the seconds that one submit of list takes, over enough of them to fill a budget.
func repeatFor(budget time.Duration, dev gpu.Device, list *gpu.List) (seconds float64, err error) {
	n, took := 1, time.Duration(0)
	for {
		start := time.Now()
		for range n {
			if err := dev.Submit(list); err != nil {
				return 0, err
			}
		}
		if err := dev.Wait(); err != nil {
			return 0, err
		}
		if took = time.Since(start); took >= budget || n >= 1<<14 {
			return took.Seconds() / float64(n), nil
		}
		n = max(2*n, min(1<<14, int(float64(n)*1.2*float64(budget)/float64(took+1))))
	}
}

// clocked returns the median seconds of each dispatch of a list by the device's clock; false where it has none.
func clocked(dev gpu.Device, list *gpu.List) (seconds []float64, ok bool, err error) {
	timer, ok := dev.(gpu.Timer)
	if !ok {
		return nil, false, nil
	}
	if _, err := timer.Time(list); errors.Is(err, errors.ErrUnsupported) {
		return nil, false, nil
	} else if err != nil {
		return nil, false, err
	}
	runs := make([][]time.Duration, list.Dispatches())
	for began, n := time.Now(), 0; n == 0 || time.Since(began) < budget && n < 1<<10; n++ {
		took, err := timer.Time(list)
		if err != nil {
			return nil, false, err
		}
		for i, d := range took {
			runs[i] = append(runs[i], d)
		}
	}
	seconds = make([]float64, len(runs))
	for i, r := range runs {
		slices.Sort(r)
		seconds[i] = r[len(r)/2].Seconds()
	}
	return seconds, true, nil
}
