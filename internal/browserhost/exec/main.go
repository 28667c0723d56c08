// SPDX-License-Identifier: Apache-2.0

//go:build unix

// Command exec runs a Go program that was built for js/wasm in a headless Chromium, with its arguments, output and exit code:
//
//	go build -o bin/browserexec ./internal/browserhost/exec
//	GOOS=js GOARCH=wasm go test -exec $PWD/bin/browserexec ./gpu/browser ./shaders
//
// The program sees the module's files, its environment's FROMAGE_ variables, and WebGPU. It runs in a worker, or with FROMAGE_BROWSER_PAGE=1 in
// the page. Without a browser exec fails: the go command would hide a warning and call the tests passed.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"fromage/internal/browserhost"
)

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "exec:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run() (int, error) {
	if len(os.Args) < 2 {
		return 2, errors.New("usage: exec program.wasm [argument ...]")
	}
	path, err := browserhost.Find()
	if err != nil {
		return 1, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return 1, err
	}
	program := browserhost.Program{
		Wasm: os.Args[1], Dir: dir, Root: moduleRoot(dir), Env: environment(), Stdout: os.Stdout, Stderr: os.Stderr,
		Page: os.Getenv("FROMAGE_BROWSER_PAGE") == "1",
	}
	limit := time.Duration(0)
	for _, a := range os.Args[2:] {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "-test.testlogfile": // the go command reads it to reuse results; what runs in a browser depends on more than files
			continue
		case "-test.timeout":
			if limit, err = time.ParseDuration(value); err != nil {
				return 2, fmt.Errorf("%s: %w", a, err)
			}
		}
		program.Args = append(program.Args, a)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	defer stop()
	if limit > 0 {
		// The program keeps its own time, but not within a loop that never waits.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit+30*time.Second)
		defer cancel()
	}
	return program.Run(ctx, path)
}

// moduleRoot is the nearest folder above dir with a go.mod, or dir.
func moduleRoot(dir string) string {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d
		}
		if d == filepath.Dir(d) {
			return dir
		}
	}
}

// environment is what of the host's environment concerns the program, which has room for little.
func environment() []string {
	env := []string{"TMPDIR=/tmp"}
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "FROMAGE_") || strings.HasPrefix(e, "GODEBUG=") {
			env = append(env, e)
		}
	}
	return env
}
