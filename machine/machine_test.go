// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"fromage/bundle"
	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/internal/kerneltest"
	"fromage/plan"
	"fromage/shaders"
)

// counting is a device that knows the buffers it has, and has no room for more than so many.
type counting struct {
	gpu.Device
	limit int // of one binding; 0 is the device's own
	room  int // buffers
	sizes map[gpu.Buffer]int
	made  int
}

func newCounting() *counting {
	return &counting{Device: cpu.New(), room: 1 << 20, sizes: map[gpu.Buffer]int{}}
}

func (d *counting) Info() gpu.Info {
	info := d.Device.Info()
	if d.limit > 0 {
		info.Limits.MaxBinding = d.limit
	}
	return info
}

func (d *counting) NewBuffer(label string, size int) (gpu.Buffer, error) {
	if len(d.sizes) >= d.room {
		return 0, fmt.Errorf("counting: %s: %w", label, gpu.ErrMemory)
	}
	b, err := d.Device.NewBuffer(label, size)
	d.sizes[b] = size
	d.made++
	return b, err
}

func (d *counting) Free(b gpu.Buffer) error {
	delete(d.sizes, b)
	return d.Device.Free(b)
}

// held is the bytes of all buffers.
func (d *counting) held() (sum int) {
	for _, size := range d.sizes {
		sum += size
	}
	return sum
}

// stored are weights by name and by the rows of their pieces, encoded in a format.
type stored struct {
	format shaders.Format
	pieces []int
	cols   int
}

// load puts random weights onto a device and returns them as they are stored, decoded.
func load(t *testing.T, dev gpu.Device, weights map[string]stored, programs ...*plan.Program) (*Machine, map[string][][]float32) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	manifest, blobs, rows := &bundle.Manifest{}, map[string][]byte{}, map[string][][]float32{}
	blob := func(data []byte) bundle.Blob {
		name := fmt.Sprint(len(blobs))
		blobs[name] = append(data, make([]byte, (16-len(data)%16)%16)...)
		return bundle.Blob{SHA256: name, Size: int64(len(blobs[name]))}
	}
	for name, s := range weights {
		tensor, total := bundle.Tensor{Name: name, Format: s.format}, 0
		width, scaleWidth := s.format.RowBytes(s.cols), s.format.ScaleBytes(s.cols)
		for _, n := range s.pieces {
			values, scales := make([]byte, n*width), make([]byte, n*scaleWidth)
			for r := range n {
				row := make([]float32, s.cols)
				for k := range row {
					row[k] = float32(rng.NormFloat64())
				}
				v, sc := values[r*width:][:width], scales[r*scaleWidth:][:scaleWidth]
				s.format.EncodeRow(row, v, sc)
				s.format.DecodeRow(v, sc, row)
				rows[name] = append(rows[name], row)
			}
			shard := bundle.Shard{Rows: n, Values: blob(values)}
			if scaleWidth > 0 {
				b := blob(scales)
				shard.Scales = &b
			}
			tensor.Shards, total = append(tensor.Shards, shard), total+n
		}
		manifest.Tensors = append(manifest.Tensors, tensor)
		manifest.Model.Weights = append(manifest.Model.Weights, plan.WeightSpec{Name: name, Rows: total, Cols: s.cols})
	}
	manifest.Model.Programs = programs
	from := Chunks{Each: func(_ context.Context, b bundle.Blob, f func(int64, []byte) error) error {
		return f(0, blobs[b.SHA256])
	}}
	m, err := New(context.Background(), dev, manifest, from, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m, rows
}

// TestEachRow: every row comes once and in order, in every format, over the ends of pieces and of what is read at once.
func TestEachRow(t *testing.T) {
	for _, s := range []stored{
		{shaders.F32, []int{3, 1, 5}, 33}, {shaders.F16, []int{7, 2}, 24}, {shaders.Q8, []int{1, 6}, 128}, {shaders.Q4, []int{4, 4, 1}, 96},
		{shaders.F32, []int{17_001, 3}, 64}, // more than is read at once
	} {
		m, rows := load(t, cpu.New(), map[string]stored{"w": s})
		want := rows["w"]
		at := 0
		err := m.EachRow(context.Background(), "w", func(row []float32) {
			if at < len(want) && !slices.Equal(row, want[at]) {
				t.Errorf("%s: row %d = %.3v, want %.3v", s.format, at, row, want[at])
			}
			at++
		})
		if err != nil || at != len(want) {
			t.Errorf("%s: %d rows, %v, want %d", s.format, at, err, len(want))
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := m.EachRow(ctx, "w", func([]float32) {}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: EachRow after Ctrl-C = %v", s.format, err)
		}
		if err := m.EachRow(context.Background(), "none", nil); err == nil || !strings.Contains(err.Error(), "none") {
			t.Errorf("EachRow of nothing = %v", err)
		}
	}
}

func TestSetWeight(t *testing.T) {
	m, rows := load(t, cpu.New(), map[string]stored{
		"head": {shaders.F32, []int{2}, 3}, "split": {shaders.F32, []int{1, 1}, 3}, "half": {shaders.F16, []int{2}, 8}, "q8": {shaders.Q8, []int{2}, 64}, "q4": {shaders.Q4, []int{2}, 32},
	})
	read := func() []float32 {
		t.Helper()
		x, err := m.ReadWeight("head")
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	if got, want := read(), slices.Concat(rows["head"]...); !slices.Equal(got, want) {
		t.Errorf("ReadWeight = %v, want %v", got, want)
	}
	want := []float32{1, 2, 3, 4, 5, 6}
	if err := m.SetWeight("head", want); err != nil || !slices.Equal(read(), want) {
		t.Errorf("after SetWeight: %v, %v, want %v", read(), err, want)
	}
	for name, n := range map[string]int{"head": 5, "split": 6, "half": 16, "q8": 128, "q4": 64, "none": 1} {
		if err := m.SetWeight(name, make([]float32, n)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("SetWeight of %d values of %s = %v, want an error that names it", n, name, err)
		}
		if _, err := m.ReadWeight(name); name != "head" && (err == nil || !strings.Contains(err.Error(), name)) {
			t.Errorf("ReadWeight of %s = %v, want an error that names it", name, err)
		}
	}
	if !slices.Equal(read(), want) {
		t.Error("a SetWeight that failed changed the weight")
	}
}

// normal is y = x·wᵀ, z = y over its norm: x (T,64), w (32,64).
func normal(t *testing.T) *plan.Program {
	t.Helper()
	m := &plan.Model{}
	b := plan.NewBuilder(m, "normal")
	x := b.Input("x", plan.Dim{Of: plan.Tokens, N: 1}, 64)
	b.Output("z", b.Normalize(b.Linear(plan.Linear{X: x, W: []plan.ID{b.Weight(plan.WeightSpec{Name: "w", Rows: 32, Cols: 64})}})))
	if err := b.Done(); err != nil {
		t.Fatal(err)
	}
	return m.Programs[0]
}

func tokens(n int) plan.Dims { return plan.Run(n, 0, 0) }

// TestReserve: room is made for what is asked and no more, once; a run beyond it grows, and one within does not.
func TestReserve(t *testing.T) {
	dev := newCounting()
	m, _ := load(t, dev, map[string]stored{"w": {shaders.Q8, []int{16, 16}, 64}}, normal(t))
	base := dev.held()
	p, err := m.Program("normal")
	if err != nil {
		t.Fatal(err)
	}
	row := 4 * (64 + 32 + 32)
	if largest, total := p.Needs(tokens(5)); largest != 5*4*64 || total != 5*row {
		t.Errorf("Needs(5) = %d, %d, want %d, %d", largest, total, 5*4*64, 5*row)
	}
	if p.Held() != 0 {
		t.Errorf("Held = %d before anything was made", p.Held())
	}
	for _, c := range []struct {
		what      string
		do        func() error
		want, new int // tokens that there is room for, buffers made
	}{
		{"Reserve(5)", func() error { return p.Reserve(tokens(5)) }, 5, 3},
		{"Reserve(3)", func() error { return p.Reserve(tokens(3)) }, 5, 0},
		{"Run(4)", func() error { return p.Run(tokens(4), map[string][]byte{"x": make([]byte, 4*256)}) }, 5, 0},
		{"Reserve(7)", func() error { return p.Reserve(tokens(7)) }, 7, 3},
		{"Run(9)", func() error { return p.Run(tokens(9), map[string][]byte{"x": make([]byte, 9*256)}) }, 16, 3},
		{"Release", func() error { p.Release(); return nil }, 0, 0},
		{"Reserve(2)", func() error { return p.Reserve(tokens(2)) }, 2, 3},
	} {
		before := dev.made
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if held := dev.held() - base; held != c.want*row || dev.made-before != c.new || p.Held() != held {
			t.Errorf("%s: %d bytes in %d new buffers, Held %d, want %d in %d", c.what, held, dev.made-before, p.Held(), c.want*row, c.new)
		}
	}
}

// TestReserveFails: where there is no room nothing is left behind, and less can be had afterwards.
func TestReserveFails(t *testing.T) {
	dev := newCounting()
	m, _ := load(t, dev, map[string]stored{"w": {shaders.F32, []int{32}, 64}}, normal(t))
	base, have := dev.held(), len(dev.sizes)
	p, _ := m.Program("normal")
	for extra := range 3 {
		dev.room = have + extra
		for what, err := range map[string]error{"Reserve": p.Reserve(tokens(100)), "Run": p.Run(tokens(100), nil)} {
			if !errors.Is(err, gpu.ErrMemory) || dev.held() != base || p.Held() != 0 {
				t.Errorf("%s with room for %d buffers = %v, %d bytes left", what, extra, err, dev.held()-base)
			}
		}
	}
	dev.room = 1 << 20
	if err := p.Reserve(tokens(3)); err != nil || p.Held() != 3*512 {
		t.Errorf("Reserve(3) afterwards = %v, %d bytes, want %d", err, p.Held(), 3*512)
	}

	small := newCounting()
	small.limit = 10 * 256
	m, _ = load(t, small, map[string]stored{"w": {shaders.Q4, []int{32}, 64}}, normal(t))
	p, _ = m.Program("normal")
	if err := p.Reserve(tokens(11)); err == nil || !strings.Contains(err.Error(), "program normal: a run of 11 tokens") {
		t.Errorf("Reserve(11) = %v, want an error that names the program and the tokens", err)
	}
	// Ten fit, sixteen would not.
	if err := p.Run(tokens(10), map[string][]byte{"x": make([]byte, 2560)}); err != nil || p.Held() != 10*512 {
		t.Errorf("Run(10) = %v, %d bytes, want %d", err, p.Held(), 10*512)
	}
}

// TestWatch: a run that is watched computes the same, and all operations are told, in order.
func TestWatch(t *testing.T) {
	m, _ := load(t, cpu.New(), map[string]stored{"w": {shaders.F32, []int{9, 23}, 64}}, normal(t))
	p, _ := m.Program("normal")
	x := make([]float32, 3*64)
	for i := range x {
		x[i] = float32(i%7) - 2
	}
	result := func() [][]float32 {
		t.Helper()
		if err := p.Run(tokens(3), map[string][]byte{"x": Bytes(x)}); err != nil {
			t.Fatal(err)
		}
		z, err := p.Rows("z", 3, 32)
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	want := result()
	var heard []string
	m.Watch = &Watch{
		Part: func(p *plan.Program, op int) string { return p.Name + fmt.Sprint(op) },
		Took: func(_ *plan.Program, part string, ops []int, dims plan.Dims, took time.Duration) {
			heard = append(heard, fmt.Sprint(part, ops, dims[plan.Tokens], took >= 0))
		},
	}
	for i, row := range result() {
		if !slices.Equal(row, want[i]) {
			t.Errorf("row %d = %v, want %v", i, row, want[i])
		}
	}
	if want := []string{"normal0[0] 3 true", "normal1[1] 3 true"}; !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
}

// TestPast: how long a token's past is said to be changes the kernels of a GPU, and neither what they compute nor the program's buffers; scratch grows.
func TestPast(t *testing.T) {
	const heads, dim, rows = 3, 8, 40
	m := &plan.Model{}
	b := plan.NewBuilder(m, "attend")
	table, kv := b.Numbers("tokens", plan.Dim{Of: plan.Tokens, N: 1}, plan.TokenColumns), b.State("kv", 2*heads*dim)
	x := b.Input("x", plan.Dim{Of: plan.Tokens, N: 1}, 3*heads*dim)
	b.StoreRows(plan.StoreRows{X: x, Tokens: table, From: heads * dim, KV: kv})
	b.Output("y", b.Attention(plan.Attention{Q: x, KV: kv, Tokens: table, Heads: heads, Dim: dim, V: heads * dim, Scale: 0.3}))
	if err := b.Done(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	past, token := make([]float32, rows*2*heads*dim), make([]float32, 3*heads*dim)
	for _, x := range [][]float32{past, token} {
		for i := range x {
			x[i] = float32(rng.NormFloat64())
		}
	}
	kerneltest.Devices(t, func(t *testing.T, dev gpu.Device) {
		counted := newCounting()
		counted.Device = kerneltest.AsHardware(dev)
		m, _ := load(t, counted, nil, m.Programs...)
		state, err := counted.NewBuffer("kv", 4*len(past))
		if err != nil {
			t.Fatal(err)
		}
		m.States["kv"] = state
		p, _ := m.Program("attend")
		run := func(length int) ([]float32, int) {
			t.Helper()
			dims := tokens(1)
			dims[plan.Past] = length
			err := dev.Write(state, 0, Bytes(past))
			if err == nil {
				err = p.Run(dims, map[string][]byte{"x": Bytes(token), "tokens": Bytes([]uint32{0, rows - 2, 1, rows - 1})})
			}
			if err != nil {
				t.Fatal(err)
			}
			y, err := p.Rows("y", 1, heads*dim)
			if err != nil {
				t.Fatal(err)
			}
			steps, err := p.Steps(dims)
			if err != nil {
				t.Fatal(err)
			}
			return y[0], len(steps)
		}
		want, one := run(0)
		made := counted.made
		for i, length := range []int{4096, 64, 1024, 2048} {
			got, steps := run(length)
			for j := range got {
				if d := got[j] - want[j]; d > 1e-5 || d < -1e-5 {
					t.Fatalf("with a past of %d: y[%d] = %g, want %g", length, j, got[j], want[j])
				}
			}
			if more := steps - one; more != 1 && length > 64 || more != 0 && length == 64 {
				t.Errorf("with a past of %d there are %d dispatches, without one %d", length, steps, one)
			}
			if i == 0 && counted.made != made+1 || i > 0 && counted.made != made {
				t.Errorf("with a past of %d: %d new buffers", length, counted.made-made)
			}
			made = counted.made
		}
	})
}
