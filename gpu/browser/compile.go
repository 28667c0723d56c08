// SPDX-License-Identifier: Apache-2.0

//go:build js && wasm

package browser

import (
	"errors"
	"sync"

	"fromage/gpu"
)

// compilation is a kernel on its way; done is closed when the rest is set.
type compilation struct {
	done     chan struct{}
	pipeline gpu.Pipeline
	err      error
}

// Compile implements gpu.Device.
func (d *Device) Compile(k *gpu.Kernel) (gpu.Pipeline, error) {
	if err := d.enterChecked(); err != nil {
		return 0, err
	}
	if p, ok := d.handles.Kernel(k.Name); ok {
		d.mu.Unlock()
		return p, nil
	}
	if err := d.handles.CheckKernel(k, d.info.Features); err != nil {
		d.mu.Unlock()
		return 0, err
	}
	c, ok := d.compiling[k.Name]
	if ok {
		d.mu.Unlock()
		<-c.done
		return c.pipeline, c.err
	}
	c = &compilation{done: make(chan struct{})}
	d.compiling[k.Name] = c
	d.mu.Unlock()
	d.compile(k, c)
	return c.pipeline, c.err
}

// compile has the browser compile k, enters it, and ends c.
func (d *Device) compile(k *gpu.Kernel, c *compilation) {
	defer close(c.done)
	bindings := make([]any, len(k.Bindings))
	for i, access := range k.Bindings {
		bindings[i] = "read-only-storage"
		if access == gpu.ReadWrite {
			bindings[i] = "storage"
		}
	}
	pipeline, err := d.await("compile "+k.Name, d.session.Call("compile", k.Name, enables(k)+k.Source, k.Params, bindings))
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.compiling, k.Name)
	if c.err = err; err == nil {
		c.pipeline = d.handles.AddKernel(k)
		d.session.Call("keep", int(c.pipeline), pipeline)
	}
}

// enables is what must stand before a kernel's source, on its first line, so that the line numbers in the compiler's messages are the source's.
func enables(k *gpu.Kernel) (s string) {
	if k.F16 {
		s += "enable f16; "
	}
	if k.Subgroups {
		s += "enable subgroups; "
	}
	return s
}

// Precompile compiles kernels at the same time, in the browser's own threads, as a warm-up while weights are on their way. A later Compile of
// one of them is done at once, or waits for it. It returns what is wrong with any of them.
func (d *Device) Precompile(kernels []*gpu.Kernel) error {
	errs := make([]error, len(kernels))
	var all sync.WaitGroup
	for i, k := range kernels {
		all.Go(func() { _, errs[i] = d.Compile(k) })
	}
	all.Wait()
	return errors.Join(errs...)
}
