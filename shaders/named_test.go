// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math/rand/v2"
	"testing"

	"fromage/gpu"
)

// Whatever size a linear layer has and whatever device it runs on, its kernel has a name that Named knows.
func TestNamed(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(most uint32) uint32 { return 1 + r.Uint32N(1<<(1+r.Uint32N(most))) }
	for range 20000 {
		info := gpu.Info{Software: r.IntN(2) == 0, Limits: gpu.DefaultLimits}
		if r.IntN(3) > 0 {
			low := 4 << r.IntN(6)
			info.Features = gpu.Features{Subgroups: true, SubgroupMin: low, SubgroupMax: low << r.IntN(2)}
		}
		p := LinearParams{T: pick(12), K: 64 * pick(7), F: pick(16)}
		f := Format(r.IntN(len(formatNames)))
		if k := Linear(info, f, p).Kernel; Named(k.Name) != k {
			t.Fatalf("Named(%s) = %v, want the kernel for %+v on %+v", k.Name, Named(k.Name), p, info)
		}
	}
	if k := Linear(gpu.Info{}, F32, LinearParams{T: 1, K: 5, F: 1}).Kernel; Named(k.Name) != k {
		t.Errorf("Named(%s) = nil, want a kernel", k.Name)
	}
	for _, name := range []string{"", "linear_row", "linear_row.q8.ROWS9", "add "} {
		if k := Named(name); k != nil {
			t.Errorf("Named(%q) = %s, want nil", name, k.Name)
		}
	}
}
