// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"errors"
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
