// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"fromage/shaders"
)

// piece is a blob on its way into another bundle: copied, or made of fresh values.
type piece struct {
	blob  *Blob
	fresh []float32
}

// Replace writes the bundle b again with other contents of some weights that are stored as one piece of f32, as trained heads are, by name: (rows·cols)
// each. All else stays where it is, so that equal contents make an equal file. w is finished, or after an error the caller's to abort. progress, if any,
// counts bytes.
func Replace(ctx context.Context, w *Writer, b *Bundle, weights map[string][]float32, progress func(done, total int64)) error {
	m := b.m
	for name, x := range weights {
		at := slices.IndexFunc(m.Tensors, func(t Tensor) bool { return t.Name == name })
		spec, err := m.Model.Weight(name)
		if at < 0 || err != nil {
			return fmt.Errorf("bundle: replace %s: want a weight of the bundle", name)
		}
		if t := m.Tensors[at]; t.Format != shaders.F32 || len(t.Shards) != 1 || len(x) != spec.Rows*spec.Cols {
			return fmt.Errorf("bundle: replace %s: want %d × %d values for one piece of f32, have %d for %d of %s", name, spec.Rows, spec.Cols, len(x), len(t.Shards), t.Format)
		}
	}
	var pieces []piece
	m.Tensors = slices.Clone(m.Tensors)
	for i := range m.Tensors {
		t := &m.Tensors[i]
		t.Shards = slices.Clone(t.Shards)
		for j := range t.Shards {
			s := &t.Shards[j]
			pieces = append(pieces, piece{&s.Values, weights[t.Name]})
			if s.Scales != nil {
				scales := *s.Scales
				s.Scales = &scales
				pieces = append(pieces, piece{&scales, nil})
			}
		}
	}
	files := map[string]*Blob{}
	for name, blob := range m.Files {
		files[name] = &blob
		pieces = append(pieces, piece{&blob, nil})
	}
	slices.SortStableFunc(pieces, func(a, b piece) int { return cmp.Compare(a.blob.Offset, b.blob.Offset) })
	if err := write(ctx, w, b, pieces, progress); err != nil {
		return err
	}
	m.Files = maps.Clone(m.Files)
	for name, blob := range files {
		m.Files[name] = *blob
	}
	return w.Finish(m)
}

// write writes the pieces in order, and sets each blob to where it is now.
func write(ctx context.Context, w *Writer, from *Bundle, pieces []piece, progress func(done, total int64)) error {
	var done, total int64
	for _, p := range pieces {
		total += p.blob.Size
	}
	for _, p := range pieces {
		blob, err := w.Blob(func(to io.Writer) error {
			if p.fresh != nil {
				return writeFloats(to, p.fresh, p.blob.Size)
			}
			return from.Chunks(ctx, *p.blob, func(_ int64, chunk []byte) error {
				_, err := to.Write(chunk)
				return err
			})
		})
		if err != nil {
			return err
		}
		*p.blob = blob
		if done += blob.Size; progress != nil {
			progress(done, total)
		}
	}
	return nil
}

// writeFloats writes x, padded with zeros to size bytes.
func writeFloats(to io.Writer, x []float32, size int64) error {
	data := make([]byte, size)
	for i, v := range x {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(v))
	}
	_, err := to.Write(data)
	return err
}
