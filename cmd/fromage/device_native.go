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
	var dev gpu.Device
	switch name, ok := strings.CutPrefix(a.device, "gpu:"); {
	case a.device == "cpu":
		dev = cpu.New()
	case a.device == "auto":
		d, err := native.Open(native.Options{Prefer: native.Hardware, Label: "fromage"})
		if err != nil {
			fmt.Fprintln(a.stderr, "fromage: no GPU found: computing on the CPU (--device gpu takes a software adapter, if there is one)")
			a.log.Info("no GPU", "why", err)
			dev = cpu.New()
			break
		}
		dev = d
	default:
		if !ok {
			name = ""
		}
		d, err := native.Open(native.Options{Adapter: name, Label: "fromage"})
		if err != nil {
			return nil, fmt.Errorf("--device %s: %w", a.device, err)
		}
		dev = d
	}
	return a.keep(dev), nil
}
