// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"sync"

	"fromage/gpu"
)

// Named returns the kernel of a name, nil if there is none: every kernel that the rules choose for some size on some device. A host that runs
// programs of others finds by it the twin that belongs to a text.
func Named(name string) *gpu.Kernel {
	named.once.Do(func() { named.kernels = everyKernel() })
	return named.kernels[name]
}

// named is not a sync.OnceValue, which would put the cases into every program that computes.
var named struct {
	once    sync.Once
	kernels map[string]*gpu.Kernel
}

func everyKernel() map[string]*gpu.Kernel {
	all := map[string]*gpu.Kernel{}
	add := func(d Dispatch) { all[d.Kernel.Name] = d.Kernel }
	infos := everyDevice()
	for _, c := range Cases() {
		for _, info := range infos {
			add(c.Dispatch(info))
		}
	}
	for _, info := range infos {
		for _, d := range linearVariants(info) {
			add(d)
		}
		for _, c := range Classes(info.Software, F32, F16, Q8, Q4) {
			for _, d := range c.Forms(info) {
				add(d)
			}
		}
	}
	return all
}

// everyDevice describes one device of each kind between which the rules distinguish.
func everyDevice() []gpu.Info {
	features := []gpu.Features{{}, {Subgroups: true, SubgroupMin: 4, SubgroupMax: 128}}
	for size := 4; size <= 128; size *= 2 {
		features = append(features, gpu.Features{Subgroups: true, SubgroupMin: size, SubgroupMax: size})
	}
	var all []gpu.Info
	for _, f := range features {
		for _, software := range []bool{false, true} {
			all = append(all, gpu.Info{Software: software, Features: f, Limits: gpu.DefaultLimits})
		}
	}
	return all
}
