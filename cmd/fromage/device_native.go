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
	if a.device == "cpu" {
		return a.keep(cpu.New()), nil
	}
	name, _ := strings.CutPrefix(a.device, "gpu:")
	if name == a.device {
		name = ""
	}
	dev, err := native.Open(native.Options{Adapter: name, Label: "fromage"})
	switch {
	case err == nil:
		return a.keep(dev), nil
	case a.device != "auto":
		return nil, fmt.Errorf("--device %s: %w", a.device, err)
	}
	fmt.Fprintln(a.stderr, "fromage: no WebGPU adapter: computing on the CPU, slowly (fromage doctor says more)")
	a.log.Info("no WebGPU adapter", "why", err)
	return a.keep(cpu.New()), nil
}

// adapters lists what openDevice chooses among, the best first.
func adapters() ([]gpu.Info, error) { return native.Adapters() }
