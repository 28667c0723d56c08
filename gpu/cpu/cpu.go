// SPDX-License-Identifier: Apache-2.0

// Package cpu is the gpu.Device that runs the kernels' Go functions on words in memory: New's what fromage computes on where there is no GPU,
// Twins' the oracle that other devices are compared with. It checks every handle, and a function that reaches outside a buffer is an error, not
// undefined.
package cpu

import (
	"fmt"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"fromage/gpu"
	"fromage/internal/simd"
)

// Device implements gpu.Device.
type Device struct {
	mu      sync.Mutex
	handles *gpu.Handles
	words   map[gpu.Buffer][]uint32
	closed  bool
	twins   bool // runs twins where there is something faster
}

var _ gpu.Timer = (*Device)(nil)

// New makes a device that computes as fast as this machine's CPU can, with the limits that every WebGPU device has.
func New() *Device {
	return &Device{handles: gpu.NewHandles(gpu.DefaultLimits), words: map[gpu.Buffer][]uint32{}}
}

// Twins makes a device that runs every kernel's twin. It is slow, and gives the same numbers on every machine whose Go compiler does not fuse
// products and sums.
func Twins() *Device {
	d := New()
	d.twins = true
	return d
}

// Info implements gpu.Device.
func (d *Device) Info() gpu.Info {
	info := gpu.Info{
		Host: "cpu", Adapter: fmt.Sprintf("%d %s cores with %s", runtime.GOMAXPROCS(0), runtime.GOARCH, simd.Name()), Backend: "go",
		Software: true, Limits: gpu.DefaultLimits,
	}
	if d.twins {
		info.Host, info.Adapter = "twins", fmt.Sprintf("Go twins on %d %s cores", runtime.GOMAXPROCS(0), runtime.GOARCH)
	}
	return info
}

func (d *Device) lock() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return fmt.Errorf("gpu/cpu: %w", gpu.ErrClosed)
	}
	return nil
}

// NewBuffer implements gpu.Device.
func (d *Device) NewBuffer(label string, size int) (gpu.Buffer, error) {
	if err := d.lock(); err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
	if err := d.handles.CheckSize(label, size); err != nil {
		return 0, err
	}
	b := d.handles.AddBuffer(label, size)
	d.words[b] = make([]uint32, size/4)
	return b, nil
}

// Free implements gpu.Device.
func (d *Device) Free(b gpu.Buffer) error {
	if err := d.lock(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	delete(d.words, b)
	return d.handles.Free(b)
}

// Write implements gpu.Device.
func (d *Device) Write(b gpu.Buffer, offset int, data []byte) error {
	if err := d.lock(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	if err := d.handles.CheckRange("write", b, offset, len(data)); err != nil {
		return err
	}
	copy(bytesOf(d.words[b])[offset:], data)
	return nil
}

// Read implements gpu.Device.
func (d *Device) Read(b gpu.Buffer, offset int, dst []byte) error {
	if err := d.lock(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	if err := d.handles.CheckRange("read", b, offset, len(dst)); err != nil {
		return err
	}
	copy(dst, bytesOf(d.words[b])[offset:])
	return nil
}

// Compile implements gpu.Device.
func (d *Device) Compile(k *gpu.Kernel) (gpu.Pipeline, error) {
	if err := d.lock(); err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
	if p, ok := d.handles.Kernel(k.Name); ok {
		return p, nil
	}
	if err := d.handles.CheckKernel(k, gpu.Features{}); err != nil {
		return 0, err
	}
	if k.Twin == nil {
		return 0, fmt.Errorf("gpu: compile %s: the kernel has no twin: %w", k.Name, gpu.ErrInvalid)
	}
	return d.handles.AddKernel(k), nil
}

// Submit implements gpu.Device; the commands are done when it returns.
func (d *Device) Submit(l *gpu.List) error {
	_, err := d.Time(l)
	return err
}

// Time implements gpu.Timer by the wall's clock.
func (d *Device) Time(l *gpu.List) ([]time.Duration, error) {
	if err := d.lock(); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	if err := d.handles.CheckList(l); err != nil {
		return nil, err
	}
	took := make([]time.Duration, 0, l.Dispatches())
	for i, c := range l.Commands() {
		began := time.Now()
		if err := d.run(l, c); err != nil {
			return nil, fmt.Errorf("gpu/cpu: submit: command %d: %w", i, err)
		}
		if c.Pipeline != 0 {
			took = append(took, time.Since(began))
		}
	}
	return took, nil
}

func (d *Device) run(l *gpu.List, c gpu.Command) (err error) {
	switch {
	case c.Pipeline != 0:
		k := d.handles.KernelOf(c.Pipeline)
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("%s: %v: %w", k.Name, r, gpu.ErrInvalid)
			}
		}()
		call := gpu.Call{Groups: c.Groups, Params: l.Params()[c.ParamsOffset : c.ParamsOffset+k.Params], Buffers: make([][]uint32, len(c.Buffers))}
		for j, b := range c.Buffers {
			call.Buffers[j] = d.words[b]
		}
		if k.Fast != nil && !d.twins {
			k.Fast(call)
		} else {
			k.Twin(call)
		}
	case c.Source != 0:
		copy(bytesOf(d.words[c.Target])[c.TargetOffset:c.TargetOffset+c.Size], bytesOf(d.words[c.Source])[c.SourceOffset:])
	default:
		clear(bytesOf(d.words[c.Target])[c.TargetOffset : c.TargetOffset+c.Size])
	}
	return nil
}

// Wait implements gpu.Device: nothing is ever pending.
func (d *Device) Wait() error {
	if err := d.lock(); err != nil {
		return err
	}
	d.mu.Unlock()
	return nil
}

// Close implements gpu.Device.
func (d *Device) Close() error {
	if err := d.lock(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	d.closed, d.words, d.handles = true, nil, nil
	return nil
}

// bytesOf views little-endian words as bytes; every platform that Go runs WebGPU on is little-endian.
func bytesOf(w []uint32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), 4*len(w))
}
