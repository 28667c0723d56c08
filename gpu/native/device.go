// SPDX-License-Identifier: Apache-2.0

//go:build cgo && !js && !wasip1

package native

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"fromage/gpu"
)

const (
	chunk     = 32 << 20  // bytes that one driver write or read moves at most: so much staging memory is needed beside a buffer
	maxDebt   = 128 << 20 // bytes that the driver may hold for writes not yet begun
	eachDebt  = 64 << 10  // what one write or freed buffer costs the driver at least
	errorText = 4096      // bytes kept of a driver's message
)

// Device implements gpu.Device.
type Device struct {
	mu      sync.Mutex
	info    gpu.Info
	handles *gpu.Handles
	closed  bool
	lost    atomic.Pointer[string] // why, once it is

	device *wDevice
	ref    unsafe.Pointer
	queue  *wQueue

	buffers   map[gpu.Buffer]*wBuffer
	pipelines map[gpu.Pipeline]*pipeline
	groups    map[groupKey]*wBindGroup
	users     map[gpu.Buffer]map[groupKey]struct{} // the bind groups that hold a buffer

	uniform, staging         *wBuffer // parameters of the list being submitted; what Read maps
	uniformSize, stagingSize int
	debt                     int
	text                     [errorText]byte
}

var _ gpu.Device = (*Device)(nil)

func newDevice() *Device {
	return &Device{
		buffers: map[gpu.Buffer]*wBuffer{}, pipelines: map[gpu.Pipeline]*pipeline{},
		groups: map[groupKey]*wBindGroup{}, users: map[gpu.Buffer]map[groupKey]struct{}{},
	}
}

// memoryError is an error that says that memory was short.
type memoryError struct{ error }

// scopeError is the error of a scope whose message lies in text.
func scopeError(failed, memory bool, text []byte) error {
	if !failed {
		return nil
	}
	n := bytes.IndexByte(text, 0)
	err := errors.New(string(text[:n]))
	if memory {
		return memoryError{err}
	}
	return err
}

// noteLost is called by the driver, at any time and on any thread.
func (d *Device) noteLost(reason string) { d.lost.CompareAndSwap(nil, &reason) }

// do runs one operation on the driver inside error scopes and says how it failed, under the name of the operation.
func (d *Device) do(operation, object string, run func() error) error {
	runtime.LockOSThread() // wgpu-native keeps scopes by thread
	pushScopes(d.ref)
	err := run()
	if scoped := popScopes(d.ref, d.text[:]); scoped != nil {
		err = scoped
	}
	runtime.UnlockOSThread()
	if err != nil && strings.Contains(strings.ToLower(err.Error()), "device is lost") {
		d.noteLost(err.Error())
	}
	if lost := d.lostError(); lost != nil {
		return lost
	}
	if err == nil {
		return nil
	}
	sentinel := gpu.ErrInvalid
	if errors.As(err, &memoryError{}) {
		sentinel = gpu.ErrMemory
	}
	return fmt.Errorf("gpu/native: %s %s: %s: %w", operation, object, strings.TrimSpace(err.Error()), sentinel)
}

func (d *Device) lostError() error {
	if why := d.lost.Load(); why != nil {
		return fmt.Errorf("gpu/native: %s: %s: %w", d.info.Adapter, *why, gpu.ErrLost)
	}
	return nil
}

// lock takes the device for one call.
func (d *Device) lock() error {
	d.mu.Lock()
	err := d.lostError()
	if d.closed {
		err = fmt.Errorf("gpu/native: %w", gpu.ErrClosed)
	}
	if err != nil {
		d.mu.Unlock()
	}
	return err
}

// Info implements gpu.Device.
func (d *Device) Info() gpu.Info { return d.info }

// NewBuffer implements gpu.Device.
func (d *Device) NewBuffer(label string, size int) (gpu.Buffer, error) {
	if err := d.lock(); err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
	if err := d.handles.CheckSize(label, size); err != nil {
		return 0, err
	}
	w, err := d.newBuffer(label, size, usageStorage)
	if err != nil {
		return 0, err
	}
	b := d.handles.AddBuffer(label, size)
	d.buffers[b] = w
	return b, nil
}

func (d *Device) newBuffer(label string, size int, usage wBufferUsage) (w *wBuffer, err error) {
	err = d.do("new buffer", label, func() (err error) {
		w, err = createBuffer(d.device, &wBufferDescriptor{Label: label, Size: uint64(size), Usage: usage})
		return err
	})
	if err != nil && w != nil {
		w.Release()
	}
	return w, err
}

// Free implements gpu.Device.
func (d *Device) Free(b gpu.Buffer) error {
	if err := d.lock(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	if err := d.handles.Free(b); err != nil {
		return err
	}
	d.dropGroups(b)
	d.buffers[b].Release()
	delete(d.buffers, b)
	return d.owe(0)
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
	for len(data) > 0 {
		n := min(len(data), chunk)
		if err := d.write(d.buffers[b], offset, data[:n]); err != nil {
			return err
		}
		offset, data = offset+n, data[n:]
	}
	return nil
}

func (d *Device) write(w *wBuffer, offset int, data []byte) error {
	err := d.do("write", "buffer", func() error { return writeBuffer(d.queue, w, uint64(offset), data) })
	if err != nil {
		return err
	}
	return d.owe(len(data))
}

// owe counts what the driver holds on to until the queue is next submitted and polled, and makes it let go before that becomes much.
func (d *Device) owe(size int) error {
	d.debt += max(size, eachDebt)
	if d.debt < maxDebt {
		return nil
	}
	return d.settle()
}

// settle waits until the driver has done all writes and commands and let go of what they held.
func (d *Device) settle() error {
	d.debt = 0
	return d.do("wait for", "the queue", func() error {
		d.queue.Submit()
		d.device.Poll(true, nil)
		return nil
	})
}

// Wait implements gpu.Device.
func (d *Device) Wait() error {
	if err := d.lock(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	return d.settle()
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
	for len(dst) > 0 {
		n := min(len(dst), chunk)
		if err := d.read(d.buffers[b], offset, dst[:n]); err != nil {
			return err
		}
		offset, dst = offset+n, dst[n:]
	}
	return nil
}

// read copies one chunk to the staging buffer, maps it and copies it out.
func (d *Device) read(w *wBuffer, offset int, dst []byte) error {
	if err := d.grow(&d.staging, &d.stagingSize, "staging", len(dst), usageStaging); err != nil {
		return err
	}
	err := d.do("read", "buffer", func() error {
		commands, err := d.record(func(e *wEncoder) error {
			return copyBuffer(e, w, uint64(offset), d.staging, 0, uint64(len(dst)))
		})
		if err != nil {
			return err
		}
		defer commands.Release()
		d.queue.Submit(commands)
		return mapRead(d.device, d.staging, len(dst))
	})
	if err != nil {
		return err
	}
	d.debt = 0
	copy(dst, d.staging.GetMappedRange(0, uint(len(dst))))
	return d.do("read", "buffer", func() error { return unmap(d.staging) })
}

// grow replaces *w by a buffer with room for size bytes if it has less.
func (d *Device) grow(w **wBuffer, have *int, label string, size int, usage wBufferUsage) error {
	if *have >= size {
		return nil
	}
	room := 64 << 10
	for room < size {
		room *= 2
	}
	grown, err := d.newBuffer(label, room, usage)
	if err != nil {
		return err
	}
	if *w != nil {
		(*w).Release()
	}
	*w, *have = grown, room
	return nil
}

// lose makes the driver drop the device; where its binding does not tell of lost devices, this does.
func (d *Device) lose() {
	destroyDevice(d.ref)
	d.noteLost("destroyed")
}

// Close implements gpu.Device.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("gpu/native: %w", gpu.ErrClosed)
	}
	d.closed = true
	if d.lostError() == nil {
		_ = d.settle() // else writes not yet submitted keep the device in the driver for ever
	}
	d.dropAllGroups()
	for _, b := range d.buffers {
		b.Release()
	}
	for _, b := range []*wBuffer{d.uniform, d.staging} {
		if b != nil {
			b.Release()
		}
	}
	for _, p := range d.pipelines {
		p.release()
	}
	d.buffers, d.pipelines, d.handles = nil, nil, nil
	d.queue.Release()
	destroyDevice(d.ref)
	d.device.Release()
	return nil
}
