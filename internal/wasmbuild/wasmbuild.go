// SPDX-License-Identifier: Apache-2.0

// Package wasmbuild builds the programs that this repository ships as WebAssembly, small: without debugging information, without the kernels' twins,
// and without tables that a program can write for itself (Shrink).
//
// What enters is a package; what leaves is its program. The package refuses to know what the program is for.
package wasmbuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// flags make programs small and the same wherever they are built. The runtime's own code goes without checks of indices, which do not fail there; all
// other code has them.
var flags = []string{"-trimpath", "-buildvcs=false", "-tags=notwins", "-ldflags=-s -w", "-gcflags=runtime=-B"}

// Build returns the program of a main package for an operating system that Go has on wasm: js or wasip1.
func Build(ctx context.Context, goos, pkg string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "wasmbuild-")
	if err != nil {
		return nil, fmt.Errorf("wasmbuild: %w", err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "program.wasm")
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build"}, flags...), "-o", out, pkg)...)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH=wasm", "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("wasmbuild: %s for %s: %w: %s", pkg, goos, err, bytes.TrimSpace(text)), ctx.Err())
	}
	program, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("wasmbuild: %w", err)
	}
	return Shrink(program)
}
