// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"fmt"
	"math"
	"math/rand/v2"

	"fromage/gpu"
)

// Case is one comparison of a kernel with its twin on made-up numbers: what `fromage doctor` runs on a user's device, and the tests on every device.
type Case struct {
	Name     string
	Dispatch func(gpu.Info) Dispatch
	Buffers  [][]uint32 // contents before the run, in binding order
	Abs, Rel float64    // a word passes where |got − want| ≤ Abs + Rel·|want|; both zero compares words exactly
	F16      int        // the binding whose words are two f16 each; 0 for none
}

// Mismatch is the worst word of a comparison that failed.
type Mismatch struct {
	Kernel    string
	Binding   string
	Index     int
	Got, Want float64
	Count     int // words out of tolerance
	Of        int // words compared
}

func (m *Mismatch) Error() string {
	return fmt.Sprintf("shaders: kernel %s: %s[%d]: want %g, have %g; %d of %d values are out of tolerance", m.Kernel, m.Binding, m.Index, m.Want, m.Got, m.Count, m.Of)
}

// Run runs the case's variant for info on dev and compares every written buffer with what the twin makes of the same contents.
// info is dev.Info() or that with features taken away. It returns a *Mismatch where they differ, and the kernel's name in any case.
func (c Case) Run(dev gpu.Device, info gpu.Info) (kernel string, err error) {
	d := c.Dispatch(info)
	got, err := c.onDevice(dev, d)
	if err != nil {
		return d.Kernel.Name, fmt.Errorf("shaders: case %s: kernel %s: %w", c.Name, d.Kernel.Name, err)
	}
	want := make([][]uint32, len(c.Buffers))
	for i, b := range c.Buffers {
		want[i] = append([]uint32(nil), b...)
	}
	d.Kernel.Twin(gpu.Call{Groups: [3]uint32{uint32(d.Groups[0]), uint32(d.Groups[1]), uint32(d.Groups[2])}, Params: d.Params, Buffers: want})
	for i, access := range d.Kernel.Bindings {
		if access != gpu.ReadWrite {
			continue
		}
		g, w := got[i], want[i]
		if c.F16 == i && i > 0 {
			g, w = widened(g), widened(w)
		}
		if m := c.compare(g, w); m != nil {
			m.Kernel, m.Binding = d.Kernel.Name, d.Kernel.Labels[i]
			return d.Kernel.Name, m
		}
	}
	return d.Kernel.Name, nil
}

// widened returns pairs of f16 as f32, a word each.
func widened(pairs []uint32) []uint32 {
	x := make([]float32, 2*len(pairs))
	F16.decodeRow(pairs, nil, 0, x)
	return wordsOf(x)
}

func (c Case) onDevice(dev gpu.Device, d Dispatch) ([][]uint32, error) {
	p, err := dev.Compile(d.Kernel)
	if err != nil {
		return nil, err
	}
	var list gpu.List
	buffers := make([]gpu.Buffer, len(c.Buffers))
	for i, words := range c.Buffers {
		// Padded to 16 bytes, as every buffer that a kernel may see as vec4.
		b, err := dev.NewBuffer(d.Kernel.Labels[i], max(16, ceil(4*len(words), 16)*16))
		if err != nil {
			return nil, err
		}
		defer dev.Free(b)
		if len(words) > 0 {
			if err := dev.Write(b, 0, bytesOf(words)); err != nil {
				return nil, err
			}
		}
		buffers[i] = b
	}
	list.Dispatch(p, d.Groups, d.Params, buffers...)
	if err := dev.Submit(&list); err != nil {
		return nil, err
	}
	got := make([][]uint32, len(c.Buffers))
	for i, access := range d.Kernel.Bindings {
		if access != gpu.ReadWrite {
			continue
		}
		got[i] = make([]uint32, len(c.Buffers[i]))
		if err := dev.Read(buffers[i], 0, bytesOf(got[i])); err != nil {
			return nil, err
		}
	}
	return got, nil
}

func (c Case) compare(got, want []uint32) *Mismatch {
	m := &Mismatch{Of: len(want)}
	worst := 0.0
	for i := range want {
		if got[i] == want[i] {
			continue
		}
		excess := math.Inf(1)
		g, w := float64(math.Float32frombits(got[i])), float64(math.Float32frombits(want[i]))
		if c.Abs+c.Rel > 0 {
			excess = math.Abs(g-w) - c.Abs - c.Rel*math.Abs(w)
			if excess <= 0 {
				continue
			}
			if math.IsNaN(excess) {
				excess = math.Inf(1)
			}
		} else {
			g, w = float64(got[i]), float64(want[i])
		}
		m.Count++
		if excess > worst {
			worst, m.Index, m.Got, m.Want = excess, i, g, w
		}
	}
	if m.Count == 0 {
		return nil
	}
	return m
}

// Cases returns small comparisons that together run every kernel and every variant that info allows.
func Cases() []Case {
	var all []Case
	for _, f := range []func() []Case{
		embedCases, layerNormCases, linearCases, linearNormCases, attentionCases, attentionStepCases, attentionPartCases, attentionMergeCases, storeRowsCases, gatherRowsCases, patchesCases, visionEmbedCases, normalizeCases, addCases,
		nllCases, topKCases, nextTokenCases,
		scatterRowsCases, copyRowsCases, embedBackCases, normalizeBackCases,
		crossEntropyCases, similaritiesCases, contrastCases, contrastBackCases, sumCases,
		squareSumsCases, adamWCases, rescaleRowCases,
		linearBackCases, linearWeightBackCases, layerNormBackCases, attentionBackQueryCases, attentionBackRowsCases, actBackCases, narrowCases, widenCases,
	} {
		all = append(all, f()...)
	}
	return all
}

// Random makes n f32 values, normally distributed, always the same for one seed; as words.
func Random(seed uint64, n int) []uint32 {
	r := rand.New(rand.NewPCG(seed, 0))
	words := make([]uint32, n)
	for i := range words {
		words[i] = math.Float32bits(float32(r.NormFloat64()))
	}
	return words
}

// random is Random in format f, which is F32 or F16.
func (f Format) random(seed uint64, n int) []uint32 {
	if f == F32 {
		return Random(seed, n)
	}
	words := make([]uint32, ceil(n, 2))
	F16.EncodeRow(floats(Random(seed, n)), bytesOf(words), nil)
	return words
}

// RandomWeight makes a (rows, K) weight matrix of random values in format f: its values and scales as the kernels see them.
func RandomWeight(seed uint64, f Format, rows, K int) (values, scales []uint32) {
	values, scales = make([]uint32, ceil(rows*f.RowBytes(K), 16)*4), make([]uint32, ceil(rows*f.ScaleBytes(K), 16)*4)
	x := floats(Random(seed, rows*K))
	n, m := f.RowBytes(K), f.ScaleBytes(K)
	for r := range rows {
		f.EncodeRow(x[r*K:(r+1)*K], bytesOf(values)[r*n:(r+1)*n], bytesOf(scales)[r*m:(r+1)*m])
	}
	return values, scales
}
