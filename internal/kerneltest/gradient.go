// SPDX-License-Identifier: Apache-2.0

package kerneltest

// Gradient returns the derivatives of Σ dy·f(x) for every x, by central differences in float64: what a backward twin must give. Their error is
// about 1e-10 where f is smooth and its values about 1. x is as before on return.
func Gradient(f func(x []float64) []float64, x, dy []float64) []float64 {
	loss := func(i int, to float64) float64 {
		was := x[i]
		x[i] = to
		defer func() { x[i] = was }()
		sum := 0.0
		for j, y := range f(x) {
			sum += dy[j] * y
		}
		return sum
	}
	const step = 0x1p-17
	gradient := make([]float64, len(x))
	for i, v := range x {
		gradient[i] = (loss(i, v+step) - loss(i, v-step)) / (2 * step)
	}
	return gradient
}
