// SPDX-License-Identifier: Apache-2.0

// Package bench measures a device and a model on it: copy bandwidth, kernels, decoding, prefill, pictures.
//
// What enters is an open device and a loaded runner; what leaves is numbers, with the device's copy bandwidth beside them, since only ratios taken in
// one run can be compared. The package judges nothing.
package bench

import (
	"context"
	"fmt"
	"time"

	"fromage/gpu"
	"fromage/runner"
	"fromage/shaders"
)

// Copy is the device's memory bandwidth in GB/s, bytes read plus bytes written, over copies of size bytes.
func Copy(dev gpu.Device, size int) (gbps float64, err error) {
	size = min(size, dev.Info().Limits.MaxBinding) / 16 * 16
	a, err := dev.NewBuffer("copy source", size)
	if err != nil {
		return 0, err
	}
	defer dev.Free(a)
	b, err := dev.NewBuffer("copy target", size)
	if err != nil {
		return 0, err
	}
	defer dev.Free(b)
	var list gpu.List
	list.Copy(b, 0, a, 0, size)
	s, err := repeat(dev, &list)
	return 2 * float64(size) / s / 1e9, err
}

// budget is how long one measurement runs, after shorter ones that are not counted; tests make it short.
var budget = 300 * time.Millisecond

// repeat returns the seconds that one submit of list takes, over enough of them to fill the budget.
func repeat(dev gpu.Device, list *gpu.List) (seconds float64, err error) {
	n, took := 1, time.Duration(0)
	for {
		start := time.Now()
		for range n {
			if err := dev.Submit(list); err != nil {
				return 0, err
			}
		}
		if err := dev.Wait(); err != nil {
			return 0, err
		}
		if took = time.Since(start); took >= budget || n >= 1<<14 {
			return took.Seconds() / float64(n), nil
		}
		n = max(2*n, min(1<<14, int(float64(n)*1.2*float64(budget)/float64(took+1))))
	}
}

// Kernel is the speed of one kernel at one size.
type Kernel struct {
	Kernel string  `json:"kernel"`
	Shape  string  `json:"shape"`
	Micros float64 `json:"us"`
	GBps   float64 `json:"gb_per_s"`    // bytes that have to be read and written, per second
	TFLOPs float64 `json:"tflop_per_s"` // 0 where arithmetic is not what counts
	Share  float64 `json:"copy_share"`  // GBps as a part of the copy bandwidth
}

// Shape is the widths that kernels are measured at.
type Shape struct{ Hidden, FFN, Heads int }

// Kernels measures the kernels that a token, a prompt and a search spend their time in.
func Kernels(ctx context.Context, dev gpu.Device, s Shape, formats []shaders.Format, copyGBps float64) ([]Kernel, error) {
	info := dev.Info()
	var all []Kernel
	add := func(name string, d shaders.Dispatch, bytes, flops float64, sizes ...int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		k, err := measure(dev, d, sizes)
		if err != nil {
			return fmt.Errorf("bench: %s %s: %w", d.Kernel.Name, name, err)
		}
		k.Shape = name
		k.GBps, k.TFLOPs = bytes/k.Micros/1e3, flops/k.Micros/1e6
		k.Share = k.GBps / copyGBps
		all = append(all, k)
		return nil
	}
	for _, f := range formats {
		if !f.Fits(s.Hidden) {
			continue
		}
		for _, T := range []int{1, 4, 64, 512} {
			d := shaders.Linear(info, f, shaders.LinearParams{T: uint32(T), K: uint32(s.Hidden), F: uint32(s.FFN), Stride: uint32(s.FFN)})
			w, sc := s.FFN*f.RowBytes(s.Hidden), s.FFN*f.ScaleBytes(s.Hidden)
			x, y := 4*T*s.Hidden, 4*T*s.FFN
			err := add(fmt.Sprintf("T=%d %d→%d %s", T, s.Hidden, s.FFN, f), d, float64(w+sc+x+y), 2*float64(T)*float64(s.Hidden)*float64(s.FFN), x, w, sc, 16, 16, y)
			if err != nil {
				return nil, err
			}
		}
	}
	D, dh := s.Hidden, s.Hidden/s.Heads
	for _, c := range []struct{ T, count int }{{1, 64}, {1, 512}, {64, 64}} {
		d := shaders.Attention(info, shaders.AttentionParams{T: uint32(c.T), Heads: uint32(s.Heads), Dh: uint32(dh), QStride: uint32(3 * D), KVStride: uint32(2 * D), VOffset: uint32(D), Scale: 1})
		err := add(fmt.Sprintf("T=%d over %d rows, %d heads of %d", c.T, c.count, s.Heads, dh), d, float64(8*D*c.count), 4*float64(c.T*c.count*D), 12*D*c.T, 8*D*c.count, -c.count*c.T, 4*D*c.T)
		if err != nil {
			return nil, err
		}
	}
	for _, T := range []int{1, 64} {
		d := shaders.LayerNorm(info, shaders.LayerNormParams{T: uint32(T), D: uint32(D), Eps: 1e-5})
		if err := add(fmt.Sprintf("T=%d %d", T, D), d, float64(8*T*D), 0, 4*T*D, 4*D, 4*D, 4*T*D); err != nil {
			return nil, err
		}
	}
	const n = 1 << 16
	p := shaders.TopKPasses(n, 10)[0]
	err := add(fmt.Sprintf("10 of %d", n), shaders.TopK(info, p), 4*n, 0, 4*n, 16, 4*p.Results(), 4*p.Results())
	return all, err
}

// measure runs one dispatch over fresh buffers of the given sizes in bytes. A size below zero stands for a token table of as many attended rows, T
// tokens that share them.
func measure(dev gpu.Device, d shaders.Dispatch, sizes []int) (Kernel, error) {
	p, err := dev.Compile(d.Kernel)
	if err != nil {
		return Kernel{}, err
	}
	buffers := make([]gpu.Buffer, len(sizes))
	for i, size := range sizes {
		var table []byte
		if size < 0 {
			table = tokenTable(-size, d)
			size = len(table)
		}
		if buffers[i], err = dev.NewBuffer(d.Kernel.Labels[i], max(16, (size+15)/16*16)); err != nil {
			return Kernel{}, err
		}
		defer dev.Free(buffers[i])
		if table != nil {
			if err := dev.Write(buffers[i], 0, table); err != nil {
				return Kernel{}, err
			}
		}
	}
	var list gpu.List
	list.Dispatch(p, d.Groups, d.Params, buffers...)
	s, err := repeat(dev, &list)
	return Kernel{Kernel: d.Kernel.Name, Micros: s * 1e6}, err
}

// tokenTable is T tokens that attend to count rows each, for T·count = total.
func tokenTable(total int, d shaders.Dispatch) []byte {
	T := int(d.Params[0]) | int(d.Params[1])<<8
	table := make([]byte, 16*T)
	for t := range T {
		count := total / T
		table[16*t+12], table[16*t+13] = byte(count), byte(count>>8)
	}
	return table
}

// Model is the speed of a whole model.
type Model struct {
	Dispatches  int     `json:"dispatches_per_token"`
	WeightBytes int64   `json:"weight_bytes_per_token"` // stored bytes that decoding a token reads
	Decode      float64 `json:"decode_tok_per_s"`
	DecodeGBps  float64 `json:"decode_gb_per_s"` // WeightBytes per second of decoding
	CopyShare   float64 `json:"copy_share"`      // DecodeGBps as a part of the copy bandwidth
	PrefillLen  int     `json:"prefill_tokens"`
	Prefill     float64 `json:"prefill_tok_per_s"`
	FirstMS     float64 `json:"first_token_ms"` // from a prompt of PrefillLen tokens to the first token
	Images      float64 `json:"images_per_s"`   // 0 where the model has no vision tower
}

// Of measures a loaded model; tokens is how many it decodes.
func Of(ctx context.Context, r *runner.Runner, tokens int, copyGBps float64) (*Model, error) {
	m := &Model{WeightBytes: r.LMBytes()}
	var err error
	if m.Dispatches, err = r.Dispatches(); err != nil {
		return nil, err
	}
	limit := r.Settings().MaxPositions
	m.PrefillLen = min(512, limit/2)
	tokens = min(tokens, limit-m.PrefillLen)
	// run reads a prompt of n tokens and one word, then continues by more words, and times both.
	run := func(n, more int) (first, rest time.Duration, err error) {
		s := r.NewSequence()
		defer s.Close()
		for i := range n {
			s.AppendTokens(runner.Token{ID: 4 + i%200})
		}
		start := time.Now()
		if err := s.Continue(ctx, 1); err != nil {
			return 0, 0, err
		}
		first = time.Since(start)
		err = s.Continue(ctx, more)
		return first, time.Since(start) - first, err
	}
	for range 2 { // the first compiles kernels
		first, _, err := run(m.PrefillLen, 0)
		if err != nil {
			return nil, err
		}
		m.FirstMS = first.Seconds() * 1e3
		m.Prefill = float64(m.PrefillLen) / first.Seconds()
	}
	if _, _, err := run(8, 1); err != nil {
		return nil, err
	}
	_, rest, err := run(8, tokens)
	if err != nil {
		return nil, err
	}
	m.Decode = float64(tokens) / rest.Seconds()
	m.DecodeGBps = m.Decode * float64(m.WeightBytes) / 1e9
	m.CopyShare = m.DecodeGBps / copyGBps
	return m, m.images(ctx, r)
}

func (m *Model) images(ctx context.Context, r *runner.Runner) error {
	s := r.Settings()
	if s.ImageSize == 0 || s.SharedDim == 0 {
		return nil
	}
	const n = 16
	pixels := make([][]float32, n)
	for i := range pixels {
		pixels[i] = make([]float32, 3*s.ImageSize*s.ImageSize)
	}
	for range 2 {
		start := time.Now()
		if _, err := r.Embed(ctx, pixels, nil); err != nil {
			return err
		}
		m.Images = n / time.Since(start).Seconds()
	}
	return nil
}
