// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package main

import (
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
	dev, err := native.Open(o)
	switch {
	case err == nil:
		return a.keep(dev), nil
	case a.device != "auto":
		return nil, fmt.Errorf("--device %s: %w", a.device, err)
	}
	fmt.Fprintln(a.stderr, "fromage: there is no GPU: computing on the CPU (fromage doctor says more)")
	a.log.Info("no GPU", "why", err)
	return a.keep(cpu.New()), nil
}

// adapters lists what openDevice chooses among, the best first.
func adapters() ([]gpu.Info, error) { return native.Adapters() }
