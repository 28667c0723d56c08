// SPDX-License-Identifier: Apache-2.0

//go:build cgo && !js && !wasip1

package native

import (
	"fmt"
	"strings"
	"sync"

	"fromage/gpu"
)

const (
	chunk    = 32 << 20  // bytes that one driver write or read moves at most: so much staging memory is needed beside a buffer
	maxDebt  = 128 << 20 // bytes that the driver may hold for writes not yet done
	eachDebt = 64 << 10  // what one write, list or freed buffer costs the driver at least
)

// What wgpu-native says of these, among validation errors; it has no other sign of them.
const (
	textLost   = "device is lost"
	textMemory = "Not enough memory left"
)

// Device implements gpu.Device.
type Device struct {
	mu      sync.Mutex
	info    gpu.Info
	clocked bool // the driver times passes
	handles *gpu.Handles
	closed  bool
	lost    string // the driver's words, once the device is

	device *wDevice
	queue  *wQueue

	buffers   map[gpu.Buffer]*wBuffer
	pipelines map[gpu.Pipeline]*pipeline
	groups    map[groupKey]*wBindGroup
	users     map[gpu.Buffer]map[groupKey]struct{} // the bind groups that hold a buffer

	uniform, staging         *wBuffer // parameters of the list being submitted; what Read maps
	uniformSize, stagingSize int
	debt                     int
}

var _ gpu.Timer = (*Device)(nil)

// failed says how an operation on an object failed in the driver, nil if err is.
func (d *Device) failed(operation, object string, err error) error {
	if err == nil {
		return nil
	}
	text, sentinel := strings.TrimSpace(err.Error()), gpu.ErrInvalid
	switch {
	case strings.Contains(text, textLost):
		d.lost, sentinel = text, gpu.ErrLost
	case strings.Contains(text, textMemory):
		sentinel = gpu.ErrMemory
	}
	return fmt.Errorf("gpu/native: %s %s: %s: %w", operation, object, text, sentinel)
}

// lock takes the device for one call.
func (d *Device) lock() error {
	d.mu.Lock()
	switch {
	case d.closed:
		d.mu.Unlock()
		return fmt.Errorf("gpu/native: %w", gpu.ErrClosed)
	case d.lost != "":
		defer d.mu.Unlock()
		return fmt.Errorf("gpu/native: %s: %s: %w", d.info.Adapter, d.lost, gpu.ErrLost)
	}
	return nil
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

func (d *Device) newBuffer(label string, size int, usage wBufferUsage) (*wBuffer, error) {
	w, err := createBuffer(d.device, &wBufferDescriptor{Label: label, Size: uint64(size), Usage: usage})
	return w, d.failed("new buffer", label, err)
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
		if err := d.write(d.buffers[b], d.handles.Label(b), offset, data[:n]); err != nil {
			return err
		}
		offset, data = offset+n, data[n:]
	}
	return nil
}

func (d *Device) write(w *wBuffer, label string, offset int, data []byte) error {
	if err := writeBuffer(d.queue, w, uint64(offset), data); err != nil {
		return d.failed("write", label, err)
	}
	return d.owe(len(data))
}

// owe counts what the driver holds on to until it is next waited for, and makes it let go before that becomes much.
func (d *Device) owe(size int) error {
	d.debt += max(size, eachDebt)
	if d.debt < maxDebt {
		return nil
	}
	return d.settle()
}

// settle waits until the driver has done all writes and commands and let go of what they held.
func (d *Device) settle() error {
	if err := d.run("wait for", "queue", func(*wEncoder) error { return nil }); err != nil {
		return err
	}
	d.device.Poll(true, nil)
	d.debt = 0
	return nil
}

// run submits what encode records. Making the encoder is also what tells a lost device: the queue would end the process.
func (d *Device) run(operation, object string, encode func(*wEncoder) error) error {
	e, err := createEncoder(d.device, nil)
	if err != nil {
		return d.failed(operation, object, err)
	}
	defer e.Release()
	if err := encode(e); err != nil {
		return d.failed(operation, object, err)
	}
	commands, err := finish(e, nil)
	if err != nil {
		return d.failed(operation, object, err)
	}
	defer commands.Release()
	d.queue.Submit(commands)
	return nil
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
		if err := d.read(d.buffers[b], d.handles.Label(b), offset, dst[:n]); err != nil {
			return err
		}
		offset, dst = offset+n, dst[n:]
	}
	return nil
}

// read copies one chunk to the staging buffer, maps it and copies it out.
func (d *Device) read(w *wBuffer, label string, offset int, dst []byte) error {
	if err := d.grow(&d.staging, &d.stagingSize, "staging", len(dst), usageStaging); err != nil {
		return err
	}
	err := d.run("read", label, func(e *wEncoder) error { return copyBuffer(e, w, uint64(offset), d.staging, 0, uint64(len(dst))) })
	if err != nil {
		return err
	}
	if err := mapRead(d.device, d.staging, len(dst)); err != nil {
		return d.failed("read", label, err)
	}
	d.debt = 0
	copy(dst, d.staging.GetMappedRange(0, uint(len(dst))))
	return d.failed("read", label, unmap(d.staging))
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

// Close implements gpu.Device.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("gpu/native: %w", gpu.ErrClosed)
	}
	d.closed = true
	if d.lost == "" {
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
	d.device.Release()
	return nil
}
