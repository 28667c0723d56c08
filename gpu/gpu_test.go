// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestListCommands(t *testing.T) {
	var l List
	l.Dispatch(7, [3]int{1, 2, 3}, []byte{9, 8}, 10, 11, 12)
	l.Copy(20, 4, 21, 8, 16)
	l.Clear(30, 12, 24)
	l.Dispatch(8, [3]int{65535, 1, 1}, make([]byte, MaxParams))
	l.Dispatch(9, [3]int{0, 1, 1}, nil, 1) // these do nothing and are left out
	l.Copy(1, 0, 2, 0, 0)
	l.Clear(1, 0, 0)
	want := []Command{
		{Pipeline: 7, Groups: [3]uint32{1, 2, 3}, Buffers: []Buffer{10, 11, 12}},
		{Target: 20, TargetOffset: 4, Source: 21, SourceOffset: 8, Size: 16},
		{Target: 30, TargetOffset: 12, Size: 24},
		{Pipeline: 8, Groups: [3]uint32{65535, 1, 1}, ParamsOffset: MaxParams},
	}
	n := 0
	for i, c := range l.Commands() {
		if i != n || i >= len(want) {
			t.Fatalf("Commands() gives number %d after %d commands of %d", i, n, len(want))
		}
		w := want[i]
		if !slices.Equal(c.Buffers, w.Buffers) {
			t.Errorf("command %d has buffers %v, want %v", i, c.Buffers, w.Buffers)
		}
		c.Buffers, w.Buffers = nil, nil
		if c.Pipeline != w.Pipeline || c.Groups != w.Groups || c.ParamsOffset != w.ParamsOffset || c.Target != w.Target ||
			c.Source != w.Source || c.TargetOffset != w.TargetOffset || c.SourceOffset != w.SourceOffset || c.Size != w.Size {
			t.Errorf("command %d = %+v, want %+v", i, c, w)
		}
		n++
	}
	if n != len(want) || l.Dispatches() != 2 || len(l.Params()) != 2*MaxParams {
		t.Errorf("%d commands, %d dispatches and %d bytes of parameters, want 4, 2 and %d", n, l.Dispatches(), len(l.Params()), 2*MaxParams)
	}
	if p := l.Params(); p[0] != 9 || p[1] != 8 || slices.ContainsFunc(p[2:], func(b byte) bool { return b != 0 }) {
		t.Errorf("Params() = %v…, want 9, 8 and zeros", p[:4])
	}
	for i := range l.Commands() { // a loop may end early
		if i == 1 {
			break
		}
	}
	if l.Reset(); l.Len() != 0 || len(l.Params()) != 0 || l.Dispatches() != 0 {
		t.Errorf("after Reset: %d words, %d bytes of parameters", l.Len(), len(l.Params()))
	}
	l.Dispatch(1, [3]int{1, 1, 1}, nil) // parameters of before must not shine through the kept memory
	if slices.ContainsFunc(l.Params(), func(b byte) bool { return b != 0 }) {
		t.Errorf("Params() of a dispatch without any = %v…, want zeros", l.Params()[:4])
	}
}

// TestListAppend: a list of lists has the commands of all, each dispatch with its own parameters.
func TestListAppend(t *testing.T) {
	var a, b List
	a.Dispatch(7, [3]int{1, 1, 1}, []byte{1}, 10)
	a.Copy(20, 4, 21, 8, 16)
	b.Clear(30, 12, 24)
	b.Dispatch(8, [3]int{2, 1, 1}, []byte{2}, 11, 12)
	var all List
	for _, l := range []*List{&a, &b, &a} {
		all.Append(l)
	}
	var read List
	if err := read.Load(all.Words(), all.Params()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range read.Commands() {
		param := byte(0)
		if c.Pipeline != 0 {
			param = read.Params()[c.ParamsOffset]
		}
		got = append(got, fmt.Sprint(c.Pipeline, c.Target, param, len(c.Buffers)))
	}
	want := []string{"7 0 1 1", "0 20 0 0", "0 30 0 0", "8 0 2 2", "7 0 1 1", "0 20 0 0"}
	if !slices.Equal(got, want) {
		t.Errorf("commands %q, want %q", got, want)
	}
	if b.Params()[0] != 2 || a.Dispatches() != 1 {
		t.Error("Append changed what it appended")
	}
}

func TestListLoad(t *testing.T) {
	var good List
	good.Dispatch(7, [3]int{1, 2, 3}, []byte{9, 8}, 10, 11, 12)
	good.Copy(20, 4, 21, 8, 16)
	good.Copy(20, 4, 0, 8, 16)
	good.Clear(30, 12, 24)
	good.Dispatch(8, [3]int{65535, 1, 1}, make([]byte, MaxParams))
	var l List
	if err := l.Load(good.Words(), good.Params()); err != nil || !slices.Equal(l.Words(), good.Words()) || !slices.Equal(l.Params(), good.Params()) {
		t.Errorf("Load of a list = %v, want it to be the same", err)
	}
	params := func(n int) []byte { return make([]byte, n*MaxParams) }
	for _, c := range []struct {
		what   string
		words  []uint32
		params []byte
	}{
		{"unknown command", []uint32{4, 1, 2, 3, 4, 5, 6}, nil},
		{"command 0", []uint32{0}, nil},
		{"half a clear", []uint32{3, 1, 0}, nil},
		{"half a copy", []uint32{2, 1, 0, 2, 0}, nil},
		{"half a dispatch", []uint32{1, 1, 1, 1, 1, 0}, params(1)},
		{"dispatch with a buffer too few", []uint32{1, 1, 1, 1, 1, 0, 2, 5}, params(1)},
		{"dispatch with 2³² buffers", []uint32{1, 1, 1, 1, 1, 0, math.MaxUint32, 5}, params(1)},
		{"dispatch of no pipeline", []uint32{1, 0, 1, 1, 1, 0, 0}, params(1)},
		{"dispatch with another's parameters", []uint32{1, 1, 1, 1, 1, 256, 0}, params(1)},
		{"dispatch without parameters", []uint32{1, 1, 1, 1, 1, 0, 0}, nil},
		{"parameters too short", []uint32{1, 1, 1, 1, 1, 0, 0}, make([]byte, MaxParams-1)},
		{"parameters of nothing", nil, params(1)},
		{"copy from no buffer", []uint32{2, 1, 0, 0, 0, 4}, nil},
		{"rubbish after a clear", []uint32{3, 1, 0, 4, 9}, nil},
	} {
		if err := l.Load(c.words, c.params); !errors.Is(err, ErrInvalid) || l.Dispatches() != 2 {
			t.Errorf("Load of %s = %v, want %v and the list as it was", c.what, err, ErrInvalid)
		}
	}
}

func FuzzListLoad(f *testing.F) {
	var good List
	good.Dispatch(7, [3]int{1, 2, 3}, []byte{9, 8}, 10, 11, 12)
	good.Copy(20, 4, 21, 8, 16)
	good.Clear(30, 12, 24)
	seed := make([]byte, 0, 4*good.Len())
	for _, w := range good.Words() {
		seed = binary.LittleEndian.AppendUint32(seed, w)
	}
	f.Add(seed, uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, dispatches uint8) {
		words := make([]uint32, len(data)/4)
		for i := range words {
			words[i] = binary.LittleEndian.Uint32(data[4*i:])
		}
		var l List
		if l.Load(words, make([]byte, MaxParams*int(dispatches))) != nil {
			return
		}
		h := NewHandles(DefaultLimits)
		b := h.AddBuffer("b", 16)
		h.AddKernel(&Kernel{Name: "k", Params: 16, Bindings: []Access{Read}})
		_ = h.CheckList(&l) // must not panic, whatever it says
		n := 0
		for i, c := range l.Commands() {
			if n++; i != n-1 || c.Pipeline != 0 && c.ParamsOffset+MaxParams > len(l.Params()) {
				t.Fatalf("command %d = %+v of a list with %d bytes of parameters", i, c, len(l.Params()))
			}
		}
		_ = b
	})
}

func TestWord(t *testing.T) {
	for _, c := range []struct {
		in   int
		want uint32
	}{{0, 0}, {4, 4}, {math.MaxUint32 - 3, math.MaxUint32 - 3}, {-1, math.MaxUint32}, {1 << 32, math.MaxUint32}, {math.MinInt, math.MaxUint32}} {
		if got := word(c.in); got != c.want {
			t.Errorf("word(%d) = %d, want %d", c.in, got, c.want)
		}
	}
}

func TestDispatchPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Dispatch with more than MaxParams bytes of parameters does not panic")
		}
	}()
	new(List).Dispatch(1, [3]int{1, 1, 1}, make([]byte, MaxParams+1))
}

func TestHandles(t *testing.T) {
	h := NewHandles(DefaultLimits)
	a := h.AddBuffer("a", 100)
	p := h.AddKernel(&Kernel{Name: "k", Params: 16, Bindings: []Access{Read, ReadWrite}, Labels: []string{"x", "y"}})
	b := h.AddBuffer("b", 28)
	if n, bytes := h.Buffers(); n != 2 || bytes != 128 {
		t.Errorf("Buffers() = %d, %d, want 2, 128", n, bytes)
	}
	if got, ok := h.Kernel("k"); got != p || !ok || h.KernelOf(p).Name != "k" {
		t.Errorf("Kernel(k) = %d, %v, want %d", got, ok, p)
	}
	if _, ok := h.Kernel("other"); ok || h.KernelOf(Pipeline(a)) != nil {
		t.Error("Kernel or KernelOf knows what was never added")
	}
	var good, freed List
	good.Dispatch(p, [3]int{1, 1, 1}, nil, a, b)
	good.Copy(a, 96, b, 24, 4)
	good.Clear(b, 0, 28)
	if err := h.CheckList(&good); err != nil {
		t.Errorf("CheckList of a good list = %v", err)
	}
	freed.Clear(a, 0, 4)
	freed.Dispatch(p, [3]int{1, 1, 1}, nil, a, b)
	if err := h.Free(b); err != nil {
		t.Fatal(err)
	}
	err := h.CheckList(&freed)
	if !errors.Is(err, ErrInvalid) {
		t.Fatalf("CheckList with a freed buffer = %v, want %v", err, ErrInvalid)
	}
	for _, part := range []string{"command 1", "k", "y", "freed"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("CheckList with a freed buffer = %v, want it to name %q", err, part)
		}
	}
	if c := h.AddBuffer("c", 4); c == b {
		t.Errorf("AddBuffer gave %d again", b)
	}
}

// A shared buffer may be read, and not be written by any command.
func TestShared(t *testing.T) {
	h := NewHandles(DefaultLimits)
	a, s := h.AddBuffer("a", 16), h.AddShared("weights", 16)
	p := h.AddKernel(&Kernel{Name: "k", Params: 16, Bindings: []Access{Read, ReadWrite}, Labels: []string{"x", "y"}})
	for _, c := range []struct {
		what string
		ok   bool
		add  func(l *List)
	}{
		{"read by a dispatch", true, func(l *List) { l.Dispatch(p, [3]int{1, 1, 1}, nil, s, a) }},
		{"copied from", true, func(l *List) { l.Copy(a, 0, s, 0, 16) }},
		{"written by a dispatch", false, func(l *List) { l.Dispatch(p, [3]int{1, 1, 1}, nil, a, s) }},
		{"copied to", false, func(l *List) { l.Copy(s, 0, a, 0, 16) }},
		{"cleared", false, func(l *List) { l.Clear(s, 0, 16) }},
	} {
		var l List
		c.add(&l)
		err := h.CheckList(&l)
		if (err == nil) != c.ok || err != nil && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "weights")) {
			t.Errorf("a shared buffer %s: %v, want ok %v", c.what, err, c.ok)
		}
	}
	if err := h.CheckWrite("write", s, 0, 4); !errors.Is(err, ErrInvalid) {
		t.Errorf("CheckWrite of a shared buffer = %v, want %v", err, ErrInvalid)
	}
	if err := h.CheckWrite("write", a, 0, 4); err != nil {
		t.Errorf("CheckWrite of a buffer = %v", err)
	}
}

func TestCheckRange(t *testing.T) {
	h := NewHandles(DefaultLimits)
	b := h.AddBuffer("b", 16)
	for _, c := range []struct {
		offset, size int
		ok           bool
	}{
		{0, 16, true}, {12, 4, true}, {16, 0, true}, {0, 0, true},
		{0, 20, false}, {16, 4, false}, {20, 0, false}, {2, 4, false}, {0, 6, false}, {-4, 4, false}, {4, -4, false},
		{math.MaxInt &^ 3, 8, false}, {8, math.MaxInt &^ 3, false}, {math.MaxInt &^ 3, math.MaxInt &^ 3, false},
	} {
		err := h.CheckRange("touch", b, c.offset, c.size)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("CheckRange(%d, %d) of 16 bytes = %v, want ok %v", c.offset, c.size, err, c.ok)
		}
	}
}
