// SPDX-License-Identifier: Apache-2.0

// Package gputest says in tests what every gpu.Device must do. What enters is a way to open a device; what leaves are failures of the test.
// The package refuses to know which device it tests, except that one which runs Go functions reads no WGSL, and it touches neither files nor cgo, so
// that it runs wherever a device does.
package gputest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"fromage/gpu"
)

// Conformance runs the suite on devices that open makes. A device with a method Lose() that makes it a lost one is tested as such too.
func Conformance(t *testing.T, open func() (gpu.Device, error)) {
	d := &device{opened(t, open), t}
	for _, c := range []struct {
		name string
		test func(*testing.T, *device)
	}{
		{"Info", testInfo},
		{"ZeroFill", testZeroFill},
		{"WriteRead", testWriteRead},
		{"RoundTrip100MiB", testRoundTrip},
		{"Bounds", testBounds},
		{"BufferSizes", testBufferSizes},
		{"Freed", testFreed},
		{"CopyClear", testCopyClear},
		{"Dispatch", testDispatch},
		{"Params", testParams},
		{"Grid", testGrid},
		{"OrderInList", testOrderInList},
		{"OrderAcrossSubmits", testOrderAcrossSubmits},
		{"ListReuse", testListReuse},
		{"SharedRead", testSharedRead},
		{"RefusedDispatches", testRefusedDispatches},
		{"Reach", testReach},
		{"RefusedListDoesNothing", testRefusedListDoesNothing},
		{"Time", testTime},
		{"Compile", testCompile},
		{"RefusedKernels", testRefusedKernels},
		{"BrokenWGSL", testBrokenWGSL},
		{"LongList", testLongList},
		{"ManyBuffers", testManyBuffers},
		{"Concurrent", testConcurrent},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, &device{d.Device, t}) })
	}
	t.Run("Closed", func(t *testing.T) { testClosed(t, opened(t, open)) })
	t.Run("Lost", func(t *testing.T) { testLost(t, open) })
}

func opened(t *testing.T, open func() (gpu.Device, error)) gpu.Device {
	t.Helper()
	d, err := open()
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil && !errors.Is(err, gpu.ErrClosed) {
			t.Errorf("Close() = %v", err)
		}
	})
	return d
}

// device is a gpu.Device whose errors end the test.
type device struct {
	gpu.Device
	t *testing.T
}

// buffer makes a buffer of words that is freed with the test.
func (d *device) buffer(words ...uint32) gpu.Buffer {
	d.t.Helper()
	b := d.empty(len(words))
	if err := d.Write(b, 0, bytesOf(words...)); err != nil {
		d.t.Fatal(err)
	}
	return b
}

func (d *device) empty(words int) gpu.Buffer {
	d.t.Helper()
	b, err := d.NewBuffer(d.t.Name(), 4*words)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = d.Free(b) }) // a test may have freed it
	return b
}

func (d *device) compile(k *gpu.Kernel) gpu.Pipeline {
	d.t.Helper()
	p, err := d.Compile(k)
	if err != nil {
		d.t.Fatal(err)
	}
	return p
}

func (d *device) submit(l *gpu.List) {
	d.t.Helper()
	if err := d.Submit(l); err != nil {
		d.t.Fatal(err)
	}
}

// wantWords reads a buffer and compares it.
func (d *device) wantWords(what string, b gpu.Buffer, want []uint32) {
	d.t.Helper()
	if err := checkWords(d.Device, b, want); err != nil {
		d.t.Errorf("%s: %v", what, err)
	}
}

func checkWords(d gpu.Device, b gpu.Buffer, want []uint32) error {
	got := make([]byte, 4*len(want))
	if err := d.Read(b, 0, got); err != nil {
		return err
	}
	for i, w := range want {
		if g := word(got, i); g != w {
			return fmt.Errorf("word %d of %d = %d, want %d", i, len(want), g, w)
		}
	}
	return nil
}

// wantError says that err must match the sentinel and name each part.
func wantError(t *testing.T, what string, err, sentinel error, parts ...string) {
	t.Helper()
	if !errors.Is(err, sentinel) {
		t.Errorf("%s: error = %v, want %v", what, err, sentinel)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%s: error = %v, want it to name %q", what, err, p)
		}
	}
}

func testInfo(t *testing.T, d *device) {
	i := d.Info()
	if i.Host == "" || i.Adapter == "" {
		t.Errorf("Info() = %+v, want a host and an adapter", i)
	}
	l, least := i.Limits, gpu.DefaultLimits
	for _, c := range []struct {
		name      string
		have, min int
	}{
		{"MaxBinding", l.MaxBinding, least.MaxBinding},
		{"MaxBindings", l.MaxBindings, least.MaxBindings},
		{"MaxWorkgroupMemory", l.MaxWorkgroupMemory, least.MaxWorkgroupMemory},
		{"MaxInvocations", l.MaxInvocations, least.MaxInvocations},
		{"MaxGroups", l.MaxGroups, least.MaxGroups},
	} {
		if c.have < c.min {
			t.Errorf("Info().Limits.%s = %d, want at least %d", c.name, c.have, c.min)
		}
	}
	if !reflect.DeepEqual(d.Info(), i) {
		t.Errorf("Info() changed from %+v to %+v", i, d.Info())
	}
}

func testZeroFill(t *testing.T, d *device) {
	// The second buffer may get the memory of the first.
	const n = 1 << 16
	b := d.buffer(sequence(n, func(i uint32) uint32 { return ^i })...)
	if err := d.Free(b); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 3, 64, n} {
		d.wantWords(fmt.Sprintf("a new buffer of %d words", n), d.empty(n), make([]uint32, n))
	}
}

func testWriteRead(t *testing.T, d *device) {
	want := sequence(1001, func(i uint32) uint32 { return i * 2654435761 })
	b := d.buffer(want...)
	for _, c := range []struct{ at, n int }{{0, 1}, {1000, 1}, {1, 7}, {13, 100}, {0, 1001}, {1001, 0}} {
		part := sequence(c.n, func(i uint32) uint32 { return i ^ uint32(c.at)<<16 })
		data := bytesOf(part...)
		if err := d.Write(b, 4*c.at, data); err != nil {
			t.Fatal(err)
		}
		clear(data) // the call must have taken its copy
		copy(want[c.at:], part)
		d.wantWords(fmt.Sprintf("after a write of %d words at %d", c.n, c.at), b, want)
		got := make([]byte, 4*c.n)
		if err := d.Read(b, 4*c.at, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, bytesOf(part...)) {
			t.Errorf("Read of %d words at %d differs from what was written there", c.n, c.at)
		}
	}
}

func testRoundTrip(t *testing.T, d *device) {
	const size = 100 << 20
	b := d.empty(size / 4)
	sent := make([]byte, size)
	for i, x := 0, uint64(1); i < size; i += 8 {
		x = x*6364136223846793005 + 1442695040888963407
		binary.LittleEndian.PutUint64(sent[i:], x)
	}
	if err := d.Write(b, 0, sent); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if err := d.Read(b, 0, got); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(got, sent) {
		return
	}
	for i := range sent {
		if got[i] != sent[i] {
			t.Fatalf("byte %d of %d = %d, want %d", i, size, got[i], sent[i])
		}
	}
}

func testBounds(t *testing.T, d *device) {
	b := d.buffer(1, 2, 3, 4)
	other := d.empty(4)
	const huge = 1<<62 - 4
	for _, c := range []struct{ offset, size int }{
		{0, 20}, {16, 4}, {20, 0}, {12, 8}, {-4, 4}, {1, 4}, {0, 3}, {2, 2}, {huge, 8}, {2*huge + 4, 8},
	} {
		what := fmt.Sprintf("%d bytes at %d of 16", c.size, c.offset)
		wantError(t, "Write of "+what, d.Write(b, c.offset, make([]byte, c.size)), gpu.ErrInvalid, t.Name())
		wantError(t, "Read of "+what, d.Read(b, c.offset, make([]byte, c.size)), gpu.ErrInvalid, t.Name())
	}
	for _, c := range []struct {
		what string
		add  func(l *gpu.List)
	}{
		{"copy past the source", func(l *gpu.List) { l.Copy(other, 0, b, 8, 12) }},
		{"copy past the target", func(l *gpu.List) { l.Copy(other, 8, b, 0, 12) }},
		{"copy of odd size", func(l *gpu.List) { l.Copy(other, 0, b, 0, 6) }},
		{"copy from an odd offset", func(l *gpu.List) { l.Copy(other, 0, b, 2, 4) }},
		{"copy to a negative offset", func(l *gpu.List) { l.Copy(other, -4, b, 0, 4) }},
		{"copy of negative size", func(l *gpu.List) { l.Copy(other, 0, b, 0, -4) }},
		{"copy from an offset of 2³²", func(l *gpu.List) { l.Copy(other, 0, b, 1<<32, 4) }},
		{"copy within a buffer", func(l *gpu.List) { l.Copy(b, 8, b, 0, 8) }},
		{"copy from no buffer", func(l *gpu.List) { l.Copy(other, 0, 1<<30, 0, 4) }},
		{"clear past the end", func(l *gpu.List) { l.Clear(b, 12, 8) }},
		{"clear of odd size", func(l *gpu.List) { l.Clear(b, 0, 5) }},
		{"clear of no buffer", func(l *gpu.List) { l.Clear(0, 0, 4) }},
		{"clear of size 2³²", func(l *gpu.List) { l.Clear(b, 0, 1<<32+4) }},
	} {
		var l gpu.List
		c.add(&l)
		wantError(t, c.what, d.Submit(&l), gpu.ErrInvalid, "command 0")
	}
	d.wantWords("after refused writes", b, []uint32{1, 2, 3, 4})
	d.wantWords("after refused copies", other, []uint32{0, 0, 0, 0})
}

func testBufferSizes(t *testing.T, d *device) {
	for _, c := range []struct {
		size     int
		sentinel error
	}{
		{0, gpu.ErrInvalid}, {-4, gpu.ErrInvalid}, {3, gpu.ErrInvalid}, {1<<20 + 2, gpu.ErrInvalid},
		{d.Info().Limits.MaxBinding + 4, gpu.ErrMemory}, {1 << 60, gpu.ErrMemory},
	} {
		_, err := d.NewBuffer("the label", c.size)
		wantError(t, fmt.Sprintf("NewBuffer of %d bytes", c.size), err, c.sentinel, "the label")
	}
	b, err := d.NewBuffer("largest", d.Info().Limits.MaxBinding)
	if errors.Is(err, gpu.ErrMemory) {
		return // a device may have less memory than it may bind
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Free(b); err != nil {
		t.Error(err)
	}
}

func testFreed(t *testing.T, d *device) {
	b, live := d.empty(4), d.buffer(5, 6, 7, 8)
	p := d.compile(push)
	var l gpu.List
	l.Dispatch(p, [3]int{1, 1, 1}, bytesOf(4, 1), b)
	l.Copy(live, 0, b, 0, 8)
	d.submit(&l)
	if err := d.Free(b); err != nil {
		t.Fatal(err)
	}
	d.wantWords("copied from a buffer freed after Submit", live, []uint32{1, 1, 7, 8})

	wantError(t, "second Free", d.Free(b), gpu.ErrInvalid, "was freed")
	wantError(t, "Free of no buffer", d.Free(0), gpu.ErrInvalid)
	wantError(t, "Free of an unknown buffer", d.Free(1<<31), gpu.ErrInvalid)
	wantError(t, "Write to a freed buffer", d.Write(b, 0, bytesOf(1)), gpu.ErrInvalid, "was freed")
	wantError(t, "Read of a freed buffer", d.Read(b, 0, make([]byte, 4)), gpu.ErrInvalid, "was freed")
	wantError(t, "Submit with a freed buffer", d.Submit(&l), gpu.ErrInvalid, "was freed", push.Name)
	d.wantWords("after refused commands", live, []uint32{1, 1, 7, 8})
	if next := d.empty(1); next == b {
		t.Errorf("NewBuffer gave handle %d again after it was freed", b)
	}
}

func testCopyClear(t *testing.T, d *device) {
	a := d.buffer(sequence(100, func(i uint32) uint32 { return i + 1 })...)
	b := d.buffer(sequence(100, func(i uint32) uint32 { return 1000 + i })...)
	var l gpu.List
	l.Copy(b, 4*10, a, 4*20, 4*30) // b[10:40] = a[20:50] = 21…50
	l.Clear(b, 4*15, 4*5)          // b[15:20] = 0
	l.Copy(a, 4*99, b, 4*10, 4)    // a[99] = 21
	l.Clear(b, 4*99, 4)
	l.Copy(a, 0, b, 0, 0)
	l.Clear(a, 0, 0)
	d.submit(&l)
	wantA := sequence(100, func(i uint32) uint32 { return i + 1 })
	wantA[99] = 21
	wantB := sequence(100, func(i uint32) uint32 {
		switch {
		case 15 <= i && i < 20, i == 99:
			return 0
		case 10 <= i && i < 40:
			return i + 11
		}
		return 1000 + i
	})
	d.wantWords("source", a, wantA)
	d.wantWords("target", b, wantB)
}

func testManyBuffers(t *testing.T, d *device) {
	if err := Churn(d.Device, 10000); err != nil {
		t.Fatal(err)
	}
}

// Churn makes, writes and frees n buffers, 64 KiB on average, one after the other; a hundredth of them is also dispatched on and read. What
// the process holds must not grow with n.
func Churn(d gpu.Device, n int) error {
	p, err := d.Compile(push)
	if err != nil {
		return err
	}
	data := make([]byte, 128<<10)
	for i := range n {
		size := 4 * (1 + i*7919%(len(data)/4))
		b, err := d.NewBuffer("churn", size)
		if err != nil {
			return fmt.Errorf("buffer %d: %w", i, err)
		}
		if err := d.Write(b, 0, data[:size]); err != nil {
			return fmt.Errorf("buffer %d: %w", i, err)
		}
		if i%100 == 0 {
			var l gpu.List
			l.Dispatch(p, groups(1), bytesOf(1, uint32(i)), b)
			if err := d.Submit(&l); err != nil {
				return fmt.Errorf("buffer %d: %w", i, err)
			}
			if err := checkWords(d, b, []uint32{uint32(i)}); err != nil {
				return fmt.Errorf("buffer %d: %w", i, err)
			}
		}
		if err := d.Free(b); err != nil {
			return fmt.Errorf("buffer %d: %w", i, err)
		}
	}
	return nil
}

func testConcurrent(t *testing.T, d *device) {
	var all sync.WaitGroup
	for worker := range uint32(4) {
		all.Go(func() {
			for round := range uint32(20) {
				if err := concurrentRound(d.Device, 1000*worker+round); err != nil {
					t.Errorf("worker %d, round %d: %v", worker, round, err)
					return
				}
			}
		})
	}
	all.Wait()
}

// concurrentRound uses every call of a device, on buffers of its own.
func concurrentRound(d gpu.Device, seed uint32) error {
	const n = 777
	p, err := d.Compile(scale)
	if err != nil {
		return err
	}
	var b [3]gpu.Buffer
	for i := range b {
		if b[i], err = d.NewBuffer("concurrent", 4*n); err != nil {
			return err
		}
	}
	x := sequence(n, func(i uint32) uint32 { return i ^ seed })
	if err := d.Write(b[0], 0, bytesOf(x...)); err != nil {
		return err
	}
	var l gpu.List
	l.Dispatch(p, groups(n), bytesOf(n, seed, 1), b[0], b[1])
	l.Copy(b[2], 0, b[1], 0, 4*n)
	l.Dispatch(p, groups(n), bytesOf(n, 1, 1), b[2], b[1])
	if err := d.Submit(&l); err != nil {
		return err
	}
	for i := range x {
		x[i] = seed*x[i] + 2
	}
	if err := checkWords(d, b[1], x); err != nil {
		return err
	}
	if err := d.Wait(); err != nil {
		return err
	}
	for i := range b {
		if err := d.Free(b[i]); err != nil {
			return err
		}
	}
	return nil
}

// calls are all but Close, which a closed and a lost device must refuse. A lost device may let go of a buffer.
var calls = []struct {
	name string
	call func(gpu.Device, gpu.Buffer, *gpu.List) error
}{

	{"NewBuffer", func(d gpu.Device, _ gpu.Buffer, _ *gpu.List) error { _, err := d.NewBuffer("refused", 4); return err }},
	{"Write", func(d gpu.Device, b gpu.Buffer, _ *gpu.List) error { return d.Write(b, 0, bytesOf(1)) }},
	{"Read", func(d gpu.Device, b gpu.Buffer, _ *gpu.List) error { return d.Read(b, 0, make([]byte, 4)) }},
	{"Compile", func(d gpu.Device, _ gpu.Buffer, _ *gpu.List) error { _, err := d.Compile(scale); return err }},
	{"Submit", func(d gpu.Device, _ gpu.Buffer, l *gpu.List) error { return d.Submit(l) }},
	{"Wait", func(d gpu.Device, _ gpu.Buffer, _ *gpu.List) error { return d.Wait() }},
	{"Free", func(d gpu.Device, b gpu.Buffer, _ *gpu.List) error { return d.Free(b) }},
}

// working returns a buffer and a list that d has run.
func working(t *testing.T, d gpu.Device) (gpu.Buffer, *gpu.List) {
	w := &device{d, t}
	b, l := w.buffer(1), new(gpu.List)
	l.Dispatch(w.compile(push), groups(1), bytesOf(1, 1), b)
	w.submit(l)
	return b, l
}

func testClosed(t *testing.T, d gpu.Device) {
	b, l := working(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		wantError(t, c.name+" after Close", c.call(d, b, l), gpu.ErrClosed)
	}
	wantError(t, "second Close", d.Close(), gpu.ErrClosed)
	if d.Info().Adapter == "" {
		t.Errorf("Info() after Close = %+v, want it unchanged", d.Info())
	}
}

// testLost loses a device for each call, since the first call after the loss is the hard one.
func testLost(t *testing.T, open func() (gpu.Device, error)) {
	for _, c := range calls {
		d := opened(t, open)
		loser, ok := d.(interface{ Lose() })
		if !ok {
			t.Skipf("SKIPPED: the %s device has no way to be lost", d.Info().Host)
		}
		b, l := working(t, d)
		loser.Lose()
		if err := c.call(d, b, l); err != nil || c.name != "Free" {
			wantError(t, c.name+" on a lost device", err, gpu.ErrLost)
		}
		wantError(t, "Wait on a lost device after "+c.name, d.Wait(), gpu.ErrLost)
		if err := d.Close(); err != nil {
			t.Errorf("Close() of a lost device = %v", err)
		}
		wantError(t, "Wait after Close of a lost device", d.Wait(), gpu.ErrClosed)
	}
}
