// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"fmt"

	"fromage/compiler/torchfile"
)

// Embeddings is an open file of image embeddings, as FROMAGe's release has it:
// a pickle of {"paths": [str], "embeddings": …}, where the embeddings are a list
// of one vector an image (torch tensors, numpy arrays or lists of numbers) or
// one (N,D) array. Vectors may have leading dimensions of 1. Its methods may be
// called concurrently.
type Embeddings struct {
	Paths []string // N file names or addresses of images
	D     int      // elements of each embedding

	path   string
	file   *torchfile.File
	matrix Tensor              // (N,D), if the file has one
	list   []*torchfile.Tensor // else N times (D)
}

// OpenEmbeddings opens the file at path. The caller closes it.
func OpenEmbeddings(path string) (*Embeddings, error) {
	f, err := torchfile.Open(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: embeddings: %w", err)
	}
	e := &Embeddings{path: path, file: f}
	if err := e.open(); err != nil {
		f.Close()
		return nil, fmt.Errorf("checkpoint: embeddings: %w", err)
	}
	return e, nil
}

func (e *Embeddings) open() (err error) {
	if e.Paths, err = e.file.Strings("paths"); err != nil {
		return err
	}
	n := 0
	if t, ok := e.file.Tensor("embeddings"); ok {
		if len(t.Shape) < 2 {
			return fmt.Errorf("%s: embeddings: want shape (N,D), have %v", e.path, t.Shape)
		}
		if e.D, err = vectorLen(t.Shape[1:]); err != nil {
			return fmt.Errorf("%s: embeddings: %w", e.path, err)
		}
		e.matrix = Tensor{Name: "embeddings", DType: t.DType(), Shape: t.Shape, file: e.path, data: t}
		n = t.Shape[0]
	} else {
		if e.list, err = e.file.Tensors("embeddings"); err != nil {
			return err
		}
		n = len(e.list)
		for i, t := range e.list {
			d, err := vectorLen(t.Shape)
			if err == nil && i > 0 && d != e.D {
				err = fmt.Errorf("want %d elements as the first, have %d", e.D, d)
			}
			if err != nil {
				return fmt.Errorf("%s: embeddings[%d]: %w", e.path, i, err)
			}
			e.D = d
		}
	}
	if n != len(e.Paths) {
		return fmt.Errorf("%s: want as many embeddings as paths, have %d and %d", e.path, n, len(e.Paths))
	}
	return nil
}

// vectorLen gives the D of shape (D), (1,D), (1,1,D), …
func vectorLen(shape []int) (int, error) {
	for i, d := range shape {
		if i == len(shape)-1 {
			return d, nil
		}
		if d != 1 {
			break
		}
	}
	return 0, fmt.Errorf("want a vector, have shape %v", shape)
}

// Close closes the file.
func (e *Embeddings) Close() error { return e.file.Close() }

// ReadRows decodes the embeddings of images [first, first+n) to dst (n,D), as
// Tensor.ReadRows does.
func (e *Embeddings) ReadRows(first, n int, dst []float32) error {
	if e.list == nil {
		return e.matrix.ReadRows(first, n, dst)
	}
	if first < 0 || n < 0 || first > len(e.list) || n > len(e.list)-first || len(dst) != n*e.D {
		return fmt.Errorf("checkpoint: embeddings: %s: want rows within 0 to %d and a buffer of (n,%d), have %d rows from %d and %d elements",
			e.path, len(e.list), e.D, n, first, len(dst))
	}
	for i, t := range e.list[first : first+n] {
		row := Tensor{Name: fmt.Sprintf("embeddings[%d]", first+i), DType: t.DType(), Shape: t.Shape, file: e.path, data: t}
		if err := row.ReadRows(0, 1, dst[i*e.D:(i+1)*e.D]); err != nil {
			return err
		}
	}
	return nil
}
