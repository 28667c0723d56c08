// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"fromage/shaders"
)

// mixed makes n inputs of K values that depend on each other, some of them behind a ReLU.
func mixed(rng *rand.Rand, n, K int) []float32 {
	x := make([]float32, n*K)
	for t := range n {
		var cause [8]float64
		for i := range cause {
			cause[i] = rng.NormFloat64()
		}
		for k := range K {
			v := cause[k%8] + 0.5*cause[k*7%8] + 0.3*rng.NormFloat64()
			if k%3 == 0 {
				v = max(0, v)
			}
			x[t*K+k] = float32(v)
		}
	}
	return x
}

func normal(rng *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	return x
}

func TestMoments(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	for _, K := range []int{1, 33, 64} {
		m, want := NewMoments(K), make([]float64, K*K)
		for _, n := range []int{1, 7, 64} {
			x := mixed(rng, n, K)
			m.Add(x)
			for t := range n {
				for i := range K {
					for j := range i + 1 {
						want[i*K+j] += float64(x[t*K+i]) * float64(x[t*K+j])
					}
				}
			}
		}
		for i, got := range m.sum {
			if d := math.Abs(got - want[i]); !(d <= 1e-4) {
				t.Fatalf("moments of %d columns [%d] = %g, want %g", K, i, got, want[i])
			}
		}
	}
}

func TestCholeskyInvert(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 0))
	for _, K := range []int{1, 31, panel - 1, panel, panel + 1, 2*panel + 7} {
		m := NewMoments(K)
		m.Add(mixed(rng, 2*K+8, K))
		l := make([]float64, K*K)
		copy(l, m.sum)
		for i := range K {
			l[i*K+i]++
		}
		if err := cholesky(l, K); err != nil {
			t.Fatal(err)
		}
		for i := range K {
			for j := range i + 1 {
				want := m.sum[i*K+j]
				if i == j {
					want++
				}
				if got := dot(l[i*K:i*K+j+1], l[j*K:j*K+j+1]); math.Abs(got-want) > 1e-8 {
					t.Fatalf("L·Lᵀ of %d columns [%d,%d] = %g, want %g", K, i, j, got, want)
				}
			}
		}
		inverse := append([]float64(nil), l...)
		invert(inverse, K)
		for i := range K {
			for j := range i + 1 {
				got, want := 0.0, 0.0
				for k := j; k <= i; k++ {
					got += l[i*K+k] * inverse[k*K+j]
				}
				if i == j {
					want = 1
				}
				if math.Abs(got-want) > 1e-9 {
					t.Fatalf("L·L⁻¹ of %d columns [%d,%d] = %g, want %g", K, i, j, got, want)
				}
			}
		}
	}
	if err := cholesky([]float64{1, 0, 2, 1}, 2); err == nil {
		t.Error("cholesky of an indefinite matrix gave no error")
	}
}

// encoded stores rows (n,K), by moments where there are any, and returns what a kernel would read.
func encoded(t *testing.T, format shaders.Format, m *Moments, K int, rows []float32) (values, scales []byte, decoded []float32) {
	t.Helper()
	n := len(rows) / K
	rowBytes, scaleBytes := format.RowBytes(K), format.ScaleBytes(K)
	values, scales, decoded = make([]byte, n*rowBytes), make([]byte, n*scaleBytes), make([]float32, n*K)
	if m != nil {
		g, err := m.rounding()
		if err != nil {
			t.Fatal(err)
		}
		g.encode(format, append([]float32(nil), rows...), values, scales)
	}
	for r := range n {
		v, s := values[r*rowBytes:][:rowBytes], scales[r*scaleBytes:][:scaleBytes]
		if m == nil {
			format.EncodeRow(rows[r*K:(r+1)*K], v, s)
		}
		format.DecodeRow(v, s, decoded[r*K:(r+1)*K])
	}
	return values, scales, decoded
}

// TestNoMoments rounds by moments that say nothing: as without them.
func TestNoMoments(t *testing.T) {
	const K = 128
	rows := normal(rand.New(rand.NewPCG(3, 0)), 5*K)
	for _, format := range []shaders.Format{shaders.Q8, shaders.Q4} {
		values, scales, _ := encoded(t, format, NewMoments(K), K, rows)
		wantValues, wantScales, _ := encoded(t, format, nil, K, rows)
		if !bytes.Equal(values, wantValues) || !bytes.Equal(scales, wantScales) {
			t.Errorf("%s: rows with moments of zero differ from EncodeRow's", format)
		}
	}
}

// TestTwoColumns has two columns that depend on each other: the first is rounded, and the other takes over c/b of its error.
func TestTwoColumns(t *testing.T) {
	const K, i, j = 64, 11, 37
	m := NewMoments(K)
	x := make([]float32, 2*K)
	x[i], x[j] = 3, 2
	x[K+i], x[K+j] = 1, -1
	m.Add(x)
	a, b, c := 10.0, 5.0, 5.0
	damp := damping * (a + b) / K
	rng := rand.New(rand.NewPCG(4, 0))
	for _, format := range []shaders.Format{shaders.Q8, shaders.Q4} {
		moved := false
		for range 20 {
			row := normal(rng, K)
			_, _, got := encoded(t, format, m, K, row)
			grid := format.Fit((*[shaders.Block]float32)(row))
			_, wantI := grid.Nearest(row[i])
			changed := append([]float32(nil), row[32:]...)
			changed[j-32] += float32(float64(row[i]-wantI) * c / (b + damp))
			grid = format.Fit((*[shaders.Block]float32)(changed))
			_, wantJ := grid.Nearest(changed[j-32])
			if got[i] != wantI || got[j] != wantJ {
				t.Errorf("%s: columns = %g, %g, want %g, %g", format, got[i], got[j], wantI, wantJ)
			}
			_, plain := format.Fit((*[shaders.Block]float32)(row[32:])).Nearest(row[j])
			moved = moved || wantJ != plain
		}
		if !moved {
			t.Errorf("%s: no second column ever took over an error: the test tests nothing", format)
		}
	}
}

// TestOutputError holds rounding by moments to a smaller error of the outputs than plain rounding's.
func TestOutputError(t *testing.T) {
	const K, F, n = 192, 37, 600
	rng := rand.New(rand.NewPCG(5, 0))
	x, rows := mixed(rng, n, K), normal(rng, F*K)
	m := NewMoments(K)
	m.Add(x)
	for _, format := range []shaders.Format{shaders.Q8, shaders.Q4} {
		loss := func(m *Moments) float64 {
			_, _, got := encoded(t, format, m, K, rows)
			sum := 0.0
			for f := range F {
				for s := range n {
					y := 0.0
					for k := range K {
						y += float64(x[s*K+k]) * float64(got[f*K+k]-rows[f*K+k])
					}
					sum += y * y
				}
			}
			return sum
		}
		if plain, got := loss(nil), loss(m); !(got < 0.5*plain) {
			t.Errorf("%s: squared error of outputs = %g, want less than half of plain rounding's %g", format, got, plain)
		}
	}
}
