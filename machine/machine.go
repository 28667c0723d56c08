// SPDX-License-Identifier: Apache-2.0

// Package machine holds a bundle's weights on a gpu.Device and runs programs over them.
//
// What enters is a manifest, a source of its blobs, and programs (the bundle's own, or others over the same weights); what leaves is rows of outputs.
// The package refuses to know what programs mean: tokens, pictures and training are its callers' business.
package machine

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
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
	Weights  map[string][]Shard                  // by tensor, in the order of its rows
	States   map[string]gpu.Buffer               // what outlives a run; the caller makes them, and calls Forget when it makes them anew
	None     gpu.Buffer                          // what a kernel gets for a binding it does not look at
	Watch    *Watch                              // where set, runs are timed
	Ran      func(*Program, plan.Dims, []string) // where set, hears of each run, and of its wanted outputs, before it is submitted
	programs map[string]*Program
	scratch  gpu.Buffer // of all programs; 0 before one needs it
	roomy    int        // its bytes

	mu      sync.Mutex
	missing map[string]bool // weights that were not uploaded yet
	shared  map[string]bool // blobs, by SHA-256, that the device had already
}

// Watch hears how long runs take. While a machine has one, a run is submitted in parts, each of them waited for: slower, with the same result.
type Watch struct {
	// Part names the part of a program that an operation belongs to; a part is timed as one wherever its operations follow one another.
	Part func(p *plan.Program, op int) string
	// Took is told of each part, and of the operations in it, after it was waited for.
	Took func(p *plan.Program, part string, ops []int, dims plan.Dims, took time.Duration)
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
	m, err := Reserve(dev, manifest)
	if err != nil {
		return nil, err
	}
	return m, m.Load(ctx, from, nil, progress)
}

// Reserve makes room for all weights of a manifest, which Load then uploads, but for those that the device has for everybody.
func Reserve(dev gpu.Device, manifest *bundle.Manifest) (*Machine, error) {
	m := &Machine{
		Dev: dev, Info: dev.Info(), Manifest: manifest, Layouts: manifest.Layouts(), missing: map[string]bool{}, shared: map[string]bool{},
		Weights: map[string][]Shard{}, States: map[string]gpu.Buffer{}, programs: map[string]*Program{},
	}
	var err error
	if m.None, err = dev.NewBuffer("none", 16); err != nil {
		return nil, err
	}
	library, _ := dev.(gpu.Library)
	for _, t := range manifest.Tensors {
		m.missing[t.Name] = true
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
						m.shared[part.blob.SHA256] = true
						continue
					}
				}
				if *part.buffer, err = dev.NewBuffer(fmt.Sprintf("%s.%d", t.Name, i), int(part.blob.Size)); err != nil {
					return nil, fmt.Errorf("machine: load %s: %w", t.Name, err)
				}
			}
			m.Weights[t.Name] = append(m.Weights[t.Name], up)
		}
	}
	return m, nil
}

// Load uploads those weights that are not there yet and that want, where it is given, says yes to. Programs that read no others may run meanwhile.
func (m *Machine) Load(ctx context.Context, from Source, want func(weight string) bool, progress func(Progress)) error {
	p := Progress{What: "weights"}
	var names []string
	var targets []Target
	add := func(name string, blob *bundle.Blob, buffer gpu.Buffer) {
		if blob != nil && !m.shared[blob.SHA256] {
			targets = append(targets, Target{name, *blob, buffer})
			p.Total += blob.Size
		}
	}
	for _, t := range m.Manifest.Tensors {
		if m.Loaded(t.Name) || want != nil && !want(t.Name) {
			continue
		}
		names = append(names, t.Name)
		for i, s := range t.Shards {
			up := m.Weights[t.Name][i]
			add(t.Name, &s.Values, up.Values)
			add(t.Name, s.Scales, up.Scales)
		}
	}
	err := from.Upload(ctx, m.Dev, targets, func(bytes int64) {
		if p.Done += bytes; progress != nil {
			progress(p)
		}
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		delete(m.missing, name)
	}
	return nil
}

// Loaded says whether the contents of a weight of the manifest are there.
func (m *Machine) Loaded(weight string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.missing[weight]
}

// Program is one program with the buffers for runs of up to max.
type Program struct {
	m     *Machine
	p     *plan.Program
	max   plan.Dims
	slot  []int                 // by value: its slot, or −1
	slots []gpu.Buffer          // activations
	named map[string]gpu.Buffer // inputs and outputs
	lists map[work]*run         // lowered, ready to submit
}

// work is what is to be run: the sizes, and the names of the wanted outputs.
type work struct {
	dims    plan.Dims
	outputs string
}

type run struct {
	list  gpu.List
	steps []plan.Step
}

// maxLists is how many runs are kept lowered; decoding needs few, and prompts differ.
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
		r.Release()
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
	if !m.Loaded(name) {
		return nil, fmt.Errorf("machine: weight %s is not loaded yet", name)
	}
	x := make([]float32, spec.Rows*spec.Cols)
	return x, m.Dev.Read(m.Weights[name][0].Values, 0, Bytes(x))
}

// EachRow calls f with every row of a matrix, decoded from how it is stored, in order. The row is f's for the time of the call.
func (m *Machine) EachRow(ctx context.Context, name string, f func(row []float32)) error {
	spec, err := m.Manifest.Model.Weight(name)
	if err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	l := m.Layouts[name]
	row := make([]float32, spec.Cols)
	width, scaleWidth := l.Format.RowBytes(spec.Cols), l.Format.ScaleBytes(spec.Cols)
	for i, rows := range l.Shards {
		for at, n := 0, max(1, 1<<22/width)/4*4+4; at < rows; at += n {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := min(n, rows-at)
			values, scales := make([]byte, (n*width+3)/4*4), make([]byte, (n*scaleWidth+3)/4*4)
			if err := m.Dev.Read(m.Weights[name][i].Values, at*width, values); err != nil {
				return err
			}
			if scaleWidth > 0 {
				if err := m.Dev.Read(m.Weights[name][i].Scales, at*scaleWidth, scales); err != nil {
					return err
				}
			}
			for r := range n {
				l.Format.DecodeRow(values[r*width:(r+1)*width], scales[r*scaleWidth:(r+1)*scaleWidth], row)
				f(row)
			}
		}
	}
	return nil
}

// Release gives back the buffers of all programs; each makes its own again when it runs.
func (m *Machine) Release() {
	for _, p := range m.programs {
		p.Release()
	}
}

// Free gives buffers back; a device that is lost has none to give.
func (m *Machine) Free(buffers map[string]gpu.Buffer) {
	for _, b := range buffers {
		_ = m.Dev.Free(b)
	}
}

// Close frees what the machine has on its device; the device stays open.
func (m *Machine) Close() {
	m.Release()
	m.Free(m.States)
	if m.scratch != 0 {
		_ = m.Dev.Free(m.scratch)
	}
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

// Needs returns the bytes of the largest buffer that runs of dims need, and of all of them.
func (r *Program) Needs(dims plan.Dims) (largest, total int) {
	_, sizes := r.p.Slots(dims)
	for _, v := range r.p.Values {
		if v.Kind == plan.Input || v.Kind == plan.Output {
			sizes = append(sizes, v.Bytes(dims))
		}
	}
	for _, size := range sizes {
		largest, total = max(largest, size), total+size
	}
	return largest, total
}

// Held returns the bytes of the program's buffers on the device.
func (r *Program) Held() int {
	if r.named == nil {
		return 0
	}
	_, total := r.Needs(r.max)
	return total
}

// fits returns an error where a run of these sizes needs a buffer beyond the device's limit.
func (r *Program) fits(dims plan.Dims) error {
	if size, _ := r.Needs(dims); size > r.m.Info.Limits.MaxBinding {
		return fmt.Errorf("machine: program %s: a run of %d tokens and %d rows needs a buffer of %d bytes, the device allows %d",
			r.p.Name, dims[plan.Tokens], dims[plan.Rows], size, r.m.Info.Limits.MaxBinding)
	}
	return nil
}

// Reserve makes room for runs of up to dims and no more: for a caller that knows the sizes of what is to come, or writes buffers before the first run.
func (r *Program) Reserve(dims plan.Dims) error {
	dims[plan.Past] = 0
	enough := r.named != nil
	for i, n := range dims {
		enough = enough && n <= r.max[i]
		dims[i] = max(n, r.max[i])
	}
	if enough {
		return nil
	}
	if err := r.fits(dims); err != nil {
		return err
	}
	r.Release()
	return r.allocate(dims)
}

// grow makes room for runs of dims. Sizes are rounded up to powers of two where the device allows, so that a conversation grows few times.
func (r *Program) grow(dims plan.Dims) error {
	dims[plan.Past] = 0
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
	r.Release()
	return r.allocate(need)
}

// allocate makes buffers for runs of up to dims; where the device has no room for one of them, none are left.
func (r *Program) allocate(dims plan.Dims) error {
	slot, sizes := r.p.Slots(dims)
	r.slot, r.max, r.named, r.lists = slot, dims, map[string]gpu.Buffer{}, map[work]*run{}
	for i, size := range sizes {
		b, err := r.m.Dev.NewBuffer(fmt.Sprintf("%s slot %d", r.p.Name, i), Padded(size))
		if err != nil {
			r.Release()
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
			r.Release()
			return err
		}
		r.named[v.Name] = b
	}
	return nil
}

// Padded is the size of a buffer that kernels may see as vec4, at least one of them.
func Padded(size int) int { return max(16, (size+15)/16*16) }

// Release gives the program's buffers back; a run or Reserve makes them again.
func (r *Program) Release() {
	for _, b := range r.slots {
		_ = r.m.Dev.Free(b)
	}
	r.m.Free(r.named)
	r.max, r.slots, r.named, r.lists = plan.Dims{}, nil, nil, nil
}

// Forget drops lowered lists, which name buffers that are about to go.
func (m *Machine) Forget() {
	for _, r := range m.programs {
		clear(r.lists)
	}
}

// prepare returns the command list of a run.
func (r *Program) prepare(dims plan.Dims, outputs []string) (*run, error) {
	if err := r.grow(dims); err != nil {
		return nil, err
	}
	if r.m.Ran != nil {
		r.m.Ran(r, dims, outputs)
	}
	key := work{dims, strings.Join(outputs, " ")}
	if l, ok := r.lists[key]; ok {
		return l, nil
	}
	steps, err := r.p.Lower(r.m.Info, r.m.Layouts, dims, outputs...)
	if err != nil {
		return nil, err
	}
	if err := r.m.makeScratch(plan.Scratch(steps)); err != nil {
		return nil, err
	}
	l := &run{steps: steps}
	if err := r.commands(&l.list, steps); err != nil {
		return nil, err
	}
	if len(r.lists) >= maxLists {
		clear(r.lists)
	}
	r.lists[key] = l
	return l, nil
}

// commands adds the dispatches of steps to a list.
func (r *Program) commands(list *gpu.List, steps []plan.Step) error {
	for _, s := range steps {
		p, err := r.m.Dev.Compile(s.Dispatch.Kernel)
		if err != nil {
			return fmt.Errorf("machine: program %s: %w", r.p.Name, err)
		}
		buffers := make([]gpu.Buffer, len(s.Buffers))
		for i, ref := range s.Buffers {
			if buffers[i], err = r.bind(ref); err != nil {
				return err
			}
		}
		list.Dispatch(p, s.Dispatch.Groups, s.Dispatch.Params, buffers...)
	}
	return nil
}

// makeScratch makes scratch of so many bytes, in place of a smaller one.
func (m *Machine) makeScratch(size int) error {
	if size <= m.roomy {
		return nil
	}
	b, err := m.Dev.NewBuffer("scratch", Padded(size))
	if err != nil {
		return err
	}
	if m.scratch != 0 {
		_ = m.Dev.Free(m.scratch)
	}
	m.scratch, m.roomy = b, size
	m.Forget()
	return nil
}

func (r *Program) bind(ref plan.Ref) (gpu.Buffer, error) {
	switch {
	case ref.Scratch > 0:
		return r.m.scratch, nil
	case ref.Value == 0:
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
	if !r.m.Loaded(v.Name) {
		return 0, fmt.Errorf("machine: program %s: weight %s is not loaded yet", r.p.Name, v.Name)
	}
	w := r.m.Weights[v.Name][ref.Shard]
	if ref.Scale {
		return w.Scales, nil
	}
	return w.Values, nil
}

// Write writes an input before a run; there must be room for it.
func (r *Program) Write(name string, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if err := r.m.Dev.Write(r.named[name], 0, data); err != nil {
		return fmt.Errorf("machine: program %s: input %s: %w", r.p.Name, name, err)
	}
	return nil
}

// begin writes the inputs of a run and returns its command list.
func (r *Program) begin(dims plan.Dims, inputs map[string][]byte, outputs []string) (*run, error) {
	run, err := r.prepare(dims, outputs)
	if err != nil {
		return nil, err
	}
	for name, data := range inputs {
		if err := r.Write(name, data); err != nil {
			return nil, err
		}
	}
	return run, nil
}

// Run writes the inputs and submits the program for these sizes: for the named outputs alone, or for all where none is named.
func (r *Program) Run(dims plan.Dims, inputs map[string][]byte, outputs ...string) error {
	run, err := r.begin(dims, inputs, outputs)
	if err != nil {
		return err
	}
	if r.m.Watch != nil {
		err = r.watched(run.steps, dims)
	} else {
		err = r.m.Dev.Submit(&run.list)
	}
	if err != nil {
		return fmt.Errorf("machine: program %s: %w", r.p.Name, err)
	}
	return nil
}

// Repeat runs the program for one output so many times in one submit. The inputs are those of the first run; `between` adds to a list the commands that
// follow every run and make the inputs of the next.
func (r *Program) Repeat(dims plan.Dims, times int, inputs map[string][]byte, output string, between func(list *gpu.List)) error {
	run, err := r.begin(dims, inputs, []string{output})
	if err != nil {
		return err
	}
	var all gpu.List
	for range times {
		all.Append(&run.list)
		between(&all)
	}
	if err := r.m.Dev.Submit(&all); err != nil {
		return fmt.Errorf("machine: program %s: %w", r.p.Name, err)
	}
	return nil
}

// watched runs the steps part by part.
func (r *Program) watched(steps []plan.Step, dims plan.Dims) error {
	w := r.m.Watch
	if err := r.m.Dev.Wait(); err != nil {
		return err
	}
	for len(steps) > 0 {
		part, n := w.Part(r.p, steps[0].Op), 0
		var ops []int
		for ; n < len(steps) && w.Part(r.p, steps[n].Op) == part; n++ {
			if op := steps[n].Op; len(ops) == 0 || ops[len(ops)-1] != op {
				ops = append(ops, op)
			}
		}
		var list gpu.List
		if err := r.commands(&list, steps[:n]); err != nil {
			return err
		}
		began := time.Now()
		if err := r.m.Dev.Submit(&list); err != nil {
			return err
		}
		if err := r.m.Dev.Wait(); err != nil {
			return err
		}
		w.Took(r.p, part, ops, dims, time.Since(began))
		steps = steps[n:]
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

// Plan returns the program as it is lowered.
func (r *Program) Plan() *plan.Program { return r.p }

// Steps returns the dispatches of a run of these sizes for these outputs; they are not to be changed.
func (r *Program) Steps(dims plan.Dims, outputs ...string) ([]plan.Step, error) {
	run, err := r.prepare(dims, outputs)
	if err != nil {
		return nil, err
	}
	return run.steps, nil
}

// List makes a command list of some of the steps of a run, over the buffers of the last one.
func (r *Program) List(steps []plan.Step) (*gpu.List, error) {
	list := new(gpu.List)
	return list, r.commands(list, steps)
}

// Bytes views 32-bit numbers as the little-endian bytes that they are.
func Bytes[N float32 | uint32](x []N) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}
