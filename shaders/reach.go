// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"math"
	"runtime"
)

// withReach says whether kernels say what they reach. A program for wasip1 without twins has no device but gpu/remote, whose host asks its own kernels.
const withReach = withTwins || runtime.GOOS != "wasip1"

// reacher is parameters that say how many words of each binding their kernel looks at, in binding order: see gpu.Kernel. Kernels without are not for
// programs that nobody trusts.
type reacher interface{ reach() []uint64 }

// reachOf is the Reach of a kernel with parameters P, nil where those say nothing.
func reachOf[P any](decode func([]byte) P) func([]byte) []uint64 {
	if !withReach {
		return nil
	}
	var p P
	if _, ok := any(p).(reacher); !ok {
		return nil
	}
	return func(b []byte) []uint64 { return any(decode(b)).(reacher).reach() }
}

// words is the product of dimensions. One that is 0 counts as 1, so that it does not make the others free; what is too large stays too large.
func words(dimensions ...uint64) uint64 {
	product := uint64(1)
	for _, d := range dimensions {
		d = max(d, 1)
		if product > math.MaxUint64/d {
			return math.MaxUint64
		}
		product *= d
	}
	return product
}

// where is n words if a flag among the parameters is set.
func where(flag uint32, n uint64) uint64 {
	if flag == 1 {
		return n
	}
	return 0
}

// words is how many words the values and scales of a (rows, K) matrix take.
func (f Format) words(rows, K uint32) (values, scales uint64) {
	values = words(uint64(rows), uint64(f.RowBytes(int(K)))) / 4
	if n := f.ScaleBytes(int(K)); n > 0 {
		scales = words(uint64(rows), uint64(n)) / 4
	}
	return values, scales
}
