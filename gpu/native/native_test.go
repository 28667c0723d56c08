// SPDX-License-Identifier: Apache-2.0

//go:build cgo && !js && !wasip1

package native

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"fromage/gpu"
	"fromage/gpu/gputest"
)

// Lose makes the driver drop the device, as a reset would.
func (d *Device) Lose() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lose()
}

// need skips where there is no adapter, loudly, and fails there if FROMAGE_REQUIRE_GPU is 1.
func need(t testing.TB) {
	t.Helper()
	err := Available()
	if err == nil {
		return
	}
	if os.Getenv("FROMAGE_REQUIRE_GPU") == "1" {
		t.Fatalf("FROMAGE_REQUIRE_GPU=1: %v", err)
	}
	t.Skipf("SKIPPED, NOTHING TESTED: %v", err)
}

func open(t testing.TB, o Options) *Device {
	t.Helper()
	need(t)
	d, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestConformance(t *testing.T) {
	need(t)
	gputest.Conformance(t, func() (gpu.Device, error) { return Open(Options{Label: "conformance"}) })
}

func TestInfo(t *testing.T) {
	need(t)
	infos, err := Adapters()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		t.Logf("%+v", i)
		if i.Host != "native" || i.Adapter == "" || i.Backend == "" {
			t.Errorf("Adapters() has %+v, want host native, an adapter and a backend", i)
		}
		if cpu := strings.Contains(i.Adapter, "llvmpipe") || strings.Contains(i.Adapter, "SwiftShader"); cpu && !i.Software {
			t.Errorf("Adapters() calls %s hardware", i.Adapter)
		}
	}
	if d := open(t, Options{}); !reflect.DeepEqual(d.Info(), infos[0]) {
		t.Errorf("Open().Info() = %+v, want the first of Adapters(): %+v", d.Info(), infos[0])
	}
}

func TestOptions(t *testing.T) {
	d := open(t, Options{Limits: gpu.DefaultLimits, NoFeatures: true})
	if got := d.Info(); got.Limits != gpu.DefaultLimits || got.Features != (gpu.Features{}) {
		t.Errorf("Open with default limits and no features gives %+v", got)
	}
	if _, err := Open(Options{Adapter: "no such card"}); err == nil || !strings.Contains(err.Error(), d.Info().Adapter) {
		t.Errorf("Open of an unknown adapter: %v, want an error that names the known ones", err)
	}
	if d, err := Open(Options{Adapter: strings.ToUpper(d.Info().Adapter)}); err != nil {
		t.Error(err)
	} else {
		_ = d.Close()
	}
	d, err := Open(Options{Prefer: Hardware})
	if err == nil {
		if d.Info().Software {
			t.Errorf("Open of hardware gives %s", d.Info().Adapter)
		}
		_ = d.Close()
	}
}

// Extensions are compiled and run where the device lists them.
func TestFeatures(t *testing.T) {
	d := open(t, Options{})
	f := d.Info().Features
	for _, c := range []struct {
		listed bool
		kernel gpu.Kernel
	}{
		{f.Subgroups, gpu.Kernel{Name: "subgroups", Subgroups: true, Source: `
@group(0) @binding(0) var<uniform> p: vec4<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) { y[id.x] = 32u * (subgroupAdd(id.x + 1u) - subgroupAdd(id.x)) / subgroupAdd(1u); }`}},
		{f.SubgroupMin > 0, gpu.Kernel{Name: "subgroups of a size", Subgroups: true, Source: fmt.Sprintf(`
@group(0) @binding(0) var<uniform> p: vec4<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) { y[id.x] = subgroupAdd(1u) * 32u / %du; }`, f.SubgroupMin)}},
		{f.F16, gpu.Kernel{Name: "f16", F16: true, Source: `
@group(0) @binding(0) var<uniform> p: vec4<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) { y[id.x] = u32(f16(p.x) * f16(16)); }`}},
	} {
		k := c.kernel
		k.Params, k.Bindings = 16, []gpu.Access{gpu.ReadWrite}
		if !c.listed {
			t.Logf("%s: not listed by %s", k.Name, d.Info().Adapter)
			continue
		}
		p, err := d.Compile(&k)
		if err != nil {
			t.Error(err)
			continue
		}
		b, err := d.NewBuffer(k.Name, 4*64)
		if err != nil {
			t.Fatal(err)
		}
		var l gpu.List
		l.Dispatch(p, [3]int{1, 1, 1}, []byte{2, 0, 0, 0}, b)
		if err := d.Submit(&l); err != nil {
			t.Error(err)
		}
		got := make([]byte, 4*64)
		if err := d.Read(b, 0, got); err != nil {
			t.Error(err)
		}
		for i := range 64 {
			if got[4*i] != 32 {
				t.Errorf("%s: y[%d] = %d, want 32", k.Name, i, got[4*i])
			}
		}
	}
}

// What the process holds does not grow with the buffers it made and freed, the pipelines' bind groups, or the devices it opened and closed.
func TestLeaks(t *testing.T) {
	d := open(t, Options{})
	if rss() == 0 {
		t.Skip("SKIPPED: resident memory is read from /proc")
	}
	churn := func() {
		if err := gputest.Churn(d, 5000); err != nil {
			t.Fatal(err)
		}
	}
	devices := func() {
		for range 20 {
			d, err := Open(Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := gputest.Churn(d, 100); err != nil {
				t.Fatal(err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	churn()
	first := rss()
	churn()
	churn()
	if grown := rss() - first; grown > 96<<20 {
		t.Errorf("10000 more buffers (640 MiB in all) left %d MiB more than 5000 did", grown>>20)
	} else {
		t.Logf("10000 more buffers: %+d KiB of %d MiB", grown>>10, first>>20)
	}
	if n, bytes := d.handles.Buffers(); n != 0 || bytes != 0 || len(d.buffers) != 0 || len(d.groups) != 0 || len(d.users) != 0 {
		t.Errorf("after all were freed: %d buffers of %d bytes, %d in the driver, %d bind groups, %d users, want none",
			n, bytes, len(d.buffers), len(d.groups), len(d.users))
	}
	devices()
	first = rss()
	devices()
	if grown := rss() - first; grown > 96<<20 {
		t.Errorf("20 more devices left %d MiB more than 20 did", grown>>20)
	} else {
		t.Logf("20 more devices: %+d KiB of %d MiB", grown>>10, first>>20)
	}
}

// rss is the process's resident memory in bytes without Go's garbage, 0 where it cannot be told.
func rss() int {
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		return 0
	}
	return pages * os.Getpagesize()
}

// A read is right while garbage is collected all the time: no callback of the driver may hang on a Go variable that is gone.
func TestReadDuringCollection(t *testing.T) {
	d := open(t, Options{})
	b, err := d.NewBuffer("b", 4096)
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	got, want := make([]byte, 4096), make([]byte, 4096)
	for i := range 200 {
		for j := range want {
			want[j] = byte(i + j)
		}
		if err := d.Write(b, 0, want); err != nil {
			t.Fatal(err)
		}
		if err := d.Read(b, 0, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("read %d differs from what was written", i)
		}
	}
	close(stop)
	<-stopped
}

// The bind group cache is emptied before a list once it is full, and works on.
func TestGroupCache(t *testing.T) {
	d := open(t, Options{})
	k := &gpu.Kernel{
		Name: "one", Params: 16, Bindings: []gpu.Access{gpu.ReadWrite, gpu.ReadWrite},
		Source: `
@group(0) @binding(0) var<uniform> p: vec4<u32>;
@group(0) @binding(1) var<storage, read_write> a: array<u32>;
@group(0) @binding(2) var<storage, read_write> b: array<u32>;
@compute @workgroup_size(1)
fn main() { a[0] += p.x; b[0] += p.x; }`,
	}
	p, err := d.Compile(k)
	if err != nil {
		t.Fatal(err)
	}
	const n = 70 // n·(n-1) = 4830 ordered pairs, more than are kept
	var b [n]gpu.Buffer
	for i := range b {
		if b[i], err = d.NewBuffer("b", 4); err != nil {
			t.Fatal(err)
		}
	}
	var l gpu.List
	for i := range b {
		for j := range b {
			if i != j {
				l.Dispatch(p, [3]int{1, 1, 1}, []byte{1, 0, 0, 0}, b[i], b[j])
			}
		}
	}
	for round := 1; round <= 2; round++ {
		if err := d.Submit(&l); err != nil {
			t.Fatal(err)
		}
		for i := range b {
			var got [4]byte
			if err := d.Read(b[i], 0, got[:]); err != nil {
				t.Fatal(err)
			}
			if v, want := int(got[0])|int(got[1])<<8, round*2*(n-1); v != want {
				t.Fatalf("round %d: buffer %d = %d, want %d", round, i, v, want)
			}
		}
	}
	l.Reset()
	l.Clear(b[0], 0, 4)
	if err := d.Submit(&l); err != nil {
		t.Fatal(err)
	}
	if len(d.groups) > maxGroups {
		t.Errorf("%d bind groups kept after a list, want at most %d", len(d.groups), maxGroups)
	}
}

// A buffer that is too small for what the kernel declares passes the book of handles; the driver refuses it, and that is an error too.
func TestDriverRefuses(t *testing.T) {
	d := open(t, Options{})
	k := &gpu.Kernel{
		Name: "needs16", Params: 16, Bindings: []gpu.Access{gpu.ReadWrite},
		Source: `
@group(0) @binding(0) var<uniform> p: vec4<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<u32>>;
@compute @workgroup_size(1)
fn main() { y[0] = p; }`,
	}
	p, err := d.Compile(k)
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.NewBuffer("small", 4)
	if err != nil {
		t.Fatal(err)
	}
	var l gpu.List
	l.Dispatch(p, [3]int{1, 1, 1}, nil, b)
	for range 2 {
		if err := d.Submit(&l); !errors.Is(err, gpu.ErrInvalid) {
			t.Errorf("Submit with a buffer of 4 bytes where the kernel has vec4 = %v, want an error", err)
		}
	}
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}
