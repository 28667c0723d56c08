// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"

	"fromage/bundle"
	"fromage/gpu/cpu"
	"fromage/index"
	"fromage/runner"
)

// writeIndex embeds the pictures with the bundle and writes their index.
func writeIndex(ctx context.Context, bundlePath, name string, chosen []*picture) error {
	b, err := bundle.Open(bundlePath)
	if err != nil {
		return err
	}
	defer b.Close()
	dev := cpu.Twins()
	defer dev.Close()
	r, err := runner.Load(ctx, dev, b, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	id, err := hex.DecodeString(r.Settings().HeadsHash)
	if err != nil {
		return fmt.Errorf("heads_hash: %w", err)
	}
	x, err := index.New(index.Header{D: r.Settings().SharedDim, DType: index.F16, Model: [32]byte(id)})
	if err != nil {
		return err
	}
	rows, err := embed(ctx, r, chosen)
	if err != nil {
		return err
	}
	if err := x.Append(rows); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if _, err := x.WriteTo(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// embedBatch is how many pictures go to the device at once.
const embedBatch = 16

func embed(ctx context.Context, r *runner.Runner, chosen []*picture) ([]index.Row, error) {
	h, w := r.Vision().Shape()
	var rows []index.Row
	for first := 0; first < len(chosen); first += embedBatch {
		batch := chosen[first:min(first+embedBatch, len(chosen))]
		var pixels [][]float32
		for _, p := range batch {
			x := make([]float32, 3*h*w)
			if err := r.Vision().Process(p.data, x); err != nil {
				return nil, fmt.Errorf("%s: %w", p.path, err)
			}
			pixels = append(pixels, x)
		}
		images, err := r.Embed(ctx, pixels, nil)
		if err != nil {
			return nil, err
		}
		for i, p := range batch {
			meta := index.Meta{Path: p.path, Caption: p.caption, Licence: p.licence, Hash: sha256.Sum256(p.data)}
			rows = append(rows, index.Row{Meta: meta, Embedding: images[i].Retrieval})
		}
		if first%(embedBatch*16) == 0 {
			fmt.Printf("%d of %d embedded\n", first, len(chosen))
		}
	}
	return rows, nil
}
