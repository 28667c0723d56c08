// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"

	"fromage/gpu"
)

// ActBack is the gradient of an activation: x (N) before it, dy (N) → dx (N) = dy·act′(x), all f32. For ActReLU, whose slope at 0 is 0, x may
// as well be the activated values. x and dy may be one buffer.
func ActBack(_ gpu.Info, p ActBackParams) Dispatch {
	return Dispatch{kernel(variant{file: "act_back"}, actBackKernel(byRows(func(p ActBackParams) int { return int(p.N) }, actBackRows))), p.encode(), grid(ceil(int(p.N), actBackWG))}
}

func actBackRows(p ActBackParams, b actBackBuffers, first, last int) {
	for i := first; i < last; i++ {
		b.Dx[i] = float32(float64(b.Dy[i]) * actSlope(p.Act, float64(b.X[i])))
	}
}

// actSlope is the derivative of an activation at v.
func actSlope(act uint32, v float64) float64 {
	switch act {
	case ActReLU:
		if v > 0 {
			return 1
		}
		return 0
	case ActQuickGELU:
		s := 1 / (1 + math.Exp(-1.702*v))
		return s + 1.702*v*s*(1-s)
	case ActGELU:
		return 0.5*math.Erfc(-v/math.Sqrt2) + v*math.Exp(-v*v/2)/math.Sqrt(2*math.Pi)
	}
	return 1
}

func actBackCases() []Case {
	var cases []Case
	for act := range ActGELU + 1 {
		cases = append(cases, ActBackCase(ActBackParams{N: 65, Act: act}))
	}
	return cases
}

// ActBackCase makes a case of ActBack with random contents; every seventh x is 0, and every eleventh in the hundreds.
func ActBackCase(p ActBackParams) Case {
	n := int(p.N)
	x := floats(Random(1, n))
	for i := range x {
		switch {
		case i%7 == 3:
			x[i] = 0
		case i%11 == 5:
			x[i] *= 200
		}
	}
	return Case{
		Name:     "act_back",
		Dispatch: func(info gpu.Info) Dispatch { return ActBack(info, p) },
		Buffers:  [][]uint32{wordsOf(x), Random(2, n), Random(3, n)},
		Abs:      1e-6, Rel: 1e-5,
	}
}
