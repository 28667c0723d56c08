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
	gputest.Conformance(t, func() (gpu.Device, error) { return New(), nil })
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
