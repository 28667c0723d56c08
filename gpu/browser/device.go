// SPDX-License-Identifier: Apache-2.0

//go:build js && wasm

package browser

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"syscall/js"
	"time"
	"unsafe"

	"fromage/gpu"
)

const (
	chunk   = 4 << 20  // bytes that one write copies at most: so much JavaScript memory is kept for it
	mapped  = 16 << 20 // bytes that one read maps at most
	maxDebt = 64 << 20 // bytes of writes that the browser may hold before they are waited for

	grace = 200 * time.Millisecond // how long after a failure it may turn out that the device was lost
)

// Device implements gpu.Device.
type Device struct {
	info    gpu.Info
	session js.Value // of gpu.js

	mu        sync.Mutex // covers the fields below, never held while waiting for the browser
	handles   *gpu.Handles
	compiling map[string]*compilation
	closed    bool
	debt      int
	arrays    arrays

	told   sync.Mutex // covers failed and reason, which the browser's callbacks set
	failed error      // what the browser refused of an earlier call, not yet returned
	reason string     // why the device is lost
	lost   chan struct{}

	onlost, onfailure js.Func
}

var _ gpu.Device = (*Device)(nil)

// arrays are the session's Uint8Arrays that Go copies into, with their lengths.
type arrays struct {
	bytes, words, params             js.Value
	bytesSize, wordsSize, paramsSize int
}

func newDevice(session js.Value, info gpu.Info) *Device {
	d := &Device{info: info, session: session, handles: gpu.NewHandles(info.Limits), compiling: map[string]*compilation{}, lost: make(chan struct{})}
	d.onlost = js.FuncOf(func(_ js.Value, args []js.Value) any {
		d.told.Lock()
		defer d.told.Unlock()
		if d.reason = "reason " + text(args[0]); text(args[1]) != "" {
			d.reason += ": " + text(args[1])
		}
		close(d.lost)
		return nil
	})
	d.onfailure = js.FuncOf(func(_ js.Value, args []js.Value) any {
		d.told.Lock()
		defer d.told.Unlock()
		if d.failed == nil { // the first error is the one to tell
			d.failed = refused("submit", text(args[0]), text(args[1]))
		}
		return nil
	})
	session.Set("onlost", d.onlost)
	session.Set("onfailure", d.onfailure)
	d.reserve(0, 0, 0)
	return d
}

// refused is the error for what the browser said of an operation; kind is gpu.js's.
func refused(operation, kind, message string) error {
	sentinel := gpu.ErrInvalid
	if kind == "out-of-memory" {
		sentinel = gpu.ErrMemory
	}
	return fmt.Errorf("gpu/browser: %s: %s: %w", operation, message, sentinel)
}

// reserve makes room in the session's arrays.
func (d *Device) reserve(bytes, words, params int) {
	d.session.Call("reserve", roundUp(bytes), roundUp(words), roundUp(params))
	a := &d.arrays
	a.bytes, a.words, a.params = d.session.Get("bytes"), d.session.Get("wordBytes"), d.session.Get("params")
	a.bytesSize, a.wordsSize, a.paramsSize = a.bytes.Length(), a.words.Length(), a.params.Length()
}

// roundUp is the next power of two, so that arrays grow few times.
func roundUp(n int) int {
	room := 1 << 16
	for room < n {
		room *= 2
	}
	return room
}

// lossError is ErrLost with the reason, nil while the device is there.
func (d *Device) lossError() error {
	select {
	case <-d.lost:
		d.told.Lock()
		defer d.told.Unlock()
		return fmt.Errorf("gpu/browser: %s: %s: %w", d.info.Adapter, d.reason, gpu.ErrLost)
	default:
		return nil
	}
}

// enter takes the device for one call.
func (d *Device) enter() error {
	d.mu.Lock()
	err := d.lossError()
	if d.closed {
		err = fmt.Errorf("gpu/browser: %w", gpu.ErrClosed)
	}
	if err != nil {
		d.mu.Unlock()
	}
	return err
}

// enterChecked is enter for a call that returns what the browser refused of an earlier one.
func (d *Device) enterChecked() error {
	if err := d.enter(); err != nil {
		return err
	}
	if err := d.failure(); err != nil {
		d.mu.Unlock()
		return err
	}
	return nil
}

// failure returns, once, what the browser refused of an earlier call.
func (d *Device) failure() error {
	d.told.Lock()
	defer d.told.Unlock()
	err := d.failed
	d.failed = nil
	return err
}

// first is what the browser refused of an earlier call, if it did, and otherwise err; that the device is gone goes before both.
func (d *Device) first(err error) error {
	if errors.Is(err, gpu.ErrLost) || errors.Is(err, gpu.ErrClosed) {
		return err
	}
	return cmp.Or(d.failure(), err)
}

// await waits for a promise of the session. One that breaks is an error of the operation; one that a lost device leaves open or breaks is ErrLost,
// or ErrClosed after Close.
func (d *Device) await(operation string, promise js.Value) (js.Value, error) {
	v, err := settle(d.lost, promise)
	if err != nil {
		// A promise may break before the loss that broke it is told.
		select {
		case <-d.lost:
		case <-time.After(grace):
		}
	}
	if lost := d.enter(); lost != nil {
		return js.Value{}, lost
	}
	d.mu.Unlock()
	if err != nil {
		return js.Value{}, refused(operation, "", err.Error())
	}
	return v, nil
}

// Info implements gpu.Device.
func (d *Device) Info() gpu.Info { return d.info }

// Lost is closed when the device is lost or closed; every later call returns an error that says why.
func (d *Device) Lost() <-chan struct{} { return d.lost }

// LostReason is what the browser says of the loss, "" while the device is there.
func (d *Device) LostReason() string {
	d.told.Lock()
	defer d.told.Unlock()
	return d.reason
}

// Lose makes the device a lost one, as a reset of the driver would; it is there for tests.
func (d *Device) Lose() {
	_, _ = settle(nil, d.session.Call("destroy")) // it never rejects
	<-d.lost
}

// NewBuffer implements gpu.Device.
func (d *Device) NewBuffer(label string, size int) (gpu.Buffer, error) {
	if err := d.enterChecked(); err != nil {
		return 0, err
	}
	if err := d.handles.CheckSize(label, size); err != nil {
		d.mu.Unlock()
		return 0, err
	}
	b := d.handles.AddBuffer(label, size)
	promise := d.session.Call("newBuffer", int(b), label, size)
	d.mu.Unlock()
	refusal, err := d.await("new buffer "+label, promise)
	if err == nil && refusal.Truthy() {
		err = refused("new buffer "+label, refusal.Index(0).String(), refusal.Index(1).String())
		d.mu.Lock()
		_ = d.handles.Free(b) // it is there
		d.mu.Unlock()
	}
	if err != nil {
		return 0, err
	}
	return b, nil
}

// Free implements gpu.Device.
func (d *Device) Free(b gpu.Buffer) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	if err := d.handles.Free(b); err != nil {
		return err
	}
	d.session.Call("free", int(b))
	return nil
}

// Write implements gpu.Device.
func (d *Device) Write(b gpu.Buffer, offset int, data []byte) error {
	for {
		n := min(len(data), chunk)
		err := d.write(b, offset, len(data), n, func() error {
			if n > d.arrays.bytesSize {
				d.reserve(n, 0, 0)
			}
			js.CopyBytesToJS(d.arrays.bytes, data[:n])
			_, err := call(d.session, "write", int(b), offset, n)
			return err
		})
		if offset, data = offset+n, data[n:]; err != nil || len(data) == 0 {
			return err
		}
	}
}

// WriteJS is Write from a Uint8Array, which may be changed after the call: bytes that come by fetch get to the device without passing through
// Go's memory, which only ever grows. offset and the array's length are multiples of 4.
func (d *Device) WriteJS(b gpu.Buffer, offset int, data js.Value) error {
	if !data.InstanceOf(js.Global().Get("Uint8Array")) {
		return fmt.Errorf("gpu/browser: write: want a Uint8Array, have %v: %w", data, gpu.ErrInvalid)
	}
	n := data.Length()
	return d.write(b, offset, n, n, func() error {
		_, err := call(d.session, "writeFrom", int(b), offset, data)
		return err
	})
}

// write checks that size bytes may be written, lets do write the first n, and waits where the browser holds much that is not yet on the device.
func (d *Device) write(b gpu.Buffer, offset, size, n int, do func() error) error {
	if err := d.enterChecked(); err != nil {
		return err
	}
	err := d.handles.CheckRange("write", b, offset, size)
	if err == nil && n > 0 {
		if err = do(); err != nil {
			err = refused("write buffer "+d.handles.Label(b), "", err.Error())
		}
	}
	d.debt += n
	full := d.debt > maxDebt
	if full {
		d.debt = 0
	}
	d.mu.Unlock()
	if err != nil || !full {
		return err
	}
	return d.Wait()
}

// Read implements gpu.Device.
func (d *Device) Read(b gpu.Buffer, offset int, dst []byte) error {
	for {
		n := min(len(dst), mapped)
		err := d.read(b, offset, len(dst), dst[:n])
		if offset, dst = offset+n, dst[n:]; err != nil || len(dst) == 0 {
			return err
		}
	}
}

// read checks that size bytes may be read and reads the first of them to dst.
func (d *Device) read(b gpu.Buffer, offset, size int, dst []byte) error {
	if err := d.enterChecked(); err != nil {
		return err
	}
	label := d.handles.Label(b)
	if err := d.handles.CheckRange("read", b, offset, size); err != nil || len(dst) == 0 {
		d.mu.Unlock()
		return err
	}
	promise := d.session.Call("read", int(b), offset, len(dst))
	d.mu.Unlock()
	m, err := d.await("read buffer "+label, promise)
	if err == nil {
		defer d.session.Call("unmap", m)
	}
	if err = d.first(err); err != nil {
		return err
	}
	view := m.Get("view")
	if view.Length() != len(dst) { // its bytes went with the device, between the promise and now
		return fmt.Errorf("gpu/browser: read buffer %s: the device was destroyed: %w", label, gpu.ErrLost)
	}
	js.CopyBytesToGo(dst, view)
	return nil
}

// Submit implements gpu.Device. It does not wait: what the browser refuses of the list is the error of a later call.
func (d *Device) Submit(l *gpu.List) error {
	if err := d.enterChecked(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	if err := d.handles.CheckList(l); err != nil {
		return err
	}
	words, params := l.Words(), l.Params()
	if len(words) == 0 {
		return nil
	}
	if 4*len(words) > d.arrays.wordsSize || len(params) > d.arrays.paramsSize {
		d.reserve(0, 4*len(words), len(params))
	}
	js.CopyBytesToJS(d.arrays.words, unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 4*len(words))) // WebAssembly is little-endian
	js.CopyBytesToJS(d.arrays.params, params)
	if _, err := call(d.session, "submit", len(words), len(params)); err != nil {
		return refused("submit list", "", err.Error())
	}
	return nil
}

// Wait implements gpu.Device.
func (d *Device) Wait() error {
	if err := d.enterChecked(); err != nil {
		return err
	}
	promise := d.session.Call("wait")
	d.mu.Unlock()
	_, err := d.await("wait", promise)
	return d.first(err)
}

// Close implements gpu.Device.
func (d *Device) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return fmt.Errorf("gpu/browser: %w", gpu.ErrClosed)
	}
	d.closed = true
	d.mu.Unlock()
	d.Lose()
	d.onlost.Release()
	d.onfailure.Release()
	return nil
}
