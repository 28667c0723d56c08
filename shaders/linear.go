// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"

	"fromage/gpu"
	"fromage/internal/simd"
)

// What a linear layer applies to its sums: LinearParams.Act.
const (
	ActNone      uint32 = iota
	ActReLU             // max(v, 0)
	ActQuickGELU        // v·sigmoid(1.702·v), CLIP's
	ActGELU             // v·Φ(v), by the error function
)

// Linear is torch's nn.Linear over one shard of its features, with what commonly follows it:
// x (T,K) f32, w (F,K) in format, bias (Stride) f32, residual (T,Stride) f32 → columns F0 to F0+F of y (T,Stride) f32,
//
//	y[t, F0+f] = act(Σ_k x[t,k]·w[f,k] + bias[F0+f]) + residual[t, F0+f].
//
// The format must fit K. Bias and residual are read only where p.Bias and p.Residual are 1; x and residual may be one buffer, y is another.
func Linear(info gpu.Info, format Format, p LinearParams) Dispatch {
	v, groups := linearVariant(info, format, p)
	rule := Dispatch{kernel(v, linearBase(format)), p.encode(), grid(groups)}
	if !withChoices {
		return rule
	}
	return choose(info, func() string { return linearClass(format, p) }, func() []Dispatch { return LinearForms(info, format, p) }, rule)
}

// linearBase is what all kernels of Linear in a format have in common.
func linearBase(format Format) gpu.Kernel {
	k := linearInterface()
	if withReach {
		k.Reach = func(b []byte) []uint64 { return decodeLinearParams(b).reachIn(format) }
	}
	if withTwins {
		k.Twin = linearCall(func(p LinearParams, b linearBuffers) { linearTwin(format, p, b) })
		k.Fast = linearCall(func(p LinearParams, b linearBuffers) { linearFast(format, p, b) })
	}
	return k
}

// linearVariant chooses the text and the number of workgroups.
func linearVariant(info gpu.Info, format Format, p LinearParams) (variant, int) {
	T, F := int(p.T), int(p.F)
	if p.K%4 != 0 || info.Software && p.K%16 != 0 {
		return variant{file: "linear", imports: format.imports()}, ceil(T*F, linearWG)
	}
	if info.Software {
		return linearBlock(info, format, T, int(p.K), F)
	}
	if T <= linearFew {
		return linearRow(info, format, T, F)
	}
	if n := ceil(T, linearTileSIDE) * ceil(F, linearTileSIDE); T > linearTile64SIDE && n >= linearFill {
		return variant{file: "linear_tile", text: linearTileText, imports: format.imports()}, n
	}
	return variant{file: "linear_tile64", text: linearTile64Text, imports: format.imports()}, ceil(T, linearTile64SIDE) * ceil(F, linearTile64SIDE)
}

const (
	// linearFew is how many tokens are still faster as several matrix-vector products than as one nearly empty tile.
	linearFew = 16
	// linearFill is how many large tiles occupy a device better than four times as many small ones.
	linearFill = 48
)

// linearBlock chooses among the texts for devices on which a CPU does the work.
func linearBlock(info gpu.Info, format Format, T, K, F int) (variant, int) {
	tokens := 8
	switch {
	case T == 1:
		tokens = 1
	case T <= 4:
		tokens = 4
	}
	return linearBlockOf(format, T, F, tokens, linearNear(info, K))
}

// linearBlockOf is the text for so many tokens of an invocation, in which so many lanes share what they read of x; 0 if none do.
func linearBlockOf(format Format, T, F, tokens, near int) (variant, int) {
	v := variant{file: "linear_block", text: linearBlockText, imports: format.imports(), consts: map[string]int{"TOKENS": tokens}}
	v.imports["linear_four"] = "linear_four_" + format.String()
	v.imports["linear_near"] = "linear_near_alone"
	if near > 0 {
		v.imports["linear_near"] = "linear_near_subgroup"
		v.consts["FOURS"] = near / 4
	}
	return v, ceil(T, tokens) * ceil(F, 4*linearBlockWG)
}

// linearNear is how many lanes of linear_block can share what they read of x, 0 if none can.
func linearNear(info gpu.Info, K int) int {
	if near := sharedLanes(info); near > 0 && K%(4*near) == 0 {
		return near
	}
	return 0
}

// sharedLanes is the size of all subgroups on a device where it is that of a CPU's vectors, else 0.
func sharedLanes(info gpu.Info) int {
	if f := info.Features; f.Subgroups && f.SubgroupMin == f.SubgroupMax && (f.SubgroupMin == 4 || f.SubgroupMin == 8) {
		return f.SubgroupMin
	}
	return 0
}

// linearRow chooses among the matrix-vector texts: fewer features a workgroup where there are few, so that a device has enough workgroups.
func linearRow(info gpu.Info, format Format, T, F int) (variant, int) {
	tokens := 8
	switch {
	case T == 1:
		tokens = 1
	case T <= 4:
		tokens = 4
	}
	v, rows := linearLanes(info, format, F, "linear_row", linearRowText)
	v.consts["TOKENS"] = tokens
	return v, ceil(F, rows) * ceil(T, tokens)
}

// linearLanes is what matrix-vector texts have in common: the features of a workgroup, and how lanes read a row and add up.
func linearLanes(info gpu.Info, format Format, F int, file, text string) (v variant, rows int) {
	rows = 4
	switch {
	case F < 2048:
		rows = 1
	case F < 8192:
		rows = 2
	}
	v = variant{file: file, text: text, imports: format.imports(), consts: map[string]int{"ROWS": rows}}
	v.imports["linear_chunk"] = "linear_chunk_" + format.String()
	f := info.Features
	switch {
	case !f.Subgroups:
		v.imports["linear_sum"] = "linear_sum_group"
	case f.SubgroupMin == f.SubgroupMax && f.SubgroupMin >= 8 && f.SubgroupMin <= 64:
		v.imports["linear_sum"] = "linear_sum_subgroup"
		v.consts["WG"] = f.SubgroupMin
	default:
		v.imports["linear_sum"] = "linear_sum_subgroups"
	}
	return v, rows
}

// linearVariants is a dispatch of each variant that the rules choose on a device.
func linearVariants(info gpu.Info) []Dispatch {
	var all []Dispatch
	for f := range Format(len(formatNames)) {
		for _, T := range []uint32{1, 2, linearFew, linearFew + 1, 4096} {
			for _, F := range []uint32{1, 2048, 8192} {
				all = append(all, Linear(info, f, LinearParams{T: T, K: 64, F: F, Stride: F}))
			}
		}
	}
	return all
}

// linearTwin decodes each row of w once and takes its products with all tokens in float64, the rows shared out among goroutines.
func linearTwin(format Format, p LinearParams, b linearBuffers) {
	T, K := int(p.T), int(p.K)
	x := make([]float64, T*K)
	for i := range x {
		x[i] = float64(b.X[i])
	}
	parallel(int(p.F), func(first, last int) { linearRows(format, p, b, x, first, last) })
}

// linearRows computes features first to last−1 for all tokens, four at a time; beyond the last, rows of an earlier turn are computed again.
func linearRows(format Format, p LinearParams, b linearBuffers, x []float64, first, last int) {
	T, K := int(p.T), int(p.K)
	w := make([]float32, 4*K)
	var wide []float64
	if T > 1 {
		wide = make([]float64, 4*K)
	}
	var sums [4]float64
	for f := first; f < last; f += 4 {
		n := min(4, last-f)
		for j := range n {
			format.decodeRow(b.W, b.S, f+j, w[j*K:(j+1)*K])
		}
		for i := range wide {
			wide[i] = float64(w[i])
		}
		for t := range T {
			if T > 1 {
				sums = dot4(x[t*K:(t+1)*K], wide)
			} else {
				sums = dot4(x, w)
			}
			for j := range n {
				linearStore(p, b, t, f+j, sums[j])
			}
		}
	}
}

// dot4 returns the products of x (K) with the four rows of w (4,K). Widening w beforehand is worth it where it meets several x.
func dot4[W float32 | float64](x []float64, w []W) [4]float64 {
	K := len(x)
	w0, w1, w2, w3 := w[:K], w[K:][:K], w[2*K:][:K], w[3*K:][:K]
	var s0, s1, s2, s3 float64
	for k, v := range x {
		s0 += v * float64(w0[k])
		s1 += v * float64(w1[k])
		s2 += v * float64(w2[k])
		s3 += v * float64(w3[k])
	}
	return [4]float64{s0, s1, s2, s3}
}

func linearStore(p LinearParams, b linearBuffers, t, f int, v float64) {
	if p.Bias == 1 {
		v += float64(b.Bias[int(p.F0)+f])
	}
	v = activate(p.Act, v)
	i := t*int(p.Stride) + int(p.F0) + f
	if p.Residual == 1 {
		v += float64(b.Residual[i])
	}
	b.Y[i] = float32(v)
}

func (p LinearParams) reachIn(f Format) []uint64 {
	if !f.Fits(int(p.K)) {
		return nil
	}
	end := uint64(p.F0) + uint64(p.F)
	y := words(uint64(p.T), max(uint64(p.Stride), end))
	w, s := f.words(p.F, p.K)
	return []uint64{words(uint64(p.T), uint64(p.K)), w, s, where(p.Bias, end), where(p.Residual, y), y}
}

// activate is what an activation makes of v.
func activate(act uint32, v float64) float64 {
	switch act {
	case ActReLU:
		return max(v, 0)
	case ActQuickGELU:
		return v / (1 + math.Exp(-1.702*v))
	case ActGELU:
		return v * 0.5 * math.Erfc(-v/math.Sqrt2)
	}
	return v
}

// linearDots is how many tokens are still faster as several matrix-vector products than as one nearly empty product of matrices.
const linearDots = 4

// linearFast computes in f32, like a GPU.
func linearFast(format Format, p LinearParams, b linearBuffers) {
	T, K, F := int(p.T), int(p.K), int(p.F)
	if T > linearDots {
		product{
			M: T, N: F, K: K,
			a:     operand{deep: true, row: func(t, first, last int, dst []float32) { copy(dst, b.X[t*K+first:t*K+last]) }},
			b:     operand{deep: true, row: func(f, first, last int, dst []float32) { format.decodePart(b.W, b.S, K, f, first, last, dst) }},
			store: func(t, f int, c []float32) { linearFinish(p, b, t, f, c) },
		}.run()
		return
	}
	parallel(F, func(first, last int) {
		row, sums := make([]float32, K), make([]float32, T*(last-first))
		for f := first; f < last; f++ {
			if format == F32 {
				row = floats(b.W)[f*K : (f+1)*K]
			} else {
				format.decodePart(b.W, b.S, K, f, 0, K, row)
			}
			for t := range T {
				simd.Dots(sums[t*(last-first)+f-first:][:1], b.X[t*K:(t+1)*K], row, K)
			}
		}
		for t := range T {
			linearFinish(p, b, t, first, sums[t*(last-first):][:last-first])
		}
	})
}

// linearFinish takes the sums c of token t for features from f on to y, with bias, activation and residual.
func linearFinish(p LinearParams, b linearBuffers, t, f int, c []float32) {
	at := int(p.F0) + f
	if p.Bias == 1 {
		for i, v := range b.Bias[at : at+len(c)] {
			c[i] += v
		}
	}
	y := b.Y[t*int(p.Stride)+at:][:len(c)]
	switch p.Act {
	case ActReLU:
		for i, v := range c {
			c[i] = max(v, 0)
		}
	case ActQuickGELU:
		simd.Exp(y, c, -1.702, 0)
		for i, v := range c {
			c[i] = v / (1 + y[i])
		}
	case ActGELU:
		for i, v := range c {
			c[i] = float32(activate(p.Act, float64(v)))
		}
	}
	if p.Residual == 1 {
		for i, v := range b.Residual[t*int(p.Stride)+at:][:len(c)] {
			c[i] += v
		}
	}
	copy(y, c)
}

func linearCases() []Case {
	var cases []Case
	for f, K := range [...][2]uint32{F32: {52, 80}, F16: {104, 144}, Q8: {128, 192}, Q4: {96, 160}} {
		for i, size := range []LinearParams{{T: 1, F: 7}, {T: 3, F: 2050}, {T: 6, F: 8195}, {T: 17, F: 70}, {T: 129, F: 3073}} {
			size.K, size.F0, size.Stride, size.Act, size.Bias, size.Residual = K[i%2], 3, size.F+5, uint32(i)%4, uint32(i)%2, uint32(i+1)/2%2
			cases = append(cases, LinearCase(Format(f), size))
		}
	}
	return append(cases, LinearCase(F32, LinearParams{T: 5, K: 7, F: 33, Stride: 33, Act: ActGELU, Bias: 1, Residual: 1}))
}

// LinearCase makes a case of Linear with random contents; x and the weights are scaled so that sums are about 1.
func LinearCase(f Format, p LinearParams) Case {
	T, K, F, n := int(p.T), int(p.K), int(p.F), int(p.T*p.Stride)
	x := floats(Random(1, T*K))
	for i := range x {
		x[i] /= float32(math.Sqrt(float64(K)))
	}
	w, s := RandomWeight(2, f, F, K)
	bias, residual := make([]uint32, 4), make([]uint32, 4)
	if p.Bias == 1 {
		bias = Random(3, int(p.Stride))
	}
	if p.Residual == 1 {
		residual = Random(4, n)
	}
	return Case{
		Name:     "linear",
		Dispatch: func(info gpu.Info) Dispatch { return Linear(info, f, p) },
		Buffers:  [][]uint32{wordsOf(x), w, s, bias, residual, Random(5, n)},
		Abs:      2e-5, Rel: 2e-5,
	}
}
