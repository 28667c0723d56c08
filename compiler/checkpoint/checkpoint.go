// SPDX-License-Identifier: Apache-2.0

// Package checkpoint gives one view of a model's tensors, whatever files they
// lie in.
//
// The path of a model folder or of a single weight file enters; tensor names,
// shapes and rows of float32 leave. A folder holds model.safetensors,
// pytorch_model.bin, or either in shards with an index, as Hugging Face lays
// models out. Opening reads headers only, and reading costs memory for the rows
// asked for, so that a model need not fit in memory. The pickles of image
// embeddings that FROMAGe is released with are read the same way.
//
// The package refuses to know configurations, architectures and what any name
// means. It does not look for NaN or infinity.
package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fromage/compiler/safetensors"
	"fromage/compiler/torchfile"
)

// Checkpoint is an open model. Its methods may be called concurrently.
type Checkpoint struct {
	names   []string
	tensors map[string]Tensor
	closers []io.Closer
}

// Tensor is one tensor of an open Checkpoint.
type Tensor struct {
	Name  string
	DType string // as safetensors spells it: F32, F16, BF16, …
	Shape []int  // empty for a scalar

	file string
	data rowSource
}

// File gives the path of the file that the tensor is in.
func (t Tensor) File() string { return t.file }

// rowSource gives rows [first, first+n) as they are stored, little-endian and
// row-major. len(dst) is the rows' size in bytes.
type rowSource interface {
	ReadRows(dst []byte, first, n int) error
}

// File names of a model folder, most preferred first. The index files name
// shards of the same kind.
var folderFiles = []string{
	"model.safetensors",
	"model.safetensors.index.json",
	"pytorch_model.bin",
	"pytorch_model.bin.index.json",
}

// Open opens the model at path: a folder with one of model.safetensors,
// model.safetensors.index.json, pytorch_model.bin and
// pytorch_model.bin.index.json, in this order of preference; or one file that
// ends in .safetensors, .bin, .pt, .pth or .pth.tar. The caller closes it.
func Open(path string) (*Checkpoint, error) {
	c := &Checkpoint{tensors: map[string]Tensor{}}
	if err := c.open(path); err != nil {
		c.Close()
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	return c, nil
}

func (c *Checkpoint) open(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return c.addFile(path)
	}
	for _, name := range folderFiles {
		file := filepath.Join(path, name)
		_, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if strings.HasSuffix(name, ".index.json") {
			return c.addShards(file)
		}
		return c.addFile(file)
	}
	return fmt.Errorf("%s: want one of %s", path, strings.Join(folderFiles, ", "))
}

// Close closes the files. Tensors of c cannot be read after it.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, f := range c.closers {
		errs = append(errs, f.Close())
	}
	c.closers = nil
	return errors.Join(errs...)
}

// Names gives the names of all tensors: in the file's order, and shards in the
// order of their names.
func (c *Checkpoint) Names() []string { return slices.Clone(c.names) }

// Tensor gives the tensor called name.
func (c *Checkpoint) Tensor(name string) (Tensor, bool) {
	t, ok := c.tensors[name]
	return t, ok
}

// addFile opens one weight file, of the kind that its name says.
func (c *Checkpoint) addFile(path string) error {
	switch {
	case strings.HasSuffix(path, ".safetensors"):
		return c.addSafetensors(path)
	case hasSuffix(path, ".bin", ".pt", ".pth", ".pth.tar"):
		return c.addTorch(path)
	}
	return fmt.Errorf("%s: want a folder, or a file that ends in .safetensors, .bin, .pt, .pth or .pth.tar", path)
}

func hasSuffix(s string, suffixes ...string) bool {
	return slices.ContainsFunc(suffixes, func(suffix string) bool { return strings.HasSuffix(s, suffix) })
}

func (c *Checkpoint) addSafetensors(path string) error {
	f, err := safetensors.Open(path)
	if err != nil {
		return err
	}
	c.closers = append(c.closers, f)
	for _, t := range f.Tensors {
		err := c.add(Tensor{Name: t.Name, DType: t.DType, Shape: t.Shape, file: path, data: flatRows{f.Data(t), t}})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Checkpoint) addTorch(path string) error {
	f, err := torchfile.Open(path)
	if err != nil {
		return err
	}
	c.closers = append(c.closers, f)
	for _, name := range f.Names() {
		t, _ := f.Tensor(name)
		if err := c.add(Tensor{Name: name, DType: t.DType(), Shape: t.Shape, file: path, data: t}); err != nil {
			return err
		}
	}
	return nil
}

func (c *Checkpoint) add(t Tensor) error {
	if other, ok := c.tensors[t.Name]; ok {
		return fmt.Errorf("%s: tensor %q is in %s too", t.file, t.Name, other.file)
	}
	c.tensors[t.Name] = t
	c.names = append(c.names, t.Name)
	return nil
}

// flatRows reads rows of a safetensors tensor.
type flatRows struct {
	data   *io.SectionReader
	tensor safetensors.Tensor
}

func (f flatRows) ReadRows(dst []byte, first, n int) error {
	if n == 0 || len(dst) == 0 {
		return nil
	}
	off := int64(first) * int64(len(dst)/n)
	k, err := f.data.ReadAt(dst, off)
	if k == len(dst) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("offset %d: %w", f.tensor.Offset+off, err)
}
