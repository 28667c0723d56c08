// SPDX-License-Identifier: Apache-2.0

//go:build wasip1

// Command hostile is a guest that does what it is asked to its host. It says {"done":{"stop":"refused"}} where the host refused all of it.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"fromage/gpu"
	"fromage/gpu/remote"
	"fromage/shaders"
	"fromage/wasm/headless/lines"
)

//go:wasmimport fromage_gpu write
func hostWrite(device, buffer int32, offset int64, data, size uint32) int32

//go:wasmimport fromage_gpu read
func hostRead(device, buffer int32, offset int64, data, size uint32) int32

//go:wasmimport fromage_gpu submit
func hostSubmit(device int32, words, wordsSize, params, paramsSize uint32) int32

//go:wasmimport fromage_gpu wait
func hostWait(device int32) int32

//go:wasmimport fromage_gpu info
func hostInfo(device int32, text, size uint32) int32

// acts are by name; what follows the name and a colon in a request is os.Args[1:].
var acts = map[string]func(dev *remote.Device) error{
	"handles":      handles,
	"sizes":        sizes,
	"parameters":   parameters,
	"kernels":      kernels,
	"closed":       closed,
	"lists":        lists,
	"weights":      weights,
	"files":        files,
	"address":      func(*remote.Device) error { hostRead(1, 1, 0, 0xfffffff0, 64); return nil },
	"all memory":   func(*remote.Device) error { hostWrite(1, 1, 0, 0, math.MaxUint32); return nil },
	"list outside": func(*remote.Device) error { hostSubmit(1, 0xfffffffc, 400, 0, 0); return nil },
	"text outside": func(*remote.Device) error { hostInfo(1, 0xffffff00, 4096); return nil },
	"device":       func(*remote.Device) error { hostWait(99); return nil },
	"loop": func(*remote.Device) error {
		for i := uint64(0); ; i++ {
			sink = i
		}
	},
	"sleep":   func(*remote.Device) error { time.Sleep(time.Hour); return nil },
	"memory":  memory,
	"stack":   func(*remote.Device) error { return fmt.Errorf("%d", deep(1, [1 << 12]int{})) },
	"exit":    func(*remote.Device) error { os.Exit(7); return nil },
	"panic":   func(*remote.Device) error { panic("on purpose") },
	"babble":  func(*remote.Device) error { fmt.Println("this is not JSON"); return nil },
	"flood":   flood,
	"stderr":  func(*remote.Device) error { return drown(os.Stderr) },
	"storm":   storm,
	"buffers": buffers,
}

var sink uint64

func main() {
	dev, err := remote.Open()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	out := json.NewEncoder(os.Stdout)
	_ = out.Encode(lines.Line{Ready: &lines.Ready{Model: "hostile"}})
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		q, err := lines.Parse(in.Bytes())
		if err == nil {
			name, rest, _ := strings.Cut(q.Prompt[0].Text, ": ")
			os.Args = append(os.Args[:1], strings.Fields(rest)...)
			err = acts[name](dev)
		}
		if err != nil {
			_ = out.Encode(lines.Line{Error: err.Error()})
			continue
		}
		_ = out.Encode(lines.Line{Done: &lines.Done{Stop: "refused"}})
	}
}

// refused returns an error unless every error is one of the kind.
func refused(kind error, errs ...error) error {
	for i, err := range errs {
		if !errors.Is(err, kind) {
			return fmt.Errorf("call %d was not refused with %v: %v", i, kind, err)
		}
	}
	return nil
}

// handles uses handles that are not the guest's, those of other guests with low numbers among them.
func handles(dev *remote.Device) error {
	var errs []error
	word := make([]byte, 4)
	for b := gpu.Buffer(0); b < 3000; b++ {
		errs = append(errs, dev.Read(b, 0, word), dev.Write(b, 0, word), dev.Free(b))
	}
	for _, b := range []gpu.Buffer{1 << 20, 1<<31 - 1, 1 << 31, math.MaxUint32} {
		var copies, clears, runs gpu.List
		copies.Copy(b, 0, b+1, 0, 4)
		clears.Clear(b, 0, 4)
		runs.Dispatch(gpu.Pipeline(b), [3]int{1, 1, 1}, nil, b, b)
		errs = append(errs, dev.Read(b, 0, word), dev.Submit(&copies), dev.Submit(&clears), dev.Submit(&runs))
	}
	return refused(gpu.ErrInvalid, errs...)
}

// sizes asks for more than there is.
func sizes(dev *remote.Device) error {
	var errs []error
	for _, n := range []int{1 << 31, 1 << 40, math.MaxInt64 &^ 3} {
		_, err := dev.NewBuffer("huge", n)
		errs = append(errs, err)
	}
	if err := refused(gpu.ErrMemory, errs...); err != nil {
		return err
	}
	b, err := dev.NewBuffer("small", 16)
	if err != nil {
		return err
	}
	word := make([]byte, 4)
	errs = nil
	for _, offset := range []int{16, -4, 1 << 40, math.MaxInt64 &^ 3, math.MinInt64} {
		errs = append(errs, dev.Read(b, offset, word), dev.Write(b, offset, word))
	}
	for _, n := range []int{0, -4, 3, math.MinInt64} {
		_, err := dev.NewBuffer("odd", n)
		errs = append(errs, err)
	}
	return refused(gpu.ErrInvalid, errs...)
}

// buffers takes as many as it gets.
func buffers(dev *remote.Device) error {
	for i := 0; ; i++ {
		if _, err := dev.NewBuffer("many", 4); err != nil {
			if i < 100 {
				return err
			}
			return refused(gpu.ErrMemory, err)
		}
	}
}

// wild are parameters that no honest kernel gets.
var wild = []uint32{0, 1, 3, 1 << 16, 1 << 31, math.MaxUint32}

// parameters runs every kernel that guests may run with wild parameters and grids over small buffers.
func parameters(dev *remote.Device) error {
	info := dev.Info()
	all := []shaders.Dispatch{
		shaders.Add(info, shaders.AddParams{N: 1}), shaders.Attention(info, shaders.F32, shaders.AttentionParams{T: 1, Heads: 1, Dh: 4}),
		shaders.Attention(info, shaders.F32, shaders.AttentionParams{T: 1, Heads: 1, Dh: 5}), shaders.GatherRows(info, shaders.GatherRowsParams{R: 1, D: 1}),
		shaders.LayerNorm(info, shaders.LayerNormParams{T: 1, D: 1}), shaders.NLL(info, shaders.NLLParams{R: 1, V: 1}),
		shaders.Normalize(info, shaders.NormalizeParams{T: 1, D: 1}), shaders.Patches(info, shaders.PatchesParams{B: 1, S: 1, P: 1}),
		shaders.StoreRows(info, shaders.F32, shaders.StoreRowsParams{T: 1, Width: 1}), shaders.TopK(info, shaders.TopKParams{N: 1, K: 1, Block: 1}),
		shaders.VisionEmbed(info, shaders.VisionEmbedParams{B: 1, N: 1, D: 1}), shaders.Linear(info, shaders.F32, shaders.LinearParams{T: 1, K: 5, F: 1}),
	}
	for _, f := range []shaders.Format{shaders.F32, shaders.F16, shaders.Q8, shaders.Q4} {
		all = append(all, shaders.Embed(info, f, shaders.EmbedParams{T: 1, K: 64, Rows: 1}))
		for _, T := range []uint32{1, 3, 100} {
			all = append(all, shaders.Linear(info, f, shaders.LinearParams{T: T, K: 64, F: 1}))
		}
	}
	for _, d := range all {
		k := d.Kernel
		p, err := dev.Compile(k)
		if err != nil {
			return err
		}
		var buffers []gpu.Buffer
		for _, label := range k.Labels {
			b, err := dev.NewBuffer(label, 256)
			if err != nil {
				return err
			}
			// Tables of tokens ask for rows that are not there.
			if err := dev.Write(b, 0, []byte(strings.Repeat("\xff\xff\xff\x7f", 64))); err != nil {
				return err
			}
			buffers = append(buffers, b)
		}
		for i := range 40 {
			params := make([]byte, k.Params)
			for at := 0; at < len(params); at += 4 {
				n := wild[(i*7+at*at/3+at)%len(wild)]
				params[at], params[at+1], params[at+2], params[at+3] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
			}
			var l gpu.List
			l.Dispatch(p, [3]int{1 + i, 1, 1}, params, buffers...)
			if err := dev.Submit(&l); err != nil && !errors.Is(err, gpu.ErrInvalid) {
				return fmt.Errorf("%s with parameters % x: %w", k.Name, params, err)
			}
		}
		for _, b := range buffers {
			if err := dev.Free(b); err != nil {
				return err
			}
		}
	}
	return dev.Wait()
}

// kernels brings kernels of its own, among them one that never ends.
func kernels(dev *remote.Device) error {
	endless := &gpu.Kernel{
		Name: "endless", Params: 16, Bindings: []gpu.Access{gpu.ReadWrite}, Labels: []string{"y"},
		Source: "@group(0) @binding(0) var<uniform> p: vec4<u32>;\n@group(0) @binding(1) var<storage, read_write> y: array<u32>;\n" +
			"@compute @workgroup_size(64) fn main() { loop { y[0] += p.x; if (y[0] == 7u) { break; } } }",
	}
	masked := *endless
	masked.Name = "add"
	_, first := dev.Compile(endless)
	_, second := dev.Compile(&masked)
	_, third := dev.Compile(&gpu.Kernel{Name: strings.Repeat("n", 1<<20), Params: 16})
	return refused(gpu.ErrInvalid, first, second, third)
}

func closed(dev *remote.Device) error {
	b, err := dev.NewBuffer("b", 4)
	if err != nil {
		return err
	}
	if err := dev.Close(); err != nil {
		return err
	}
	word := make([]byte, 4)
	var l gpu.List
	l.Clear(b, 0, 4)
	_, again := dev.NewBuffer("b", 4)
	return refused(gpu.ErrClosed, again, dev.Read(b, 0, word), dev.Write(b, 0, word), dev.Free(b), dev.Submit(&l), dev.Wait(), dev.Close())
}

// lists submits words that are no list.
func lists(dev *remote.Device) error {
	b, err := dev.NewBuffer("b", 16)
	if err != nil {
		return err
	}
	for seed := uint32(1); seed < 20000; seed++ {
		words := make([]uint32, 1+seed%13)
		for i, x := 0, seed; i < len(words); i++ {
			x = x*1664525 + 1013904223
			words[i] = []uint32{x >> 30, uint32(b), 0, x, 4, 16}[x>>8%6]
		}
		at := uint32(uintptr(unsafe.Pointer(&words[0])))
		if n := hostSubmit(1, at, uint32(4*len(words)), at, 256*(seed%2)); n > 0 {
			return fmt.Errorf("submit of rubbish = %d", n)
		}
	}
	return nil
}

// weights tries to write to what all guests read.
func weights(dev *remote.Device) error {
	size, err := strconv.Atoi(os.Args[2])
	if err != nil {
		return err
	}
	b, err := dev.Shared(os.Args[1], size)
	if err != nil || b == 0 {
		return fmt.Errorf("there are no weights %s: %d, %v", os.Args[1], b, err)
	}
	var clears, copies gpu.List
	clears.Clear(b, 0, 4)
	other, err := dev.NewBuffer("other", 16)
	if err != nil {
		return err
	}
	copies.Copy(b, 0, other, 0, 16)
	if err := refused(gpu.ErrInvalid, dev.Write(b, 0, make([]byte, 16)), dev.Submit(&clears), dev.Submit(&copies)); err != nil {
		return err
	}
	if err := dev.Free(b); err != nil {
		return err
	}
	return refused(gpu.ErrInvalid, dev.Read(b, 0, make([]byte, 4)))
}

// files reads and writes what it was not shown.
func files(*remote.Device) error {
	for _, name := range []string{"/etc/passwd", "../../../etc/passwd", "/../etc/passwd", "/proc/self/environ", "/dev/zero", "/link", "/folder/link", "/pipe"} {
		if f, err := os.Open(name); err == nil {
			return fmt.Errorf("%s can be opened as %s", name, f.Name())
		}
	}
	for _, name := range []string{"/new", "/model", "/folder/new"} {
		if err := os.WriteFile(name, []byte("x"), 0o666); err == nil {
			return fmt.Errorf("%s can be written", name)
		}
	}
	if err := os.Remove("/model"); err == nil {
		return errors.New("a file can be removed")
	}
	for _, e := range os.Environ() {
		return fmt.Errorf("the host's environment is there: %s", e)
	}
	return nil
}

var kept [][]byte

func memory(*remote.Device) error {
	for {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
	}
}

func deep(n int, wide [1 << 12]int) int {
	wide[n%len(wide)] = n
	return n + deep(n+1, wide)
}

func flood(*remote.Device) error {
	chunk := []byte(strings.Repeat("x", 1<<16))
	for {
		if _, err := os.Stdout.Write(chunk); err != nil {
			return err
		}
	}
}

func drown(f *os.File) error {
	for range 1 << 14 {
		if _, err := f.WriteString(strings.Repeat("x", 1<<12)); err != nil {
			return err
		}
	}
	return nil
}

// storm computes for ever.
func storm(dev *remote.Device) error {
	k := shaders.Add(dev.Info(), shaders.AddParams{N: 1 << 18})
	p, err := dev.Compile(k.Kernel)
	if err != nil {
		return err
	}
	var b [3]gpu.Buffer
	for i := range b {
		if b[i], err = dev.NewBuffer("storm", 4<<18); err != nil {
			return err
		}
	}
	var l gpu.List
	for range 1000 {
		l.Dispatch(p, k.Groups, k.Params, b[0], b[1], b[2])
	}
	for {
		if err := dev.Submit(&l); err != nil {
			return err
		}
	}
}
