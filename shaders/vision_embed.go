// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// VisionEmbed puts a class embedding before the patches of each image and adds position embeddings: patches (B·(N−1),D), class (D),
// position (N,D) → y (B·N,D), all f32; transformers' CLIPVisionEmbeddings after its convolution.
func VisionEmbed(_ gpu.Info, p VisionEmbedParams) Dispatch {
	return Dispatch{kernel(variant{file: "vision_embed"}, visionEmbedKernel(visionEmbedTwin)), p.encode(), grid(ceil(int(p.B)*int(p.N)*int(p.D), visionEmbedWG))}
}

func visionEmbedTwin(p VisionEmbedParams, b visionEmbedBuffers) {
	N, D := int(p.N), int(p.D)
	for image := range int(p.B) {
		for n := range N {
			x := b.Cls
			if n > 0 {
				x = b.Patches[(image*(N-1)+n-1)*D:]
			}
			y := b.Y[(image*N+n)*D:][:D]
			for d := range y {
				y[d] = x[d] + b.Position[n*D+d]
			}
		}
	}
}

func (p VisionEmbedParams) reach() []uint64 {
	if p.N == 0 {
		return nil
	}
	B, N, D := uint64(p.B), uint64(p.N), uint64(p.D)
	patches := uint64(0)
	if N > 1 {
		patches = words(B, N-1, D)
	}
	return []uint64{patches, D, words(N, D), words(B, N, D)}
}

func visionEmbedCases() []Case {
	return []Case{VisionEmbedCase(VisionEmbedParams{B: 2, N: 5, D: 13})}
}

// VisionEmbedCase makes a case of VisionEmbed with random contents.
func VisionEmbedCase(p VisionEmbedParams) Case {
	B, N, D := int(p.B), int(p.N), int(p.D)
	return Case{
		Name:     "vision_embed",
		Dispatch: func(info gpu.Info) Dispatch { return VisionEmbed(info, p) },
		Buffers:  [][]uint32{Random(1, max(1, B*(N-1)*D)), Random(2, D), Random(3, N*D), make([]uint32, B*N*D)},
		Abs:      1e-6, Rel: 1e-6,
	}
}
