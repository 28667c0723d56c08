// SPDX-License-Identifier: Apache-2.0

package headless

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"

	"fromage/assets"
	"fromage/gpu/cpu"
	"fromage/gpu/host"
)

// TestMany runs 100 guests on one device with one copy of the weights, each of which answers, and wants nothing left of them.
func TestMany(t *testing.T) {
	n := 100
	if testing.Short() {
		n = 10
	}
	m := instantiate(t, cpu.New(), Config{Files: assets.Files(), Model: assets.BundleFile})
	first := start(t, m)
	want := say(t, first, "Once upon a time")
	one := m.Usage()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	goroutines := settled()
	before := resident(t)

	guests := make([]*Guest, n)
	var all sync.WaitGroup
	turn := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i := range guests {
		all.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			var err error
			if guests[i], err = m.Guest(t.Context()); err != nil {
				t.Error(err)
				return
			}
			if got := say(t, guests[i], "Once upon a time"); got != want {
				t.Errorf("guest %d says %q, want %q", i, got, want)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	if u := m.Usage(); u.Buffers != n*one.Buffers || u.Bytes != n*one.Bytes {
		t.Errorf("%d guests have %+v, want %d times %+v", n, u, n, one)
	}
	memory := 0
	for _, g := range guests {
		memory += g.Memory()
	}
	settled()
	during := resident(t)
	t.Logf("%d guests: %.1f MB of guest memory each, %.1f MB of buffers each; the process has %.1f MB more for each", n,
		float64(memory)/float64(n)/1e6, float64(one.Bytes)/1e6, float64(during-before)/float64(n)/1e6)

	for _, g := range guests {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	clear(guests)
	if u := m.Usage(); u != (host.Usage{}) {
		t.Errorf("after all are closed they have %+v", u)
	}
	if g := settled(); g > goroutines {
		t.Errorf("%d goroutines after all are closed, want the %d of before", g, goroutines)
	}
	after := resident(t)
	t.Logf("resident: %.1f MB before, %.1f MB with %d guests, %.1f MB after", float64(before)/1e6, float64(during)/1e6, n, float64(after)/1e6)
	if left := after - before; before > 0 && left > (during-before)/5 {
		t.Errorf("%.1f MB are left after all are closed, of %.1f MB", float64(left)/1e6, float64(during-before)/1e6)
	}
	if got := say(t, start(t, m), "Once upon a time"); got != want {
		t.Errorf("a guest after all others says %q, want %q", got, want)
	}
}

// settled collects what is garbage and returns the number of goroutines.
func settled() int {
	for range 3 {
		debug.FreeOSMemory()
	}
	return runtime.NumGoroutine()
}

// resident is what the process has in memory, 0 where that is not known.
func resident(t testing.TB) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, err := strconv.Atoi(strings.Fields(string(data))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
