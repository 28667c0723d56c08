// SPDX-License-Identifier: Apache-2.0

package gpu

import "fmt"

// Handles is the book of one device's live buffers and compiled kernels. Every device checks calls against it before anything reaches a
// driver, since drivers abort the process on what it refuses. It is not safe for concurrent use; the device's own lock covers it.
type Handles struct {
	limits  Limits
	buffers map[Buffer]bufferEntry
	kernels map[Pipeline]*Kernel
	named   map[string]Pipeline
	last    uint32
}

type bufferEntry struct {
	label    string
	size     int
	readOnly bool
}

// NewHandles makes an empty book that holds buffers and dispatches to limits.
func NewHandles(limits Limits) *Handles {
	return &Handles{limits: limits, buffers: map[Buffer]bufferEntry{}, kernels: map[Pipeline]*Kernel{}, named: map[string]Pipeline{}}
}

// CheckSize says whether a buffer of size bytes may be made.
func (h *Handles) CheckSize(label string, size int) error {
	if size <= 0 || size%4 != 0 {
		return fmt.Errorf("gpu: new buffer %s: want a positive multiple of 4 bytes, have %d: %w", label, size, ErrInvalid)
	}
	if size > h.limits.MaxBinding {
		return fmt.Errorf("gpu: new buffer %s: want at most %d bytes (the device's binding limit), have %d: %w", label, h.limits.MaxBinding, size, ErrMemory)
	}
	return nil
}

// AddBuffer enters a buffer and returns its handle. Handles are never used twice.
func (h *Handles) AddBuffer(label string, size int) Buffer {
	h.last++
	h.buffers[Buffer(h.last)] = bufferEntry{label: label, size: size}
	return Buffer(h.last)
}

// AddShared enters a buffer that belongs to somebody else: nothing may be written to it.
func (h *Handles) AddShared(label string, size int) Buffer {
	b := h.AddBuffer(label, size)
	h.buffers[b] = bufferEntry{label: label, size: size, readOnly: true}
	return b
}

// Buffers returns how many buffers are live and their bytes.
func (h *Handles) Buffers() (n, bytes int) {
	for _, e := range h.buffers {
		bytes += e.size
	}
	return len(h.buffers), bytes
}

// Label returns the label of a live buffer.
func (h *Handles) Label(b Buffer) string { return h.buffers[b].label }

// Free strikes a buffer out.
func (h *Handles) Free(b Buffer) error {
	if _, ok := h.buffers[b]; !ok {
		return fmt.Errorf("gpu: free: %w", h.missing(b))
	}
	delete(h.buffers, b)
	return nil
}

func (h *Handles) missing(b Buffer) error {
	if b == 0 || uint32(b) > h.last {
		return fmt.Errorf("buffer %d does not exist: %w", b, ErrInvalid)
	}
	return fmt.Errorf("buffer %d was freed: %w", b, ErrInvalid)
}

// CheckRange says whether bytes [offset, offset+size) of b may be touched by operation.
func (h *Handles) CheckRange(operation string, b Buffer, offset, size int) error {
	e, ok := h.buffers[b]
	if !ok {
		return fmt.Errorf("gpu: %s: %w", operation, h.missing(b))
	}
	if offset < 0 || size < 0 || offset%4 != 0 || size%4 != 0 {
		return fmt.Errorf("gpu: %s buffer %s: want offset and size as multiples of 4, have %d and %d: %w", operation, e.label, offset, size, ErrInvalid)
	}
	if size > e.size || offset > e.size-size {
		return fmt.Errorf("gpu: %s buffer %s: want at most %d bytes, have %d from offset %d: %w", operation, e.label, e.size, size, offset, ErrInvalid)
	}
	return nil
}

// CheckWrite is CheckRange, and that b may be written to.
func (h *Handles) CheckWrite(operation string, b Buffer, offset, size int) error {
	if e := h.buffers[b]; e.readOnly {
		return fmt.Errorf("gpu: %s buffer %s: it is shared and may only be read: %w", operation, e.label, ErrInvalid)
	}
	return h.CheckRange(operation, b, offset, size)
}

// Kernel returns the pipeline of a kernel compiled before, if it was.
func (h *Handles) Kernel(name string) (Pipeline, bool) {
	p, ok := h.named[name]
	return p, ok
}

// CheckKernel says whether the device can take k at all.
func (h *Handles) CheckKernel(k *Kernel, f Features) error {
	switch {
	case k.Params <= 0 || k.Params%16 != 0 || k.Params > MaxParams:
		return fmt.Errorf("gpu: compile %s: want 16 to %d bytes of parameters in steps of 16, have %d: %w", k.Name, MaxParams, k.Params, ErrInvalid)
	case len(k.Bindings) > h.limits.MaxBindings:
		return fmt.Errorf("gpu: compile %s: want at most %d storage bindings, have %d: %w", k.Name, h.limits.MaxBindings, len(k.Bindings), ErrInvalid)
	case k.Subgroups && !f.Subgroups:
		return fmt.Errorf("gpu: compile %s: the device has no subgroups: %w", k.Name, ErrInvalid)
	case k.F16 && !f.F16:
		return fmt.Errorf("gpu: compile %s: the device has no f16: %w", k.Name, ErrInvalid)
	}
	return nil
}

// AddKernel enters a compiled kernel and returns its pipeline.
func (h *Handles) AddKernel(k *Kernel) Pipeline {
	h.last++
	h.kernels[Pipeline(h.last)] = k
	h.named[k.Name] = Pipeline(h.last)
	return Pipeline(h.last)
}

// KernelOf returns the kernel behind a pipeline, nil if there is none.
func (h *Handles) KernelOf(p Pipeline) *Kernel { return h.kernels[p] }

// CheckList says whether every command of l may run, and names the first that may not.
func (h *Handles) CheckList(l *List) error {
	for i, c := range l.Commands() {
		var err error
		switch {
		case c.Pipeline != 0:
			err = h.checkDispatch(l, c)
		case c.Source != 0:
			err = h.checkCopy(c)
		default:
			err = h.CheckWrite("clear", c.Target, c.TargetOffset, c.Size)
		}
		if err != nil {
			return fmt.Errorf("gpu: submit: command %d: %w", i, err)
		}
	}
	return nil
}

func (h *Handles) checkCopy(c Command) error {
	if c.Source == c.Target {
		return fmt.Errorf("gpu: copy: source and target are both buffer %d: %w", c.Source, ErrInvalid)
	}
	if err := h.CheckRange("copy from", c.Source, c.SourceOffset, c.Size); err != nil {
		return err
	}
	return h.CheckWrite("copy to", c.Target, c.TargetOffset, c.Size)
}

func (h *Handles) checkDispatch(l *List, c Command) error {
	k := h.kernels[c.Pipeline]
	if k == nil {
		return fmt.Errorf("gpu: dispatch: pipeline %d does not exist: %w", c.Pipeline, ErrInvalid)
	}
	if len(c.Buffers) != len(k.Bindings) {
		return fmt.Errorf("gpu: dispatch %s: want %d buffers, have %d: %w", k.Name, len(k.Bindings), len(c.Buffers), ErrInvalid)
	}
	for _, n := range c.Groups {
		if int(n) > h.limits.MaxGroups {
			return fmt.Errorf("gpu: dispatch %s: want at most %d workgroups along a dimension, have %v: %w", k.Name, h.limits.MaxGroups, c.Groups, ErrInvalid)
		}
	}
	for i, b := range c.Buffers {
		e, ok := h.buffers[b]
		if !ok {
			return fmt.Errorf("gpu: dispatch %s: binding %s: %w", k.Name, k.label(i), h.missing(b))
		}
		if e.readOnly && k.Bindings[i] == ReadWrite {
			return fmt.Errorf("gpu: dispatch %s: binding %s is written, buffer %s is shared and may only be read: %w", k.Name, k.label(i), e.label, ErrInvalid)
		}
		for j := range i {
			if c.Buffers[j] == b && (k.Bindings[i] == ReadWrite || k.Bindings[j] == ReadWrite) {
				return fmt.Errorf("gpu: dispatch %s: buffer %d is bound as %s and as %s, one of which is written: %w", k.Name, b, k.label(j), k.label(i), ErrInvalid)
			}
		}
	}
	return h.checkReach(k, l.params[c.ParamsOffset:c.ParamsOffset+k.Params], c.Buffers)
}

// checkReach holds the buffers to what the parameters make the kernel look at.
func (h *Handles) checkReach(k *Kernel, params []byte, buffers []Buffer) error {
	if k.Reach == nil {
		return nil
	}
	reach := k.Reach(params)
	if reach == nil {
		return fmt.Errorf("gpu: dispatch %s: the kernel cannot run with parameters % x: %w", k.Name, params, ErrInvalid)
	}
	for i, words := range reach {
		if e := h.buffers[buffers[i]]; words > uint64(e.size/4) {
			return fmt.Errorf("gpu: dispatch %s: binding %s: want at least %d words for these parameters, have buffer %s of %d: %w", k.Name, k.label(i), words, e.label, e.size/4, ErrInvalid)
		}
	}
	return nil
}

func (k *Kernel) label(i int) string {
	if i < len(k.Labels) {
		return k.Labels[i]
	}
	return fmt.Sprint(i + 1)
}
