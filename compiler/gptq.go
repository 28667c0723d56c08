// SPDX-License-Identifier: Apache-2.0

package compiler

import "fromage/shaders"

// rounding is what moments say about the columns of a matrix (F,K), ready for its rows.
type rounding struct {
	K int
	u []float32 // (K,K): see Moments.rounding
}

// groupRows is how many rows go through the columns together, so that a block's rows of u are used while they are in the cache.
const groupRows = 16

// encode stores rows (n,K) as Q8 or Q4 and changes them: after a column is rounded, those still to come take over what they can of its error in the
// outputs. The source is Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (arXiv 2210.17323),
// algorithm 1, with a block's scale fitted when its first column is reached.
func (g *rounding) encode(format shaders.Format, rows []float32, values, scales []byte) {
	rowBytes, scaleBytes := format.RowBytes(g.K), format.ScaleBytes(g.K)
	n := len(rows) / g.K
	for group := 0; group < n; group += groupRows {
		for first := 0; first < g.K; first += shaders.Block {
			for r := group; r < min(group+groupRows, n); r++ {
				g.block(format, first, rows[r*g.K:(r+1)*g.K], values[r*rowBytes+format.RowBytes(first):], scales[r*scaleBytes+format.ScaleBytes(first):])
			}
		}
	}
}

// block stores the block of a row that begins at column first in values and scales, and changes all columns after it.
func (g *rounding) block(format shaders.Format, first int, row []float32, values, scales []byte) {
	x := (*[shaders.Block]float32)(row[first:])
	u := g.u[first*g.K:]
	grid := format.Fit(x)
	var codes [shaders.Block]int32
	var miss [shaders.Block]float32
	for j, v := range x {
		code, value := grid.Nearest(v)
		codes[j], miss[j] = code, value-v
		for k := j + 1; k < shaders.Block; k++ {
			x[k] += miss[j] * u[j*g.K+first+k]
		}
	}
	grid.Store(&codes, values, scales)
	rest := row[first+shaders.Block:]
	for j := 0; j < shaders.Block; j += 4 {
		at := j*g.K + first + shaders.Block
		axpy4(rest, miss[j], miss[j+1], miss[j+2], miss[j+3], u[at:], u[at+g.K:], u[at+2*g.K:], u[at+3*g.K:])
	}
}
