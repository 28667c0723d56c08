// SPDX-License-Identifier: Apache-2.0

package plan

// FLOPs returns, by operation, the floating-point operations of the matrix products in a run: two for each product that is added up. Attention is left
// out, since what it computes depends on how many rows each token attends to; over captions that is less than a hundredth.
func (p *Program) FLOPs(dims Dims) []float64 {
	rows := func(id ID) float64 { return float64(p.Value(id).Rows.In(dims)) }
	cols := func(id ID) float64 { return float64(p.Value(id).Cols) }
	all := make([]float64, len(p.Ops))
	for i, op := range p.Ops {
		switch o := op.(type) {
		case *Linear:
			all[i] = 2 * rows(o.Y) * cols(o.X) * cols(o.Y)
		case *LinearBack:
			all[i] = 2 * rows(o.DY) * cols(o.DY) * cols(o.DX)
		case *LinearWeightBack:
			all[i] = 2 * rows(o.X) * cols(o.X) * rows(o.DW)
		case *CrossEntropy:
			outputs := cols(o.Logits)
			if o.DX != 0 {
				outputs += cols(o.Logits)
			}
			if o.DW != 0 {
				outputs += rows(o.DW)
			}
			all[i] = 2 * rows(o.X) * cols(o.X) * outputs
		case *Similarities:
			all[i] = 2 * rows(o.Y) * cols(o.A)
		case *ContrastBack:
			all[i] = 2 * rows(o.Logits) * cols(o.DX)
		}
	}
	return all
}
