// SPDX-License-Identifier: Apache-2.0

//go:build !cgo

package main

import (
	"fmt"

	"fromage/gpu"
	"fromage/gpu/cpu"
)

// openDevice opens what --device asks for: in a build without cgo, the CPU.
func (a *app) openDevice() (gpu.Device, error) {
	switch a.device {
	case "auto":
		fmt.Fprintln(a.stderr, "fromage: this build has no WebGPU: computing on the CPU")
	case "cpu":
	default:
		return nil, fmt.Errorf("--device %s: this build has no WebGPU (it was made without cgo)", a.device)
	}
	return a.keep(cpu.New()), nil
}
