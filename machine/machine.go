// SPDX-License-Identifier: Apache-2.0

// Package machine holds a bundle's weights on a gpu.Device and runs programs over them.
//
// What enters is a manifest, a source of its blobs, and programs (the bundle's own, or others over the same weights); what leaves is rows of outputs.
// The package refuses to know what programs mean: tokens, pictures and training are its callers' business.
package machine

import (
	"context"
	"fmt"
	"unsafe"

	"fromage/bundle"
	"fromage/gpu"
	"fromage/plan"
	"fromage/shaders"
)

// Machine is a bundle's weights on a device, the states that outlive a run, and the programs made ready to run.
type Machine struct {
	Dev      gpu.Device
	Info     gpu.Info
	Manifest *bundle.Manifest
	Layouts  map[string]plan.Layout
	Weights  map[string][]Shard    // by tensor, in the order of its rows
	States   map[string]gpu.Buffer // what outlives a run; the caller makes them, and calls Forget when it makes them anew
	None     gpu.Buffer            // what a kernel gets for a binding it does not look at
	programs map[string]*Program
}

// Shard is the buffers of some rows of a tensor.
type Shard struct{ Values, Scales gpu.Buffer }

// Progress tells how far an operation is, in its own unit.
type Progress struct {
	Done, Total int64
	What        string
}

// New uploads all weights of a manifest but those that the device has for everybody (gpu.Library).
func New(ctx context.Context, dev gpu.Device, manifest *bundle.Manifest, from Source, progress func(Progress)) (*Machine, error) {
	m := &Machine{
		Dev: dev, Info: dev.Info(), Manifest: manifest, Layouts: manifest.Layouts(),
		Weights: map[string][]Shard{}, States: map[string]gpu.Buffer{}, programs: map[string]*Program{},
	}
	var err error
	if m.None, err = dev.NewBuffer("none", 16); err != nil {
		return nil, err
	}
	library, _ := dev.(gpu.Library)
	p := Progress{What: "weights"}
	var targets []Target
	for _, t := range manifest.Tensors {
		for i, s := range t.Shards {
			up := Shard{m.None, m.None}
			for _, part := range []struct {
				blob   *bundle.Blob
				buffer *gpu.Buffer
			}{{&s.Values, &up.Values}, {s.Scales, &up.Scales}} {
				if part.blob == nil {
					continue
				}
				if library != nil {
					if *part.buffer, err = library.Shared(part.blob.SHA256, int(part.blob.Size)); err != nil {
						return nil, fmt.Errorf("machine: load %s: %w", t.Name, err)
					}
					if *part.buffer != 0 {
						continue
					}
				}
				if *part.buffer, err = dev.NewBuffer(fmt.Sprintf("%s.%d", t.Name, i), int(part.blob.Size)); err != nil {
					return nil, fmt.Errorf("machine: load %s: %w", t.Name, err)
				}
				targets = append(targets, Target{t.Name, *part.blob, *part.buffer})
				p.Total += part.blob.Size
			}
			m.Weights[t.Name] = append(m.Weights[t.Name], up)
		}
	}
	err = from.Upload(ctx, dev, targets, func(bytes int64) {
		if p.Done += bytes; progress != nil {
			progress(p)
		}
	})
	return m, err
}

// Program is one program with the buffers for runs of up to max.
type Program struct {
	m     *Machine
	p     *plan.Program
	max   plan.Dims
	slot  []int                 // by value: its slot, or −1
	slots []gpu.Buffer          // activations
	named map[string]gpu.Buffer // inputs and outputs
	lists map[plan.Dims]*run    // lowered for a size, ready to submit
}

type run struct {
	list  gpu.List
	steps []plan.Step
}

// maxLists is how many sizes of run are kept lowered; decoding needs few, and prompts differ.
const maxLists = 32

// Program makes a program of the bundle, or one that Add put there, ready to run.
func (m *Machine) Program(name string) (*Program, error) {
	if r, ok := m.programs[name]; ok {
		return r, nil
	}
	p, err := m.Manifest.Model.Program(name)
	if err != nil {
		return nil, err
	}
	r := &Program{m: m, p: p}
	m.programs[name] = r
	return r, nil
}

// Add makes a program that is not the bundle's ready to run, under its own name, in place of an earlier one of that name.
func (m *Machine) Add(p *plan.Program) *Program {
	m.Drop(p.Name)
	r := &Program{m: m, p: p}
	m.programs[p.Name] = r
	return r
}

// Drop gives the buffers of a program back.
func (m *Machine) Drop(name string) {
	if r, ok := m.programs[name]; ok {
		r.release()
		delete(m.programs, name)
	}
}

// SetWeight puts new contents in place of a weight that is stored as one piece of f32, as FROMAGe's heads are: x (rows·cols).
func (m *Machine) SetWeight(name string, x []float32) error {
	spec, err := m.Manifest.Model.Weight(name)
	if err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	if l := m.Layouts[name]; l.Format != shaders.F32 || len(l.Shards) != 1 || len(x) != spec.Rows*spec.Cols {
		return fmt.Errorf("machine: weight %s: want %d × %d values for one piece of f32, have %d for %d pieces of %s", name, spec.Rows, spec.Cols, len(x), len(l.Shards), l.Format)
	}
	return m.Dev.Write(m.Weights[name][0].Values, 0, Bytes(x))
}

// ReadWeight returns the contents of a weight that is stored as one piece of f32: (rows·cols).
func (m *Machine) ReadWeight(name string) ([]float32, error) {
	spec, err := m.Manifest.Model.Weight(name)
	if err != nil {
		return nil, fmt.Errorf("machine: %w", err)
	}
	if l := m.Layouts[name]; l.Format != shaders.F32 || len(l.Shards) != 1 {
		return nil, fmt.Errorf("machine: weight %s: want one piece of f32, have %d of %s", name, len(l.Shards), l.Format)
	}
	x := make([]float32, spec.Rows*spec.Cols)
	return x, m.Dev.Read(m.Weights[name][0].Values, 0, Bytes(x))
}

// Free gives buffers back; a device that is lost has none to give.
func (m *Machine) Free(buffers map[string]gpu.Buffer) {
	for _, b := range buffers {
		_ = m.Dev.Free(b)
	}
}

// Close frees what the machine has on its device; the device stays open.
func (m *Machine) Close() {
	for _, p := range m.programs {
		p.release()
	}
	m.Free(m.States)
	for _, shards := range m.Weights {
		for _, s := range shards {
			for _, b := range []gpu.Buffer{s.Values, s.Scales} {
				if b != m.None {
					_ = m.Dev.Free(b)
				}
			}
		}
	}
	_ = m.Dev.Free(m.None)
}

// Buffer returns the buffer of an input or output, 0 where the program has none of that name or did not run yet.
func (r *Program) Buffer(name string) gpu.Buffer { return r.named[name] }

// fits returns an error where a run of these sizes needs a buffer beyond the device's limit.
func (r *Program) fits(dims plan.Dims) error {
	_, sizes := r.p.Slots(dims)
	for _, v := range r.p.Values {
		if v.Kind == plan.Input || v.Kind == plan.Output {
			sizes = append(sizes, v.Bytes(dims))
		}
	}
	for _, size := range sizes {
		if size > r.m.Info.Limits.MaxBinding {
			return fmt.Errorf("machine: program %s: a run of %d tokens and %d rows needs a buffer of %d bytes, the device allows %d",
				r.p.Name, dims[plan.Tokens], dims[plan.Rows], size, r.m.Info.Limits.MaxBinding)
		}
	}
	return nil
}

// grow makes room for runs of dims. Sizes are rounded up to powers of two where the device allows, so that a conversation grows few times.
func (r *Program) grow(dims plan.Dims) error {
	need, enough := dims, true
	for i, n := range dims {
		enough = enough && n <= r.max[i]
		need[i] = max(n, r.max[i])
	}
	if enough && r.named != nil {
		return nil
	}
	rounded := need
	for i, n := range need {
		if plan.Size(i) != plan.One && n > 0 {
			rounded[i] = 1
			for rounded[i] < n {
				rounded[i] *= 2
			}
		}
	}
	if r.fits(rounded) == nil {
		need = rounded
	} else if err := r.fits(need); err != nil {
		return err
	}
	r.release()
	return r.allocate(need)
}

func (r *Program) allocate(dims plan.Dims) error {
	slot, sizes := r.p.Slots(dims)
	r.slot, r.max, r.named, r.lists = slot, dims, map[string]gpu.Buffer{}, map[plan.Dims]*run{}
	for i, size := range sizes {
		b, err := r.m.Dev.NewBuffer(fmt.Sprintf("%s slot %d", r.p.Name, i), Padded(size))
		if err != nil {
			return err
		}
		r.slots = append(r.slots, b)
	}
	for _, v := range r.p.Values {
		if v.Kind != plan.Input && v.Kind != plan.Output {
			continue
		}
		b, err := r.m.Dev.NewBuffer(r.p.Name+" "+v.Name, Padded(v.Bytes(dims)))
		if err != nil {
			return err
		}
		r.named[v.Name] = b
	}
	return nil
}

// Padded is the size of a buffer that kernels may see as vec4, at least one of them.
func Padded(size int) int { return max(16, (size+15)/16*16) }

// release gives the program's buffers back.
func (r *Program) release() {
	for _, b := range r.slots {
		_ = r.m.Dev.Free(b)
	}
	r.m.Free(r.named)
	r.slots, r.named, r.lists = nil, nil, nil
}

// Forget drops lowered lists, which name buffers that are about to go.
func (m *Machine) Forget() {
	for _, r := range m.programs {
		clear(r.lists)
	}
}

// prepare returns the command list of a run.
func (r *Program) prepare(dims plan.Dims) (*run, error) {
	if err := r.grow(dims); err != nil {
		return nil, err
	}
	if l, ok := r.lists[dims]; ok {
		return l, nil
	}
	steps, err := r.p.Lower(r.m.Info, r.m.Layouts, dims)
	if err != nil {
		return nil, err
	}
	l := &run{steps: steps}
	for _, s := range steps {
		p, err := r.m.Dev.Compile(s.Dispatch.Kernel)
		if err != nil {
			return nil, fmt.Errorf("machine: program %s: %w", r.p.Name, err)
		}
		buffers := make([]gpu.Buffer, len(s.Buffers))
		for i, ref := range s.Buffers {
			if buffers[i], err = r.bind(ref); err != nil {
				return nil, err
			}
		}
		l.list.Dispatch(p, s.Dispatch.Groups, s.Dispatch.Params, buffers...)
	}
	if len(r.lists) >= maxLists {
		clear(r.lists)
	}
	r.lists[dims] = l
	return l, nil
}

func (r *Program) bind(ref plan.Ref) (gpu.Buffer, error) {
	if ref.Value == 0 {
		return r.m.None, nil
	}
	v := r.p.Value(ref.Value)
	switch v.Kind {
	case plan.Activation:
		return r.slots[r.slot[ref.Value-1]], nil
	case plan.Input, plan.Output:
		return r.named[v.Name], nil
	case plan.State:
		b, ok := r.m.States[v.Name]
		if !ok {
			return 0, fmt.Errorf("machine: program %s: state %s was not made", r.p.Name, v.Name)
		}
		return b, nil
	}
	w := r.m.Weights[v.Name][ref.Shard]
	if ref.Scale {
		return w.Scales, nil
	}
	return w.Values, nil
}

// Run writes the inputs and submits the program for these sizes.
func (r *Program) Run(dims plan.Dims, inputs map[string][]byte) error {
	run, err := r.prepare(dims)
	if err != nil {
		return err
	}
	for name, data := range inputs {
		if len(data) == 0 {
			continue
		}
		if err := r.m.Dev.Write(r.named[name], 0, data); err != nil {
			return fmt.Errorf("machine: program %s: input %s: %w", r.p.Name, name, err)
		}
	}
	if err := r.m.Dev.Submit(&run.list); err != nil {
		return fmt.Errorf("machine: program %s: %w", r.p.Name, err)
	}
	return nil
}

// Rows waits for the last run and reads the first n rows of an output.
func (r *Program) Rows(name string, n, cols int) ([][]float32, error) {
	flat := make([]float32, n*cols)
	out := make([][]float32, n)
	for i := range out {
		out[i] = flat[i*cols : (i+1)*cols]
	}
	if n == 0 {
		return out, nil
	}
	o, ok := r.named[name]
	if !ok {
		return nil, fmt.Errorf("machine: program %s has no output %s", r.p.Name, name)
	}
	return out, r.m.Dev.Read(o, 0, Bytes(flat))
}

// Bytes views 32-bit numbers as the little-endian bytes that they are.
func Bytes[N float32 | uint32](x []N) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}
