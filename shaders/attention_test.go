// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestAttention(t *testing.T) {
	var cases []shaders.Case
	for _, Dh := range []uint32{1, 3, 8, 12, 20, 64, 80, 128, 131, 252, 256} {
		const heads = 2
		cases = append(cases,
			shaders.AttentionCase(shaders.F32, shaders.AttentionParams{
				Heads: heads, Dh: Dh, QStride: heads * Dh, KVStride: 2 * heads * Dh, VOffset: heads * Dh, Scale: 0.3,
			}, 1, 7, 8, 9, 127, 128, 129, 257),
			// Strides and offsets that rule vec4 loads out.
			shaders.AttentionCase(shaders.F32, shaders.AttentionParams{
				Heads: heads, Dh: Dh, QStride: heads*Dh + 1, KVStride: 2*heads*Dh + 5, KOffset: heads*Dh + 3, VOffset: 2, Scale: 0.3,
			}, 0, 13, 131),
			// Runs of tokens that share rows, over the ends of tiles and of what is read at a time.
			shaders.AttentionCausalCase(shaders.F32, shaders.AttentionParams{
				Heads: heads, Dh: Dh, QStride: 3 * heads * Dh, KVStride: 2 * heads * Dh, VOffset: heads * Dh, Scale: 0.3,
			}, 3, 1, 9, 17, 2, 67))
	}
	for _, Dh := range []uint32{4, 20, 64, 128, 256} {
		const heads = 2
		cases = append(cases,
			shaders.AttentionCase(shaders.F16, shaders.AttentionParams{
				Heads: heads, Dh: Dh, QStride: heads*Dh + 4, KVStride: 2*heads*Dh + 8, KOffset: heads*Dh + 4, VOffset: 4, Scale: 0.3,
			}, 1, 0, 9, 128, 131),
			shaders.AttentionCausalCase(shaders.F16, shaders.AttentionParams{
				Heads: heads, Dh: Dh, QStride: 3 * heads * Dh, KVStride: 2 * heads * Dh, VOffset: heads * Dh, Scale: 0.3,
			}, 3, 17, 2, 35))
	}
	// Scores of some hundreds, whose f32 are 3e-5 apart.
	steep := shaders.AttentionCase(shaders.F32, shaders.AttentionParams{Heads: 1, Dh: 64, QStride: 64, KVStride: 128, VOffset: 64, Scale: 20}, 1, 300)
	steep.Abs = 5e-4
	causal := shaders.AttentionParams{Heads: 3, Dh: 12, QStride: 108, KVStride: 72, VOffset: 36, Scale: 0.3}
	cases = append(cases, steep, shaders.AttentionCausalCase(shaders.F32, causal, 1), shaders.AttentionCausalCase(shaders.F32, causal, 70), shaders.AttentionCausalCase(shaders.F32, causal, 3, 1, 9, 17, 2),
		// Many heads and tokens, as in a vision tower.
		shaders.AttentionCase(shaders.F32, shaders.AttentionParams{Heads: 17, Dh: 8, QStride: 136, KVStride: 272, VOffset: 136, Scale: 0.35}, 50, 50, 50, 50, 50))
	kerneltest.Run(t, cases)
}

func TestAttentionTwin(t *testing.T) {
	const ln3 = 1.0986123
	d := shaders.Attention(gpu.Info{}, shaders.F32, shaders.AttentionParams{T: 2, Heads: 2, Dh: 1, QStride: 2, KVStride: 4, VOffset: 2, Scale: 2})
	// Row 0 belongs to nobody. Head 0 of token 0 scores 0 and ln 3, so its weights are ¼ and ¾; head 1 scores twice the same; token 1 has no rows.
	q, kv := words(0.5, 0, 7, 7), words(9, 9, 9, 9, 0, 5, 10, 30, ln3, 6, 20, 50)
	twin(t, d, 3, []float32{17.5, 40, 0, 0}, q, kv, []uint32{0, 1, 1, 2, 0, 0, 1, 0}, words(9, 9, 9, 9))
}

// TestAttentionKept: over f16, twins and fast forms give what they give over the same numbers in f32.
func TestAttentionKept(t *testing.T) {
	p := shaders.AttentionParams{Heads: 3, Dh: 12, QStride: 40, KVStride: 84, KOffset: 40, VOffset: 4, Scale: 0.3}
	c := shaders.AttentionCase(shaders.F16, p, 4, 0, 31)
	p.T = 3
	wide := make([]float32, 2*len(c.Buffers[1]))
	raw := make([]byte, 0, 2*len(wide))
	for _, w := range c.Buffers[1] {
		raw = append(raw, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
	}
	shaders.F16.DecodeRow(raw, nil, wide)
	half, whole := shaders.Attention(gpu.Info{}, shaders.F16, p), shaders.Attention(gpu.Info{}, shaders.F32, p)
	want, got, fast := make([]uint32, 3*36), make([]uint32, 3*36), make([]uint32, 3*36)
	whole.Kernel.Twin(gpu.Call{Params: whole.Params, Buffers: [][]uint32{c.Buffers[0], words(wide...), c.Buffers[2], want}})
	half.Kernel.Twin(gpu.Call{Params: half.Params, Buffers: [][]uint32{c.Buffers[0], c.Buffers[1], c.Buffers[2], got}})
	half.Kernel.Fast(gpu.Call{Params: half.Params, Buffers: [][]uint32{c.Buffers[0], c.Buffers[1], c.Buffers[2], fast}})
	near(t, "twin over f16", got, want)
	near(t, "fast form over f16", fast, want)
	for i, w := range whole.Kernel.Reach(whole.Params) {
		if h := half.Kernel.Reach(half.Params)[i]; i == 1 && h != w/2 || i != 1 && h != w {
			t.Errorf("binding %d: %d words over f16, %d over f32", i, h, w)
		}
	}
	for name, f := range map[string]func(){
		"3 columns a head": func() {
			shaders.Attention(gpu.Info{}, shaders.F16, shaders.AttentionParams{T: 1, Heads: 4, Dh: 3, QStride: 12, KVStride: 24, VOffset: 12})
		},
		"q8": func() { shaders.Attention(gpu.Info{}, shaders.Q8, p) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: want a panic", name)
				}
			}()
			f()
		}()
	}
}

// TestAttentionOneBuffer binds one buffer as q and kv, as a vision tower does.
func TestAttentionOneBuffer(t *testing.T) {
	const T, heads, Dh = 37, 2, 36
	p := shaders.AttentionParams{T: T, Heads: heads, Dh: Dh, QStride: 3 * heads * Dh, KVStride: 3 * heads * Dh, KOffset: heads * Dh, VOffset: 2 * heads * Dh, Scale: 0.5}
	x := shaders.Random(1, T*3*heads*Dh)
	var tokens []uint32
	for i := range uint32(T) {
		tokens = append(tokens, 0, i, 0, T)
	}
	kerneltest.Devices(t, func(t *testing.T, dev gpu.Device) {
		for _, software := range []bool{false, true} {
			info := dev.Info()
			info.Software = software
			d := shaders.Attention(info, shaders.F32, p)
			want := make([]uint32, T*heads*Dh)
			d.Kernel.Twin(gpu.Call{Params: d.Params, Buffers: [][]uint32{x, x, tokens, want}})
			qkv, table, y := upload(t, dev, x), upload(t, dev, tokens), upload(t, dev, make([]uint32, len(want)))
			dispatch(t, dev, d, qkv, qkv, table, y)
			near(t, d.Kernel.Name, download(t, dev, y, len(want)), want)
		}
	})
}

// BenchmarkAttention runs a layer of OPT-125m on one token after 511 others and on a prompt, and a layer of ViT-B/32.
func BenchmarkAttention(b *testing.B) {
	p := shaders.AttentionParams{Heads: 12, Dh: 64, QStride: 768, KVStride: 1536, VOffset: 768, Scale: 0.125}
	prompt, image := make([]int, 64), make([]int, 50)
	for i := range prompt {
		prompt[i] = i + 1
	}
	for i := range image {
		image[i] = 50
	}
	for _, shape := range []struct {
		name   string
		counts []int
		kept   shaders.Format
	}{
		{"decode", []int{512}, shaders.F32}, {"decode-f16", []int{512}, shaders.F16}, {"prompt", prompt, shaders.F32}, {"prompt-f16", prompt, shaders.F16}, {"image", image, shaders.F32},
	} {
		rows := 0.0
		for _, n := range shape.counts {
			rows += float64(n)
		}
		kerneltest.Bench(b, shape.name, shaders.AttentionCase(shape.kept, p, shape.counts...), 4*768*rows, float64(shape.kept.RowBytes(1536))*rows)
	}
}
