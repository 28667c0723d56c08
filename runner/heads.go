// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"fmt"
	"maps"
)

// Heads returns the contents of FROMAGe's trained parameters, by weight: (rows·cols) f32 each.
func (r *Runner) Heads() (map[string][]float32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	heads := map[string][]float32{}
	for _, w := range r.m.Manifest.Model.Weights {
		if !w.Head {
			continue
		}
		x, err := r.m.ReadWeight(w.Name)
		if err != nil {
			return nil, err
		}
		heads[w.Name] = x
	}
	return heads, nil
}

// SetHeads puts other trained parameters in place of some or all of the loaded ones, by weight, between two calls. Sequences are computed again from
// their tokens when they go on; what was made of pictures (Image, a Gallery) belongs to the heads that made it, and is made again by its owner. Heads
// that do not fit change nothing.
func (r *Runner) SetHeads(heads map[string][]float32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, x := range heads {
		w, err := r.m.Manifest.Model.Weight(name)
		if err != nil || !w.Head || len(x) != w.Rows*w.Cols {
			return fmt.Errorf("runner: heads: want trained parameters of this model, have %s with %d values", name, len(x))
		}
	}
	if err := r.setHeads(heads); err != nil {
		return err
	}
	if r.heads == nil {
		r.heads = map[string][]float32{}
	}
	maps.Copy(r.heads, heads)
	for _, s := range r.kv.sequences {
		s.computed = 0
	}
	return nil
}

// HeadsChanged tells the runner that the trained parameters were changed on the device itself.
func (r *Runner) HeadsChanged() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.kv.sequences {
		s.computed = 0
	}
	return r.readScale()
}

func (r *Runner) setHeads(heads map[string][]float32) error {
	for name, x := range heads {
		if err := r.m.SetWeight(name, x); err != nil {
			return err
		}
	}
	return r.readScale()
}
