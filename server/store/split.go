// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/restic/chunker"

	"fromage/server/version"
)

// Where files are cut depends on their bytes, so that files that are alike have most of their pieces in common: after a change the cuts fall where they
// fell before. All publishers have to cut alike.
const (
	cutPolynomial = chunker.Pol(0x3DA3358B4DC173)
	cutLeast      = 64 << 10
	cutAverage    = 20 // bits: a megabyte
)

// Split cuts a file in pieces and hands each on; the bytes are f's until it returns.
func Split(r io.Reader, f func(data []byte) error) (*version.File, error) {
	c := chunker.NewWithBoundaries(r, cutPolynomial, cutLeast, version.MaxPiece)
	c.SetAverageBits(cutAverage)
	file := &version.File{}
	buffer := make([]byte, version.MaxPiece)
	for {
		part, err := c.Next(buffer)
		if errors.Is(err, io.EOF) {
			return file, nil
		}
		if err != nil {
			return nil, fmt.Errorf("store: split: %w", err)
		}
		if err := f(part.Data); err != nil {
			return nil, err
		}
		file.Pieces = append(file.Pieces, version.Piece{Hash: version.ID(part.Data), Size: int64(len(part.Data))})
		file.Size += int64(len(part.Data))
	}
}

// PutFile stores a file's pieces.
func PutFile(ctx context.Context, s *Store, data []byte) (*version.File, error) {
	f, err := Split(bytes.NewReader(data), func(part []byte) error {
		_, err := s.Put(ctx, bytes.Clone(part))
		return err
	})
	if err != nil {
		return nil, err
	}
	f.SHA256 = version.ID(data)
	return f, nil
}
