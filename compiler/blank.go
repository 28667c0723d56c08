// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"fmt"

	"fromage/bundle"
	"fromage/model"
	"fromage/shaders"
)

// Blank returns the manifest that a checkpoint of this configuration would compile to, without files, and with blobs that have sizes only: what is needed
// to measure a model's speed without its weights.
func Blank(c model.Config, dtype shaders.Format) (*bundle.Manifest, error) {
	built, err := model.Build(c)
	if err != nil {
		return nil, fmt.Errorf("compiler: %w", err)
	}
	in := &inventory{config: c, model: built}
	m := &bundle.Manifest{Name: "no weights", DType: dtype, Settings: in.settings(), Model: *built}
	for i := range built.Weights {
		spec := &built.Weights[i]
		t := bundle.Tensor{Name: spec.Name, Format: choose(spec, dtype)}
		shards, err := split(spec, t.Format, bundle.MaxShard)
		if err != nil {
			return nil, fmt.Errorf("compiler: %w", err)
		}
		for _, rows := range shards {
			s := bundle.Shard{Rows: rows, Values: bundle.Blob{Size: pad16(rows * t.Format.RowBytes(spec.Cols))}}
			if n := t.Format.ScaleBytes(spec.Cols); n > 0 {
				s.Scales = &bundle.Blob{Size: pad16(rows * n)}
			}
			t.Shards = append(t.Shards, s)
		}
		m.Tensors = append(m.Tensors, t)
	}
	return m, nil
}
