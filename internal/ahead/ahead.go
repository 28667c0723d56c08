// SPDX-License-Identifier: Apache-2.0

// Package ahead computes things on many goroutines before they are asked for.
//
// What enters is a list and a function; what leaves is the function's results, in the list's order. The package refuses to know what they are.
package ahead

import (
	"context"
	"iter"
)

// Map yields f(x) for every x of list, in order. Up to workers calls run at one time, and up to keep more results wait to be taken. It ends early, without
// a word, when ctx does; when it ends no call is running.
func Map[X, Y any](ctx context.Context, list []X, workers, keep int, f func(X) Y) iter.Seq[Y] {
	return func(yield func(Y) bool) {
		results := make([]chan Y, workers+keep) // a ring: result i waits in results[i mod len]
		for i := range results {
			results[i] = make(chan Y, 1)
		}
		running := make(chan struct{}, workers)
		started := 0
		start := func() {
			x, slot := list[started], results[started%len(results)]
			started++
			go func() {
				running <- struct{}{}
				y := f(x)
				<-running
				slot <- y
			}()
		}
		for taken := range list {
			for started < len(list) && started < taken+len(results) {
				start()
			}
			y := <-results[taken%len(results)]
			if ctx.Err() != nil || !yield(y) {
				for taken++; taken < started; taken++ {
					<-results[taken%len(results)]
				}
				return
			}
		}
	}
}
