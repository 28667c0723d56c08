// SPDX-License-Identifier: Apache-2.0

//go:build cgo && !js && !wasip1

package native

import (
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

func buffer(b *testing.B, d *Device, size int) gpu.Buffer {
	b.Helper()
	h, err := d.NewBuffer("bench", size)
	if err != nil {
		b.Fatal(err)
	}
	return h
}

func must(b *testing.B, errs ...error) {
	b.Helper()
	for _, err := range errs {
		if err != nil {
			b.Fatal(err)
		}
	}
}

// What a dispatch costs from the list to its end on the device.
func BenchmarkEmptyDispatch(b *testing.B) {
	const n = 1000
	d := open(b, Options{})
	l := dispatches(b, d, n)
	for b.Loop() {
		must(b, d.Submit(l), d.Wait())
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/dispatch")
}

// What a dispatch costs in the list's checks and the driver's encoding, without running it.
func BenchmarkEncode(b *testing.B) {
	const n = 1000
	d := open(b, Options{})
	l := dispatches(b, d, n)
	must(b, d.Submit(l), d.Wait())
	for b.Loop() {
		must(b, d.handles.CheckList(l))
		e, err := createEncoder(d.device, nil)
		must(b, err, d.encode(e, l, nil))
		commands, err := finish(e, nil)
		must(b, err)
		commands.Release()
		e.Release()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/dispatch")
}

// Bytes read and written by copies on the device.
func BenchmarkCopy(b *testing.B) {
	const size, times = 64 << 20, 8
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

func report(b *testing.B, bytes float64) {
	b.ReportMetric(bytes*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GB/s")
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
