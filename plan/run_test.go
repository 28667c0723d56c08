// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/plan"
)

// contents are the words of a program's inputs, weights and states, by name.
type contents map[string][]uint32

// run runs a program on the Go twins, every value in a buffer of its own, and returns what all that have names hold afterwards. Weights of three rows or
// more are stored in two pieces.
func run(t testing.TB, p *plan.Program, dims plan.Dims, in contents, outputs ...string) map[string][]float32 {
	t.Helper()
	dev := cpu.New()
	defer dev.Close()
	layouts, buffers := map[string]plan.Layout{}, map[plan.Ref]gpu.Buffer{}
	buffer := func(ref plan.Ref, size int, words []uint32) {
		b, err := dev.NewBuffer("", max(16, (size+15)/16*16))
		if err == nil && len(words) > 0 {
			err = dev.Write(b, 0, unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 4*len(words)))
		}
		if err != nil {
			t.Fatal(err)
		}
		buffers[ref] = b
	}
	buffer(plan.Ref{}, 16, nil)
	for i, v := range p.Values {
		words, id, rows := in[v.Name], plan.ID(i+1), v.Rows.In(dims)
		if v.Kind == plan.Activation || v.Kind == plan.Output {
			words = nil
		} else if len(words) != rows*v.Cols && !(v.Kind == plan.State && words == nil) {
			t.Fatalf("%s: want %d × %d values, have %d", v.Name, rows, v.Cols, len(words))
		}
		if v.Kind == plan.Weight && rows >= 3 {
			layouts[v.Name] = plan.Layout{Shards: []int{2, rows - 2}}
			buffer(plan.Ref{Value: id}, 8*v.Cols, words[:2*v.Cols])
			buffer(plan.Ref{Value: id, Shard: 1}, 4*(rows-2)*v.Cols, words[2*v.Cols:])
			continue
		}
		layouts[v.Name] = plan.Layout{Shards: []int{rows}}
		buffer(plan.Ref{Value: id}, v.Bytes(dims), words)
	}
	steps, err := p.Lower(dev.Info(), layouts, dims, outputs...)
	if err != nil {
		t.Fatal(err)
	}
	var list gpu.List
	for _, s := range steps {
		k, err := dev.Compile(s.Dispatch.Kernel)
		if err != nil {
			t.Fatal(err)
		}
		var bound []gpu.Buffer
		for _, ref := range s.Buffers {
			bound = append(bound, buffers[ref])
		}
		list.Dispatch(k, s.Dispatch.Groups, s.Dispatch.Params, bound...)
	}
	if err := dev.Submit(&list); err != nil {
		t.Fatal(err)
	}
	out := map[string][]float32{}
	for i, v := range p.Values {
		x := make([]float32, v.Rows.In(dims)*v.Cols)
		if v.Name == "" || v.Kind == plan.Weight || len(x) == 0 {
			continue
		}
		if err := dev.Read(buffers[plan.Ref{Value: plan.ID(i + 1)}], 0, unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), 4*len(x))); err != nil {
			t.Fatal(err)
		}
		out[v.Name] = x
	}
	return out
}

// random fills in all that a program reads and in has not: normal numbers, of which those of weights are half as large.
func random(p *plan.Program, dims plan.Dims, in contents, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, v := range p.Values {
		if v.Kind != plan.Input && v.Kind != plan.Weight || v.U32 || in[v.Name] != nil {
			continue
		}
		scale := 1.0
		if v.Kind == plan.Weight {
			scale = 0.5
		}
		words := make([]uint32, v.Rows.In(dims)*v.Cols)
		for i := range words {
			words[i] = math.Float32bits(float32(scale * rng.NormFloat64()))
		}
		in[v.Name] = words
	}
}

// program makes one program with a builder.
func program(t testing.TB, name string, build func(b *plan.Builder)) *plan.Program {
	t.Helper()
	m := &plan.Model{}
	b := plan.NewBuilder(m, name)
	build(b)
	if err := b.Done(); err != nil {
		t.Fatal(err)
	}
	return m.Programs[0]
}

func weight(b *plan.Builder, name string, rows, cols int) plan.ID {
	return b.Weight(plan.WeightSpec{Name: name, Rows: rows, Cols: cols})
}

// Dimensions of the values in these tests.
var (
	perToken = plan.Dim{Of: plan.Tokens, N: 1}
	perRow   = plan.Dim{Of: plan.Rows, N: 1}
	perImage = plan.Dim{Of: plan.Images, N: 1}
)

// sizes are those of a run over two sequences, of three and two tokens.
func sizes() plan.Dims {
	return plan.Dims{plan.One: 1, plan.Tokens: 5, plan.Rows: 3, plan.Images: 2, plan.Prefix: 2, plan.Pairs: 4, plan.Chunk: 2}
}

// numbers are the inputs of u32 that go with sizes: tokens 3 and 4 of a table of four rows are rows of the prefix; ends are the last of each sequence.
func numbers() contents {
	return contents{
		"tokens":      {0, 0, 0, 1, 4, 1, 0, 2, 3, 2, 0, 3, 5, 0, 3, 1, 3, 1, 3, 2},
		"prefix_rows": {1, 3},
		"rows":        {0, 2, 3},
		"ends":        {2, 4},
		"end_tokens":  {3, 2, 0, 3, 3, 1, 3, 2},
		"labels":      {1, 0, 3},
	}
}
