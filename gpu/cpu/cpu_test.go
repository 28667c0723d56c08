// SPDX-License-Identifier: Apache-2.0

package cpu

import (
	"errors"
	"strings"
	"testing"

	"fromage/gpu"
	"fromage/gpu/gputest"
)

func TestConformance(t *testing.T) {
	t.Run("fast", func(t *testing.T) { gputest.Conformance(t, func() (gpu.Device, error) { return New(), nil }) })
	t.Run("twins", func(t *testing.T) { gputest.Conformance(t, func() (gpu.Device, error) { return Twins(), nil }) })
}

// New runs the fast form of a kernel that has one, Twins never does.
func TestFast(t *testing.T) {
	write := func(v uint32) func(gpu.Call) { return func(c gpu.Call) { c.Buffers[0][0] = v } }
	k := &gpu.Kernel{Name: "k", Params: 16, Bindings: []gpu.Access{gpu.ReadWrite}, Twin: write(1), Fast: write(2)}
	for d, want := range map[*Device]byte{New(): 2, Twins(): 1} {
		b, err := d.NewBuffer("b", 4)
		if err != nil {
			t.Fatal(err)
		}
		p, err := d.Compile(k)
		if err != nil {
			t.Fatal(err)
		}
		var l gpu.List
		l.Dispatch(p, [3]int{1, 1, 1}, nil, b)
		if err := d.Submit(&l); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4)
		if err := d.Read(b, 0, got); err != nil || got[0] != want {
			t.Errorf("the device of host %s has run function %d, %v, want %d", d.Info().Host, got[0], err, want)
		}
	}
}

// A twin that reaches outside a buffer is an error that names the kernel, and a kernel without a twin is refused.
func TestTwins(t *testing.T) {
	d := New()
	b, err := d.NewBuffer("b", 8)
	if err != nil {
		t.Fatal(err)
	}
	wild := &gpu.Kernel{Name: "wild", Params: 16, Bindings: []gpu.Access{gpu.ReadWrite}, Twin: func(c gpu.Call) { c.Buffers[0][2] = 1 }}
	p, err := d.Compile(wild)
	if err != nil {
		t.Fatal(err)
	}
	var l gpu.List
	l.Clear(b, 0, 8)
	l.Dispatch(p, [3]int{1, 1, 1}, nil, b)
	err = d.Submit(&l)
	if !errors.Is(err, gpu.ErrInvalid) || !strings.Contains(err.Error(), "wild") || !strings.Contains(err.Error(), "command 1") {
		t.Errorf("Submit of a twin that leaves its buffer = %v, want an error that names command 1 and wild", err)
	}
	if _, err := d.Compile(&gpu.Kernel{Name: "none", Params: 16}); !errors.Is(err, gpu.ErrInvalid) || !strings.Contains(err.Error(), "none") {
		t.Errorf("Compile of a kernel without a twin = %v, want an error that names it", err)
	}
}
