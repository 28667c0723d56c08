// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"

	"fromage/gpu"
)

// LayerNorm normalises rows: x (T,D), weight (D), bias (D) → y (T,D), all f32; torch's nn.LayerNorm over the last dimension.
func LayerNorm(info gpu.Info, p LayerNormParams) Dispatch {
	v, groups := variant{file: "layer_norm"}, int(p.T)
	if info.Software && p.D%4 == 0 {
		v = variant{file: "layer_norm_software", text: layerNormSoftwareText}
		groups = ceil(groups, layerNormSoftwareWG)
	}
	k := layerNormInterface()
	if withTwins {
		twin, fast := byRows(func(p LayerNormParams) int { return int(p.T) }, layerNormRows)
		k.Twin, k.Fast = layerNormCall(twin), layerNormCall(fast)
	}
	return Dispatch{kernel(v, k), p.encode(), grid(groups)}
}

func layerNormRows(p LayerNormParams, b layerNormBuffers, first, last int) {
	D := int(p.D)
	for t := first; t < last; t++ {
		x, y := b.X[t*D:(t+1)*D], b.Y[t*D:(t+1)*D]
		mean, rstd := rowMoments(x, float64(p.Eps))
		for d, v := range x {
			y[d] = float32((float64(v)-mean)*rstd*float64(b.Weight[d]) + float64(b.Bias[d]))
		}
	}
}

// rowMoments returns the mean of a row and the inverse of its standard deviation.
func rowMoments(x []float32, eps float64) (mean, rstd float64) {
	n, variance := float64(len(x)), 0.0
	for _, v := range x {
		mean += float64(v) / n
	}
	for _, v := range x {
		variance += (float64(v) - mean) * (float64(v) - mean) / n
	}
	return mean, 1 / math.Sqrt(variance+eps)
}

func (p LayerNormParams) reach() []uint64 {
	n := words(uint64(p.T), uint64(p.D))
	return []uint64{n, uint64(p.D), uint64(p.D), n}
}

func layerNormCases() []Case {
	return []Case{LayerNormCase(LayerNormParams{T: 3, D: 65, Eps: 1e-5}), LayerNormCase(LayerNormParams{T: 11, D: 68, Eps: 1e-5})}
}

// LayerNormCase makes a case of LayerNorm with random contents.
func LayerNormCase(p LayerNormParams) Case {
	T, D := int(p.T), int(p.D)
	return Case{
		Name:     "layer_norm",
		Dispatch: func(info gpu.Info) Dispatch { return LayerNorm(info, p) },
		Buffers:  [][]uint32{Random(1, T*D), Random(2, D), Random(3, D), make([]uint32, T*D)},
		Abs:      1e-5, Rel: 1e-5,
	}
}
