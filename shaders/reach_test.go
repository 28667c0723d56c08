// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"fromage/gpu"
	"fromage/gpu/cpu"
)

// A case's buffers suffice for what its parameters reach, and each binding that is reached does not suffice when it is one word shorter.
func TestReach(t *testing.T) {
	for i, c := range Cases() {
		d := c.Dispatch(gpu.Info{Software: true, Limits: gpu.DefaultLimits})
		if d.Kernel.Reach == nil {
			continue
		}
		t.Run(fmt.Sprint(i, " ", d.Kernel.Name), func(t *testing.T) {
			reach := d.Kernel.Reach(d.Params)
			if len(reach) != len(c.Buffers) {
				t.Fatalf("Reach = %d, want a number for each of %d bindings", reach, len(c.Buffers))
			}
			for i, words := range reach {
				if words > uint64(len(c.Buffers[i])) {
					t.Errorf("Reach of %s = %d words, want at most the case's %d", d.Kernel.Labels[i], words, len(c.Buffers[i]))
				}
				if words == 0 {
					continue
				}
				if err := runWith(d, reach, i); !errors.Is(err, gpu.ErrInvalid) {
					t.Errorf("a dispatch with %s one word short = %v, want %v", d.Kernel.Labels[i], err, gpu.ErrInvalid)
				}
			}
		})
	}
}

// runWith runs d on the cpu device with zeroed buffers as large as reach says, but for binding short, which has a word less.
func runWith(d Dispatch, reach []uint64, short int) error {
	dev := cpu.New()
	defer dev.Close()
	p, err := dev.Compile(d.Kernel)
	if err != nil {
		return err
	}
	var list gpu.List
	buffers := make([]gpu.Buffer, len(reach))
	for i, words := range reach {
		size := max(1, int(words))
		if i == short {
			size = max(1, size-1)
		}
		if buffers[i], err = dev.NewBuffer(d.Kernel.Labels[i], 4*size); err != nil {
			return err
		}
	}
	if short >= 0 && reach[short] == 1 {
		return gpu.ErrInvalid // there is no buffer of no words
	}
	list.Dispatch(p, d.Groups, d.Params, buffers...)
	return dev.Submit(&list)
}

// No parameters make a twin take memory or time out of proportion to its buffers, or reach outside them but where their contents say so.
func TestWildParams(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	interesting := []uint32{0, 1, 2, 3, 4, 16, 64, 255, 256, 1 << 16, 1<<31 - 1, 1 << 31, math.MaxUint32 - 1, math.MaxUint32}
	for _, c := range Cases() {
		d := c.Dispatch(gpu.Info{Software: true, Limits: gpu.DefaultLimits})
		if d.Kernel.Reach == nil {
			continue
		}
		dev := cpu.New()
		p, err := dev.Compile(d.Kernel)
		if err != nil {
			t.Fatal(err)
		}
		buffers := make([]gpu.Buffer, len(c.Buffers))
		for i := range buffers {
			if buffers[i], err = dev.NewBuffer(d.Kernel.Labels[i], 4096); err != nil {
				t.Fatal(err)
			}
			if err := dev.Write(buffers[i], 0, bytesOf(Random(uint64(i), 1024))); err != nil {
				t.Fatal(err)
			}
		}
		for range 300 {
			params := slices.Clone(d.Params)
			for i := 0; i < len(params); i += 4 {
				if r.IntN(3) > 0 {
					put32(params[i:], interesting[r.IntN(len(interesting))])
				}
			}
			var list gpu.List
			list.Dispatch(p, [3]int{1 + r.IntN(65535), 1 + r.IntN(65535), 1}, params, buffers...)
			if err := dev.Submit(&list); err != nil && !errors.Is(err, gpu.ErrInvalid) {
				t.Fatalf("%s with parameters % x = %v, want nil or %v", d.Kernel.Name, params, err, gpu.ErrInvalid)
			}
		}
		dev.Close()
	}
}
