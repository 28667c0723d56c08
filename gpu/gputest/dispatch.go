// SPDX-License-Identifier: Apache-2.0

package gputest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"fromage/gpu"
)

func testDispatch(t *testing.T, d *device) {
	p := d.compile(scale)
	for _, n := range []int{1, 31, workgroup - 1, workgroup, workgroup + 1, 10007} {
		x := sequence(n, func(i uint32) uint32 { return i*i + 7 })
		in, out := d.buffer(x...), d.empty(n+1)
		var l gpu.List
		l.Dispatch(p, groups(n), bytesOf(uint32(n), 5, 11), in, out)
		d.submit(&l)
		want := make([]uint32, n+1)
		for i, v := range x {
			want[i] = 5*v + 11
		}
		d.wantWords(fmt.Sprintf("scale of %d words", n), out, want)
	}
}

// groups is the grid of a kernel over n words.
func groups(n int) [3]int { return [3]int{(n + workgroup - 1) / workgroup, 1, 1} }

func testParams(t *testing.T, d *device) {
	p := d.compile(wide)
	out := []gpu.Buffer{d.empty(3), d.empty(3)}
	all := sequence(gpu.MaxParams/4, func(i uint32) uint32 { return 1 << (i % 32) })
	all[0] = 3
	var l gpu.List
	l.Dispatch(p, groups(3), bytesOf(all...), out[0])
	l.Dispatch(p, groups(3), bytesOf(2, 40), out[1]) // what is not given is zero
	d.submit(&l)
	sum := uint32(0)
	for _, v := range all[1:] {
		sum += v
	}
	d.wantWords("all parameters", out[0], []uint32{sum, sum + 1, sum + 2})
	d.wantWords("few parameters", out[1], []uint32{40, 41, 0})
}

func testGrid(t *testing.T, d *device) {
	p := d.compile(grid)
	for _, g := range [][3]int{{1, 1, 1}, {5, 1, 1}, {1, 7, 1}, {1, 1, 3}, {5, 7, 3}, {0, 1, 1}, {1, 0, 1}, {1, 1, 0}} {
		out := d.empty(5*7*3 + 1)
		var l gpu.List
		l.Dispatch(p, g, bytesOf(9), out)
		d.submit(&l)
		want := make([]uint32, 5*7*3+1)
		for z := range g[2] {
			for y := range g[1] {
				for x := range g[0] {
					want[(z*g[1]+y)*g[0]+x] = uint32(x + 1000*y + 1000000*z + 9)
				}
			}
		}
		d.wantWords(fmt.Sprintf("grid %v", g), out, want)
	}
}

func testOrderInList(t *testing.T, d *device) {
	p, q := d.compile(push), d.compile(scale)
	const n = 300
	a, b := d.empty(n), d.empty(n)
	var l gpu.List
	l.Dispatch(p, groups(n), bytesOf(n, 2), a)        // a = 2
	l.Dispatch(p, groups(n), bytesOf(n, 5), a)        // a = 11
	l.Dispatch(q, groups(n), bytesOf(n, 10, 1), a, b) // b = 111
	l.Copy(a, 0, b, 0, 4*n/2)                         // a = 111 in its first half
	l.Dispatch(p, groups(n), bytesOf(n, 1), a)        // a = 334, 34
	l.Clear(b, 4*n/2, 4*n/2)                          // b = 111, 0
	l.Dispatch(q, groups(n), bytesOf(n, 2, 3), b, a)  // a = 225, 3
	l.Dispatch(p, groups(n), bytesOf(n, 4), b)        // b = 337, 4
	d.submit(&l)
	half := func(first, second uint32) []uint32 {
		return sequence(n, func(i uint32) uint32 {
			if i < n/2 {
				return first
			}
			return second
		})
	}
	d.wantWords("a", a, half(225, 3))
	d.wantWords("b", b, half(337, 4))
}

func testOrderAcrossSubmits(t *testing.T, d *device) {
	p := d.compile(push)
	const n = 200
	a, kept := d.empty(n), d.empty(4)
	want := uint32(0)
	for i := range uint32(50) {
		var l gpu.List
		l.Dispatch(p, groups(n), bytesOf(n, i), a)
		d.submit(&l)
		want = 3*want + i
		if i%10 == 4 { // a write comes after the lists before it and before those after it
			if err := d.Write(a, 0, bytesOf(sequence(n, func(uint32) uint32 { return i })...)); err != nil {
				t.Fatal(err)
			}
			want = i
		}
		if i == 30 {
			l.Reset()
			l.Copy(kept, 0, a, 0, 16)
			d.submit(&l)
			d.wantWords("kept", kept, []uint32{want, want, want, want})
		}
	}
	if err := d.Wait(); err != nil {
		t.Fatal(err)
	}
	d.wantWords("after 50 lists", a, sequence(n, func(uint32) uint32 { return want }))
}

func testListReuse(t *testing.T, d *device) {
	p := d.compile(push)
	a, b := d.empty(1), d.empty(1)
	var l gpu.List
	d.submit(&l) // an empty list does nothing
	l.Dispatch(p, groups(1), bytesOf(1, 1), a)
	d.submit(&l)
	d.submit(&l) // a = 4
	l.Dispatch(p, groups(1), bytesOf(1, 7), b)
	d.submit(&l) // a = 13, b = 7
	l.Reset()
	l.Dispatch(p, groups(1), bytesOf(1, 100), b)
	d.submit(&l) // b = 121
	l.Reset()    // what was submitted must not see this
	d.wantWords("a", a, []uint32{13})
	d.wantWords("b", b, []uint32{121})
}

func testSharedRead(t *testing.T, d *device) {
	p := d.compile(sum)
	a, y := d.buffer(1, 2, 3), d.empty(3)
	var l gpu.List
	l.Dispatch(p, [3]int{3, 1, 1}, bytesOf(10), a, a, y)
	d.submit(&l)
	d.wantWords("one buffer read twice", y, []uint32{12, 14, 16})
	l.Reset()
	l.Dispatch(p, [3]int{3, 1, 1}, bytesOf(10), a, y, y)
	wantError(t, "one buffer read and written", d.Submit(&l), gpu.ErrInvalid, "b", "y", sum.Name)
}

func testRefusedDispatches(t *testing.T, d *device) {
	p := d.compile(scale)
	in, out := d.buffer(1, 2, 3, 4), d.empty(4)
	params, many := bytesOf(4, 1, 0), d.Info().Limits.MaxGroups+1
	for _, c := range []struct {
		what    string
		p       gpu.Pipeline
		groups  [3]int
		buffers []gpu.Buffer
		names   []string
	}{
		{"no buffers", p, [3]int{1, 1, 1}, nil, []string{scale.Name, "want 2"}},
		{"too few buffers", p, [3]int{1, 1, 1}, []gpu.Buffer{in}, []string{scale.Name, "want 2"}},
		{"too many buffers", p, [3]int{1, 1, 1}, []gpu.Buffer{in, out, in}, []string{scale.Name, "want 2"}},
		{"read and written", p, [3]int{1, 1, 1}, []gpu.Buffer{out, out}, []string{scale.Name, "x", "y"}},
		{"unknown buffer", p, [3]int{1, 1, 1}, []gpu.Buffer{in, 1 << 31}, []string{scale.Name, "y"}},
		{"zero buffer", p, [3]int{1, 1, 1}, []gpu.Buffer{0, out}, []string{scale.Name, "x"}},
		{"pipeline as buffer", p, [3]int{1, 1, 1}, []gpu.Buffer{in, gpu.Buffer(p)}, []string{scale.Name, "y"}},
		{"unknown pipeline", 1 << 31, [3]int{1, 1, 1}, []gpu.Buffer{in, out}, nil},
		{"buffer as pipeline", gpu.Pipeline(in), [3]int{1, 1, 1}, []gpu.Buffer{in, out}, nil},
		{"too many groups in x", p, [3]int{many, 1, 1}, []gpu.Buffer{in, out}, []string{scale.Name}},
		{"too many groups in y", p, [3]int{1, many, 1}, []gpu.Buffer{in, out}, []string{scale.Name}},
		{"too many groups in z", p, [3]int{1, 1, many}, []gpu.Buffer{in, out}, []string{scale.Name}},
		{"2³² groups", p, [3]int{1 << 32, 1, 1}, []gpu.Buffer{in, out}, []string{scale.Name}},
		{"negative groups", p, [3]int{-1, 1, 1}, []gpu.Buffer{in, out}, []string{scale.Name}},
	} {
		var l gpu.List
		l.Dispatch(p, [3]int{1, 1, 1}, params, in, out)
		l.Dispatch(c.p, c.groups, params, c.buffers...)
		wantError(t, c.what, d.Submit(&l), gpu.ErrInvalid, append(c.names, "command 1")...)
	}
}

func testReach(t *testing.T, d *device) {
	p := d.compile(bounded)
	in, out, short := d.buffer(1, 2, 3, 4), d.empty(4), d.empty(3)
	var l gpu.List
	l.Dispatch(p, [3]int{1, 1, 1}, bytesOf(4, 2, 0), in, out)
	d.submit(&l)
	d.wantWords("a dispatch that reaches the end", out, []uint32{2, 4, 6, 8})
	for _, c := range []struct {
		n       uint32
		in, out gpu.Buffer
		names   []string
	}{{4, short, out, []string{"x"}}, {4, in, short, []string{"y"}}, {1 << 31, in, out, []string{"x"}}, {7, in, out, []string{"07 00 00 00"}}} {
		l.Reset()
		l.Dispatch(p, [3]int{1, 1, 1}, bytesOf(c.n, 2, 0), c.in, c.out)
		wantError(t, fmt.Sprintf("a dispatch over %d words", c.n), d.Submit(&l), gpu.ErrInvalid, append(c.names, bounded.Name)...)
	}
}

// testTime holds a device with a clock to one time for each dispatch and to the same results; one without must say so.
func testTime(t *testing.T, d *device) {
	timer, ok := d.Device.(gpu.Timer)
	if !ok {
		t.Skipf("SKIPPED: the %s device is no gpu.Timer", d.Info().Host)
	}
	const n = 3000 // more than one set of times has room for
	b, spare := d.buffer(0, 7), d.empty(2)
	p := d.compile(push)
	var l gpu.List
	want := uint32(0)
	for i := range uint32(n) {
		l.Dispatch(p, groups(1), bytesOf(1, i), b)
		want = 3*want + i
		if i == n/2 {
			l.Copy(spare, 0, b, 0, 8)
			l.Clear(b, 4, 4)
		}
	}
	took, err := timer.Time(&l)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("SKIPPED: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	sum := time.Duration(0)
	for i, one := range took {
		if one < 0 {
			t.Errorf("Time: dispatch %d took %v", i, one)
		}
		sum += one
	}
	if len(took) != n || sum <= 0 {
		t.Errorf("Time = %d times, %v together, want %d and more than none", len(took), sum, n)
	}
	d.wantWords("after Time", b, []uint32{want, 0})
	var bad gpu.List
	bad.Dispatch(p, groups(1), bytesOf(1, 1))
	if _, err := timer.Time(&bad); !errors.Is(err, gpu.ErrInvalid) {
		t.Errorf("Time of a dispatch without its buffer: error = %v, want %v", err, gpu.ErrInvalid)
	}
	if took, err := timer.Time(new(gpu.List)); err != nil || len(took) != 0 {
		t.Errorf("Time of nothing = %v, %v, want nothing", took, err)
	}
}

func testRefusedListDoesNothing(t *testing.T, d *device) {
	p := d.compile(push)
	b := d.buffer(1, 1)
	var l gpu.List
	l.Dispatch(p, groups(2), bytesOf(2, 1), b)
	l.Clear(b, 8, 4)
	wantError(t, "clear past the end", d.Submit(&l), gpu.ErrInvalid, "command 1")
	d.wantWords("after a list refused at its second command", b, []uint32{1, 1})
}

func testCompile(t *testing.T, d *device) {
	p, q := d.compile(push), d.compile(scale)
	if p == 0 || q == 0 || p == q {
		t.Errorf("Compile of two kernels = %d and %d, want two pipelines", p, q)
	}
	if again := d.compile(push); again != p {
		t.Errorf("second Compile of %s = %d, want %d", push.Name, again, p)
	}
	same := *push
	same.Source = "not read, as the name is known"
	if again := d.compile(&same); again != p {
		t.Errorf("Compile of another %s = %d, want %d", push.Name, again, p)
	}
}

func testRefusedKernels(t *testing.T, d *device) {
	i := d.Info()
	for _, c := range []struct {
		what   string
		change func(k *gpu.Kernel)
		skip   bool
	}{
		{"no parameters", func(k *gpu.Kernel) { k.Params = 0 }, false},
		{"odd parameters", func(k *gpu.Kernel) { k.Params = 20 }, false},
		{"too many parameters", func(k *gpu.Kernel) { k.Params = gpu.MaxParams + 16 }, false},
		{"too many bindings", func(k *gpu.Kernel) { k.Bindings = make([]gpu.Access, i.Limits.MaxBindings+1) }, false},
		{"subgroups", func(k *gpu.Kernel) { k.Subgroups = true }, i.Features.Subgroups},
		{"f16", func(k *gpu.Kernel) { k.F16 = true }, i.Features.F16},
	} {
		if c.skip {
			continue
		}
		k := *push
		k.Name = "gputest.refused." + c.what
		c.change(&k)
		_, err := d.Compile(&k)
		wantError(t, c.what, err, gpu.ErrInvalid, k.Name)
	}
}

func testBrokenWGSL(t *testing.T, d *device) {
	if d.Info().Backend == "go" {
		t.Skip("SKIPPED: the device runs Go functions and does not read WGSL")
	}
	for _, c := range broken {
		for range 2 { // a name that failed must fail again
			_, err := d.Compile(c.kernel)
			wantError(t, c.kernel.Name, err, gpu.ErrInvalid, c.kernel.Name, c.line)
		}
	}
	testDispatch(t, d) // the device is as good as before
}

func testLongList(t *testing.T, d *device) {
	p := d.compile(push)
	const n, length = 65, 1000
	b, c := d.empty(n), d.empty(n)
	var l gpu.List
	want := [2]uint32{}
	for i := range uint32(length) {
		to := []gpu.Buffer{b, c}[i%2]
		l.Dispatch(p, groups(n), bytesOf(n, i), to)
		want[i%2] = 3*want[i%2] + i
	}
	if got := l.Dispatches(); got != length {
		t.Errorf("Dispatches() = %d, want %d", got, length)
	}
	d.submit(&l)
	d.wantWords("even dispatches", b, sequence(n, func(uint32) uint32 { return want[0] }))
	d.wantWords("odd dispatches", c, sequence(n, func(uint32) uint32 { return want[1] }))
}
