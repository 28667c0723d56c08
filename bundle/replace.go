// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"fromage/shaders"
)

// Replace writes the bundle b again with other contents of some weights that are stored as one piece of f32, as trained heads are, by name: (rows·cols)
// each. w is finished, or after an error the caller's to abort. progress, if any, counts bytes.
func Replace(ctx context.Context, w *Writer, b *Bundle, weights map[string][]float32, progress func(done, total int64)) error {
	m := b.m
	m.Tensors = append([]Tensor(nil), m.Tensors...)
	var done, total int64
	for _, t := range m.Tensors {
		for _, s := range t.Shards {
			total += s.Values.Size
			if s.Scales != nil {
				total += s.Scales.Size
			}
		}
	}
	copied := func(blob Blob) (Blob, error) {
		return w.Blob(func(to io.Writer) error {
			return b.Chunks(ctx, blob, func(_ int64, chunk []byte) error {
				if done += int64(len(chunk)); progress != nil {
					progress(done, total)
				}
				_, err := to.Write(chunk)
				return err
			})
		})
	}
	replaced := 0
	for i, t := range m.Tensors {
		t.Shards = append([]Shard(nil), t.Shards...)
		x, fresh := weights[t.Name]
		if fresh {
			if spec, err := m.Model.Weight(t.Name); err != nil || t.Format != shaders.F32 || len(t.Shards) != 1 || len(x) != spec.Rows*spec.Cols {
				return fmt.Errorf("bundle: replace %s: want the values of a weight that is stored as one piece of f32, have %d values", t.Name, len(x))
			}
			replaced++
		}
		for j := range t.Shards {
			s := &t.Shards[j]
			var err error
			if fresh {
				s.Values, err = w.Blob(func(to io.Writer) error { return writeFloats(to, x, s.Values.Size) })
			} else {
				s.Values, err = copied(s.Values)
			}
			if err == nil && s.Scales != nil {
				var scales Blob
				scales, err = copied(*s.Scales)
				s.Scales = &scales
			}
			if err != nil {
				return err
			}
		}
		m.Tensors[i] = t
	}
	if replaced != len(weights) {
		return fmt.Errorf("bundle: replace: want weights of the bundle, have %d that it has not", len(weights)-replaced)
	}
	m.Files = map[string]Blob{}
	for name := range b.m.Files {
		data, err := b.File(name)
		if err != nil {
			return err
		}
		if m.Files[name], err = w.Blob(func(to io.Writer) error { _, err := to.Write(data); return err }); err != nil {
			return err
		}
	}
	return w.Finish(m)
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
