// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"encoding/binary"
	"math"
	"testing"

	"fromage/gpu"
	"fromage/shaders"
)

// upload makes a buffer of the words, which goes with the test.
func upload(t *testing.T, dev gpu.Device, words []uint32) gpu.Buffer {
	t.Helper()
	data := make([]byte, max(16, (4*len(words)+15)/16*16))
	for i, w := range words {
		binary.LittleEndian.PutUint32(data[4*i:], w)
	}
	b, err := dev.NewBuffer("test", len(data))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Free(b) })
	if err := dev.Write(b, 0, data); err != nil {
		t.Fatal(err)
	}
	return b
}

// dispatch runs d on buffers.
func dispatch(t *testing.T, dev gpu.Device, d shaders.Dispatch, buffers ...gpu.Buffer) {
	t.Helper()
	p, err := dev.Compile(d.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	var list gpu.List
	list.Dispatch(p, d.Groups, d.Params, buffers...)
	if err := dev.Submit(&list); err != nil {
		t.Fatal(err)
	}
}

// download reads the first n words of b.
func download(t *testing.T, dev gpu.Device, b gpu.Buffer, n int) []uint32 {
	t.Helper()
	data := make([]byte, 4*n)
	if err := dev.Read(b, 0, data); err != nil {
		t.Fatal(err)
	}
	words := make([]uint32, n)
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(data[4*i:])
	}
	return words
}

// near compares f32 values to 1e-5.
func near(t *testing.T, name string, got, want []uint32) {
	t.Helper()
	for i := range want {
		g, w := math.Float32frombits(got[i]), math.Float32frombits(want[i])
		if !(math.Abs(float64(g-w)) <= 1e-5) {
			t.Errorf("%s: y[%d] = %v, want %v", name, i, g, w)
		}
	}
}
