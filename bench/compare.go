// SPDX-License-Identifier: Apache-2.0

package bench

import "fmt"

// Change is one number of two reports.
type Change struct {
	What  string  `json:"what"`
	Unit  string  `json:"unit"`
	Old   float64 `json:"old"`
	New   float64 `json:"new"`
	Times float64 `json:"times_as_fast"`
}

// Compare lists what both reports measured, and says in words what makes them hard to compare.
func Compare(old, now *Report) (changes []Change, warnings []string) {
	for _, c := range []struct{ what, old, now string }{
		{"adapter", old.Device.Adapter, now.Device.Adapter}, {"driver", old.Device.Driver, now.Device.Driver}, {"host", old.Device.Host, now.Device.Host},
		{"version", old.Version, now.Version},
	} {
		if c.old != c.now {
			warnings = append(warnings, fmt.Sprintf("the %s differs: %s, before %s", c.what, c.now, c.old))
		}
	}
	// add compares two numbers, either of which may not have been measured; of times the smaller is the better.
	add := func(what, unit string, old, now float64, time bool) {
		if old == 0 || now == 0 {
			return
		}
		c := Change{What: what, Unit: unit, Old: old, New: now, Times: now / old}
		if time {
			c.Times = old / now
		}
		changes = append(changes, c)
	}
	add("copy", "GB/s", old.Ceilings.CopyGBps, now.Ceilings.CopyGBps, false)
	add("product of matrices", "TFLOP/s", old.Ceilings.MatmulTFLOPs, now.Ceilings.MatmulTFLOPs, false)
	for _, n := range now.Models {
		for _, o := range old.Models {
			if o.Name == n.Name && o.DType == n.DType {
				compareModels(o, n, add)
			}
		}
	}
	for _, n := range now.Searches {
		for _, o := range old.Searches {
			if o.Rows == n.Rows && o.D == n.D {
				add(fmt.Sprintf("search of %d rows", n.Rows), "ms", o.MS, n.MS, true)
			}
		}
	}
	if o, n := old.Sandbox, now.Sandbox; o != nil && n != nil && o.Model == n.Model {
		add("sandbox: decode", "tok/s", o.Decode, n.Decode, false)
		add("sandbox: first token", "ms", o.FirstMS, n.FirstMS, true)
	}
	return changes, warnings
}

func compareModels(o, n Model, add func(what, unit string, old, now float64, time bool)) {
	name := fmt.Sprintf("%s %s: ", n.Name, n.DType)
	add(name+"decode", "tok/s", o.Decode, n.Decode, false)
	add(fmt.Sprintf("%sprompt of %d tokens", name, n.PrefillLen), "tok/s", o.Prefill, n.Prefill, false)
	add(fmt.Sprintf("%sfirst token after %d", name, n.FirstLen), "ms", o.FirstMS, n.FirstMS, true)
	add(name+"pictures", "/s", o.Images, n.Images, false)
	for _, q := range n.Programs {
		for _, p := range o.Programs {
			if p.Name != q.Name || p.Work != q.Work {
				continue
			}
			what := name + q.Name + ", " + q.Work
			add(what, "ms", p.MS, q.MS, true)
			if p.Clock != q.Clock {
				continue
			}
			for _, k := range q.Kernels {
				for _, l := range p.Kernels {
					if l.Kernel == k.Kernel {
						add(what+": "+k.Kernel, "µs", l.Micros, k.Micros, true)
					}
				}
			}
		}
	}
}
