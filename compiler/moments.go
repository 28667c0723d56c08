// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"fmt"
	"math"
	"runtime"
	"sync"
)

// Moments is the sum of x·xᵀ over inputs x (K) of a matrix (F,K): how much an error in each pair of its columns shows in its outputs.
type Moments struct {
	K   int
	sum []float64 // (K,K), of which only the lower triangle is kept
}

// MaxMoments is the largest K that moments are worth their time and memory for: 8·K² bytes to gather, and 20·K² more before the matrix is written.
const MaxMoments = 8192

// NewMoments makes empty moments of inputs of K values.
func NewMoments(K int) *Moments {
	return &Moments{K, make([]float64, K*K)}
}

// Add adds inputs x (n,K). Sums over one call are f32: a few hundred rows at a time lose nothing.
func (m *Moments) Add(x []float32) {
	n := len(x) / m.K
	parallel(m.K, func(next func() (int, bool)) {
		sum := make([]float32, m.K)
		var rows []int
		for i, ok := next(); ok; i, ok = next() {
			rows = rows[:0]
			for t := range n {
				// Behind a ReLU most inputs are zero.
				if x[t*m.K+i] != 0 {
					rows = append(rows, t)
				}
			}
			acc := sum[:i+1]
			clear(acc)
			for ; len(rows) >= 4; rows = rows[4:] {
				a, b, c, d := rows[0]*m.K, rows[1]*m.K, rows[2]*m.K, rows[3]*m.K
				axpy4(acc, x[a+i], x[b+i], x[c+i], x[d+i], x[a:], x[b:], x[c:], x[d:])
			}
			for _, t := range rows {
				axpy4(acc, x[t*m.K+i], 0, 0, 0, x[t*m.K:], x[t*m.K:], x[t*m.K:], x[t*m.K:])
			}
			for j, v := range acc {
				m.sum[i*m.K+j] += float64(v)
			}
		}
	})
}

// axpy4 adds a·x + b·y + c·z + d·w to acc.
func axpy4(acc []float32, a, b, c, d float32, x, y, z, w []float32) {
	x, y, z, w = x[:len(acc)], y[:len(acc)], z[:len(acc)], w[:len(acc)]
	for j := range acc {
		acc[j] += a*x[j] + b*y[j] + c*z[j] + d*w[j]
	}
}

// parallel shares the numbers from 0 to n−1 out among the cores: each worker asks for its next until there is none.
func parallel(n int, work func(next func() (int, bool))) {
	workers := max(1, min(runtime.GOMAXPROCS(0), n))
	var done sync.WaitGroup
	for i := range workers {
		at := i - workers
		done.Go(func() {
			work(func() (int, bool) { at += workers; return at, at < n })
		})
	}
	done.Wait()
}

// damping is what is added to the diagonal, as a part of its mean: GPTQ's percdamp.
const damping = 0.01

// rounding prepares for the rows of a matrix: with H the damped moments, u is the upper triangular U with H⁻¹ = Uᵀ·U, each row divided by its diagonal
// element.
//
// With J the matrix that turns the order around and J·H·J = L·Lᵀ, it is U = J·L⁻¹·J.
func (m *Moments) rounding() (*rounding, error) {
	K := m.K
	mean := 0.0
	for i := range K {
		mean += m.sum[i*K+i] / float64(K)
	}
	if math.IsNaN(mean) || math.IsInf(mean, 0) {
		return nil, fmt.Errorf("moments of %d columns: want finite ones, have a mean of %g", K, mean)
	}
	if mean == 0 {
		mean = 1
	}
	l := make([]float64, K*K)
	for i := range K {
		for j := range i + 1 {
			l[i*K+j] = m.sum[(K-1-j)*K+K-1-i] / mean
		}
		l[i*K+i] += damping
	}
	if err := cholesky(l, K); err != nil {
		return nil, err
	}
	invert(l, K)
	u := make([]float32, K*K)
	for i := range K {
		row := l[(K-1-i)*K:][:K]
		for j := i; j < K; j++ {
			u[i*K+j] = float32(row[K-1-j] / row[K-1-i])
		}
	}
	return &rounding{K, u}, nil
}

// panel is how many columns of a factor are made between two barriers.
const panel = 64

// cholesky replaces the lower triangle of a (K,K) by L with A = L·Lᵀ.
func cholesky(a []float64, K int) error {
	// fill makes columns [from, to) of row i of those before it and the rows of the panel.
	fill := func(i, from, to int) {
		row := a[i*K:][:K]
		for j := from; j < to; j++ {
			other := a[j*K:][:K]
			row[j] = (row[j] - dot(row[:j], other[:j])) / other[j]
		}
	}
	for first := 0; first < K; first += panel {
		last := min(first+panel, K)
		for i := first; i < last; i++ {
			fill(i, first, i)
			row := a[i*K:][:i+1]
			d := row[i] - dot(row[:i], row[:i])
			if !(d > 0) {
				return fmt.Errorf("moments of %d columns: want a positive pivot %d, have %g", K, i, d)
			}
			row[i] = math.Sqrt(d)
		}
		parallel(K-last, func(next func() (int, bool)) {
			for i, ok := next(); ok; i, ok = next() {
				fill(last+i, first, last)
			}
		})
	}
	return nil
}

func dot(x, y []float64) float64 {
	y = y[:len(x)]
	var a, b, c, d float64
	n := len(x) &^ 3
	for i := 0; i < n; i += 4 {
		a += x[i] * y[i]
		b += x[i+1] * y[i+1]
		c += x[i+2] * y[i+2]
		d += x[i+3] * y[i+3]
	}
	for i := n; i < len(x); i++ {
		a += x[i] * y[i]
	}
	return a + b + c + d
}

// invert replaces a lower triangular L (K,K) by its inverse. Ranges of columns do not depend on each other, but for L, which is kept until the end.
func invert(l []float64, K int) {
	out := make([]float64, K*K)
	parallel((K+panel-1)/panel, func(next func() (int, bool)) {
		for p, ok := next(); ok; p, ok = next() {
			from, to := p*panel, min(p*panel+panel, K)
			for i := from; i < K; i++ {
				row := out[i*K+from : i*K+min(to, i+1)]
				for k := from; k < i; k++ {
					above := out[k*K+from : k*K+min(to, k+1)]
					s := l[i*K+k]
					for j, v := range above {
						row[j] -= s * v
					}
				}
				if i < to {
					row[i-from] = 1
				}
				for j := range row {
					row[j] /= l[i*K+i]
				}
			}
		}
	})
	copy(l, out)
}
