// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fromage/gpu"
	"fromage/shaders"
	"fromage/tune"
)

// diagnosis is what doctor found.
type diagnosis struct {
	Adapters []gpu.Info     `json:"adapters"`
	Problem  string         `json:"problem,omitempty"` // why there is no GPU
	Used     gpu.Info       `json:"used"`
	Why      string         `json:"why"`
	Forms    string         `json:"forms"` // of kernels: where they come from
	Tuned    *tune.Table    `json:"tuned,omitempty"`
	Kernels  []kernelResult `json:"kernels"`
	Failed   int            `json:"failed"`
}

type kernelResult struct {
	Kernel string  `json:"kernel"`
	Cases  int     `json:"cases"`
	Error  string  `json:"error,omitempty"`
	MS     float64 `json:"ms"` // time of all its cases, compilation included
}

func (a *app) doctorCommand() *cobra.Command {
	var measure bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "show devices, features and limits, what will be used and why, and test every kernel against its twin",
		Long: `Shows devices, features and limits, what will be used and why, and tests every kernel against its twin.

Many kernels have several forms that compute the same, and which is the fastest differs from GPU to GPU. --tune measures them all, in less than a minute, and
keeps the best in the user's cache for every later run; where that was never done, the first run on a GPU measures the most important ones for a second or two.
` + tuneVar + `=off in the environment has rules choose instead, ` + tuneVar + `=FILE a table of one's own, which --tune then writes.`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &diagnosis{}
			var err error
			if d.Adapters, err = adapters(); err != nil {
				d.Problem = err.Error()
			}
			a.tuned.off = measure
			dev, err := a.openDevice()
			if err != nil {
				return err
			}
			d.Used, d.Why = dev.Info(), a.why(dev.Info())
			if measure {
				if err := a.retune(cmd.Context(), dev); err != nil {
					return err
				}
				d.Used.Choices = a.tuned.table.Choices
			}
			d.Forms, d.Tuned = a.tuned.describe(), a.tuned.table
			d.Kernels = selfTest(dev, d.Used)
			for _, k := range d.Kernels {
				if k.Error != "" {
					d.Failed++
				}
			}
			if err := a.printDiagnosis(d); err != nil {
				return err
			}
			if d.Failed > 0 {
				return no{fmt.Errorf("doctor: %d of %d kernels do not compute what their twins do on %s", d.Failed, len(d.Kernels), d.Used.Adapter)}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&measure, "tune", false, "measure which form of each kernel is the fastest on this device, and keep that")
	return c
}

// why says in words how the device came to be used.
func (a *app) why(used gpu.Info) string {
	switch {
	case a.device != "auto":
		return "--device " + a.device + " asks for it"
	case used.Host == "cpu":
		return "there is no hardware GPU, and Go alone is faster than a software one"
	}
	return "it is the fastest WebGPU adapter"
}

// selfTest runs every case in the form that a device so described is given, and sums them up by kernel.
func selfTest(dev gpu.Device, info gpu.Info) []kernelResult {
	byName := map[string]*kernelResult{}
	for _, c := range shaders.Cases() {
		start := time.Now()
		name, err := c.Run(dev, info)
		k := byName[name]
		if k == nil {
			k = &kernelResult{Kernel: name}
			byName[name] = k
		}
		k.Cases++
		k.MS += float64(time.Since(start).Microseconds()) / 1000
		if err != nil && k.Error == "" {
			k.Error = err.Error()
		}
	}
	var all []kernelResult
	for _, k := range byName {
		all = append(all, *k)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Kernel < all[j].Kernel })
	return all
}

func (a *app) printDiagnosis(d *diagnosis) error {
	if a.json {
		return a.writeJSON(d)
	}
	w := a.stdout
	fmt.Fprintf(w, "adapters\n")
	for _, info := range d.Adapters {
		fmt.Fprintf(w, "  %s\n", describeDevice(info))
	}
	if d.Problem != "" {
		fmt.Fprintf(w, "  none: %s\n", d.Problem)
	}
	l, def := d.Used.Limits, gpu.DefaultLimits
	fmt.Fprintf(w, "used: %s\n  because %s\n", describeDevice(d.Used), d.Why)
	fmt.Fprintf(w, "  limits: buffers of %d MiB, %d bindings, %d KiB workgroup memory, %d invocations (every kernel runs within %d, %d, %d, %d)\n",
		l.MaxBinding>>20, l.MaxBindings, l.MaxWorkgroupMemory>>10, l.MaxInvocations, def.MaxBinding>>20, def.MaxBindings, def.MaxWorkgroupMemory>>10, def.MaxInvocations)
	if d.Used.Backend != "go" {
		printTuned(w, &a.tuned)
	}
	fmt.Fprintf(w, "kernels against their twins\n")
	for _, k := range d.Kernels {
		result := "ok"
		if k.Error != "" {
			result = "FAILED: " + k.Error
		}
		fmt.Fprintf(w, "  %-40s %2d cases %8.1f ms  %s\n", k.Kernel, k.Cases, k.MS, result)
	}
	return nil
}

// describeDevice is one line on a device.
func describeDevice(i gpu.Info) string {
	parts := []string{i.Adapter}
	for _, s := range []string{i.Vendor, i.Backend, i.Driver} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	var has []string
	if i.Features.Subgroups {
		sizes := ""
		if i.Features.SubgroupMax > 0 {
			sizes = fmt.Sprintf(" of %d to %d", i.Features.SubgroupMin, i.Features.SubgroupMax)
		}
		has = append(has, "subgroups"+sizes)
	}
	if i.Features.F16 {
		has = append(has, "f16")
	}
	if i.Software {
		has = append(has, "software")
	}
	if has == nil {
		has = []string{"no optional features"}
	}
	return strings.Join(parts, ", ") + " [" + strings.Join(has, ", ") + "]"
}
