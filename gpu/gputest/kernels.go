// SPDX-License-Identifier: Apache-2.0

package gputest

import (
	"encoding/binary"

	"fromage/gpu"
)

const workgroup = 64

// scale computes y[i] = factor·x[i] + bias for i < n, on u32 with wrap-around; parameters n, factor, bias.
var scale = &gpu.Kernel{
	Name: "gputest.scale",
	Source: `
struct Params { n: u32, factor: u32, bias: u32, pad: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
	if (id.x < p.n) { y[id.x] = p.factor * x[id.x] + p.bias; }
}`,
	Params: 16, Bindings: []gpu.Access{gpu.Read, gpu.ReadWrite}, Labels: []string{"x", "y"},
	Twin: func(c gpu.Call) {
		n, factor, bias := word(c.Params, 0), word(c.Params, 1), word(c.Params, 2)
		for i := range min(n, workgroup*c.Groups[0]) {
			c.Buffers[1][i] = factor*c.Buffers[0][i] + bias
		}
	},
}

// push computes y[i] = 3·y[i] + add for i < n in place, so that the order of dispatches shows; parameters n, add.
var push = &gpu.Kernel{
	Name: "gputest.push",
	Source: `
struct Params { n: u32, add: u32, pad0: u32, pad1: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
	if (id.x < p.n) { y[id.x] = 3u * y[id.x] + p.add; }
}`,
	Params: 16, Bindings: []gpu.Access{gpu.ReadWrite}, Labels: []string{"y"},
	Twin: func(c gpu.Call) {
		for i := range min(word(c.Params, 0), workgroup*c.Groups[0]) {
			c.Buffers[0][i] = 3*c.Buffers[0][i] + word(c.Params, 1)
		}
	},
}

// grid computes y[(z·Y + y)·X + x] = x + 1000·y + 1000000·z, one workgroup a cell of the grid X×Y×Z.
var grid = &gpu.Kernel{
	Name: "gputest.grid",
	Source: `
struct Params { pad: vec4<u32> }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
	y[(id.z * n.y + id.y) * n.x + id.x] = id.x + 1000u * id.y + 1000000u * id.z + p.pad.x;
}`,
	Params: 16, Bindings: []gpu.Access{gpu.ReadWrite}, Labels: []string{"y"},
	Twin: func(c gpu.Call) {
		for z := range c.Groups[2] {
			for y := range c.Groups[1] {
				for x := range c.Groups[0] {
					c.Buffers[0][(z*c.Groups[1]+y)*c.Groups[0]+x] = x + 1000*y + 1000000*z + word(c.Params, 0)
				}
			}
		}
	},
}

// wide reads 64 words of parameters: y[i] = the sum of all but word 0, plus i, for i < n = word 0.
var wide = &gpu.Kernel{
	Name: "gputest.wide",
	Source: `
struct Params { word: array<vec4<u32>, 16> }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
	if (id.x >= p.word[0].x) { return; }
	var sum = id.x + p.word[0].y + p.word[0].z + p.word[0].w;
	for (var i = 1u; i < 16u; i++) { let v = p.word[i]; sum += v.x + v.y + v.z + v.w; }
	y[id.x] = sum;
}`,
	Params: gpu.MaxParams, Bindings: []gpu.Access{gpu.ReadWrite}, Labels: []string{"y"},
	Twin: func(c gpu.Call) {
		sum := uint32(0)
		for i := 1; i < gpu.MaxParams/4; i++ {
			sum += word(c.Params, i)
		}
		for i := range word(c.Params, 0) {
			c.Buffers[0][i] = sum + i
		}
	},
}

// sum computes y[i] = a[i] + b[i] + add, one workgroup a word; parameter add.
var sum = &gpu.Kernel{
	Name: "gputest.sum",
	Source: `
@group(0) @binding(0) var<uniform> p: vec4<u32>;
@group(0) @binding(1) var<storage, read> a: array<u32>;
@group(0) @binding(2) var<storage, read> b: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) id: vec3<u32>) { y[id.x] = a[id.x] + b[id.x] + p.x; }`,
	Params: 16, Bindings: []gpu.Access{gpu.Read, gpu.Read, gpu.ReadWrite}, Labels: []string{"a", "b", "y"},
	Twin: func(c gpu.Call) {
		for i := range c.Groups[0] {
			c.Buffers[2][i] = c.Buffers[0][i] + c.Buffers[1][i] + word(c.Params, 0)
		}
	},
}

// bounded is scale, and says what it reaches; it takes all numbers of words but 7.
var bounded = func() *gpu.Kernel {
	k := *scale
	k.Name = "gputest.bounded"
	k.Reach = func(params []byte) []uint64 {
		n := uint64(word(params, 0))
		if n == 7 {
			return nil
		}
		return []uint64{n, n}
	}
	return &k
}()

// Named returns the kernel of the suite with this name, nil if there is none, for hosts that find twins by name.
func Named(name string) *gpu.Kernel {
	for _, k := range []*gpu.Kernel{scale, push, grid, wide, sum, bounded} {
		if k.Name == name {
			return k
		}
	}
	return nil
}

// broken are kernels that a WGSL compiler must refuse, with the line that the error must show.
var broken = []struct {
	kernel *gpu.Kernel
	line   string
}{
	{&gpu.Kernel{
		Name: "gputest.broken_type",
		Source: `
@group(0) @binding(0) var<uniform> p: vec4<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(1)
fn main() { y[0] = 1.5f; }`,
		Params: 16, Bindings: []gpu.Access{gpu.ReadWrite}, Twin: func(gpu.Call) {},
	}, ":5:"},
	{&gpu.Kernel{
		Name: "gputest.broken_syntax",
		Source: `
@group(0) @binding(0) var<uniform> p: vec4<u32>;
@compute @workgroup_size(1)
fn main() { let = 3; }`,
		Params: 16, Twin: func(gpu.Call) {},
	}, ":4:"},
	{&gpu.Kernel{
		Name: "gputest.broken_binding",
		Source: `
@group(0) @binding(0) var<uniform> p: vec4<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(1)
fn main() { y[0] = p.x; }`,
		Params: 16, Bindings: []gpu.Access{gpu.ReadWrite}, Twin: func(gpu.Call) {},
	}, ""},
}

func word(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }

// bytesOf are the little-endian bytes of words.
func bytesOf(words ...uint32) []byte {
	b := make([]byte, 0, 4*len(words))
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// sequence makes n words f(0), f(1), …
func sequence(n int, f func(i uint32) uint32) []uint32 {
	words := make([]uint32, n)
	for i := range words {
		words[i] = f(uint32(i))
	}
	return words
}
