// SPDX-License-Identifier: Apache-2.0

//go:build wasip1

// Command guest is FROMAGe as a WebAssembly module for GOOS=wasip1: lines of JSON on standard input and output, and a GPU by the functions that package
// gpu/remote imports.
//
//	guest MODEL KV [INDEX]
//
// KV is how keys and values are kept, f32 or f16. Files, those of pictures in prompts too, are what the host mounts at /.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"fromage/bundle"
	"fromage/gpu/remote"
	"fromage/index"
	"fromage/runner"
	"fromage/shaders"
	"fromage/wasm/headless/lines"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 2 || len(args) > 3 {
		return fmt.Errorf("guest: want MODEL KV [INDEX], have %d arguments", len(args))
	}
	kv, err := shaders.ParseFormat(args[1])
	if err != nil {
		return err
	}
	dev, err := remote.Open()
	if err != nil {
		return err
	}
	s := &lines.Server{File: readPicture}
	ready := lines.Ready{Adapter: dev.Info().Adapter}
	if s.Runner, ready.Model, err = load(ctx, dev, args[0]); err != nil {
		return err
	}
	if err := s.Runner.SetKV(kv); err != nil {
		return err
	}
	if len(args) == 3 {
		if err := openIndex(s, args[2]); err != nil {
			return err
		}
		ready.Pictures = s.Index.Len()
	}
	if err := json.NewEncoder(os.Stdout).Encode(lines.Line{Ready: &ready}); err != nil {
		return err
	}
	return s.Serve(ctx, os.Stdin, os.Stdout)
}

func load(ctx context.Context, dev *remote.Device, name string) (*runner.Runner, string, error) {
	b, err := bundle.Open(name)
	if err != nil {
		return nil, "", err
	}
	defer b.Close()
	r, err := runner.Load(ctx, dev, b, nil)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", name, err)
	}
	return r, b.Manifest().Name, nil
}

func openIndex(s *lines.Server, name string) error {
	x, err := index.Open(name)
	if err != nil {
		return err
	}
	if err := lines.CheckIndex(s.Runner, x); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	search, err := runner.NewGallery(s.Runner, x)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.Index, s.Search = x, search
	return nil
}

// maxPicture is the most bytes of a picture file.
const maxPicture = 64 << 20

// readPicture returns a picture file's bytes, of a path below /.
func readPicture(name string) ([]byte, error) {
	f, err := os.Open("/" + name)
	if err != nil {
		return nil, fmt.Errorf("%s: there is no such file among those that the host lets the guest read", name)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPicture+1))
	if err == nil && len(data) > maxPicture {
		err = fmt.Errorf("want a picture of at most %d bytes", maxPicture)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}
