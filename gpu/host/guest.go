// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"golang.org/x/time/rate"

	"fromage/gpu"
)

// Limits are what one guest may have. A field of 0 takes the value in DefaultLimits.
type Limits struct {
	Buffers  int     // at a time
	Bytes    int     // of its buffers, at a time; what is shared does not count
	Kernels  int     // compiled
	Devices  int     // open at a time
	Commands float64 // a second: dispatches, copies and clears; a guest that wants more waits
}

// DefaultLimits are enough for a conversation with any model that fits the device.
var DefaultLimits = Limits{Buffers: 8192, Bytes: 8 << 30, Kernels: 1024, Devices: 8, Commands: float64(rate.Inf)}

func (l Limits) orDefault() Limits {
	pick := func(n *int, usual int) {
		if *n == 0 {
			*n = usual
		}
	}
	pick(&l.Buffers, DefaultLimits.Buffers)
	pick(&l.Bytes, DefaultLimits.Bytes)
	pick(&l.Kernels, DefaultLimits.Kernels)
	pick(&l.Devices, DefaultLimits.Devices)
	if l.Commands == 0 {
		l.Commands = DefaultLimits.Commands
	}
	return l
}

// pieceLength is how many commands of a list go to a device at once. Between pieces a guest may be ended; within one, nothing stops a device. Lists of
// a model's decoding are shorter than a piece on devices where pieces cost something.
func pieceLength(info gpu.Info) int {
	switch {
	case info.Backend == "go": // the twins, which are done when Submit returns
		return 1
	case info.Software:
		return 128
	}
	return 256
}

const maxDevices = 1 << 16 // that a guest may open one after the other

// maxUnderway is how many pieces of a guest a device may have before it is waited for, so that nobody is far behind another.
const maxUnderway = 4

// Guest is one guest's handles and what is left of its limits.
type Guest struct {
	host   *Host
	limits Limits
	pace   *rate.Limiter // of commands

	mu       sync.Mutex // held during a call
	closed   bool
	devices  []*device // by number − 1; nil once closed
	open     int
	buffers  int
	bytes    int
	kernels  int
	underway int    // pieces submitted and not waited for
	commands int64  // so far
	text     string // of the last error
}

// device is one device that the guest opened: the book that its calls are checked against, and what its handles stand for.
type device struct {
	book      *gpu.Handles
	buffers   map[gpu.Buffer]buffer
	pipelines map[gpu.Pipeline]gpu.Pipeline
	list      gpu.List // what came, and
	piece     gpu.List // what goes on; kept for their memory
	words     []uint32
	handles   int // given out so far
}

type buffer struct {
	real   gpu.Buffer
	size   int
	shared bool
}

// Guest admits a guest.
func (h *Host) Guest(l Limits) *Guest {
	l = l.orDefault()
	// A guest that did little may do a second's worth at once, and always a piece.
	burst := max(h.piece, int(min(l.Commands, math.MaxInt32)))
	g := &Guest{host: h, limits: l, pace: rate.NewLimiter(rate.Limit(l.Commands), burst)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.guests[g] = struct{}{}
	return g
}

// guestKey is the key of the context's guest.
type guestKey struct{}

// Context returns a context whose calls are the guest's: for wazero's InstantiateModule and Function.Call. When ctx is done, the guest's lists end.
func (g *Guest) Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, guestKey{}, g)
}

// Usage is what a guest has.
type Usage struct {
	Buffers  int   `json:"buffers"`
	Bytes    int   `json:"bytes"`    // of buffers of its own
	Commands int64 `json:"commands"` // dispatches, copies and clears so far
}

// Usage tells what the guest has at the moment.
func (g *Guest) Usage() Usage {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Usage{g.buffers, g.bytes, g.commands}
}

// Close frees all that the guest had on the device. Later calls of its return gpu.ErrClosed.
func (g *Guest) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.host.mu.Lock()
	delete(g.host.guests, g)
	g.host.mu.Unlock()
	var errs []error
	for i, d := range g.devices {
		if d != nil {
			errs = append(errs, g.closeDevice(i))
		}
	}
	return errors.Join(errs...)
}

func (g *Guest) closeDevice(i int) error {
	d := g.devices[i]
	g.devices[i] = nil
	g.open--
	g.kernels -= len(d.pipelines)
	var errs []error
	for _, b := range d.buffers {
		errs = append(errs, g.release(b))
	}
	return errors.Join(errs...)
}

// release gives one buffer back.
func (g *Guest) release(b buffer) error {
	g.buffers--
	if b.shared {
		return nil
	}
	g.bytes -= b.size
	err := g.host.dev.Free(b.real)
	if errors.Is(err, gpu.ErrLost) || errors.Is(err, gpu.ErrClosed) {
		return nil // there is nothing left to free
	}
	return err
}

func (g *Guest) openDevice() (int, error) {
	if g.open >= g.limits.Devices {
		return 0, g.beyond("devices", g.limits.Devices)
	}
	if len(g.devices) >= maxDevices {
		return 0, g.beyond("devices in all", maxDevices)
	}
	g.open++
	g.devices = append(g.devices, &device{
		book: gpu.NewHandles(g.host.info.Limits), buffers: map[gpu.Buffer]buffer{}, pipelines: map[gpu.Pipeline]gpu.Pipeline{},
	})
	return len(g.devices), nil
}

// handle counts one more handle, which must stay positive as an i32.
func (g *Guest) handle(d *device) error {
	if d.handles == math.MaxInt32 {
		return g.beyond("handles of a device", math.MaxInt32)
	}
	d.handles++
	return nil
}

// beyond is the error of a call for more than a limit.
func (g *Guest) beyond(what string, most int) error {
	return fmt.Errorf("gpu/host: want at most %d %s of one guest: %w", most, what, gpu.ErrMemory)
}

func (g *Guest) newBuffer(d *device, label string, size int) (gpu.Buffer, error) {
	if err := d.book.CheckSize(label, size); err != nil {
		return 0, err
	}
	if g.buffers >= g.limits.Buffers {
		return 0, g.beyond("buffers", g.limits.Buffers)
	}
	if size > g.limits.Bytes-g.bytes {
		return 0, fmt.Errorf("gpu/host: new buffer %s: want at most %d bytes of one guest, have %d and %d more: %w", label, g.limits.Bytes, g.bytes, size, gpu.ErrMemory)
	}
	if err := g.handle(d); err != nil {
		return 0, err
	}
	real, err := g.host.dev.NewBuffer(label, size)
	if err != nil {
		return 0, err
	}
	g.buffers++
	g.bytes += size
	b := d.book.AddBuffer(label, size)
	d.buffers[b] = buffer{real: real, size: size}
	return b, nil
}

// sharedBuffer returns a handle of shared contents, 0 where there are none.
func (g *Guest) sharedBuffer(d *device, sha256 string, size int) (gpu.Buffer, error) {
	found, ok := g.host.find(sha256, size)
	if !ok {
		return 0, nil
	}
	if g.buffers >= g.limits.Buffers {
		return 0, g.beyond("buffers", g.limits.Buffers)
	}
	if err := g.handle(d); err != nil {
		return 0, err
	}
	g.buffers++
	b := d.book.AddShared(found.label, size)
	d.buffers[b] = buffer{found.buffer, size, true}
	return b, nil
}

func (g *Guest) free(d *device, b gpu.Buffer) error {
	if err := d.book.Free(b); err != nil {
		return err
	}
	entry := d.buffers[b]
	delete(d.buffers, b)
	return g.release(entry)
}

func (g *Guest) write(d *device, b gpu.Buffer, offset int, data []byte) error {
	if err := d.book.CheckWrite("write", b, offset, len(data)); err != nil {
		return err
	}
	return g.host.dev.Write(d.buffers[b].real, offset, data)
}

func (g *Guest) read(d *device, b gpu.Buffer, offset int, dst []byte) error {
	if err := d.book.CheckRange("read", b, offset, len(dst)); err != nil {
		return err
	}
	g.underway = 0
	return g.host.dev.Read(d.buffers[b].real, offset, dst)
}

func (g *Guest) wait() error {
	g.underway = 0
	return g.host.dev.Wait()
}

// submit runs d.list, in pieces.
func (g *Guest) submit(ctx context.Context, d *device) error {
	if err := d.book.CheckList(&d.list); err != nil {
		return err
	}
	d.piece.Reset()
	n := 0
	for _, c := range d.list.Commands() {
		d.forward(c)
		if n++; n < g.host.piece {
			continue
		}
		if err := g.flush(ctx, d, n); err != nil {
			return err
		}
		n = 0
	}
	return g.flush(ctx, d, n)
}

// forward adds a command of the guest's, which the book has checked, to the piece that goes to the device.
func (d *device) forward(c gpu.Command) {
	switch {
	case c.Pipeline != 0:
		for i, b := range c.Buffers {
			c.Buffers[i] = d.buffers[b].real
		}
		groups := [3]int{int(c.Groups[0]), int(c.Groups[1]), int(c.Groups[2])}
		d.piece.Dispatch(d.pipelines[c.Pipeline], groups, d.list.Params()[c.ParamsOffset:c.ParamsOffset+gpu.MaxParams], c.Buffers...)
	case c.Source != 0:
		d.piece.Copy(d.buffers[c.Target].real, c.TargetOffset, d.buffers[c.Source].real, c.SourceOffset, c.Size)
	default:
		d.piece.Clear(d.buffers[c.Target].real, c.TargetOffset, c.Size)
	}
}

// flush gives the piece, of n commands, to the device as soon as the guest may have it run.
func (g *Guest) flush(ctx context.Context, d *device, n int) error {
	if n == 0 {
		return nil
	}
	if err := g.pace.WaitN(ctx, n); err != nil {
		return fmt.Errorf("gpu/host: submit: the guest is ended: %w", err)
	}
	if g.underway++; g.underway > maxUnderway {
		if err := g.wait(); err != nil {
			return err
		}
	}
	g.commands += int64(n)
	err := g.host.dev.Submit(&d.piece)
	d.piece.Reset()
	return err
}
