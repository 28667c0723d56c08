// SPDX-License-Identifier: Apache-2.0

//go:build cgo && !js && !wasip1

package native

import (
	"fmt"

	"fromage/gpu"
)

// maxGroups is how many bind groups are kept; a list with more of its own keeps them until the next list.
const maxGroups = 4096

// pipeline is a compiled kernel with the layout that its bind groups follow.
type pipeline struct {
	kernel   *gpu.Kernel
	pipeline *wPipeline
	layout   *wBindGroupLayout
}

// release gives back what there is of a pipeline, which may be half made.
func (p *pipeline) release() {
	if p.pipeline != nil {
		p.pipeline.Release()
	}
	if p.layout != nil {
		p.layout.Release()
	}
}

// groupKey names a bind group: the pipeline and its buffers in order, zero after the last.
type groupKey struct {
	pipeline gpu.Pipeline
	buffers  [maxBindings]gpu.Buffer
}

// Compile implements gpu.Device.
func (d *Device) Compile(k *gpu.Kernel) (gpu.Pipeline, error) {
	if err := d.lock(); err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
	if p, ok := d.handles.Kernel(k.Name); ok {
		return p, nil
	}
	if err := d.handles.CheckKernel(k, d.info.Features); err != nil {
		return 0, err
	}
	p := &pipeline{kernel: k}
	if err := p.compile(d.device); err != nil {
		p.release()
		return 0, d.failed("compile", k.Name, err)
	}
	h := d.handles.AddKernel(k)
	d.pipelines[h] = p
	return h, nil
}

// compile makes the layout (parameters by dynamic offset at 0, storage from 1 on) and the pipeline.
func (p *pipeline) compile(device *wDevice) (err error) {
	k := p.kernel
	// The enable lines stand on the source's first line, so that the line numbers in the compiler's messages are the source's.
	module, err := createShaderModule(device, k.Name, enables(k)+k.Source)
	if err != nil {
		return err
	}
	defer module.Release()
	entries := []wBindGroupLayoutEntry{{
		Visibility: stageCompute,
		Buffer:     wBufferBindingLayout{Type: bindUniform, HasDynamicOffset: true, MinBindingSize: uint64(k.Params)},
	}}
	for i, access := range k.Bindings {
		storage := wBufferBindingLayout{Type: bindRead}
		if access == gpu.ReadWrite {
			storage.Type = bindReadWrite
		}
		entries = append(entries, wBindGroupLayoutEntry{Binding: uint32(i + 1), Visibility: stageCompute, Buffer: storage})
	}
	if p.layout, err = createBindGroupLayout(device, &wBindGroupLayoutDescriptor{Label: k.Name, Entries: entries}); err != nil {
		return err
	}
	layout, err := createPipelineLayout(device, &wPipelineLayoutDescriptor{Label: k.Name, BindGroupLayouts: []*wBindGroupLayout{p.layout}})
	if err != nil {
		return err
	}
	defer layout.Release()
	p.pipeline, err = createPipeline(device, &wComputePipelineDescriptor{
		Label: k.Name, Layout: layout, Compute: wProgrammableStage{Module: module, EntryPoint: "main"},
	})
	return err
}

// Submit implements gpu.Device.
func (d *Device) Submit(l *gpu.List) error {
	if err := d.lock(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	if err := d.handles.CheckList(l); err != nil {
		return err
	}
	if l.Len() == 0 {
		return nil
	}
	if err := d.prepare(l); err != nil {
		return err
	}
	return d.run("submit", "list", func(e *wEncoder) error { return d.encode(e, l, nil) })
}

// prepare uploads the parameters of l and keeps the bind group cache within bounds.
func (d *Device) prepare(l *gpu.List) error {
	if len(d.groups) > maxGroups {
		d.dropAllGroups()
	}
	params := l.Params()
	if len(params) == 0 {
		return nil
	}
	if len(params) > d.uniformSize {
		d.dropAllGroups() // they hold the buffer that is replaced
	}
	if err := d.grow(&d.uniform, &d.uniformSize, "parameters", len(params), usageUniform); err != nil {
		return err
	}
	return d.write(d.uniform, "parameters", 0, params)
}

// encode puts the commands of l into e: dispatches into one pass as long as no copy or clear comes between them, or each into one that the clock times.
func (d *Device) encode(e *wEncoder, l *gpu.List, clock *clock) error {
	var pass *wPass
	var current gpu.Pipeline
	end := func() error {
		if pass == nil {
			return nil
		}
		err := endPass(pass)
		pass.Release()
		pass, current = nil, 0
		return err
	}
	var offset [1]uint32
	for i, c := range l.Commands() {
		var err error
		switch {
		case c.Pipeline != 0:
			group, fail := d.group(c)
			if err = fail; err != nil {
				break
			}
			if clock != nil {
				if err = end(); err != nil {
					break
				}
				pass = clock.pass(e)
			}
			if pass == nil {
				pass = e.BeginComputePass(nil)
			}
			if current != c.Pipeline {
				pass.SetPipeline(d.pipelines[c.Pipeline].pipeline)
				current = c.Pipeline
			}
			offset[0] = uint32(c.ParamsOffset)
			pass.SetBindGroup(0, group, offset[:])
			pass.DispatchWorkgroups(c.Groups[0], c.Groups[1], c.Groups[2])
		case c.Source != 0:
			if err = end(); err == nil {
				err = copyBuffer(e, d.buffers[c.Source], uint64(c.SourceOffset), d.buffers[c.Target], uint64(c.TargetOffset), uint64(c.Size))
			}
		default:
			if err = end(); err == nil {
				err = clearBuffer(e, d.buffers[c.Target], uint64(c.TargetOffset), uint64(c.Size))
			}
		}
		if err != nil {
			_ = end() // the first error is the one to tell
			return fmt.Errorf("command %d: %w", i, err)
		}
	}
	return end()
}

// group returns the bind group of a dispatch, from the cache if it is there.
func (d *Device) group(c gpu.Command) (*wBindGroup, error) {
	key := groupKey{pipeline: c.Pipeline}
	copy(key.buffers[:], c.Buffers)
	if g, ok := d.groups[key]; ok {
		return g, nil
	}
	p := d.pipelines[c.Pipeline]
	entries := []wBindGroupEntry{{Buffer: d.uniform, Size: uint64(p.kernel.Params)}}
	for i, b := range c.Buffers {
		entries = append(entries, wBindGroupEntry{Binding: uint32(i + 1), Buffer: d.buffers[b], Size: wholeSize})
	}
	g, err := createBindGroup(d.device, &wBindGroupDescriptor{Label: p.kernel.Name, Layout: p.layout, Entries: entries})
	if err != nil {
		return nil, fmt.Errorf("dispatch %s: %w", p.kernel.Name, err)
	}
	d.groups[key] = g
	for _, b := range c.Buffers {
		if d.users[b] == nil {
			d.users[b] = map[groupKey]struct{}{}
		}
		d.users[b][key] = struct{}{}
	}
	return g, nil
}

// dropGroups releases the bind groups that hold b.
func (d *Device) dropGroups(b gpu.Buffer) {
	for key := range d.users[b] {
		d.groups[key].Release()
		delete(d.groups, key)
		for _, other := range key.buffers {
			if other != b {
				delete(d.users[other], key)
			}
		}
	}
	delete(d.users, b)
}

func (d *Device) dropAllGroups() {
	for _, g := range d.groups {
		g.Release()
	}
	clear(d.groups)
	clear(d.users)
}
