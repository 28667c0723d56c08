// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"fmt"
	"slices"

	"fromage/bundle"
	"fromage/machine"
	"fromage/plan"
)

// HasText says whether the bundle has CLIP's text tower.
func (r *Runner) HasText() bool { return r.m.Manifest.Settings.Text.Dim > 0 }

// EncodeTexts runs texts, each the numbers of its tokens without those that begin and end it, through CLIP's text tower → its text embeddings (P), not
// normalised. Longer texts than the tower has positions for are cut at their end, as Hugging Face cuts them. All run packed without padding, which the
// tower's causal attention never sees.
func (r *Runner) EncodeTexts(ctx context.Context, texts [][]int32) ([][]float32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.HasText() {
		return nil, fmt.Errorf("runner: the bundle has no text tower (fromage compile --clip-text keeps it)")
	}
	var out [][]float32
	for len(out) < len(texts) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var rows [][]float32
		err := r.mend(ctx, func() (err error) {
			rows, err = r.encodeTexts(texts[len(out):])
			return err
		})
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
	}
	return out, nil
}

// encodeTexts runs as many of the texts, from the first on, as go into one run, at least one.
func (r *Runner) encodeTexts(texts [][]int32) ([][]float32, error) {
	prog, err := r.m.Program("text")
	if err != nil {
		return nil, err
	}
	t := r.m.Manifest.Settings.Text
	var tokens, rows []uint32
	for _, text := range texts {
		first := len(tokens) / plan.TokenColumns
		ids := slices.Concat([]int32{int32(t.BOS)}, text[:min(len(text), t.Positions-2)], []int32{int32(t.EOS)})
		if first > 0 && first+len(ids) > r.maxTokens {
			break
		}
		for at, id := range ids {
			if id < 0 || int(id) >= t.Vocabulary {
				return nil, fmt.Errorf("runner: text tower: want token numbers below %d, have %d", t.Vocabulary, id)
			}
			tokens = append(tokens, uint32(id), uint32(at), uint32(first), uint32(at+1))
		}
		rows = append(rows, uint32(first+pooledAt(ids, t.Pool)))
	}
	err = prog.Run(plan.Run(len(tokens)/plan.TokenColumns, len(rows), 0), map[string][]byte{"tokens": machine.Bytes(tokens), "rows": machine.Bytes(rows)})
	if err != nil {
		return nil, err
	}
	return prog.Rows("text", len(rows), t.Dim)
}

// pooledAt is the first place of the number that a text is pooled at.
func pooledAt(ids []int32, pool int) int {
	want := int32(pool)
	if pool == bundle.PoolHighest {
		want = slices.Max(ids)
	}
	return slices.Index(ids, want)
}

// Project takes pooled states (Dv), as Encode makes them, into the space of CLIP's text embeddings → (P), not normalised.
func (r *Runner) Project(ctx context.Context, pooled [][]float32) ([][]float32, error) {
	return inBatches(ctx, r, mapsBatch, pooled, nil, func(batch [][]float32) ([][]float32, error) {
		prog, err := r.m.Program("project")
		if err != nil {
			return nil, err
		}
		v, err := joined(batch, r.m.Manifest.Settings.VisionDim)
		if err != nil {
			return nil, err
		}
		if err := prog.Run(plan.RunImages(len(batch), 1), map[string][]byte{"v": machine.Bytes(v)}); err != nil {
			return nil, err
		}
		return prog.Rows("image", len(batch), r.m.Manifest.Settings.Text.Dim)
	})
}

// joined puts pooled states (Dv) side by side.
func joined(pooled [][]float32, dim int) ([]float32, error) {
	v := make([]float32, 0, len(pooled)*dim)
	for i, p := range pooled {
		if len(p) != dim {
			return nil, fmt.Errorf("runner: pooled state %d: want %d values, have %d", i, dim, len(p))
		}
		v = append(v, p...)
	}
	return v, nil
}
