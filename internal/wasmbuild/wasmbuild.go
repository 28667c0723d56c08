// SPDX-License-Identifier: Apache-2.0

// Package wasmbuild builds the programs that this repository ships as WebAssembly, small: without debugging information, without the kernels' twins
// and comments, and without tables that a program can write for itself (Shrink).
//
// What enters is a package; what leaves is its program. The package refuses to know what the program is for.
package wasmbuild

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"fromage/shaders"
)

// flags make programs small and the same wherever they are built. The runtime's own code goes without checks of indices, which do not fail there; all
// other code has them. Package fmt without inlining is 70 kB smaller, and nothing waits for it.
var flags = []string{"-trimpath", "-buildvcs=false", "-tags=notwins", "-ldflags=-s -w", "-gcflags=runtime=-B", "-gcflags=fmt=-l"}

// Build returns the program of a main package for an operating system that Go has on wasm: js or wasip1.
func Build(ctx context.Context, goos, pkg string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "wasmbuild-")
	if err != nil {
		return nil, fmt.Errorf("wasmbuild: %w", err)
	}
	defer os.RemoveAll(dir)
	overlay, err := bareShaders(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("wasmbuild: %w", err)
	}
	out := filepath.Join(dir, "program.wasm")
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build"}, flags...), "-overlay="+overlay, "-o", out, pkg)...)
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

// bareShaders writes bare copies of the kernels' texts into dir, and the file that has the go command take them in place of the texts.
func bareShaders(ctx context.Context, dir string) (overlay string, err error) {
	where, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "fromage/shaders").Output()
	if err != nil {
		return "", fmt.Errorf("find fromage/shaders: %w", err)
	}
	replace := map[string]string{}
	for _, pattern := range []string{"*.wgsl", "shared/*.wgsl"} {
		paths, err := filepath.Glob(filepath.Join(string(bytes.TrimSpace(where)), pattern))
		if err != nil {
			return "", err
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				return "", err
			}
			replace[path] = filepath.Join(dir, fmt.Sprint(len(replace)))
			if err := os.WriteFile(replace[path], []byte(shaders.Bare(string(text))), 0o666); err != nil {
				return "", err
			}
		}
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, data, 0o666)
}
