// SPDX-License-Identifier: Apache-2.0

// Package gpu is the one small interface between fromage and whatever computes: buffers of 32-bit words, kernels, and command lists.
//
// What enters is flat data: a Kernel (WGSL text, its bindings and its Go twin) and a List of commands over buffer handles. What leaves is
// bytes read back and errors that name the kernel, buffer or command. The package refuses to know tensors, shapes and models, and it starts
// no device itself: gpu/cpu runs Go functions, gpu/native runs WebGPU through wgpu-native.
package gpu

import (
	"errors"
	"time"
)

// Buffer names a buffer of one Device. The zero value names none.
type Buffer uint32

// Pipeline names a compiled kernel of one Device. The zero value names none.
type Pipeline uint32

// Device is a place to keep buffers and run kernels. All calls may come from several goroutines; commands take effect in the order of the
// Submit, Write and Read calls that returned one after another. Each call returns errors that match the sentinels below where they apply.
type Device interface {
	// Info says what the device is; it never changes.
	Info() Info
	// NewBuffer makes a zero-filled buffer of size bytes (a positive multiple of 4, at most Limits.MaxBinding).
	NewBuffer(label string, size int) (Buffer, error)
	// Free gives a buffer back once commands submitted before are done with it.
	Free(b Buffer) error
	// Write copies data to b from byte offset on; offset and len(data) are multiples of 4. data may be reused after the call.
	Write(b Buffer, offset int, data []byte) error
	// Read waits for everything submitted before and copies len(dst) bytes of b, from byte offset on, to dst; both multiples of 4.
	Read(b Buffer, offset int, dst []byte) error
	// Compile makes a pipeline of k. A kernel whose Name was compiled before gives the same pipeline.
	Compile(k *Kernel) (Pipeline, error)
	// Submit runs the commands of l in order. l may be submitted again, and changed after the call.
	Submit(l *List) error
	// Wait returns when everything submitted before is done.
	Wait() error
	// Close frees everything. Later calls return ErrClosed.
	Close() error
}

// Library is a Device that may hold contents which somebody else put there, such as weights that several programs use.
type Library interface {
	Device
	// Shared returns a buffer with the contents of this SHA-256 (in lowercase hex) and size in bytes, or 0 where there is none. It may not be written to;
	// Free gives the handle back and leaves the contents.
	Shared(sha256 string, size int) (Buffer, error)
}

// Timer is a Device that may have a clock for single dispatches.
type Timer interface {
	Device
	// Time runs the commands of l as Submit does, waits for them, and returns how long each dispatch took, in their order. What lies between dispatches
	// is in none of them, and dispatches that could run at once do not. The error matches errors.ErrUnsupported where the device has no such clock.
	Time(l *List) ([]time.Duration, error)
}

// What a Device's errors match under errors.Is.
var (
	// ErrLost: the device is gone (driver reset, device unplugged); nothing on it can be read any more.
	ErrLost = errors.New("device lost")
	// ErrMemory: the device has no room for a buffer of that size.
	ErrMemory = errors.New("out of device memory")
	// ErrClosed: the call came after Close.
	ErrClosed = errors.New("device is closed")
	// ErrInvalid: a handle, size, offset, kernel or command is not valid.
	ErrInvalid = errors.New("invalid use")
)

// Info describes a Device.
type Info struct {
	// Host is what runs the kernels: "cpu" and "twins" for Go functions, "native", "browser" or "remote".
	Host string `json:"host"`
	// Adapter, Vendor, Backend and Driver are the names that the host gives, for people to read.
	Adapter string `json:"adapter"`
	Vendor  string `json:"vendor,omitempty"`
	Backend string `json:"backend,omitempty"`
	Driver  string `json:"driver,omitempty"`
	// Software says that a CPU does the work (the twins, lavapipe, SwiftShader): there workgroup memory and barriers are slow.
	Software bool     `json:"software"`
	Features Features `json:"features"`
	Limits   Limits   `json:"limits"`
	// Choices names, by class of dispatches, the kernel that was measured to be the fastest there. Package shaders reads it; its rules decide on the rest.
	Choices map[string]string `json:"choices,omitempty"`
}

// Features are the optional abilities that kernel variants are chosen by.
type Features struct {
	// Subgroups: WGSL subgroup operations, in subgroups of SubgroupMin to SubgroupMax invocations; both are 0 where the host does not tell.
	Subgroups   bool `json:"subgroups"`
	SubgroupMin int  `json:"subgroup_min,omitempty"`
	SubgroupMax int  `json:"subgroup_max,omitempty"`
	// F16: WGSL f16 arithmetic.
	F16 bool `json:"f16"`
}

// Limits are what a kernel or buffer may ask for. The WebGPU defaults are DefaultLimits.
type Limits struct {
	MaxBinding         int `json:"max_binding"`          // bytes of one buffer as a kernel sees it
	MaxBindings        int `json:"max_bindings"`         // storage buffers of one kernel
	MaxWorkgroupMemory int `json:"max_workgroup_memory"` // bytes
	MaxInvocations     int `json:"max_invocations"`      // invocations of one workgroup
	MaxGroups          int `json:"max_groups"`           // workgroups along one dimension
}

// DefaultLimits are the limits that every WebGPU device has; each kernel has a variant that stays within them.
var DefaultLimits = Limits{
	MaxBinding:         128 << 20,
	MaxBindings:        8,
	MaxWorkgroupMemory: 16 << 10,
	MaxInvocations:     256,
	MaxGroups:          65535,
}

// Access is how a kernel uses one storage binding.
type Access uint8

// The two kinds of storage binding. A buffer may not be bound as Read and as ReadWrite in one dispatch.
const (
	Read Access = iota
	ReadWrite
)

// Kernel is one compute shader and its twin. Kernels are made by package shaders, once each, and compared by Name.
type Kernel struct {
	// Name tells one kernel text from every other, variant and constants included: "linear_row.q8".
	Name string
	// Source is WGSL with one entry point `main`, without enable directives.
	Source string
	// Params is the size of the uniform at @group(0) @binding(0), a multiple of 16 up to MaxParams.
	Params int
	// Bindings are the storage buffers at @binding(1), @binding(2), …
	Bindings []Access
	// Labels are the bindings' names in the source, for errors.
	Labels []string
	// Subgroups and F16 name the WGSL extensions that Source needs; the device adds the enable lines that its compiler wants.
	Subgroups, F16 bool
	// Reach, where there is one, says how many words of each binding a dispatch with these parameters looks at, whatever the buffers contain; nil if
	// the kernel cannot run with them. Devices refuse dispatches that reach outside their buffers, and that bounds the time a dispatch takes.
	Reach func(params []byte) []uint64
	// Twin computes in Go, on plain words, what one dispatch of the kernel computes: the meaning of the kernel.
	Twin func(Call)
	// Fast, where there is one, computes the same as Twin as fast as a CPU can, on all cores and in f32.
	Fast func(Call)
}

// MaxParams is the most bytes of parameters that a kernel may take, and the stride of parameters within a List.
const MaxParams = 256

// Call is what a Twin or Fast gets: the dispatch as the shader sees it.
type Call struct {
	Groups  [3]uint32
	Params  []byte
	Buffers [][]uint32 // in the order of Kernel.Bindings; only those with ReadWrite access may be written
}
