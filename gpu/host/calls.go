// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"fromage/gpu"
	"fromage/gpu/remote"
)

const (
	maxLabel = 256     // bytes of a label or a kernel's name
	maxList  = 4 << 20 // bytes of a list's words, and of its parameters
)

// function is one function of the table in package remote.
type function struct {
	name   string
	params []string // an i64 where the name ends in "64"
	call   func(c *call) (int, error)
}

// call is one call of a guest's: its arguments, which it takes one after the other.
type call struct {
	ctx    context.Context
	guest  *Guest
	name   string
	memory api.Memory
	stack  []uint64
}

var functions = []function{
	{"open", []string{"version"}, open},
	{"info", []string{"device", "text_ptr", "text_len"}, info},
	{"error", []string{"text_ptr", "text_len"}, lastError},
	{"new_buffer", []string{"device", "label_ptr", "label_len", "size64"}, newBuffer},
	{"shared", []string{"device", "hash_ptr", "size64"}, shared},
	{"free", []string{"device", "buffer"}, free},
	{"write", []string{"device", "buffer", "offset64", "data_ptr", "data_len"}, write},
	{"read", []string{"device", "buffer", "offset64", "data_ptr", "data_len"}, read},
	{"compile", []string{"device", "kernel_ptr", "kernel_len"}, compile},
	{"submit", []string{"device", "words_ptr", "words_len", "params_ptr", "params_len"}, submit},
	{"wait", []string{"device"}, wait},
	{"close", []string{"device"}, closeDevice},
}

// Instantiate puts the functions into a runtime, for guests of any Host: the context of a call says whose it is (Guest.Context). A runtime needs it once.
func Instantiate(ctx context.Context, r wazero.Runtime) error {
	b := r.NewHostModuleBuilder(remote.Module)
	for _, f := range functions {
		params, names := make([]api.ValueType, len(f.params)), make([]string, len(f.params))
		for i, name := range f.params {
			params[i], names[i] = api.ValueTypeI32, name
			if n := len(name) - 2; name[n:] == "64" {
				params[i], names[i] = api.ValueTypeI64, name[:n]
			}
		}
		b.NewFunctionBuilder().WithGoModuleFunction(f, params, []api.ValueType{api.ValueTypeI32}).WithParameterNames(names...).WithResultNames("result").Export(f.name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return fmt.Errorf("gpu/host: %w", err)
	}
	return nil
}

// Call implements api.GoModuleFunction.
func (f function) Call(ctx context.Context, m api.Module, stack []uint64) {
	g, ok := ctx.Value(guestKey{}).(*Guest)
	if !ok {
		panic(fmt.Errorf("gpu/host: %s: the call's context has no guest", f.name))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n, err := f.call(&call{ctx, g, f.name, m.Memory(), stack})
	if err != nil {
		n, g.text = code(err), err.Error()
	}
	stack[0] = uint64(uint32(n))
}

// code is the result that stands for an error.
func code(err error) int {
	switch {
	case errors.Is(err, gpu.ErrLost):
		return remote.CodeLost
	case errors.Is(err, gpu.ErrMemory):
		return remote.CodeMemory
	case errors.Is(err, gpu.ErrClosed):
		return remote.CodeClosed
	case errors.Is(err, gpu.ErrInvalid):
		return remote.CodeInvalid
	}
	return remote.CodeOther
}

// trap ends the guest.
func (c *call) trap(format string, args ...any) {
	panic(fmt.Errorf("gpu/host: %s: %s", c.name, fmt.Sprintf(format, args...)))
}

// next takes an argument.
func (c *call) next() uint64 {
	n := c.stack[0]
	c.stack = c.stack[1:]
	return n
}

func (c *call) int32() int32 { return int32(uint32(c.next())) }

// device takes a device.
func (c *call) device() (*device, error) {
	n := c.int32()
	if n < 1 || int(n) > len(c.guest.devices) {
		c.trap("the guest has no device %d", n)
	}
	if d := c.guest.devices[n-1]; d != nil && !c.guest.closed {
		return d, nil
	}
	return nil, fmt.Errorf("gpu/host: %s: %w", c.name, gpu.ErrClosed)
}

// bytes takes an address and a length and returns the guest's memory there, which is the call's for as long as it lasts.
func (c *call) bytes() []byte {
	at := uint32(c.next())
	return c.at(at, uint32(c.next()))
}

func (c *call) at(at, size uint32) []byte {
	if c.memory == nil {
		c.trap("the guest has no memory")
	}
	b, ok := c.memory.Read(at, size)
	if !ok {
		c.trap("want addresses in the guest's memory of %d bytes, have %d bytes at %d", c.memory.Size(), size, at)
	}
	return b
}

// fill writes as much of text as there is room for and returns its length.
func fill(to []byte, text string) (int, error) {
	copy(to, text)
	return len(text), nil
}

func open(c *call) (int, error) {
	if v := c.int32(); v != remote.Version {
		return 0, fmt.Errorf("gpu/host: open: want a guest of version %d, have one of %d: %w", remote.Version, v, gpu.ErrInvalid)
	}
	if c.guest.closed {
		return 0, fmt.Errorf("gpu/host: open: %w", gpu.ErrClosed)
	}
	return c.guest.openDevice()
}

func info(c *call) (int, error) {
	if _, err := c.device(); err != nil {
		return 0, err
	}
	text, err := json.Marshal(c.guest.host.info)
	if err != nil {
		return 0, err
	}
	return fill(c.bytes(), string(text))
}

func lastError(c *call) (int, error) { return fill(c.bytes(), c.guest.text) }

func newBuffer(c *call) (int, error) {
	d, err := c.device()
	if err != nil {
		return 0, err
	}
	label := c.bytes()
	b, err := c.guest.newBuffer(d, string(label[:min(len(label), maxLabel)]), int(int64(c.next())))
	return int(b), err
}

func shared(c *call) (int, error) {
	d, err := c.device()
	if err != nil {
		return 0, err
	}
	hash := hex.EncodeToString(c.at(uint32(c.next()), 32))
	b, err := c.guest.sharedBuffer(d, hash, int(int64(c.next())))
	return int(b), err
}

// buffer takes a device and a buffer of it, which may be none.
func (c *call) buffer() (*device, gpu.Buffer, error) {
	d, err := c.device()
	return d, gpu.Buffer(uint32(c.next())), err
}

func free(c *call) (int, error) {
	d, b, err := c.buffer()
	if err != nil {
		return 0, err
	}
	return 0, c.guest.free(d, b)
}

func write(c *call) (int, error) {
	d, b, err := c.buffer()
	if err != nil {
		return 0, err
	}
	offset := int(int64(c.next()))
	return 0, c.guest.write(d, b, offset, c.bytes())
}

func read(c *call) (int, error) {
	d, b, err := c.buffer()
	if err != nil {
		return 0, err
	}
	offset := int(int64(c.next()))
	return 0, c.guest.read(d, b, offset, c.bytes())
}

func compile(c *call) (int, error) {
	d, err := c.device()
	if err != nil {
		return 0, err
	}
	data := c.bytes()
	if len(data) > maxKernel {
		return 0, fmt.Errorf("gpu/host: compile: want a kernel of at most %d bytes, have %d: %w", maxKernel, len(data), gpu.ErrInvalid)
	}
	p, err := c.guest.compile(d, data)
	return int(p), err
}

func submit(c *call) (int, error) {
	d, err := c.device()
	if err != nil {
		return 0, err
	}
	words, params := c.bytes(), c.bytes()
	if len(words)%4 != 0 || len(words) > maxList || len(params) > maxList {
		return 0, fmt.Errorf("gpu/host: submit: want whole words, and at most %d bytes of them and of parameters, have %d and %d bytes: %w", maxList, len(words), len(params), gpu.ErrInvalid)
	}
	d.words = d.words[:0]
	for i := 0; i < len(words); i += 4 {
		d.words = append(d.words, binary.LittleEndian.Uint32(words[i:]))
	}
	if err := d.list.Load(d.words, params); err != nil {
		return 0, err
	}
	return 0, c.guest.submit(c.ctx, d)
}

func wait(c *call) (int, error) {
	if _, err := c.device(); err != nil {
		return 0, err
	}
	return 0, c.guest.wait()
}

func closeDevice(c *call) (int, error) {
	n := c.stack[0]
	if _, err := c.device(); err != nil {
		return 0, err
	}
	return 0, c.guest.closeDevice(int(uint32(n)) - 1)
}
