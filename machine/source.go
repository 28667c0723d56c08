// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"fmt"

	"fromage/bundle"
	"fromage/gpu"
)

// Source is where the contents of a bundle come from: an open bundle.Bundle, or whatever a host has in its place.
type Source interface {
	// File returns one of Manifest.Files, checked.
	File(name string) ([]byte, error)
	// Upload fills each target's buffer with its blob, checked, in any order, and tells done of the bytes of each piece.
	Upload(ctx context.Context, dev gpu.Device, targets []Target, done func(bytes int64)) error
}

// Target is a blob of the manifest and the device buffer, of its size, that it fills. Several targets may share a blob.
type Target struct {
	Name   string // of the tensor
	Blob   bundle.Blob
	Buffer gpu.Buffer
}

// Chunks is a Source that hands blobs over in order, piece by piece, as bundle.Bundle does.
type Chunks struct {
	Open func(name string) ([]byte, error)
	Each func(ctx context.Context, blob bundle.Blob, f func(offset int64, chunk []byte) error) error
}

// File implements Source.
func (c Chunks) File(name string) ([]byte, error) { return c.Open(name) }

// Upload implements Source.
func (c Chunks) Upload(ctx context.Context, dev gpu.Device, targets []Target, done func(int64)) error {
	for _, t := range targets {
		err := c.Each(ctx, t.Blob, func(offset int64, chunk []byte) error {
			if err := dev.Write(t.Buffer, int(offset), chunk); err != nil {
				return err
			}
			done(int64(len(chunk)))
			return nil
		})
		if err != nil {
			return fmt.Errorf("machine: load %s: %w", t.Name, err)
		}
	}
	return nil
}
