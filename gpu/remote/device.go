// SPDX-License-Identifier: Apache-2.0

//go:build wasip1

package remote

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"unsafe"

	"fromage/gpu"
)

//go:wasmimport fromage_gpu open
func hostOpen(version int32) int32

//go:wasmimport fromage_gpu info
func hostInfo(device int32, text unsafe.Pointer, size int32) int32

//go:wasmimport fromage_gpu error
func hostError(text unsafe.Pointer, size int32) int32

//go:wasmimport fromage_gpu new_buffer
func hostNewBuffer(device int32, label unsafe.Pointer, n int32, size int64) int32

//go:wasmimport fromage_gpu shared
func hostShared(device int32, hash unsafe.Pointer, size int64) int32

//go:wasmimport fromage_gpu free
func hostFree(device, buffer int32) int32

//go:wasmimport fromage_gpu write
func hostWrite(device, buffer int32, offset int64, data unsafe.Pointer, size int32) int32

//go:wasmimport fromage_gpu read
func hostRead(device, buffer int32, offset int64, data unsafe.Pointer, size int32) int32

//go:wasmimport fromage_gpu compile
func hostCompile(device int32, kernel unsafe.Pointer, size int32) int32

//go:wasmimport fromage_gpu submit
func hostSubmit(device int32, words unsafe.Pointer, wordsSize int32, params unsafe.Pointer, paramsSize int32) int32

//go:wasmimport fromage_gpu wait
func hostWait(device int32) int32

//go:wasmimport fromage_gpu close
func hostClose(device int32) int32

// Device implements gpu.Device and gpu.Library.
type Device struct {
	number int32
	info   gpu.Info

	mu        sync.Mutex
	pipelines map[string]gpu.Pipeline // those compiled, by name
}

var _ gpu.Library = (*Device)(nil)

// calls lets a failed call's text be fetched before another goroutine's call fails.
var calls sync.Mutex

// Open opens a device on the host's. A guest may have several.
func Open() (*Device, error) {
	number, err := call(func() int32 { return hostOpen(Version) })
	if err != nil {
		return nil, err
	}
	d := &Device{number: number}
	text, err := text(func(p unsafe.Pointer, n int32) int32 { return hostInfo(number, p, n) })
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &d.info); err != nil {
		return nil, fmt.Errorf("gpu/remote: info: %w", err)
	}
	return d, nil
}

// call makes one call of the host.
func call(f func() int32) (int32, error) {
	calls.Lock()
	defer calls.Unlock()
	n := f()
	if n >= 0 {
		return n, nil
	}
	message, err := text(hostError)
	if err != nil {
		return n, err
	}
	return n, failure{string(message), n}
}

// text fetches a text whose length the host knows.
func text(f func(unsafe.Pointer, int32) int32) ([]byte, error) {
	b := make([]byte, 512)
	for {
		n := f(unsafe.Pointer(unsafe.SliceData(b)), int32(len(b)))
		switch {
		case n < 0:
			return nil, failure{"gpu/remote: the host does not say why", n}
		case int(n) <= len(b):
			return b[:n], nil
		}
		b = make([]byte, n)
	}
}

// failure is an error in the host's words.
type failure struct {
	text string
	code int32
}

func (f failure) Error() string { return f.text }

func (f failure) Unwrap() error {
	return map[int32]error{CodeLost: gpu.ErrLost, CodeMemory: gpu.ErrMemory, CodeClosed: gpu.ErrClosed, CodeInvalid: gpu.ErrInvalid}[f.code]
}

// Info implements gpu.Device.
func (d *Device) Info() gpu.Info { return d.info }

// NewBuffer implements gpu.Device.
func (d *Device) NewBuffer(label string, size int) (gpu.Buffer, error) {
	n, err := call(func() int32 {
		return hostNewBuffer(d.number, unsafe.Pointer(unsafe.StringData(label)), int32(len(label)), int64(size))
	})
	return gpu.Buffer(max(n, 0)), err
}

// Shared implements gpu.Library.
func (d *Device) Shared(sha256 string, size int) (gpu.Buffer, error) {
	hash, err := hex.DecodeString(sha256)
	if err != nil || len(hash) != 32 {
		return 0, fmt.Errorf("gpu/remote: shared: want a SHA-256 in hexadecimal digits, have %q: %w", sha256, gpu.ErrInvalid)
	}
	n, err := call(func() int32 { return hostShared(d.number, unsafe.Pointer(unsafe.SliceData(hash)), int64(size)) })
	return gpu.Buffer(max(n, 0)), err
}

// Free implements gpu.Device.
func (d *Device) Free(b gpu.Buffer) error {
	_, err := call(func() int32 { return hostFree(d.number, int32(b)) })
	return err
}

// Write implements gpu.Device.
func (d *Device) Write(b gpu.Buffer, offset int, data []byte) error {
	_, err := call(func() int32 {
		return hostWrite(d.number, int32(b), int64(offset), unsafe.Pointer(unsafe.SliceData(data)), int32(len(data)))
	})
	return err
}

// Read implements gpu.Device.
func (d *Device) Read(b gpu.Buffer, offset int, dst []byte) error {
	_, err := call(func() int32 {
		return hostRead(d.number, int32(b), int64(offset), unsafe.Pointer(unsafe.SliceData(dst)), int32(len(dst)))
	})
	return err
}

// Compile implements gpu.Device. A name that was compiled before does not cross the boundary again.
func (d *Device) Compile(k *gpu.Kernel) (gpu.Pipeline, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p, ok := d.pipelines[k.Name]; ok {
		return p, nil
	}
	sent := Kernel{Name: k.Name, Source: k.Source, Params: k.Params, Labels: k.Labels, Subgroups: k.Subgroups, F16: k.F16}
	for _, access := range k.Bindings {
		sent.Bindings = append(sent.Bindings, byte(access))
	}
	data, err := json.Marshal(sent)
	if err != nil {
		return 0, fmt.Errorf("gpu/remote: compile %s: %w", k.Name, err)
	}
	n, err := call(func() int32 { return hostCompile(d.number, unsafe.Pointer(unsafe.SliceData(data)), int32(len(data))) })
	if err != nil {
		return 0, err
	}
	if d.pipelines == nil {
		d.pipelines = map[string]gpu.Pipeline{}
	}
	d.pipelines[k.Name] = gpu.Pipeline(n)
	return gpu.Pipeline(n), nil
}

// Submit implements gpu.Device.
func (d *Device) Submit(l *gpu.List) error {
	words, params := l.Words(), l.Params()
	if 4*len(words) > math.MaxInt32 || len(params) > math.MaxInt32 {
		return fmt.Errorf("gpu/remote: submit: a list of %d words and %d bytes of parameters is too long: %w", len(words), len(params), gpu.ErrInvalid)
	}
	_, err := call(func() int32 {
		return hostSubmit(d.number, unsafe.Pointer(unsafe.SliceData(words)), int32(4*len(words)), unsafe.Pointer(unsafe.SliceData(params)), int32(len(params)))
	})
	return err
}

// Wait implements gpu.Device.
func (d *Device) Wait() error {
	_, err := call(func() int32 { return hostWait(d.number) })
	return err
}

// Close implements gpu.Device.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pipelines = nil
	_, err := call(func() int32 { return hostClose(d.number) })
	return err
}
