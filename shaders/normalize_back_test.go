// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"math"
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestNormalizeBack(t *testing.T) {
	var cases []shaders.Case
	for _, T := range []uint32{1, 2, 7} {
		for _, D := range []uint32{1, 2, 63, 64, 65, 256, 1021} {
			cases = append(cases, shaders.NormalizeBackCase(shaders.NormalizeBackParams{T: T, D: D}))
		}
	}
	kerneltest.Run(t, cases)
}

func TestNormalizeBackTwin(t *testing.T) {
	const T, D = 3, 7
	x, dy, dx := shaders.Random(1, T*D), shaders.Random(2, T*D), make([]uint32, T*D)
	run(shaders.NormalizeBack(gpu.Info{}, shaders.NormalizeBackParams{T: T, D: D}), x, dy, dx)
	derivative(t, "dx", dx, values(x), func(x []float64) float64 {
		sum := 0.0
		for t := range T {
			row := x[t*D : (t+1)*D]
			sum += dot(row, values(dy)[t*D:(t+1)*D]) / math.Sqrt(dot(row, row))
		}
		return sum
	})
}
