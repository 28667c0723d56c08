// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// Add sums two tensors of one shape: a (N), b (N) → y (N), all f32. a and b may be one buffer.
func Add(_ gpu.Info, p AddParams) Dispatch {
	return Dispatch{kernel(variant{file: "add"}, addKernel(addTwin)), p.encode(), grid(ceil(int(p.N), addWG))}
}

func addTwin(p AddParams, b addBuffers) {
	for i := range b.Y[:p.N] {
		b.Y[i] = b.A[i] + b.B[i]
	}
}

func (p AddParams) reach() []uint64 {
	n := words(uint64(p.N))
	return []uint64{n, n, n}
}

func addCases() []Case {
	return []Case{AddCase(AddParams{N: 65})}
}

// AddCase makes a case of Add with random contents.
func AddCase(p AddParams) Case {
	n := int(p.N)
	return Case{
		Name:     "add",
		Dispatch: func(info gpu.Info) Dispatch { return Add(info, p) },
		Buffers:  [][]uint32{Random(1, n), Random(2, n), make([]uint32, n)},
		Abs:      1e-6, Rel: 1e-6,
	}
}
