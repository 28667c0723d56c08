// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"runtime"
	"sync"

	"fromage/internal/simd"
)

// product is C (M,N) = A (M,K) · B (K,N) on the CPU, in f32: what Linear and its gradients have in common. C is made in blocks, one goroutine
// each; for a block, rows of A and B come in parts of the depth K to buffers that stay in a core's cache, B in panels of simd.Columns columns.
// Sums are taken in an order that depends on K alone.
type product struct {
	M, N, K int
	a, b    operand
	// store takes the sums of row m for columns from n on. It may change c.
	store func(m, n int, c []float32)
}

// operand is a matrix that gives its values by rows: row writes values first to last−1 of row r to dst, where first is a multiple of 64.
type operand struct {
	row func(r, first, last int, dst []float32)
	// deep says that the depth runs along the rows: a row belongs to one m or n, and not to one k.
	deep bool
}

// The most rows, columns and depth of a block: all multiples of 64 or of what a tile has, with which A and B take half of a megabyte of cache.
const (
	blockRows    = 240
	blockColumns = 256
	blockDepth   = 256
)

// scratch is what one goroutine needs for a block.
type scratch struct {
	a    [blockRows * blockDepth]float32
	b    [blockColumns * blockDepth]float32
	c    [blockRows * blockColumns]float32
	rows [simd.Columns * blockDepth]float32
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// even returns the size of parts, a multiple of unit and at most most, into which n is divided most evenly.
func even(n, most, unit int) int {
	return ceil(ceil(n, max(1, ceil(n, most))), unit) * unit
}

func (p product) run() {
	if p.M == 0 || p.N == 0 {
		return
	}
	rows, columns := blockRows, blockColumns
	for enough := 3 * runtime.GOMAXPROCS(0); ceil(p.M, rows)*ceil(p.N, columns) < enough && columns > 64; {
		// Narrow blocks read short pieces of rows, so they are the last resort.
		if columns > 128 || rows == 60 {
			columns /= 2
		} else {
			rows /= 2
		}
	}
	rows, columns = even(p.M, rows, 12), even(p.N, columns, 64)
	down := ceil(p.M, rows)
	parallel(down*ceil(p.N, columns), func(first, last int) {
		s := scratches.Get().(*scratch)
		defer scratches.Put(s)
		for i := first; i < last; i++ {
			m, n := i%down*rows, i/down*columns
			p.block(s, m, min(m+rows, p.M), n, min(n+columns, p.N))
		}
	})
}

// block makes rows m0 to m1−1 and columns n0 to n1−1 of C. In buffers, they are rounded up to whole tiles; what is in the rest does not matter.
func (p product) block(s *scratch, m0, m1, n0, n1 int) {
	tile := simd.TileRows()
	rows, columns := ceil(m1-m0, tile)*tile, ceil(n1-n0, simd.Columns)*simd.Columns
	clear(s.c[:rows*columns])
	step := even(p.K, blockDepth, 64)
	for k0 := 0; k0 < p.K; k0 += step {
		k1 := min(k0+step, p.K)
		depth := k1 - k0
		rowStride, depthStride := depth, 1
		if p.a.deep {
			for m := m0; m < m1; m++ {
				p.a.row(m, k0, k1, s.a[(m-m0)*depth:][:depth])
			}
		} else {
			rowStride, depthStride = 1, rows
			for k := k0; k < k1; k++ {
				p.a.row(k, m0, m1, s.a[(k-k0)*rows:][:m1-m0])
			}
		}
		p.panels(s, n0, n1, k0, k1)
		for n := 0; n < columns; n += simd.Columns {
			for m := 0; m < rows; m += tile {
				simd.Tile(s.c[m*columns+n:], columns, s.a[m*rowStride:], rowStride, depthStride, s.b[n*depth:], depth)
			}
		}
	}
	for m := m0; m < m1; m++ {
		p.store(m, n0, s.c[(m-m0)*columns:][:n1-n0])
	}
}

// panels takes columns n0 to n1−1 of B, for k0 to k1−1, to s.b.
func (p product) panels(s *scratch, n0, n1, k0, k1 int) {
	depth := k1 - k0
	if p.b.deep {
		for n := n0; n < n1; n += simd.Columns {
			for j := n; j < min(n+simd.Columns, n1); j++ {
				p.b.row(j, k0, k1, s.rows[(j-n)*depth:][:depth])
			}
			simd.Turn(s.b[(n-n0)*depth:], s.rows[:], depth, depth)
		}
		return
	}
	for k := k0; k < k1; k++ {
		p.b.row(k, n0, n1, s.rows[:n1-n0])
		for n := 0; n < n1-n0; n += simd.Columns {
			*(*[simd.Columns]float32)(s.b[n*depth+(k-k0)*simd.Columns:]) = *(*[simd.Columns]float32)(s.rows[n:])
		}
	}
}
