// SPDX-License-Identifier: Apache-2.0

// Package torchfile reads the tensors of PyTorch checkpoints: the zip files of
// torch.save, the format it used before version 1.6, and plain pickles of torch
// or numpy arrays. It also writes the zip files.
//
// A file or any io.ReaderAt enters; names, shapes, dtypes and byte ranges leave.
// Only the pickle's values are held in memory; storages stay in the file until
// rows are asked for. What is written is held whole.
//
// A pickle is a program that may import and call anything. This package never
// does: it evaluates a closed list of opcodes to plain values, and a closed list
// of globals ("torch._utils._rebuild_tensor_v2", "collections.OrderedDict", …),
// which it understands by itself. Anything else is refused with an error that
// gives its place: "torchfile: x.bin: data.pkl offset 37: GLOBAL: global
// os.system is not allowed". Besides what rebuilds tensors, these harmless
// globals are allowed and ignored: torch.Size, torch.device, the torch dtypes,
// numpy scalars and argparse.Namespace.
//
// The package refuses to know models, names of weights, and how to decode
// numbers. It does not verify the zip entries' checksums.
package torchfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
)

const (
	// maxNesting bounds how deep dicts may be nested.
	maxNesting = 32
	// maxName bounds a tensor's dotted name, in bytes.
	maxName = 1024
	// freeNames is what all names together may take in bytes; beyond it, they
	// are bounded by the file's size.
	freeNames = 1 << 16
)

// File is an open checkpoint whose root is a dict. Its methods may be called
// concurrently.
type File struct {
	path    string
	size    int64
	closer  io.Closer
	root    *dict
	names   []string
	tensors map[string]*Tensor
}

// Open opens the file at path and evaluates its pickle. The caller closes it.
func Open(path string) (*File, error) {
	h, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("torchfile: %w", err)
	}
	info, err := h.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("torchfile: %s: not a regular file", path)
	}
	if err != nil {
		h.Close()
		return nil, err
	}
	f, err := NewFile(h, info.Size(), path)
	if err != nil {
		h.Close()
		return nil, err
	}
	f.closer = h
	return f, nil
}

// NewFile evaluates a checkpoint of size bytes from r. The name is used in
// errors only.
func NewFile(r io.ReaderAt, size int64, name string) (*File, error) {
	v, err := load(r, size, false)
	if err != nil {
		return nil, fmt.Errorf("torchfile: %s: %w", name, err)
	}
	root, ok := v.(*dict)
	if !ok {
		return nil, fmt.Errorf("torchfile: %s: root: want a dict, have %s", name, describe(v))
	}
	f := &File{path: name, size: size, root: root, tensors: map[string]*Tensor{}}
	w := walk{File: f, held: map[*dict]int{}, nameRoom: freeNames + size}
	if err := w.dict("", root, 0); err != nil {
		return nil, fmt.Errorf("torchfile: %s: %w", name, err)
	}
	return f, nil
}

// Close closes the file that Open opened.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// Names gives the names of all tensors that nested dicts lead to, in the
// pickle's order. A name is the keys on the way, joined by dots:
// "state_dict.model.logit_scale".
func (f *File) Names() []string { return f.names }

// Tensor gives the tensor called name.
func (f *File) Tensor(name string) (*Tensor, bool) {
	t, ok := f.tensors[name]
	return t, ok
}

// Strings gives the list of strings under a key of the root.
func (f *File) Strings(key string) ([]string, error) {
	items, err := f.list(key)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(items))
	for i, v := range items {
		s, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("torchfile: %s: %s[%d]: want a str, have %s", f.path, key, i, describe(v))
		}
		out[i] = s
	}
	return out, nil
}

// Tensors gives the list of tensors under a key of the root. A list of numbers
// in the place of a tensor counts as a one-dimensional F64 tensor.
func (f *File) Tensors(key string) ([]*Tensor, error) {
	items, err := f.list(key)
	if err != nil {
		return nil, err
	}
	out := make([]*Tensor, len(items))
	// The memo lets a pickle put one list of numbers in many places, so that a
	// short one can describe many numbers.
	room := f.size
	numbers := func(items []any) (*Tensor, error) {
		if room -= int64(len(items)); room < 0 {
			return nil, errors.New("the numbers are more than the file's bytes")
		}
		return fromNumbers(items)
	}
	for i, v := range items {
		var err error
		switch v := v.(type) {
		case *Tensor:
			out[i] = v
			if v.data == nil {
				err = errNoData
			}
		case *list:
			out[i], err = numbers(v.items)
		case tuple:
			out[i], err = numbers(v)
		default:
			err = fmt.Errorf("want a tensor, have %s", describe(v))
		}
		if err != nil {
			return nil, fmt.Errorf("torchfile: %s: %s[%d]: %w", f.path, key, i, err)
		}
	}
	return out, nil
}

func (f *File) list(key string) ([]any, error) {
	v, ok := f.root.get(key)
	if !ok {
		return nil, fmt.Errorf("torchfile: %s: %s: no such key", f.path, key)
	}
	switch v := v.(type) {
	case *list:
		return v.items, nil
	case tuple:
		return v, nil
	}
	return nil, fmt.Errorf("torchfile: %s: %s: want a list, have %s", f.path, key, describe(v))
}

// errNoData is a numpy array that was made and never given its state.
var errNoData = errors.New("array has no data")

// fromNumbers makes a one-dimensional F64 tensor.
func fromNumbers(items []any) (*Tensor, error) {
	data := make([]byte, 0, 8*len(items))
	for _, v := range items {
		var x float64
		switch v := v.(type) {
		case float64:
			x = v
		case int64:
			x = float64(v)
		default:
			return nil, fmt.Errorf("want a number, have %s", describe(v))
		}
		data = binary.LittleEndian.AppendUint64(data, math.Float64bits(x))
	}
	n := len(items)
	s := &storage{src: bytes.NewReader(data), elem: storageTypes["DoubleStorage"], numel: n}
	return newTensor(s, 0, []int{n}, []int{1})
}

// walk collects the tensors under a dict.
type walk struct {
	*File
	// held counts the tensors under each dict; a dict being walked has -1. The
	// memo lets a pickle put one dict in many places, so that a short one can
	// describe a tree of exponential size.
	held     map[*dict]int
	nameRoom int64
}

func (w *walk) dict(prefix string, d *dict, depth int) error {
	if depth == maxNesting {
		return fmt.Errorf("%s: dicts nest deeper than %d", prefix, maxNesting)
	}
	if n, ok := w.held[d]; ok {
		if n == 0 {
			return nil
		}
		return fmt.Errorf("%s: its dict of tensors is in two places", prefix)
	}
	w.held[d] = -1
	before := len(w.names)
	for _, it := range d.items {
		if err := w.item(prefix, it, depth); err != nil {
			return err
		}
	}
	w.held[d] = len(w.names) - before
	return nil
}

func (w *walk) item(prefix string, it item, depth int) error {
	if _, isDict := it.value.(*dict); !isDict {
		if _, isTensor := it.value.(*Tensor); !isTensor {
			return nil
		}
	}
	name, err := join(prefix, it.key)
	if err != nil {
		return err
	}
	if d, ok := it.value.(*dict); ok {
		return w.dict(name, d, depth+1)
	}
	t := it.value.(*Tensor)
	if t.data == nil {
		return fmt.Errorf("%s: %w", name, errNoData)
	}
	if w.tensors[name] != nil {
		return fmt.Errorf("%s: two tensors have this name", name)
	}
	w.nameRoom -= int64(len(name))
	if w.nameRoom < 0 {
		return errors.New("the tensors' names take more bytes than the file")
	}
	w.tensors[name] = t
	w.names = append(w.names, name)
	return nil
}

// join appends a dict's key to the dotted name of the dict.
func join(prefix string, key any) (string, error) {
	name, ok := key.(string)
	if n, isInt := key.(int64); isInt {
		name, ok = strconv.FormatInt(n, 10), true
	}
	if !ok {
		return "", fmt.Errorf("%s: a tensor's key: want a str or an int, have %s", prefix, describe(key))
	}
	if prefix != "" {
		name = prefix + "." + name
	}
	if len(name) > maxName {
		return "", fmt.Errorf("%.100s: want a name of at most %d bytes, have %d", name, maxName, len(name))
	}
	return name, nil
}
