// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/restic/chunker"

	"fromage/server/version"
)

// Where files are cut depends on their bytes, so that files that are alike have most of their pieces in common: after a change the cuts fall where they
// fell before. All publishers have to cut alike. Large files have large pieces, so that manifests stay small; where a large one is cut, a small one is too.
const (
	cutPolynomial = chunker.Pol(0x3DA3358B4DC173)
	cutLeast      = 64 << 10
)

// cutBits is the average size of a piece as a power of two: a 32nd of the file, from 128 KiB to 4 MiB.
func cutBits(size int64) int { return min(22, max(17, bits.Len64(uint64(size))-6)) }

// Split cuts a file of size bytes in pieces and hands each on; the bytes are f's until it returns.
func Split(r io.Reader, size int64, f func(data []byte) error) (*version.File, error) {
	c := chunker.NewWithBoundaries(r, cutPolynomial, cutLeast, version.MaxPiece)
	c.SetAverageBits(cutBits(size))
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
	f, err := Split(bytes.NewReader(data), int64(len(data)), func(part []byte) error {
		_, err := s.Put(ctx, bytes.Clone(part))
		return err
	})
	if err != nil {
		return nil, err
	}
	f.SHA256 = version.ID(data)
	return f, nil
}
