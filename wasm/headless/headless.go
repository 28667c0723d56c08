// SPDX-License-Identifier: Apache-2.0

// Package headless runs FROMAGe as a WebAssembly guest in wazero, in any Go program and without a browser: a sandbox that reads the files it is shown,
// takes the memory and time it is given, and computes on a device that it shares with other guests, which also share one copy of the weights.
//
// What enters is a runtime, a device, a bundle and requests; what leaves is lines of tokens and pictures (package lines) and errors that say why a guest
// ended. The package refuses to know models and how they are computed: that is the guest's business, which is command wasm/headless/guest.
package headless

import (
	"bytes"
	"compress/gzip"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"fromage/bundle"
	"fromage/gpu"
	"fromage/gpu/host"
	"fromage/gpu/remote"
	"fromage/shaders"
)

// Config says what guests are shown and what they may take.
type Config struct {
	// Files are all that guests may read, at /. Opening and reading them must not block, since nothing ends a guest that waits for a file: Folder is of
	// that kind, os.DirFS is not, and follows links out of its folder too.
	Files fs.FS
	// Model is the bundle's name among Files. Its files implement io.ReaderAt, as those of package os and of an embed.FS do.
	Model string
	// Index is the name of an index of pictures made with the model, "" for none.
	Index string
	// KV is how guests keep keys and values of attention: F32 or F16.
	KV shaders.Format

	// Memory is the most bytes of a guest's memory, weights and activations not among them; 0 is 1 GiB.
	Memory int
	// Time is the most that a request may take before the guest is ended; 0 is no limit but the context's.
	Time time.Duration
	// Limits are of what a guest has on the device.
	Limits host.Limits

	// Wasm is the guest's program, nil for the one that is part of this package where it was built by make build.
	Wasm []byte
	// Progress, if any, hears of the bytes of weights that went to the device.
	Progress func(done, total int64)
}

const (
	usualMemory = 1 << 30
	leastMemory = 32 << 20 // for the runtime of a Go program alone
)

// dist is filled by make guest; its .gitignore keeps it there before.
//
//go:embed all:dist
var dist embed.FS

// Program returns the guest's program that is part of this package.
func Program() ([]byte, error) {
	f, err := dist.Open("dist/guest.wasm.gz")
	if err != nil {
		return nil, errors.New("headless: this build has no guest: make build puts it in")
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("headless: guest: %w", err)
	}
	return io.ReadAll(z)
}

// Model is a bundle on a device, and the program that guests run.
type Model struct {
	config   Config
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	host     *host.Host

	mu     sync.Mutex
	guests map[*Guest]struct{}
}

// Instantiate puts the model's weights onto the device and makes its program ready to run in r, which must end calls when their context is done, as
// NewRuntime's does. Device and runtime stay the caller's, and are to be closed after the Model.
func Instantiate(ctx context.Context, r wazero.Runtime, dev gpu.Device, c Config) (*Model, error) {
	if c.Memory == 0 {
		c.Memory = usualMemory
	}
	if c.Memory < leastMemory {
		return nil, fmt.Errorf("headless: memory: want at least %d bytes, have %d", leastMemory, c.Memory)
	}
	if c.Wasm == nil {
		var err error
		if c.Wasm, err = Program(); err != nil {
			return nil, err
		}
	}
	m := &Model{config: c, runtime: r, host: host.New(dev, host.Config{Kernel: shaders.Named}), guests: map[*Guest]struct{}{}}
	if err := m.instantiate(ctx); err != nil {
		return nil, errors.Join(err, m.Close(ctx))
	}
	return m, nil
}

func (m *Model) instantiate(ctx context.Context) (err error) {
	if m.runtime.Module(wasi_snapshot_preview1.ModuleName) == nil {
		if _, err := wasi_snapshot_preview1.Instantiate(ctx, m.runtime); err != nil {
			return fmt.Errorf("headless: %w", err)
		}
	}
	if m.runtime.Module(remote.Module) == nil {
		if err := host.Instantiate(ctx, m.runtime); err != nil {
			return err
		}
	}
	if m.compiled, err = m.runtime.CompileModule(experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0)), m.config.Wasm); err != nil {
		return fmt.Errorf("headless: guest: %w", err)
	}
	return m.share(ctx)
}

// share puts the weights onto the device.
func (m *Model) share(ctx context.Context) error {
	f, err := m.config.Files.Open(m.config.Model)
	if err != nil {
		return fmt.Errorf("headless: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("headless: %w", err)
	}
	r, ok := f.(io.ReaderAt)
	if !ok {
		return fmt.Errorf("headless: %s: want a file that can be read at any offset (io.ReaderAt)", m.config.Model)
	}
	b, err := bundle.Read(r, info.Size())
	if err != nil {
		return fmt.Errorf("headless: %s: %w", m.config.Model, err)
	}
	done, total := int64(0), int64(0)
	blobs := blobsOf(b.Manifest())
	for _, w := range blobs {
		total += w.blob.Size
	}
	for _, w := range blobs {
		err := m.host.Share(w.name, w.blob.SHA256, int(w.blob.Size), func(write func(int, []byte) error) error {
			return b.Chunks(ctx, w.blob, func(offset int64, chunk []byte) error {
				if done += int64(len(chunk)); m.config.Progress != nil {
					m.config.Progress(done, total)
				}
				return write(int(offset), chunk)
			})
		})
		if err != nil {
			return fmt.Errorf("headless: %s: %s: %w", m.config.Model, w.name, err)
		}
	}
	return nil
}

// weights is one blob of a tensor.
type weights struct {
	name string
	blob bundle.Blob
}

func blobsOf(m *bundle.Manifest) (all []weights) {
	for _, t := range m.Tensors {
		for i, s := range t.Shards {
			name := fmt.Sprintf("%s.%d", t.Name, i)
			all = append(all, weights{name, s.Values})
			if s.Scales != nil {
				all = append(all, weights{name, *s.Scales})
			}
		}
	}
	return all
}

// Usage adds up what all guests have on the device.
func (m *Model) Usage() host.Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	var sum host.Usage
	for g := range m.guests {
		u := g.gpu.Usage()
		sum.Buffers += u.Buffers
		sum.Bytes += u.Bytes
		sum.Commands += u.Commands
	}
	return sum
}

// Close ends the guests that are still there and frees the weights.
func (m *Model) Close(ctx context.Context) error {
	m.mu.Lock()
	guests := m.guests
	m.guests = map[*Guest]struct{}{}
	m.mu.Unlock()
	var errs []error
	for g := range guests {
		errs = append(errs, g.Close())
	}
	if m.compiled != nil {
		errs = append(errs, m.compiled.Close(ctx))
	}
	return errors.Join(append(errs, m.host.Close())...)
}

// Folder is a folder as guests may see it: regular files and folders, no links out of it, and no pipes or devices, whose opening may block for ever.
func Folder(root *os.Root) fs.FS { return folder{root, root.FS()} }

type folder struct {
	root *os.Root
	fs.FS
}

// Open implements fs.FS.
func (f folder) Open(name string) (fs.File, error) {
	info, err := f.root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return f.FS.Open(name)
}

// head keeps the first bytes that a guest writes to standard error: what went wrong stands there, traces follow.
type head struct {
	mu sync.Mutex
	b  bytes.Buffer
}

const maxHead = 4 << 10

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.b.Write(p[:min(len(p), maxHead-h.b.Len())])
	return len(p), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.String()
}
