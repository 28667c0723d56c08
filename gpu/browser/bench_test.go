// SPDX-License-Identifier: Apache-2.0

//go:build js && wasm

package browser

import (
	"syscall/js"
	"testing"

	"fromage/gpu"
)

var empty = &gpu.Kernel{
	Name: "empty", Params: 16, Bindings: []gpu.Access{gpu.ReadWrite},
	Source: `
@group(0) @binding(0) var<uniform> p: vec4<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(1)
fn main() { if (p.x == 1u) { y[0] = 1u; } }`,
}

// dispatches makes a list of n dispatches that do next to nothing, each on one of two buffers in turn.
func dispatches(b *testing.B, d *Device, n int) *gpu.List {
	b.Helper()
	p, err := d.Compile(empty)
	if err != nil {
		b.Fatal(err)
	}
	x, y := buffer(b, d, 4), buffer(b, d, 4)
	l := new(gpu.List)
	for range n / 2 {
		l.Dispatch(p, [3]int{1, 1, 1}, nil, x)
		l.Dispatch(p, [3]int{1, 1, 1}, nil, y)
	}
	return l
}

func buffer(t testing.TB, d *Device, size int) gpu.Buffer {
	t.Helper()
	h, err := d.NewBuffer("test", size)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func perDispatch(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/dispatch")
}

// What a dispatch costs from the list to its end on the device.
func BenchmarkEmptyDispatch(b *testing.B) {
	const n = 1000
	d := open(b, Options{})
	l := dispatches(b, d, n)
	for b.Loop() {
		must(b, d.Submit(l), d.Wait())
	}
	perDispatch(b, n)
}

// What a dispatch costs the program until Submit returns.
func BenchmarkSubmit(b *testing.B) {
	const n = 1000
	d := open(b, Options{})
	l := dispatches(b, d, n)
	must(b, d.Submit(l), d.Wait())
	for b.Loop() {
		must(b, d.Submit(l))
		b.StopTimer()
		must(b, d.Wait())
		b.StartTimer()
	}
	perDispatch(b, n)
}

// What of that is the check of handles and what is the browser's encoding.
func BenchmarkCheck(b *testing.B) {
	const n = 1000
	d := open(b, Options{})
	l := dispatches(b, d, n)
	for b.Loop() {
		must(b, d.handles.CheckList(l))
	}
	perDispatch(b, n)
}

func report(b *testing.B, bytes float64) {
	b.ReportMetric(bytes*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GB/s")
}

// Bytes read and written by copies on the device.
func BenchmarkCopy(b *testing.B) {
	const size, times = 64 << 20, 4
	d := open(b, Options{})
	x, y := buffer(b, d, size), buffer(b, d, size)
	l := new(gpu.List)
	for range times {
		l.Copy(y, 0, x, 0, size)
	}
	must(b, d.Submit(l), d.Wait())
	for b.Loop() {
		must(b, d.Submit(l), d.Wait())
	}
	report(b, 2*size*times)
}

// From bytes in Go to a buffer.
func BenchmarkWrite(b *testing.B) {
	const size = 64 << 20
	d := open(b, Options{})
	x, data := buffer(b, d, size), make([]byte, size)
	must(b, d.Write(x, 0, data), d.Wait())
	for b.Loop() {
		must(b, d.Write(x, 0, data), d.Wait())
	}
	report(b, size)
}

// From bytes in JavaScript to a buffer.
func BenchmarkWriteJS(b *testing.B) {
	const size = 16 << 20
	d := open(b, Options{})
	x, data := buffer(b, d, size), js.Global().Get("Uint8Array").New(size)
	must(b, d.WriteJS(x, 0, data), d.Wait())
	for b.Loop() {
		must(b, d.WriteJS(x, 0, data), d.Wait())
	}
	report(b, size)
}

// A few words from Go to a buffer, as the inputs of a run.
func BenchmarkWriteSmall(b *testing.B) {
	d := open(b, Options{})
	x, data := buffer(b, d, 64), make([]byte, 64)
	for b.Loop() {
		must(b, d.Write(x, 0, data))
	}
}

// From a buffer to bytes in Go.
func BenchmarkRead(b *testing.B) {
	const size = 64 << 20
	d := open(b, Options{})
	x, data := buffer(b, d, size), make([]byte, size)
	must(b, d.Read(x, 0, data))
	for b.Loop() {
		must(b, d.Read(x, 0, data))
	}
	report(b, size)
}

// The wait for four bytes, as for a token.
func BenchmarkReadLatency(b *testing.B) {
	d := open(b, Options{})
	x, data := buffer(b, d, 4), make([]byte, 4)
	for b.Loop() {
		must(b, d.Read(x, 0, data))
	}
}

// A small buffer made and freed.
func BenchmarkNewBuffer(b *testing.B) {
	d := open(b, Options{})
	for b.Loop() {
		must(b, d.Free(buffer(b, d, 1024)))
	}
}
