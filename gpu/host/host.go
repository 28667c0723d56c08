// SPDX-License-Identifier: Apache-2.0

// Package host lets WebAssembly guests compute on a gpu.Device: it is the module of functions that package gpu/remote imports, for wazero.
//
// What enters are the calls of guests that nobody trusts, each with its own handles and limits; what leaves are calls of one device that they share.
// Nothing reaches the device that was not checked: handles, ranges, sizes, commands, the addresses in the guest's memory, and that a kernel is one
// that the host knows. Guests see neither one another's buffers nor what those contained. The package refuses to know models, and it keeps nothing of
// a guest's memory after a call.
//
// The table of functions is gpu/remote's package documentation.
package host

import (
	"errors"
	"fmt"
	"sync"

	"fromage/gpu"
)

// Config says what guests may run.
type Config struct {
	// Kernel returns the kernel of a name, nil where there is none: shaders.Named as a rule. A guest may run those whose text and interface are the
	// same as its own and that say what they reach (gpu.Kernel.Reach), since parameters could make others compute for ever.
	Kernel func(name string) *gpu.Kernel
	// AnyKernel lets guests run any kernel on devices that read WGSL, and kernels of Kernel that do not say what they reach. It is for guests that are
	// trusted, such as tests: a loop without an end takes the device from everybody. Pipelines live as long as the device.
	AnyKernel bool
}

// Host is a device that guests share, with the contents that they may all read.
type Host struct {
	dev    gpu.Device
	info   gpu.Info
	config Config
	piece  int // commands that go to the device at once

	mu     sync.Mutex
	shared map[string]sharedBuffer // by SHA-256
	guests map[*Guest]struct{}
}

type sharedBuffer struct {
	label  string
	buffer gpu.Buffer
	size   int
}

// New makes a host of a device, which stays the caller's to close, after the host.
func New(dev gpu.Device, c Config) *Host {
	info := dev.Info()
	info.Host = "remote"
	return &Host{dev: dev, info: info, config: c, piece: pieceLength(info), shared: map[string]sharedBuffer{}, guests: map[*Guest]struct{}{}}
}

// Share puts contents on the device for all guests, who may read them and know them by their SHA-256 (lowercase hex). fill writes all of them by the
// function that it gets, and answers for their being what the hash says. What is there already is not filled again.
func (h *Host) Share(label, sha256 string, size int, fill func(write func(offset int, data []byte) error) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if have, ok := h.shared[sha256]; ok {
		if have.size != size {
			return fmt.Errorf("gpu/host: share %s: want %d bytes, have contents of this SHA-256 with %d: %w", label, size, have.size, gpu.ErrInvalid)
		}
		return nil
	}
	b, err := h.dev.NewBuffer(label, size)
	if err != nil {
		return err
	}
	if err := fill(func(offset int, data []byte) error { return h.dev.Write(b, offset, data) }); err != nil {
		return errors.Join(err, h.dev.Free(b))
	}
	h.shared[sha256] = sharedBuffer{label, b, size}
	return nil
}

func (h *Host) find(sha256 string, size int) (sharedBuffer, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, ok := h.shared[sha256]
	return b, ok && b.size == size
}

// Close closes the guests that are still there and frees what they shared. The device stays open.
func (h *Host) Close() error {
	h.mu.Lock()
	guests := h.guests
	h.guests = map[*Guest]struct{}{}
	h.mu.Unlock()
	var errs []error
	for g := range guests {
		errs = append(errs, g.Close())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.shared {
		errs = append(errs, h.dev.Free(b.buffer))
	}
	clear(h.shared)
	return errors.Join(errs...)
}
