// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero/experimental/wazerotest"

	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/gpu/gputest"
	"fromage/gpu/remote"
	"fromage/shaders"
)

// kernels are those that a test's host knows.
func kernels(name string) *gpu.Kernel {
	if k := gputest.Named(name); k != nil {
		return k
	}
	return shaders.Named(name)
}

// caller makes a guest's calls without a guest, on a memory of one page that is full of question marks.
type caller struct {
	t      testing.TB
	ctx    context.Context
	guest  *Guest
	memory *wazerotest.Memory
	module *wazerotest.Module
}

func newHost(t testing.TB, dev gpu.Device, c Config) *Host {
	if c.Kernel == nil {
		c.Kernel = kernels
	}
	h := New(dev, c)
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return h
}

func newCaller(t testing.TB, h *Host, l Limits) *caller {
	m := wazerotest.NewFixedMemory(1 << 16)
	copy(m.Bytes, bytes.Repeat([]byte{'?'}, len(m.Bytes)))
	g := h.Guest(l)
	return &caller{t, g.Context(t.Context()), g, m, wazerotest.NewModule(m)}
}

// trapped makes a call and returns its result, or what the guest would end with.
func (c *caller) trapped(name string, args ...int) (result int32, trap error) {
	for _, f := range functions {
		if f.name != name {
			continue
		}
		if len(args) != len(f.params) {
			c.t.Fatalf("%s takes %d arguments, have %d", name, len(f.params), len(args))
		}
		stack := make([]uint64, max(1, len(args)))
		for i, a := range args {
			stack[i] = uint64(a)
			if !strings.HasSuffix(f.params[i], "64") {
				stack[i] = uint64(uint32(a)) // as wazero hands an i32 over
			}
		}
		defer func() {
			if r := recover(); r != nil {
				trap = r.(error)
			}
		}()
		f.Call(c.ctx, c.module, stack)
		return int32(uint32(stack[0])), nil
	}
	c.t.Fatalf("there is no function %s", name)
	return 0, nil
}

// call makes a call that must not trap.
func (c *caller) call(name string, args ...int) int {
	c.t.Helper()
	n, trap := c.trapped(name, args...)
	if trap != nil {
		c.t.Fatalf("%s%v traps: %v", name, args, trap)
	}
	return int(n)
}

// must makes a call that must succeed.
func (c *caller) must(name string, args ...int) int {
	c.t.Helper()
	n := c.call(name, args...)
	if n < 0 {
		c.t.Fatalf("%s%v = %d: %s", name, args, n, c.guest.text)
	}
	return n
}

// fails makes a call that must fail with a code and name the parts.
func (c *caller) fails(want int, parts []string, name string, args ...int) {
	c.t.Helper()
	if got := c.call(name, args...); got != want {
		c.t.Errorf("%s%v = %d, want %d", name, args, got, want)
		return
	}
	n := c.must("error", 0x8000, 0x1000)
	text := string(c.memory.Bytes[0x8000 : 0x8000+n])
	for _, p := range parts {
		if !strings.Contains(text, p) {
			c.t.Errorf("%s%v: error %q, want it to name %q", name, args, text, p)
		}
	}
}

// put writes data into the guest's memory.
func (c *caller) put(at int, data []byte) (address, size int) {
	copy(c.memory.Bytes[at:], data)
	return at, len(data)
}

func (c *caller) putWords(at int, words ...uint32) (address, size int) {
	var b []byte
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return c.put(at, b)
}

// kernel puts k at 0x2000 and compiles it.
func (c *caller) kernel(d int, k *gpu.Kernel) int {
	c.t.Helper()
	at, size := c.put(0x2000, encoded(c.t, k))
	return c.call("compile", d, at, size)
}

func encoded(t testing.TB, k *gpu.Kernel) []byte {
	sent := remote.Kernel{Name: k.Name, Source: k.Source, Params: k.Params, Labels: k.Labels, Subgroups: k.Subgroups, F16: k.F16}
	for _, a := range k.Bindings {
		sent.Bindings = append(sent.Bindings, byte(a))
	}
	data, err := json.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A read changes the bytes it names and no others; the texts are cut to their room.
func TestMemory(t *testing.T) {
	c := newCaller(t, newHost(t, cpu.New(), Config{}), Limits{})
	d := c.must("open", remote.Version)
	c.put(100, []byte("label"))
	b := c.must("new_buffer", d, 100, 5, 16)
	at, size := c.putWords(200, 1, 2, 3)
	c.must("write", d, b, 4, at, size)
	copy(c.memory.Bytes[200:], "????????????")
	c.must("read", d, b, 0, 1001, 12)
	want := append(bytes.Repeat([]byte{'?'}, 101), 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0)
	want = append(want, bytes.Repeat([]byte{'?'}, 100)...)
	if got := c.memory.Bytes[900:1113]; !bytes.Equal(got, want) {
		t.Errorf("memory around a read = %q, want %q", got, want)
	}
	n := c.must("info", d, 2000, 4)
	if got := string(c.memory.Bytes[1999:2005]); got != `?{"hos?` && got != `?{"ho?` || n < 100 {
		t.Errorf("info of 4 bytes wrote %q and says %d", got, n)
	}
	var info gpu.Info
	if err := json.Unmarshal(c.memory.Bytes[4000:4000+c.must("info", d, 4000, 1000)], &info); err != nil || info.Host != "remote" || info.Limits != gpu.DefaultLimits {
		t.Errorf("info = %+v, %v, want the device's from a remote host", info, err)
	}
	c.fails(remote.CodeInvalid, []string{"label", "want at most 16 bytes"}, "read", d, b, 8, 0, 12)
	if n := c.must("error", 3000, 5); n < 50 || string(c.memory.Bytes[2999:3006]) != "?gpu: ?" {
		t.Errorf("error of 5 bytes wrote %q and says %d", c.memory.Bytes[2999:3006], n)
	}
}

// Addresses outside the memory and devices that the guest was never given end it; the host goes on.
func TestTraps(t *testing.T) {
	h := newHost(t, cpu.New(), Config{})
	c := newCaller(t, h, Limits{})
	d := c.must("open", remote.Version)
	b := c.must("new_buffer", d, 0, 0, 1<<20)
	const end = 1 << 16
	for _, x := range []struct {
		name string
		args []int
		part string
	}{
		{"info", []int{d, end - 3, 4}, "65536 bytes"},
		{"error", []int{-1, 1}, "4294967295"},
		{"new_buffer", []int{d, end + 1, 0, 16}, "65537"},
		{"new_buffer", []int{d, 0, -1, 16}, "4294967295"},
		{"shared", []int{d, end - 31, 16}, "32 bytes"},
		{"write", []int{d, b, 0, end - 4, 8}, "8 bytes at 65532"},
		{"write", []int{d, b, 0, -4, 8}, "8 bytes at 4294967292"},
		{"read", []int{d, b, 0, 4, end}, "65536 bytes at 4"},
		{"compile", []int{d, end, 1}, "1 bytes"},
		{"submit", []int{d, 0, end + 4, 0, 0}, "65540 bytes at 0"},
		{"submit", []int{d, 0, 4, 1 << 31, 256}, "2147483648"},
		{"wait", []int{d + 1}, "device 2"},
		{"wait", []int{0}, "device 0"},
		{"close", []int{-1}, "device -1"},
		{"free", []int{1 << 30, 1}, "device"},
	} {
		_, trap := c.trapped(x.name, x.args...)
		if trap == nil || !strings.Contains(trap.Error(), "gpu/host: "+x.name) || !strings.Contains(trap.Error(), x.part) {
			t.Errorf("%s%v traps with %v, want an error that names %s and %q", x.name, x.args, trap, x.name, x.part)
		}
	}
	c.must("wait", d)
	f := functions[0]
	defer func() {
		if recover() == nil {
			t.Error("a call without a guest does not trap")
		}
	}()
	f.Call(t.Context(), c.module, []uint64{1})
}

func TestLimits(t *testing.T) {
	h := newHost(t, cpu.New(), Config{})
	c := newCaller(t, h, Limits{Buffers: 3, Bytes: 100, Kernels: 2, Devices: 2})
	d := c.must("open", remote.Version)
	e := c.must("open", remote.Version)
	c.fails(remote.CodeMemory, []string{"at most 2 devices"}, "open", remote.Version)
	a := c.must("new_buffer", d, 0, 0, 60)
	c.fails(remote.CodeMemory, []string{"at most 100 bytes", "60", "44"}, "new_buffer", e, 0, 0, 44)
	c.fails(remote.CodeMemory, []string{"binding limit"}, "new_buffer", e, 0, 0, 1<<40)
	c.fails(remote.CodeInvalid, nil, "new_buffer", e, 0, 0, -4)
	c.must("new_buffer", e, 0, 0, 40)
	c.must("free", d, a)
	c.must("new_buffer", e, 0, 0, 4)
	c.must("new_buffer", d, 0, 0, 4)
	c.fails(remote.CodeMemory, []string{"at most 3 buffers"}, "new_buffer", d, 0, 0, 4)
	if got, want := c.guest.Usage(), (Usage{Buffers: 3, Bytes: 48}); got != want {
		t.Errorf("Usage() = %+v, want %+v", got, want)
	}
	add, normalize := shaders.Named("add"), shaders.Named("normalize")
	if c.kernel(d, add) < 0 || c.kernel(e, normalize) < 0 || c.kernel(e, normalize) < 0 {
		t.Errorf("two kernels do not compile: %s", c.guest.text)
	}
	at, size := c.put(0x2000, encoded(t, shaders.Named("nll")))
	c.fails(remote.CodeMemory, []string{"at most 2 kernels"}, "compile", d, at, size)
	c.must("close", e)
	c.must("compile", d, at, size)
	if got, want := c.guest.Usage(), (Usage{Buffers: 1, Bytes: 4}); got != want {
		t.Errorf("Usage() after close = %+v, want %+v", got, want)
	}
	for range maxDevices - 2 {
		c.must("close", c.must("open", remote.Version))
	}
	c.fails(remote.CodeMemory, []string{"devices in all"}, "open", remote.Version)
}

// A guest that is limited to few commands a second waits, and is not waited for once it is ended.
func TestPace(t *testing.T) {
	h := newHost(t, cpu.New(), Config{})
	c := newCaller(t, h, Limits{Commands: 10})
	d := c.must("open", remote.Version)
	b := c.must("new_buffer", d, 0, 0, 4)
	clears := func(n int) (int, int) {
		var words []uint32
		for range n {
			words = append(words, 3, uint32(b), 0, 4)
		}
		return c.putWords(0, words...)
	}
	began := time.Now()
	at, size := clears(13)
	c.must("submit", d, at, size, 0, 0)
	if took := time.Since(began); took < 250*time.Millisecond {
		t.Errorf("13 commands at 10 a second, of which 10 are free, take %v", took)
	}
	ctx, cancel := context.WithCancel(c.ctx)
	c.ctx = ctx
	at, size = clears(1000)
	time.AfterFunc(20*time.Millisecond, cancel)
	c.fails(remote.CodeOther, []string{"ended", "context canceled"}, "submit", d, at, size, 0, 0)
	if got := c.guest.Usage().Commands; got < 13 || got > 1000 {
		t.Errorf("Usage().Commands = %d, want a few more than 13", got)
	}
}

// Two guests have handles of the same numbers, and neither reaches what the other's stand for.
func TestApart(t *testing.T) {
	h := newHost(t, cpu.New(), Config{})
	one, two := newCaller(t, h, Limits{}), newCaller(t, h, Limits{})
	d, e := one.must("open", remote.Version), two.must("open", remote.Version)
	b := one.must("new_buffer", d, 0, 0, 8)
	at, size := one.putWords(0, 111, 222)
	one.must("write", d, b, 0, at, size)
	two.fails(remote.CodeInvalid, []string{"buffer 1 does not exist"}, "read", e, b, 0, 0, 8)
	two.fails(remote.CodeInvalid, []string{"buffer 1 does not exist"}, "free", e, b)
	if c := two.must("new_buffer", e, 0, 0, 8); c != b {
		t.Errorf("the second guest's first buffer is %d, want %d: handles are a guest's own", c, b)
	}
	two.must("read", e, b, 0, 64, 8)
	if got := two.memory.Bytes[64:72]; !bytes.Equal(got, make([]byte, 8)) {
		t.Errorf("a new buffer of the second guest has %v", got)
	}
	if err := two.guest.Close(); err != nil {
		t.Fatal(err)
	}
	two.fails(remote.CodeClosed, nil, "read", e, b, 0, 0, 8)
	two.fails(remote.CodeClosed, nil, "open", remote.Version)
	one.must("read", d, b, 0, 64, 8)
	if got := binary.LittleEndian.Uint64(one.memory.Bytes[64:]); got != 222<<32|111 {
		t.Errorf("the first guest's buffer has %x after the second's end", got)
	}
}

func TestShared(t *testing.T) {
	dev := cpu.New()
	h := newHost(t, dev, Config{})
	hash := strings.Repeat("ab", 32)
	raw, _ := hex.DecodeString(hash)
	fills := 0
	share := func(size int) error {
		return h.Share("weights", hash, size, func(write func(int, []byte) error) error {
			fills++
			return write(0, []byte{1, 0, 0, 0, 2, 0, 0, 0})
		})
	}
	if err := share(8); err != nil {
		t.Fatal(err)
	}
	if err := share(8); err != nil || fills != 1 {
		t.Errorf("sharing the same again: %v after %d fills, want one", err, fills)
	}
	if err := share(12); !errors.Is(err, gpu.ErrInvalid) {
		t.Errorf("sharing the same hash with another size = %v", err)
	}
	fail := errors.New("cut short")
	if err := h.Share("other", "00", 8, func(func(int, []byte) error) error { return fail }); !errors.Is(err, fail) {
		t.Errorf("sharing what cannot be read = %v, want %v", err, fail)
	}
	one, two := newCaller(t, h, Limits{Buffers: 1}), newCaller(t, h, Limits{Bytes: 4})
	for _, c := range []*caller{one, two} {
		d := c.must("open", remote.Version)
		at, _ := c.put(0, raw)
		if b := c.must("shared", d, at, 12); b != 0 {
			t.Errorf("shared with another size = %d, want 0", b)
		}
		b := c.must("shared", d, at, 8)
		c.must("read", d, b, 0, 64, 8)
		if got := c.memory.Bytes[64:72]; !bytes.Equal(got, []byte{1, 0, 0, 0, 2, 0, 0, 0}) {
			t.Errorf("shared contents = %v", got)
		}
		c.fails(remote.CodeInvalid, []string{"weights", "may only be read"}, "write", d, b, 0, 64, 8)
		words, size := c.putWords(0x100, 3, uint32(b), 0, 8)
		c.fails(remote.CodeInvalid, []string{"weights", "may only be read"}, "submit", d, words, size, 0, 0)
	}
	at, _ := one.put(0, raw)
	one.fails(remote.CodeMemory, []string{"at most 1 buffers"}, "shared", 1, at, 8)
	one.must("free", 1, 1)
	if b := two.must("read", 1, 1, 0, 64, 8); b != 0 {
		t.Error("what one guest gave back another cannot read")
	}
}

func TestKernels(t *testing.T) {
	add, scatter, push := shaders.Named("add"), shaders.Named("scatter_rows"), gputest.Named("gputest.push")
	other := func(change func(*gpu.Kernel)) *gpu.Kernel {
		k := *add
		change(&k)
		return &k
	}
	strict, trusting := newHost(t, cpu.New(), Config{}), newHost(t, cpu.New(), Config{AnyKernel: true})
	for _, x := range []struct {
		what   string
		kernel *gpu.Kernel
		code   int // of a host that takes its own kernels alone
		trust  int // of one that takes any, on the twins
		parts  []string
	}{
		{"the host's", add, 1, 1, nil},
		{"without reach", scatter, remote.CodeInvalid, 1, []string{"scatter_rows", "reaches"}},
		{"without reach, a test's", push, remote.CodeInvalid, 1, []string{"gputest.push"}},
		{"unknown", other(func(k *gpu.Kernel) { k.Name = "nonesuch" }), remote.CodeInvalid, remote.CodeInvalid, []string{"nonesuch", "no kernel"}},
		{"of other text", other(func(k *gpu.Kernel) { k.Source += " " }), remote.CodeInvalid, remote.CodeInvalid, []string{"add", "not of one version"}},
		{"of other parameters", other(func(k *gpu.Kernel) { k.Params = 32 }), remote.CodeInvalid, remote.CodeInvalid, []string{"add"}},
		{"that writes more", other(func(k *gpu.Kernel) { k.Bindings = []gpu.Access{gpu.ReadWrite, gpu.Read, gpu.ReadWrite} }), remote.CodeInvalid, remote.CodeInvalid, []string{"add"}},
		{"with subgroups", other(func(k *gpu.Kernel) { k.Subgroups = true }), remote.CodeInvalid, remote.CodeInvalid, []string{"add", "subgroups"}},
		{"with a long name", other(func(k *gpu.Kernel) { k.Name = strings.Repeat("n", 1000) }), remote.CodeInvalid, remote.CodeInvalid, []string{"name"}},
		{"of no access", other(func(k *gpu.Kernel) { k.Bindings = []gpu.Access{7} }), remote.CodeInvalid, remote.CodeInvalid, []string{"add"}},
	} {
		for h, want := range map[*Host]int{strict: x.code, trusting: x.trust} {
			c := newCaller(t, h, Limits{})
			d := c.must("open", remote.Version)
			at, size := c.put(0x2000, encoded(t, x.kernel))
			if want > 0 {
				c.must("compile", d, at, size)
				continue
			}
			c.fails(want, nil, "compile", d, at, size)
			if h == strict {
				c.fails(want, x.parts, "compile", d, at, size)
			}
		}
	}
	c := newCaller(t, strict, Limits{})
	d := c.must("open", remote.Version)
	for _, text := range []string{"", "{", "null", `{"name":3}`, `[]`, `{"name":"add"}`} {
		at, size := c.put(0, []byte(text))
		c.fails(remote.CodeInvalid, []string{"compile"}, "compile", d, at, size)
	}
}

// What devices fail with reaches the guest.
func TestErrors(t *testing.T) {
	for _, x := range []struct {
		err  error
		code int
	}{{gpu.ErrLost, remote.CodeLost}, {gpu.ErrMemory, remote.CodeMemory}, {gpu.ErrClosed, remote.CodeClosed}, {gpu.ErrInvalid, remote.CodeInvalid}, {errors.New("fire"), remote.CodeOther}} {
		c := newCaller(t, newHost(t, failing{cpu.New(), fmt.Errorf("failing: %w", x.err)}, Config{}), Limits{})
		d := c.must("open", remote.Version)
		c.fails(x.code, []string{"failing: " + x.err.Error()}, "wait", d)
	}
	c := newCaller(t, newHost(t, cpu.New(), Config{}), Limits{})
	c.fails(remote.CodeInvalid, []string{"version 1", "one of 2"}, "open", 2)
}

// failing is a device that cannot be waited for.
type failing struct {
	gpu.Device
	err error
}

func (f failing) Wait() error { return f.err }

// counting counts lists and their commands.
type counting struct {
	gpu.Device
	lists, commands, waits int
}

func (c *counting) Submit(l *gpu.List) error {
	c.lists++
	for range l.Commands() {
		c.commands++
	}
	return c.Device.Submit(l)
}

func (c *counting) Wait() error {
	c.waits++
	return c.Device.Wait()
}

// Long lists go to the device in pieces, with waits between them.
func TestPieces(t *testing.T) {
	dev := &counting{Device: cpu.New()}
	h := newHost(t, dev, Config{})
	h.piece = 100
	c := newCaller(t, h, Limits{})
	d := c.must("open", remote.Version)
	b := c.must("new_buffer", d, 0, 0, 4)
	var words []uint32
	for range 1050 {
		words = append(words, 3, uint32(b), 0, 4)
	}
	at, size := c.putWords(0, words...)
	c.must("submit", d, at, size, 0, 0)
	if dev.lists != 11 || dev.commands != 1050 || dev.waits != 2 {
		t.Errorf("1050 commands came as %d lists of %d with %d waits, want 11, 1050 and 2", dev.lists, dev.commands, dev.waits)
	}
	c.must("submit", d, at, 0, 0, 0)
	if dev.lists != 11 {
		t.Error("an empty list came to the device")
	}
}

// FuzzCalls makes any calls with any arguments: nothing but traps and errors may come of it, and another guest goes on.
func FuzzCalls(f *testing.F) {
	f.Add([]byte{0, 1, 3, 1, 8, 9, 64, 6, 1, 1, 0, 8, 64}, []byte("label"))
	f.Add([]byte{0, 1, 9, 1, 0, 16, 0, 0}, []byte{3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0})
	f.Add([]byte{0, 1, 8, 1, 0, 255}, encoded(f, shaders.Named("add")))
	special := []int{0, 1, 2, 3, 4, 16, 64, 256, 4096, 1<<16 - 4, 1 << 16, 1 << 20, math.MaxInt32, -1, -4, math.MaxInt64, math.MinInt64, 1 << 40}
	f.Fuzz(func(t *testing.T, program, memory []byte) {
		h := newHost(t, cpu.New(), Config{})
		honest := newCaller(t, h, Limits{})
		e := honest.must("open", remote.Version)
		kept := honest.must("new_buffer", e, 0, 0, 4)
		at, size := honest.putWords(0, 42)
		honest.must("write", e, kept, 0, at, size)

		c := newCaller(t, h, Limits{Bytes: 1 << 22, Buffers: 16, Kernels: 4})
		copy(c.memory.Bytes, memory)
		c.must("open", remote.Version)
		for calls := 0; len(program) > 0 && calls < 64; calls++ {
			fn := functions[int(program[0])%len(functions)]
			program = program[1:]
			args := make([]int, len(fn.params))
			for i := range args {
				if len(program) == 0 {
					break
				}
				if args[i] = int(program[0]); program[0] >= 128 {
					args[i] = special[int(program[0])%len(special)]
				}
				program = program[1:]
			}
			if n, trap := c.trapped(fn.name, args...); trap == nil && n < remote.CodeOther {
				t.Fatalf("%s%v = %d", fn.name, args, n)
			} else if trap != nil && !strings.HasPrefix(trap.Error(), "gpu/host: "+fn.name) {
				t.Fatalf("%s%v panics: %v", fn.name, args, trap)
			}
		}
		honest.must("read", e, kept, 0, 64, 4)
		if got := binary.LittleEndian.Uint32(honest.memory.Bytes[64:]); got != 42 {
			t.Fatalf("another guest's buffer has %d, want 42", got)
		}
		if err := c.guest.Close(); err != nil || c.guest.buffers != 0 || c.guest.bytes != 0 || c.guest.kernels != 0 {
			t.Fatalf("after Close = %v the guest has %d buffers, %d bytes and %d kernels", err, c.guest.buffers, c.guest.bytes, c.guest.kernels)
		}
	})
}
