// SPDX-License-Identifier: Apache-2.0

package compiler

import "fromage/shaders"

// rounding is what moments say about the columns of a matrix (F,K), ready for its rows.
type rounding struct {
	K     int
	order []int     // (K): the columns in the order in which they are rounded, block after block
	u     []float32 // (K,K): see Moments.rounding
}

// groupRows is how many rows go through the columns together, so that a block's rows of u are used while they are in the cache.
const groupRows = 16

// encode stores rows (n,K) as Q8 or Q4: after a column is rounded, those still to come take over what they can of its error in the outputs. The source is
// Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (arXiv 2210.17323), algorithm 1, with a block's
// scale fitted when its first column is reached, and the most important blocks first, while the most can still make up for them.
func (g *rounding) encode(format shaders.Format, rows []float32, values, scales []byte) {
	rowBytes, scaleBytes := format.RowBytes(g.K), format.ScaleBytes(g.K)
	n := len(rows) / g.K
	ordered := make([]float32, groupRows*g.K)
	for group := 0; group < n; group += groupRows {
		last := min(group+groupRows, n)
		for r := group; r < last; r++ {
			for i, k := range g.order {
				ordered[(r-group)*g.K+i] = rows[r*g.K+k]
			}
		}
		for first := 0; first < g.K; first += shaders.Block {
			for r := group; r < last; r++ {
				g.block(format, first, ordered[(r-group)*g.K:][:g.K], values[r*rowBytes:], scales[r*scaleBytes:])
			}
		}
	}
}

// block stores the block of an ordered row that begins at place first, and changes all places after it. values and scales are the row's.
func (g *rounding) block(format shaders.Format, first int, row []float32, values, scales []byte) {
	x := (*[shaders.Block]float32)(row[first:])
	u := g.u[first*g.K:]
	grid := format.Fit(x)
	var codes [shaders.Block]int32
	var miss [shaders.Block]float32
	for j, v := range x {
		code, value := grid.Nearest(v)
		codes[g.order[first+j]%shaders.Block], miss[j] = code, value-v
		for k := j + 1; k < shaders.Block; k++ {
			x[k] += miss[j] * u[j*g.K+first+k]
		}
	}
	b := g.order[first] / shaders.Block
	grid.Store(&codes, values[b*format.RowBytes(shaders.Block):], scales[b*format.ScaleBytes(shaders.Block):])
	rest := row[first+shaders.Block:]
	for j := 0; j < shaders.Block; j += 4 {
		at := j*g.K + first + shaders.Block
		axpy4(rest, miss[j], miss[j+1], miss[j+2], miss[j+3], u[at:], u[at+g.K:], u[at+2*g.K:], u[at+3*g.K:])
	}
}
