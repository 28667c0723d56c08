// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// parallel calls f for parts of [0, n) that cover it, on as many goroutines as Go runs at once. What is computed must not depend on the parts.
// A buffer that is too short shows as a panic in f, which the caller, not a goroutine, can answer for: it comes out of parallel.
func parallel(n int, f func(first, last int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	if workers <= 1 {
		f(0, n)
		return
	}
	// More parts than workers, since parts are not equally much work and cores not equally free.
	part := ceil(n, 4*workers)
	var next atomic.Int64
	var done sync.WaitGroup
	failed := make([]any, workers)
	for i := range workers {
		done.Go(func() {
			defer func() { failed[i] = recover() }()
			for {
				last := int(next.Add(int64(part)))
				if last-part >= n {
					return
				}
				f(last-part, min(last, n))
			}
		})
	}
	done.Wait()
	for _, r := range failed {
		if r != nil {
			panic(r)
		}
	}
}

// byRows makes the twin and the fast form of a kernel whose rows do not depend on each other: the same function over all rows, and over parts
// of them at once.
func byRows[P, B any](count func(P) int, rows func(p P, b B, first, last int)) (twin, fast func(P, B)) {
	twin = func(p P, b B) { rows(p, b, 0, count(p)) }
	fast = func(p P, b B) { parallel(count(p), func(first, last int) { rows(p, b, first, last) }) }
	return twin, fast
}
