// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// Narrow makes f16 of f32: x (N) f32 → y (N/2) u32, two values a word, those that f16 cannot hold as its largest. N is a multiple of 4.
func Narrow(_ gpu.Info, p NarrowParams) Dispatch {
	return Dispatch{kernel(variant{file: "narrow"}, narrowKernel(narrowTwin, narrowFast)), p.encode(), grid(ceil(int(p.N), 4*narrowWG))}
}

func narrowTwin(p NarrowParams, b narrowBuffers) { F16.EncodeRow(b.X[:p.N], bytesOf(b.Y), nil) }

func narrowFast(p NarrowParams, b narrowBuffers) {
	parallel(int(p.N)/4, func(from, to int) { F16.EncodeRow(b.X[4*from:4*to], bytesOf(b.Y[2*from:2*to]), nil) })
}

func (p NarrowParams) reach() []uint64 {
	n := words(uint64(p.N))
	return []uint64{n, (n + 1) / 2}
}

func narrowCases() []Case { return []Case{NarrowCase(NarrowParams{N: 268})} }

// NarrowCase makes a case of Narrow with random contents.
func NarrowCase(p NarrowParams) Case {
	x := Random(1, int(p.N))
	copy(floats(x), []float32{1e9, -7e4, 65504, -1e-9})
	return Case{
		Name:     "narrow",
		Dispatch: func(info gpu.Info) Dispatch { return Narrow(info, p) },
		Buffers:  [][]uint32{x, make([]uint32, p.N/2)},
		Abs:      6e-8, Rel: 1e-3, F16: 1, // a device may round to either neighbour
	}
}
