// SPDX-License-Identifier: Apache-2.0

package ahead

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
)

func TestMap(t *testing.T) {
	for _, n := range []int{0, 1, 2, 7, 100} {
		var list, want []int
		for i := range n {
			list, want = append(list, i), append(want, i*i)
		}
		for _, workers := range []int{1, 3} {
			for _, keep := range []int{0, 1, 50} {
				var running, most atomic.Int64
				got := slices.Collect(Map(context.Background(), list, workers, keep, func(x int) int {
					now := running.Add(1)
					defer running.Add(-1)
					for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
					}
					return x * x
				}))
				if !slices.Equal(got, want) || most.Load() > int64(workers) {
					t.Errorf("Map of %d, %d workers, %d kept = %v with %d at a time, want %v", n, workers, keep, got, most.Load(), want)
				}
			}
		}
	}
}

// TestStop: whether the taker stops or the context ends, no call runs on and few were begun.
func TestStop(t *testing.T) {
	list := make([]int, 1000)
	for _, cancelled := range []bool{false, true} {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var begun, ended atomic.Int64
		taken := 0
		for range Map(ctx, list, 2, 3, func(int) int { begun.Add(1); ended.Add(1); return 0 }) {
			if taken++; taken < 10 {
				continue
			}
			if !cancelled {
				break
			}
			cancel()
		}
		if taken != 10 || begun.Load() != ended.Load() || begun.Load() > 10+5+1 {
			t.Errorf("stopped after 10 (by context: %t): %d taken, %d begun, %d ended", cancelled, taken, begun.Load(), ended.Load())
		}
	}
}
