// SPDX-License-Identifier: Apache-2.0

package model

func opt(D, layers, ffn, heads int) OPT {
	return OPT{
		ModelType: "opt", VocabSize: 50272, HiddenSize: D, Layers: layers, FFN: ffn, MaxPositions: 2048, Heads: heads, WordEmbedProjDim: D,
		PreNorm: true, Bias: true, AffineNorm: true, TiedHead: true, Activation: "relu", BOS: 2, EOS: 2, Pad: 1,
	}
}

func clip(D, layers, heads, size, patch int) CLIP {
	return CLIP{HiddenSize: D, Intermediate: 4 * D, Layers: layers, Heads: heads, ImageSize: size, PatchSize: patch, Channels: 3, Activation: "quick_gelu", Eps: 1e-5}
}

// OPTShapes returns the configurations of the public OPT checkpoints, facebook/opt-125m … 66b, by size.
func OPTShapes() map[string]OPT {
	opts := map[string]OPT{
		"125m": opt(768, 12, 3072, 12), "350m": opt(1024, 24, 4096, 16), "1.3b": opt(2048, 24, 8192, 32), "2.7b": opt(2560, 32, 10240, 32),
		"6.7b": opt(4096, 32, 16384, 32), "13b": opt(5120, 40, 20480, 40), "30b": opt(7168, 48, 28672, 56), "66b": opt(9216, 64, 36864, 72),
	}
	small := opts["350m"]
	small.WordEmbedProjDim, small.PreNorm = 512, false
	opts["350m"] = small
	return opts
}

// CLIPShapes returns the configurations of the public CLIP vision towers: ViT-B/32, B/16, L/14 and L/14 at 336 pixels.
func CLIPShapes() map[string]CLIP {
	return map[string]CLIP{
		"b32": clip(768, 12, 12, 224, 32), "b16": clip(768, 12, 12, 224, 16),
		"l14": clip(1024, 24, 16, 224, 14), "l14-336": clip(1024, 24, 16, 336, 14),
	}
}
