// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"

	"fromage/compiler/safetensors"
)

// expected is an expected.safetensors.
type expected struct {
	*safetensors.File
	path string
}

func openExpected(path string) (*expected, error) {
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	return &expected{f, path}, nil
}

func (e *expected) has(name string) bool {
	_, ok := e.Lookup(name)
	return ok
}

// under lists the names that begin with prefix, without it.
func (e *expected) under(prefix string) []string {
	var names []string
	for _, t := range e.Tensors {
		if rest, ok := strings.CutPrefix(t.Name, prefix); ok {
			names = append(names, rest)
		}
	}
	return names
}

func (e *expected) raw(name, dtype string) ([]byte, []int, error) {
	t, ok := e.Lookup(name)
	if !ok {
		return nil, nil, fmt.Errorf("verify: %s: there is no tensor %s", e.path, name)
	}
	if t.DType != dtype {
		return nil, nil, fmt.Errorf("verify: %s: tensor %s: want %s, have %s", e.path, name, dtype, t.DType)
	}
	b, err := io.ReadAll(e.Data(t))
	return b, t.Shape, err
}

func (e *expected) floats(name string) ([]float32, error) {
	b, _, err := e.raw(name, "F32")
	x := make([]float32, len(b)/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return x, err
}

// rows splits a tensor of floats by its last dimension.
func (e *expected) rows(name string) ([][]float32, error) {
	x, err := e.floats(name)
	if err != nil {
		return nil, err
	}
	t, _ := e.Lookup(name)
	if len(t.Shape) == 0 {
		return nil, fmt.Errorf("verify: %s: tensor %s: want rows, have a scalar", e.path, name)
	}
	n := t.Shape[len(t.Shape)-1]
	var out [][]float32
	for len(x) > 0 {
		out, x = append(out, x[:n]), x[n:]
	}
	return out, nil
}

// ints splits a tensor of int64 by its last dimension.
func (e *expected) ints(name string) ([][]int, error) {
	b, shape, err := e.raw(name, "I64")
	if err != nil {
		return nil, err
	}
	n := 1
	if len(shape) > 0 {
		n = shape[len(shape)-1]
	}
	var out [][]int
	for ; len(b) > 0; b = b[8*n:] {
		row := make([]int, n)
		for i := range row {
			row[i] = int(int64(binary.LittleEndian.Uint64(b[8*i:])))
		}
		out = append(out, row)
	}
	return out, nil
}
