// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// Widen is the inverse of Narrow: x (N/2) u32, two f16 a word → y (N) f32. N is a multiple of 4.
func Widen(_ gpu.Info, p WidenParams) Dispatch {
	return Dispatch{kernel(variant{file: "widen"}, widenKernel(widenTwin, widenFast)), p.encode(), grid(ceil(int(p.N), 4*widenWG))}
}

func widenTwin(p WidenParams, b widenBuffers) { F16.decodeRow(b.X, nil, 0, b.Y[:p.N]) }

func widenFast(p WidenParams, b widenBuffers) {
	parallel(int(p.N)/4, func(from, to int) { F16.decodeRow(b.X[2*from:2*to], nil, 0, b.Y[4*from:4*to]) })
}

func (p WidenParams) reach() []uint64 {
	n := words(uint64(p.N))
	return []uint64{(n + 1) / 2, n}
}

func widenCases() []Case { return []Case{WidenCase(WidenParams{N: 268})} }

// WidenCase makes a case of Widen with random contents.
func WidenCase(p WidenParams) Case {
	return Case{
		Name:     "widen",
		Dispatch: func(info gpu.Info) Dispatch { return Widen(info, p) },
		Buffers:  [][]uint32{F16.random(1, int(p.N)), make([]uint32, p.N)},
	}
}
