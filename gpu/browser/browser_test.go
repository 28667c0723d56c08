// SPDX-License-Identifier: Apache-2.0

//go:build js && wasm

package browser

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall/js"
	"testing"
	"time"

	"fromage/gpu"
	"fromage/gpu/gputest"
)

func open(t testing.TB, o Options) *Device {
	t.Helper()
	d, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// define gives a JavaScript object a property of its own until the test ends.
func define(t *testing.T, object js.Value, name string, value any) {
	t.Helper()
	reflect := js.Global().Get("Reflect")
	before := js.Global().Get("Object").Call("getOwnPropertyDescriptor", object, name)
	ok := reflect.Call("defineProperty", object, name, map[string]any{"value": value, "configurable": true, "writable": true}).Bool()
	if !ok {
		t.Fatalf("property %s cannot be defined", name)
	}
	t.Cleanup(func() {
		reflect.Call("deleteProperty", object, name)
		if before.Truthy() {
			reflect.Call("defineProperty", object, name, before)
		}
	})
}

// function is a JavaScript function until the test ends.
func function(t *testing.T, f func(this js.Value, args []js.Value) any) js.Func {
	fn := js.FuncOf(f)
	t.Cleanup(fn.Release)
	return fn
}

func TestConformance(t *testing.T) {
	gputest.Conformance(t, func() (gpu.Device, error) { return Open(context.Background(), Options{Label: "conformance"}) })
}

func TestInfo(t *testing.T) {
	i := open(t, Options{}).Info()
	t.Logf("%+v", i)
	if i.Host != "browser" || i.Adapter == "" || i.Backend == "" || i.Driver == "" {
		t.Errorf("Info() = %+v, want host browser, an adapter, a backend and a driver", i)
	}
	if strings.Contains(i.Adapter, "swiftshader") && !i.Software {
		t.Errorf("Info() calls %s hardware", i.Adapter)
	}
	if f := i.Features; f.Subgroups != (f.SubgroupMin > 0 && f.SubgroupMin <= f.SubgroupMax) {
		t.Errorf("Info().Features = %+v, want sizes of subgroups just where there are some", f)
	}
	o := Options{Limits: gpu.DefaultLimits, NoFeatures: true, LowPower: true}
	if i := open(t, o).Info(); i.Limits != gpu.DefaultLimits || i.Features != (gpu.Features{}) {
		t.Errorf("Open with default limits and no features gives %+v", i)
	}
}

// Each way of having no WebGPU has its own error.
func TestOpenFails(t *testing.T) {
	global := js.Global()
	navigator := global.Get("navigator")
	reject := function(t, func(js.Value, []js.Value) any {
		return global.Get("Promise").Call("reject", global.Get("Error").New("not today"))
	})
	null := function(t, func(js.Value, []js.Value) any { return global.Get("Promise").Call("resolve", js.Null()) })
	never := function(t, func(js.Value, []js.Value) any {
		return global.Get("Promise").New(function(t, func(js.Value, []js.Value) any { return nil }))
	})
	soon, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	for _, c := range []struct {
		name   string
		ctx    context.Context
		object js.Value
		key    string
		value  any
		want   error
		text   string
	}{
		{"no script", context.Background(), global, "fromageGPU", js.Undefined(), ErrNoScript, "gpu.js"},
		{"old script", context.Background(), global, "fromageGPU", map[string]any{"version": 0}, ErrNoScript, "want version 1, have 0"},
		{"insecure", context.Background(), global, "isSecureContext", false, ErrInsecure, "https"},
		{"no WebGPU", context.Background(), navigator, "gpu", js.Undefined(), ErrNoWebGPU, "Firefox"},
		{"no adapter", context.Background(), navigator.Get("gpu"), "requestAdapter", null, ErrNoAdapter, "driver"},
		{"adapter refused", context.Background(), navigator.Get("gpu"), "requestAdapter", reject, ErrNoAdapter, "not today"},
		{"out of time", soon, navigator.Get("gpu"), "requestAdapter", never, context.DeadlineExceeded, ""},
		{"device refused", context.Background(), global.Get("GPUAdapter").Get("prototype"), "requestDevice", reject, nil, "not today"},
	} {
		t.Run(c.name, func(t *testing.T) {
			define(t, c.object, c.key, c.value)
			_, err := Open(c.ctx, Options{})
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("Open() = %v, want %v that says %q", err, c.want, c.text)
			}
		})
	}
	open(t, Options{}) // all is as before
}

// A device that is refused with the adapter's limits is asked for with the defaults.
func TestOpenFallsBack(t *testing.T) {
	prototype := js.Global().Get("GPUAdapter").Get("prototype")
	original := prototype.Get("requestDevice")
	calls := 0
	define(t, prototype, "requestDevice", function(t, func(this js.Value, args []js.Value) any {
		if calls++; calls == 1 {
			return js.Global().Get("Promise").Call("reject", js.Global().Get("Error").New("too much"))
		}
		return original.Call("call", this, args[0])
	}))
	if i := open(t, Options{}).Info(); i.Limits != gpu.DefaultLimits || i.Features != (gpu.Features{}) || calls != 2 {
		t.Errorf("Open after a refusal gives %+v by %d requests, want the defaults by 2", i, calls)
	}
}

// kernel makes a kernel of one invocation over buffers of words.
func kernel(name, body string, buffers int) *gpu.Kernel {
	k := &gpu.Kernel{Name: name, Params: 16, Source: "@group(0) @binding(0) var<uniform> p: vec4<u32>;\n"}
	for i := range buffers {
		k.Bindings = append(k.Bindings, gpu.ReadWrite)
		k.Source += fmt.Sprintf("@group(0) @binding(%d) var<storage, read_write> y%d: array<u32>;\n", i+1, i)
	}
	k.Source += "@compute @workgroup_size(1)\nfn main() { " + body + " }"
	return k
}

func word(t *testing.T, d *Device, b gpu.Buffer) int {
	t.Helper()
	var got [4]byte
	must(t, d.Read(b, 0, got[:]))
	return int(got[0]) | int(got[1])<<8 | int(got[2])<<16 | int(got[3])<<24
}

// Extensions are enabled where the device lists them.
func TestFeatures(t *testing.T) {
	d := open(t, Options{})
	f := d.Info().Features
	for _, c := range []struct {
		name           string
		subgroups, f16 bool
		body           string
		want           int
	}{
		{"subgroups", true, false, "y0[0] = subgroupAdd(p.x);", 7},
		{"f16", false, true, "y0[0] = u32(f16(p.x) + 0.5h);", 7},
		{"both", true, true, "y0[0] = u32(subgroupAdd(f16(p.x)));", 7},
	} {
		if c.subgroups && !f.Subgroups || c.f16 && !f.F16 {
			t.Logf("NOT TESTED: %s, which the device lacks", c.name)
			continue
		}
		k := kernel(c.name, c.body, 1)
		k.Subgroups, k.F16 = c.subgroups, c.f16
		p, err := d.Compile(k)
		must(t, err)
		b := buffer(t, d, 4)
		var l gpu.List
		l.Dispatch(p, [3]int{1, 1, 1}, []byte{7}, b)
		must(t, d.Submit(&l))
		if got := word(t, d, b); got != c.want {
			t.Errorf("%s: y = %d, want %d", c.name, got, c.want)
		}
	}
}

// Kernels compile side by side; what is wrong with one is told with its name and line and does not keep the others.
func TestPrecompile(t *testing.T) {
	d := open(t, Options{})
	var kernels []*gpu.Kernel
	for i := range 20 {
		kernels = append(kernels, kernel(fmt.Sprintf("k%d", i), fmt.Sprintf("y0[0] = %du;", i), 1))
	}
	again := d.Precompile(append(kernels, kernels...)) // each name twice at the same time
	must(t, again)
	if len(d.compiling) != 0 {
		t.Errorf("%d kernels are still compiling", len(d.compiling))
	}
	b := buffer(t, d, 4)
	for i, k := range kernels {
		p, err := d.Compile(k)
		must(t, err)
		var l gpu.List
		l.Dispatch(p, [3]int{1, 1, 1}, nil, b)
		must(t, d.Submit(&l))
		if got := word(t, d, b); got != i {
			t.Errorf("kernel %s = %d, want %d", k.Name, got, i)
		}
	}
	bad, good := kernel("bad", "y0[0] = 1.5f;", 1), kernel("good", "y0[0] = 1;", 1)
	err := d.Precompile([]*gpu.Kernel{bad, good, {Name: "no params"}})
	for _, part := range []string{"bad:4:", "no params"} {
		if !errors.Is(err, gpu.ErrInvalid) || !strings.Contains(err.Error(), part) {
			t.Errorf("Precompile() = %v, want it to name %q", err, part)
		}
	}
	if _, ok := d.handles.Kernel("good"); !ok {
		t.Error("a bad kernel kept a good one from being compiled")
	}
}

// A buffer that is too small for what the kernel declares passes the book of handles. The browser refuses it after Submit has returned; the
// next call that waits says so with the list's kernels, once, and the device works on.
func TestLateError(t *testing.T) {
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
	must(t, err)
	small := buffer(t, d, 4)
	var l gpu.List
	l.Dispatch(p, [3]int{1, 1, 1}, nil, small)
	for _, c := range []struct {
		name string
		call func() error
	}{
		{"Wait", d.Wait},
		{"Read", func() error { return d.Read(small, 0, make([]byte, 4)) }},
		{"Write", func() error { time.Sleep(100 * time.Millisecond); return d.Write(small, 0, make([]byte, 4)) }},
	} {
		must(t, d.Submit(&l))
		err := c.call()
		if !errors.Is(err, gpu.ErrInvalid) || !strings.Contains(fmt.Sprint(err), "list of needs16") {
			t.Errorf("%s after a list that the browser refuses = %v, want an error that names its kernel", c.name, err)
		}
		if err := d.Wait(); err != nil {
			t.Errorf("the error is told again: %v", err)
		}
	}
}

// Where the browser has no memory for a buffer, that is ErrMemory; the device and its book of buffers stay as they were.
func TestOutOfMemory(t *testing.T) {
	d := open(t, Options{})
	failing := map[string]any{"constructor": map[string]any{"name": "GPUOutOfMemoryError"}, "message": "no room"}
	var errs []any
	define(t, d.session.Get("device"), "popErrorScope", function(t, func(js.Value, []js.Value) any {
		errs = append(errs, nil)
		if len(errs) == 2 { // the outer scope
			return js.Global().Get("Promise").Call("resolve", failing)
		}
		return js.Global().Get("Promise").Call("resolve", js.Null())
	}))
	_, err := d.NewBuffer("big", 4)
	if !errors.Is(err, gpu.ErrMemory) || !strings.Contains(err.Error(), "big") || !strings.Contains(err.Error(), "no room") {
		t.Errorf("NewBuffer() = %v, want %v that names the buffer", err, gpu.ErrMemory)
	}
	if n, _ := d.handles.Buffers(); n != 0 || d.session.Get("buffers").Get("size").Int() != 0 {
		t.Errorf("a buffer that was not made is in the books: %d", n)
	}
}

func TestWriteJS(t *testing.T) {
	d := open(t, Options{})
	b := buffer(t, d, 16)
	array := js.Global().Get("Uint8Array").New(10)
	for i := range 10 {
		array.SetIndex(i, i+1)
	}
	must(t, d.WriteJS(b, 4, array.Call("subarray", 1, 9)))
	array.Call("fill", 0) // the call must have taken its copy
	got := make([]byte, 16)
	must(t, d.Read(b, 0, got))
	if want := "[0 0 0 0 2 3 4 5 6 7 8 9 0 0 0 0]"; fmt.Sprint(got) != want {
		t.Errorf("after WriteJS: %v, want %s", got, want)
	}
	for name, err := range map[string]error{
		"odd length":      d.WriteJS(b, 0, array),
		"past the end":    d.WriteJS(b, 12, array.Call("subarray", 0, 8)),
		"not bytes":       d.WriteJS(b, 0, js.ValueOf("text")),
		"freed, no bytes": d.WriteJS(b+1, 0, array.Call("subarray", 0, 0)),
	} {
		if !errors.Is(err, gpu.ErrInvalid) {
			t.Errorf("WriteJS of %s = %v, want %v", name, err, gpu.ErrInvalid)
		}
	}
}

var kept [][]byte // what TestWriteWhileHeapGrows holds

// Writes are right while Go's memory grows, which detaches every JavaScript view of it.
func TestWriteWhileHeapGrows(t *testing.T) {
	d := open(t, Options{})
	b := buffer(t, d, 64)
	defer func() { kept = nil }()
	data, got := make([]byte, 64), make([]byte, 64)
	for i := range 6000 {
		if i%10 == 0 {
			kept = append(kept, make([]byte, 256<<10))
		}
		for j := range data {
			data[j] = byte(i + j)
		}
		must(t, d.Write(b, 0, data))
		if i%100 == 0 {
			must(t, d.Read(b, 0, got))
			if string(got) != string(data) {
				t.Fatalf("write %d: have %v, want %v", i, got, data)
			}
		}
	}
}

// The cache of bind groups is emptied before a list once it is full, and works on. Groups go with their buffers.
func TestGroupCache(t *testing.T) {
	d := open(t, Options{})
	p, err := d.Compile(kernel("two", "y0[0] += p.x; y1[0] += p.x;", 2))
	must(t, err)
	const n = 70 // n·(n-1) = 4830 ordered pairs, more than are kept
	var b [n]gpu.Buffer
	for i := range b {
		b[i] = buffer(t, d, 4)
	}
	var l gpu.List
	for i := range b {
		for j := range b {
			if i != j {
				l.Dispatch(p, [3]int{1, 1, 1}, []byte{1}, b[i], b[j])
			}
		}
	}
	for round := 1; round <= 2; round++ {
		must(t, d.Submit(&l))
		for i := range b {
			if v, want := word(t, d, b[i]), round*2*(n-1); v != want {
				t.Fatalf("round %d: buffer %d = %d, want %d", round, i, v, want)
			}
		}
	}
	for _, h := range b {
		must(t, d.Free(h))
	}
	if left := d.session.Get("groups").Get("size").Int() + d.session.Get("buffers").Get("size").Int(); left != 0 {
		t.Errorf("%d bind groups and buffers are left after all buffers were freed", left)
	}
}

// A device that is lost while others wait for it leaves nobody waiting, and says why.
func TestLostWhileWaiting(t *testing.T) {
	d := open(t, Options{})
	if d.LostReason() != "" {
		t.Errorf("LostReason() = %q before the loss", d.LostReason())
	}
	b := buffer(t, d, 1<<20)
	errs := make(chan error)
	for range 4 {
		go func() {
			for {
				if err := d.Read(b, 0, make([]byte, 1<<20)); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	time.Sleep(20 * time.Millisecond)
	d.Lose()
	for range 4 {
		if err := <-errs; !errors.Is(err, gpu.ErrLost) {
			t.Errorf("Read of a device that is lost meanwhile = %v, want %v", err, gpu.ErrLost)
		}
	}
	select {
	case <-d.Lost():
	default:
		t.Error("Lost() is open after the loss")
	}
	if !strings.Contains(d.LostReason(), "destroyed") || !strings.Contains(fmt.Sprint(d.Wait()), d.LostReason()) {
		t.Errorf("LostReason() = %q, Wait() = %v, want both to tell the browser's reason", d.LostReason(), d.Wait())
	}
}
