// SPDX-License-Identifier: Apache-2.0

package trainer

import (
	"context"
	"math"
	"math/rand/v2"
	"strings"

	"fromage/machine"
)

// Initial returns untrained heads for a model, by weight, as the reference's FromageModel begins with: linear layers as torch's nn.Linear draws them,
// logit_scale = ln(1/0.07). The row of [RET] stays as the model has it: OPT's own at that number where the model was compiled with new heads. Where
// mean is set, since the model has a trained one instead, it is the mean of the token table's rows.
func Initial(ctx context.Context, m *machine.Machine, seed uint64, mean bool) (map[string][]float32, error) {
	heads := map[string][]float32{}
	for i, w := range m.Manifest.Model.Weights {
		if !w.Head {
			continue
		}
		x := make([]float32, w.Rows*w.Cols)
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		switch {
		case w.Name == logitScale:
			x[0] = float32(math.Log(1 / 0.07))
		case w.Name == addedTokens:
			var err error
			if x, err = m.ReadWeight(w.Name); err != nil {
				return nil, err
			}
			if mean {
				if err := meanRow(ctx, m, x[w.Cols:]); err != nil {
					return nil, err
				}
			}
		default:
			bound := 1 / math.Sqrt(float64(inputs(m, w.Name)))
			for j := range x {
				x[j] = float32((2*rng.Float64() - 1) * bound)
			}
		}
		heads[w.Name] = x
	}
	return heads, nil
}

// inputs is the inputs of the linear layer that a weight or bias is of.
func inputs(m *machine.Machine, name string) int {
	w, err := m.Manifest.Model.Weight(strings.TrimSuffix(strings.TrimSuffix(name, ".bias"), ".weight") + ".weight")
	if err != nil {
		return 1
	}
	return w.Cols
}

// meanRow writes the mean of the token table's own rows to dst.
func meanRow(ctx context.Context, m *machine.Machine, dst []float32) error {
	lm, err := m.Manifest.Model.Program("lm")
	if err != nil {
		return err
	}
	sum, n := make([]float64, len(dst)), 0
	for _, name := range outputRows(lm) {
		if name == addedTokens {
			continue
		}
		err := m.EachRow(ctx, name, func(row []float32) {
			n++
			for i, x := range row {
				sum[i] += float64(x)
			}
		})
		if err != nil {
			return err
		}
	}
	for i := range dst {
		dst[i] = float32(sum[i] / float64(n))
	}
	return nil
}
