// SPDX-License-Identifier: Apache-2.0

package host

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"

	"fromage/gpu"
	"fromage/gpu/remote"
)

// maxKernel is the most bytes of a kernel as JSON; the longest of package shaders has 10 kB.
const maxKernel = 1 << 20

// compile compiles the guest's kernel: the host's own of that name, which it must be the same as.
func (g *Guest) compile(d *device, data []byte) (gpu.Pipeline, error) {
	var asked remote.Kernel
	if err := json.Unmarshal(data, &asked); err != nil {
		return 0, fmt.Errorf("gpu/host: compile: %w: %w", err, gpu.ErrInvalid)
	}
	if p, ok := d.book.Kernel(asked.Name); ok {
		return p, nil
	}
	sent, err := fromGuest(asked)
	if err != nil {
		return 0, err
	}
	if err := d.book.CheckKernel(sent, g.host.info.Features); err != nil {
		return 0, err
	}
	if g.kernels >= g.limits.Kernels {
		return 0, g.beyond("kernels", g.limits.Kernels)
	}
	k, err := g.host.choose(sent)
	if err != nil {
		return 0, err
	}
	if err := g.handle(d); err != nil {
		return 0, err
	}
	real, err := g.host.dev.Compile(k)
	if err != nil {
		return 0, err
	}
	g.kernels++
	// In the guest's book the kernel goes by the guest's name.
	entry := *k
	entry.Name = sent.Name
	p := d.book.AddKernel(&entry)
	d.pipelines[p] = real
	return p, nil
}

// fromGuest is the kernel that a guest asked for, without a twin.
func fromGuest(asked remote.Kernel) (*gpu.Kernel, error) {
	k := &gpu.Kernel{Name: asked.Name, Source: asked.Source, Params: asked.Params, Labels: asked.Labels, Subgroups: asked.Subgroups, F16: asked.F16}
	if len(k.Name) > maxLabel || len(k.Labels) > len(asked.Bindings) {
		return nil, fmt.Errorf("gpu/host: compile %.64q: want a name of at most %d bytes and a label for each binding: %w", k.Name, maxLabel, gpu.ErrInvalid)
	}
	for i, b := range asked.Bindings {
		if b > byte(gpu.ReadWrite) {
			return nil, fmt.Errorf("gpu/host: compile %s: binding %d: want access %d or %d, have %d: %w", k.Name, i+1, gpu.Read, gpu.ReadWrite, b, gpu.ErrInvalid)
		}
		k.Bindings = append(k.Bindings, gpu.Access(b))
	}
	return k, nil
}

// choose returns the kernel to compile in place of what the guest sent.
func (h *Host) choose(sent *gpu.Kernel) (*gpu.Kernel, error) {
	known := h.config.Kernel(sent.Name)
	same := known != nil && known.Source == sent.Source && known.Params == sent.Params && slices.Equal(known.Bindings, sent.Bindings) &&
		known.Subgroups == sent.Subgroups && known.F16 == sent.F16
	if same && (known.Reach != nil || h.config.AnyKernel) {
		return known, nil
	}
	if h.config.AnyKernel && h.info.Backend != "go" {
		// Another name, so that it does not pass for another guest's kernel.
		k := *sent
		k.Name = fmt.Sprintf("%s (a guest's, %x)", sent.Name, sha256.Sum256(fmt.Appendf(nil, "%q", []any{sent.Source, sent.Params, sent.Bindings})))
		return &k, nil
	}
	switch {
	case known == nil:
		return nil, fmt.Errorf("gpu/host: compile %s: the host has no kernel of this name: %w", sent.Name, gpu.ErrInvalid)
	case same:
		return nil, fmt.Errorf("gpu/host: compile %s: the kernel does not say what it reaches, so guests may not run it: %w", sent.Name, gpu.ErrInvalid)
	}
	return nil, fmt.Errorf("gpu/host: compile %s: the host's kernel of this name is another: guest and host are not of one version: %w", sent.Name, gpu.ErrInvalid)
}
