// SPDX-License-Identifier: Apache-2.0

// Package wazerohost runs Go programs that were built for GOOS=wasip1 in wazero, with a gpu.Device, so that `go test -exec` runs a package's tests as a
// WebAssembly guest.
//
// What enters is a program with its arguments and files and a device; what leaves is the program's output and exit code. The package refuses to know
// what is tested. Programs may use any kernel: they are our own tests.
package wazerohost

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"fromage/gpu"
	"fromage/gpu/gputest"
	"fromage/gpu/host"
	"fromage/shaders"
)

// Program is a Go program built for wasip1.
type Program struct {
	Wasm string   // the file
	Args []string // after the program's name
	Env  []string // NAME=value
	// Dir is the working directory, an absolute path. The program reads the host's files below Root, which holds Dir, and writes to an empty /tmp of
	// its own, which goes with it.
	Dir, Root      string
	Stdout, Stderr io.Writer
	Device         gpu.Device
	// Interpreter runs the program without compiling it: about a hundred times slower, on any processor.
	Interpreter bool
}

// Kernel is the kernels that programs may run: those of package shaders and of the suite for devices.
func Kernel(name string) *gpu.Kernel {
	if k := gputest.Named(name); k != nil {
		return k
	}
	return shaders.Named(name)
}

// Run runs the program until it exits or ctx is done, and returns its exit code.
func (p Program) Run(ctx context.Context) (code int, err error) {
	wasm, err := os.ReadFile(p.Wasm)
	if err != nil {
		return 0, fmt.Errorf("wazerohost: %w", err)
	}
	temp, err := os.MkdirTemp("", "wazerohost-")
	if err != nil {
		return 0, fmt.Errorf("wazerohost: %w", err)
	}
	defer os.RemoveAll(temp)
	config := wazero.NewRuntimeConfig()
	if p.Interpreter {
		config = wazero.NewRuntimeConfigInterpreter()
	}
	r := wazero.NewRuntimeWithConfig(ctx, config.WithCloseOnContextDone(true))
	defer r.Close(context.WithoutCancel(ctx))
	h := host.New(p.Device, host.Config{Kernel: Kernel, AnyKernel: true})
	g := h.Guest(host.Limits{})
	defer func() { err = errors.Join(err, h.Close()) }()
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
		return 0, fmt.Errorf("wazerohost: %w", err)
	}
	if err := host.Instantiate(ctx, r); err != nil {
		return 0, fmt.Errorf("wazerohost: %w", err)
	}
	compiled, err := r.CompileModule(experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0)), wasm)
	if err != nil {
		return 0, fmt.Errorf("wazerohost: %s: %w", p.Wasm, err)
	}
	_, err = r.InstantiateModule(g.Context(ctx), compiled, p.config(temp))
	var exit *sys.ExitError
	switch {
	case err == nil:
		return 0, nil
	case ctx.Err() != nil:
		return 0, fmt.Errorf("wazerohost: %s: %w", filepath.Base(p.Wasm), ctx.Err())
	case errors.As(err, &exit):
		return int(exit.ExitCode()), nil
	}
	return 0, fmt.Errorf("wazerohost: %s: %w", filepath.Base(p.Wasm), err)
}

// config is what the program sees of this machine.
func (p Program) config(temp string) wazero.ModuleConfig {
	c := wazero.NewModuleConfig().WithName("").WithArgs(append([]string{filepath.Base(p.Wasm)}, p.Args...)...).
		WithStdout(p.Stdout).WithStderr(p.Stderr).
		WithSysWalltime().WithSysNanotime().WithSysNanosleep().WithRandSource(rand.Reader).
		WithFSConfig(wazero.NewFSConfig().WithReadOnlyDirMount(p.Root, p.Root).WithDirMount(temp, "/tmp")).
		WithEnv("PWD", p.Dir).WithEnv("TMPDIR", "/tmp")
	for _, e := range p.Env {
		for i := range e {
			if e[i] == '=' {
				c = c.WithEnv(e[:i], e[i+1:])
				break
			}
		}
	}
	return c
}

// Build builds the test program of a package for wasip1 in dir, or with test false the program that the package is, and returns its path.
func Build(ctx context.Context, dir, pkg string, test bool) (string, error) {
	out := filepath.Join(dir, filepath.Base(pkg)+".wasm")
	args := []string{"build"}
	if test {
		args = []string{"test", "-c"}
	}
	args = append(args, "-ldflags=-s -w", "-o", out, pkg) // names of variables would be a quarter of what wazero reads
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("wazerohost: build %s: %w: %s", pkg, err, text)
	}
	return out, nil
}

// ModuleRoot is the nearest folder above dir with a go.mod, or dir.
func ModuleRoot(dir string) string {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d
		}
		if d == filepath.Dir(d) {
			return dir
		}
	}
}
