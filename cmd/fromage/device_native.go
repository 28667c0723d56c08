// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package main

import (
	"context"
	"fmt"
	"strings"

	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/gpu/native"
)

// openDevice opens what --device asks for. The device is closed when the program ends.
func (a *app) openDevice() (gpu.Device, error) {
	switch a.device {
	case "cpu":
		return a.keep(cpu.New()), nil
	case "twins":
		return a.keep(cpu.Twins()), nil
	}
	o := native.Options{Label: "fromage"}
	if a.device == "auto" {
		// A software adapter has no advantage over the cpu device, which runs on all cores without compiling shaders.
		o.Prefer = native.Hardware
	}
	if name, ok := strings.CutPrefix(a.device, "gpu:"); ok {
		o.Adapter = name
	}
	dev, err := a.openTuned(o)
	switch {
	case err == nil:
		return a.keep(dev), nil
	case a.tuned.err != nil:
		return nil, err
	case a.device != "auto":
		return nil, fmt.Errorf("--device %s: %w", a.device, err)
	}
	fmt.Fprintln(a.stderr, "fromage: there is no GPU: computing on the CPU (fromage doctor says more)")
	a.log.Info("no GPU", "why", err)
	return a.keep(cpu.New()), nil
}

// openTuned opens an adapter with the forms of kernels that were measured to be the fastest on it. A GPU that nothing was measured on yet is measured
// first, for a second or two.
func (a *app) openTuned(o native.Options) (gpu.Device, error) {
	o.Choices = a.choices
	dev, err := native.Open(o)
	if err != nil {
		return nil, err
	}
	if a.tuned.err != nil {
		dev.Close()
		return nil, a.tuned.err
	}
	if !a.untuned(dev.Info()) {
		return dev, nil
	}
	if err := a.tune(context.Background(), dev, true); err != nil {
		a.log.Info("kernels were not measured", "why", err)
	}
	if a.tuned.table == nil {
		a.tuned.off = true
		return dev, nil
	}
	if err := dev.Close(); err != nil {
		return nil, err
	}
	return native.Open(o)
}

// adapters lists what openDevice chooses among, the best first.
func adapters() ([]gpu.Info, error) { return native.Adapters() }
