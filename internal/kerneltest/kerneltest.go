// SPDX-License-Identifier: Apache-2.0

// Package kerneltest runs kernel cases on every device that a test process can reach, in every variant that the device can run.
package kerneltest

import (
	"fmt"
	"runtime"
	"testing"

	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/shaders"
)

// Devices calls f as a subtest for the twins, the cpu device and every other device there is. A device that should be there and is not is said
// loudly, and a failure where FROMAGE_REQUIRE_GPU is 1.
func Devices(t *testing.T, f func(t *testing.T, dev gpu.Device)) {
	for _, dev := range All(t) {
		t.Run(dev.Info().Host, func(t *testing.T) { f(t, dev) })
	}
}

// All opens the twins, the cpu device and every other device there is, until t ends. In a guest of wazero, where Go computes twenty times slower, short
// tests run on the host's device alone.
func All(t testing.TB) []gpu.Device {
	t.Helper()
	if runtime.GOOS == "wasip1" && testing.Short() {
		t.Log("short: not tested on what computes within the guest")
		return others(t)
	}
	devices := []gpu.Device{cpu.Twins(), cpu.New()}
	for _, dev := range devices {
		t.Cleanup(func() { _ = dev.Close() })
	}
	return append(devices, others(t)...)
}

// Run compares the cases with their twins on every other device, in the variants for the device as it is, for it as hardware and as software, and
// without subgroups.
func Run(t *testing.T, cases []shaders.Case) {
	Devices(t, func(t *testing.T, dev gpu.Device) {
		if dev.Info().Host == "twins" {
			return
		}
		for i, c := range cases {
			ran := map[string]bool{}
			for _, info := range views(dev.Info()) {
				name := c.Dispatch(info).Kernel.Name
				if ran[name] {
					continue
				}
				ran[name] = true
				t.Run(fmt.Sprintf("%s/%d/%s", c.Name, i, name), func(t *testing.T) {
					if _, err := c.Run(dev, info); err != nil {
						t.Error(err)
					}
				})
			}
		}
	})
}

// views returns the ways in which a device may be described to the rules that choose a variant, all of them true of what it can run: as
// software and as hardware, with subgroups of the size it has, with subgroups of any size, without subgroups.
func views(info gpu.Info) []gpu.Info {
	features := []gpu.Features{info.Features}
	if info.Features.Subgroups {
		any, none := info.Features, info.Features
		any.SubgroupMin, any.SubgroupMax = 4, 128
		none.Subgroups = false
		features = append(features, any, none)
	}
	var all []gpu.Info
	for _, software := range []bool{true, false} {
		for _, f := range features {
			v := info
			v.Software, v.Features = software, f
			all = append(all, v)
		}
	}
	return all
}

// AsHardware is a device on which the rules choose what they would choose on hardware: everything that real GPUs run, if slowly.
func AsHardware(dev gpu.Device) gpu.Device { return asHardware{dev} }

type asHardware struct{ gpu.Device }

func (d asHardware) Info() gpu.Info {
	info := d.Device.Info()
	info.Software = false
	return info
}
