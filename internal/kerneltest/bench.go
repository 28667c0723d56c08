// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"fmt"
	"testing"
	"unsafe"

	"fromage/gpu"
	"fromage/shaders"
)

// Bench times the case on every device, in every variant that the device can run. flops and bytes are what one run computes and reads.
func Bench(b *testing.B, name string, c shaders.Case, flops, bytes float64) {
	for _, dev := range All(b) {
		ran := map[string]bool{}
		for _, info := range views(dev.Info()) {
			d := c.Dispatch(info)
			// Go functions are the same for every variant.
			if ran[d.Kernel.Name] || dev.Info().Backend == "go" && len(ran) > 0 {
				continue
			}
			ran[d.Kernel.Name] = true
			b.Run(fmt.Sprintf("%s/%s/%s", dev.Info().Host, name, d.Kernel.Name), func(b *testing.B) {
				list, err := upload(dev, c, d)
				if err != nil {
					b.Fatal(err)
				}
				for b.Loop() {
					if err := dev.Submit(list); err != nil {
						b.Fatal(err)
					}
					if err := dev.Wait(); err != nil {
						b.Fatal(err)
					}
				}
				s := b.Elapsed().Seconds() / float64(b.N)
				b.ReportMetric(flops/s/1e9, "GFLOP/s")
				b.ReportMetric(bytes/s/1e9, "GB/s")
			})
		}
	}
}

// upload makes the case's buffers, which live as long as the device, and the list that runs d on them.
func upload(dev gpu.Device, c shaders.Case, d shaders.Dispatch) (*gpu.List, error) {
	p, err := dev.Compile(d.Kernel)
	if err != nil {
		return nil, err
	}
	var buffers []gpu.Buffer
	for i, words := range c.Buffers {
		size := 4 * len(words)
		b, err := dev.NewBuffer(d.Kernel.Labels[i], (size+31)/16*16)
		if err != nil {
			return nil, err
		}
		if err := dev.Write(b, 0, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), size)); err != nil {
			return nil, err
		}
		buffers = append(buffers, b)
	}
	var list gpu.List
	list.Dispatch(p, d.Groups, d.Params, buffers...)
	return &list, nil
}
