// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// Patches cuts images into square patches: x (B,3,S,S) f32 → y (B·G·G,3·P·P) f32 with G = S/P; S must be a multiple of P. It is torch's
// unfold for a convolution whose stride is its size, with rows and columns exchanged.
func Patches(_ gpu.Info, p PatchesParams) Dispatch {
	return Dispatch{kernel(variant{file: "patches"}, patchesKernel(patchesTwin)), p.encode(), grid(ceil(3*int(p.B)*int(p.S)*int(p.S), patchesWG))}
}

func patchesTwin(p PatchesParams, b patchesBuffers) {
	S, P := int(p.S), int(p.P)
	y := b.Y
	for image := range int(p.B) {
		for gy := 0; gy < S; gy += P {
			for gx := 0; gx < S; gx += P {
				for channelRow := range 3 * P {
					channel, row := channelRow/P, channelRow%P
					copy(y[:P], b.X[((image*3+channel)*S+gy+row)*S+gx:])
					y = y[P:]
				}
			}
		}
	}
}

func (p PatchesParams) reach() []uint64 {
	if p.S == 0 || p.P == 0 || p.S%p.P != 0 {
		return nil
	}
	n := words(uint64(p.B), 3, uint64(p.S), uint64(p.S))
	return []uint64{n, n}
}

func patchesCases() []Case {
	return []Case{PatchesCase(PatchesParams{B: 2, S: 15, P: 5})}
}

// PatchesCase makes a case of Patches with random contents.
func PatchesCase(p PatchesParams) Case {
	n := int(3 * p.B * p.S * p.S)
	return Case{
		Name:     "patches",
		Dispatch: func(info gpu.Info) Dispatch { return Patches(info, p) },
		Buffers:  [][]uint32{Random(1, n), make([]uint32, n)},
	}
}
