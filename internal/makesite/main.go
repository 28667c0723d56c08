// SPDX-License-Identifier: Apache-2.0

// Command makesite builds the page's program: wasm/browser for js/wasm, compressed as browsers take it, and the wasm_exec.js of the toolchain that
// built it.
//
//	makesite OUT
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/andybalholm/brotli"

	"fromage/internal/wasmbuild"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: makesite OUT")
		os.Exit(2)
	}
	if err := build(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "makesite:", err)
		os.Exit(1)
	}
}

func build(out string) error {
	data, err := wasmbuild.Build(context.Background(), "js", "fromage/wasm/browser")
	if err != nil {
		return err
	}
	br, err := compress(data, func(w io.Writer) io.WriteCloser { return brotli.NewWriterLevel(w, brotli.BestCompression) })
	if err != nil {
		return err
	}
	gz, err := compress(data, func(w io.Writer) io.WriteCloser {
		z, _ := gzip.NewWriterLevel(w, gzip.BestCompression) // the level is one of the package's
		return z
	})
	if err != nil {
		return err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	script, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "lib", "wasm", "wasm_exec.js"))
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{"fromage.wasm.br": br, "fromage.wasm.gz": gz, "wasm_exec.js": script} {
		if err := os.WriteFile(filepath.Join(out, name), data, 0o644); err != nil {
			return err
		}
	}
	fmt.Printf("fromage.wasm: %d bytes, %d in gzip, %d in brotli\n", len(data), len(gz), len(br))
	return nil
}

func compress(data []byte, to func(io.Writer) io.WriteCloser) ([]byte, error) {
	var b bytes.Buffer
	w := to(&b)
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
