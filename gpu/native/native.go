// SPDX-License-Identifier: Apache-2.0

// Package native is the gpu.Device on WebGPU through wgpu-native: Vulkan, Metal or DirectX 12, and Mesa's or Google's Vulkan on a CPU.
//
// What enters are kernels as WGSL text, bytes and command lists; what leaves are bytes and errors that name the kernel, buffer or command.
// The package refuses to know what a kernel computes. It is the only package that imports a binding of wgpu-native: by default
// github.com/oliverbestmann/webgpu (wgpu-native 29), with the build tag cogentcore github.com/cogentcore/webgpu (an older wgpu-native
// without subgroups and f16). Without cgo, and on js and wasip1, every call says that this build has no native WebGPU.
//
// wgpu-native ends the process on an error that nobody catches, and a queue's errors cannot be caught. So gpu.Handles checks every call
// before the driver sees it, the bindings catch what the driver still refuses, and a lost device is found before the queue is used. A device
// that is lost between that and the queue's own work ends the process.
package native

import "fromage/gpu"

// Preference says which kinds of adapter Open may choose.
type Preference int

// Each preference takes the best adapter among its own: discrete before integrated before others before software.
const (
	Any      Preference = iota // whatever there is
	Hardware                   // no software adapter
	Discrete                   // a card of its own
	Software                   // an adapter that computes on the CPU, such as lavapipe
)

// Options say which adapter Open takes and what it asks of it.
type Options struct {
	Prefer Preference
	// Adapter, if set, is a part of the wanted adapter's name, in any case.
	Adapter string
	// Label names the device in the driver's messages.
	Label string
	// Limits caps what is asked of the adapter, field by field; a field of 0 means as much as the adapter offers and fromage can use.
	// No device has less than gpu.DefaultLimits.
	Limits gpu.Limits
	// NoFeatures leaves subgroups and f16 off, so that the portable kernels run.
	NoFeatures bool
	// Choices, where set, is asked what Info.Choices of the device to be are.
	Choices func(gpu.Info) map[string]string
}

// Available tells with a nil error that Open would find an adapter of any kind.
func Available() error {
	_, err := Adapters()
	return err
}
