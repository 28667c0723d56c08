// SPDX-License-Identifier: Apache-2.0

// Command exec runs a Go program that was built for wasip1 in wazero, with its arguments, output and exit code:
//
//	go build -o bin/wazeroexec ./internal/wazerohost/exec
//	GOOS=wasip1 GOARCH=wasm go test -exec $PWD/bin/wazeroexec ./shaders ./runner
//
// The program sees the module's files and its environment's FROMAGE_ variables, and computes through gpu/remote on the device that
// FROMAGE_WAZERO_DEVICE names: cpu (the Go twins, outside of the guest), or gpu, which is the default where there is an adapter. With
// FROMAGE_WAZERO_INTERPRETER=1 wazero interprets the program.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/gpu/native"
	"fromage/internal/wazerohost"
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
	dir, err := os.Getwd()
	if err != nil {
		return 1, err
	}
	dev, err := openDevice(os.Getenv("FROMAGE_WAZERO_DEVICE"))
	if err != nil {
		return 1, err
	}
	defer dev.Close()
	program := wazerohost.Program{
		Wasm: os.Args[1], Dir: dir, Root: wazerohost.ModuleRoot(dir), Env: environment(), Stdout: os.Stdout, Stderr: os.Stderr,
		Device: dev, Interpreter: os.Getenv("FROMAGE_WAZERO_INTERPRETER") == "1",
	}
	limit := time.Duration(0)
	for _, a := range os.Args[2:] {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "-test.testlogfile": // the go command reads it to reuse results; what runs on a device depends on more than files
			continue
		case "-test.timeout":
			if limit, err = time.ParseDuration(value); err != nil {
				return 2, fmt.Errorf("%s: %w", a, err)
			}
		}
		program.Args = append(program.Args, a)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if limit > 0 {
		// The program keeps its own time, but not within a loop that never waits.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit+30*time.Second)
		defer cancel()
	}
	return program.Run(ctx)
}

// openDevice opens what programs compute on.
func openDevice(name string) (gpu.Device, error) {
	switch name {
	case "cpu":
		return cpu.New(), nil
	case "", "gpu":
		dev, err := native.Open(native.Options{Label: "wazeroexec"})
		if err == nil {
			return dev, nil
		}
		if name == "gpu" || os.Getenv("FROMAGE_REQUIRE_GPU") == "1" {
			return nil, err
		}
		return cpu.New(), nil
	}
	return nil, fmt.Errorf("FROMAGE_WAZERO_DEVICE: want cpu or gpu, have %q", name)
}

// environment is what of the host's environment concerns the program.
func environment() []string {
	var env []string
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "FROMAGE_") || strings.HasPrefix(e, "GODEBUG=") {
			env = append(env, e)
		}
	}
	return env
}
