// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"fmt"
	"unsafe"

	"fromage/bundle"
	"fromage/gpu"
	"fromage/plan"
)

// machine is a bundle's weights on a device, the states that outlive a run, and the programs made ready to run.
type machine struct {
	dev      gpu.Device
	info     gpu.Info
	manifest *bundle.Manifest
	layouts  map[string]plan.Layout
	weights  map[string][]shardBuffers
	states   map[string]gpu.Buffer
	programs map[string]*ready
	none     gpu.Buffer // what a kernel gets for a binding it does not look at
}

type shardBuffers struct{ values, scales gpu.Buffer }

// Progress tells how far an operation is, in its own unit.
type Progress struct {
	Done, Total int64
	What        string
}

// newMachine uploads all weights of a manifest.
func newMachine(ctx context.Context, dev gpu.Device, manifest *bundle.Manifest, from Source, progress func(Progress)) (*machine, error) {
	m := &machine{
		dev: dev, info: dev.Info(), manifest: manifest, layouts: manifest.Layouts(),
		weights: map[string][]shardBuffers{}, states: map[string]gpu.Buffer{}, programs: map[string]*ready{},
	}
	var err error
	if m.none, err = dev.NewBuffer("none", 16); err != nil {
		return nil, err
	}
	p := Progress{What: "weights"}
	var targets []Target
	for _, t := range manifest.Tensors {
		for i, s := range t.Shards {
			up := shardBuffers{m.none, m.none}
			for _, part := range []struct {
				blob   *bundle.Blob
				buffer *gpu.Buffer
			}{{&s.Values, &up.values}, {s.Scales, &up.scales}} {
				if part.blob == nil {
					continue
				}
				if *part.buffer, err = dev.NewBuffer(fmt.Sprintf("%s.%d", t.Name, i), int(part.blob.Size)); err != nil {
					return nil, fmt.Errorf("runner: load %s: %w", t.Name, err)
				}
				targets = append(targets, Target{t.Name, *part.blob, *part.buffer})
				p.Total += part.blob.Size
			}
			m.weights[t.Name] = append(m.weights[t.Name], up)
		}
	}
	err = from.Upload(ctx, dev, targets, func(bytes int64) {
		if p.Done += bytes; progress != nil {
			progress(p)
		}
	})
	return m, err
}

// ready is one program with the buffers for runs of up to max.
type ready struct {
	m     *machine
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

func (m *machine) program(name string) (*ready, error) {
	if r, ok := m.programs[name]; ok {
		return r, nil
	}
	p, err := m.manifest.Model.Program(name)
	if err != nil {
		return nil, err
	}
	r := &ready{m: m, p: p}
	m.programs[name] = r
	return r, nil
}

// fits returns an error where a run of these sizes needs a buffer beyond the device's limit.
func (r *ready) fits(dims plan.Dims) error {
	_, sizes := r.p.Slots(dims)
	for _, v := range r.p.Values {
		if v.Kind == plan.Input || v.Kind == plan.Output {
			sizes = append(sizes, v.Bytes(dims))
		}
	}
	for _, size := range sizes {
		if size > r.m.info.Limits.MaxBinding {
			return fmt.Errorf("runner: program %s: a run of %d tokens and %d rows needs a buffer of %d bytes, the device allows %d",
				r.p.Name, dims[plan.Tokens], dims[plan.Rows], size, r.m.info.Limits.MaxBinding)
		}
	}
	return nil
}

// grow makes room for runs of dims. Sizes are rounded up to powers of two where the device allows, so that a conversation grows few times.
func (r *ready) grow(dims plan.Dims) error {
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

func (r *ready) allocate(dims plan.Dims) error {
	slot, sizes := r.p.Slots(dims)
	r.slot, r.max, r.named, r.lists = slot, dims, map[string]gpu.Buffer{}, map[plan.Dims]*run{}
	for i, size := range sizes {
		b, err := r.m.dev.NewBuffer(fmt.Sprintf("%s slot %d", r.p.Name, i), padded(size))
		if err != nil {
			return err
		}
		r.slots = append(r.slots, b)
	}
	for _, v := range r.p.Values {
		if v.Kind != plan.Input && v.Kind != plan.Output {
			continue
		}
		b, err := r.m.dev.NewBuffer(r.p.Name+" "+v.Name, padded(v.Bytes(dims)))
		if err != nil {
			return err
		}
		r.named[v.Name] = b
	}
	return nil
}

// padded is the size of a buffer that kernels may see as vec4, at least one of them.
func padded(size int) int { return max(16, (size+15)/16*16) }

// release gives the program's buffers back.
func (r *ready) release() {
	for _, b := range r.slots {
		_ = r.m.dev.Free(b)
	}
	r.m.free(r.named)
	r.slots, r.named, r.lists = nil, nil, nil
}

// forget drops lowered lists, which name buffers that are about to go.
func (m *machine) forget() {
	for _, r := range m.programs {
		clear(r.lists)
	}
}

// prepare returns the command list of a run.
func (r *ready) prepare(dims plan.Dims) (*run, error) {
	if err := r.grow(dims); err != nil {
		return nil, err
	}
	if l, ok := r.lists[dims]; ok {
		return l, nil
	}
	steps, err := r.p.Lower(r.m.info, r.m.layouts, dims)
	if err != nil {
		return nil, err
	}
	l := &run{steps: steps}
	for _, s := range steps {
		p, err := r.m.dev.Compile(s.Dispatch.Kernel)
		if err != nil {
			return nil, fmt.Errorf("runner: program %s: %w", r.p.Name, err)
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

func (r *ready) bind(ref plan.Ref) (gpu.Buffer, error) {
	if ref.Value == 0 {
		return r.m.none, nil
	}
	v := r.p.Value(ref.Value)
	switch v.Kind {
	case plan.Activation:
		return r.slots[r.slot[ref.Value-1]], nil
	case plan.Input, plan.Output:
		return r.named[v.Name], nil
	case plan.State:
		b, ok := r.m.states[v.Name]
		if !ok {
			return 0, fmt.Errorf("runner: program %s: state %s was not made", r.p.Name, v.Name)
		}
		return b, nil
	}
	w := r.m.weights[v.Name][ref.Shard]
	if ref.Scale {
		return w.scales, nil
	}
	return w.values, nil
}

// run writes the inputs and submits the program for these sizes.
func (r *ready) run(dims plan.Dims, inputs map[string][]byte) error {
	run, err := r.prepare(dims)
	if err != nil {
		return err
	}
	for name, data := range inputs {
		if len(data) == 0 {
			continue
		}
		if err := r.m.dev.Write(r.named[name], 0, data); err != nil {
			return fmt.Errorf("runner: program %s: input %s: %w", r.p.Name, name, err)
		}
	}
	if err := r.m.dev.Submit(&run.list); err != nil {
		return fmt.Errorf("runner: program %s: %w", r.p.Name, err)
	}
	return nil
}

// rows waits for the last run and reads the first n rows of an output.
func (r *ready) rows(name string, n, cols int) ([][]float32, error) {
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
		return nil, fmt.Errorf("runner: program %s has no output %s", r.p.Name, name)
	}
	return out, r.m.dev.Read(o, 0, bytesOf(flat))
}

// bytesOf views 32-bit numbers as the little-endian bytes that they are.
func bytesOf[N float32 | uint32](x []N) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}
