// SPDX-License-Identifier: Apache-2.0

//go:build !cgo

package main

import (
	"errors"
	"fmt"

	"fromage/gpu"
	"fromage/gpu/cpu"
)

var errNoWebGPU = errors.New("this build has no WebGPU (it was made without cgo)")

// openDevice opens what --device asks for: in a build without cgo, the CPU.
func (a *app) openDevice() (gpu.Device, error) {
	switch a.device {
	case "auto":
		fmt.Fprintf(a.stderr, "fromage: %v: computing on the CPU\n", errNoWebGPU)
	case "cpu":
	case "twins":
		return a.keep(cpu.Twins()), nil
	default:
		return nil, fmt.Errorf("--device %s: %w", a.device, errNoWebGPU)
	}
	return a.keep(cpu.New()), nil
}

// adapters lists what openDevice chooses among.
func adapters() ([]gpu.Info, error) { return nil, errNoWebGPU }
