// SPDX-License-Identifier: Apache-2.0

// Command makeguest builds the program that runs FROMAGe in a WebAssembly sandbox, wasm/headless/guest for wasip1, compressed.
//
//	makeguest OUT
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"fromage/internal/wasmbuild"
)

// maxSize is the most bytes that the program may have: what a host without it in its cache compiles in a second or two.
const maxSize = 5_000_000

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: makeguest OUT")
		os.Exit(2)
	}
	if err := build(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "makeguest:", err)
		os.Exit(1)
	}
}

func build(out string) error {
	data, err := wasmbuild.Build(context.Background(), "wasip1", "fromage/wasm/headless/guest")
	if err != nil {
		return err
	}
	if len(data) > maxSize {
		return fmt.Errorf("wasm/headless/guest: want at most %d bytes, have %d", maxSize, len(data))
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(data); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "guest.wasm.gz"), b.Bytes(), 0o644); err != nil {
		return err
	}
	fmt.Printf("guest.wasm: %d bytes, %d in gzip\n", len(data), b.Len())
	return nil
}
