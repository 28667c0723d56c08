// SPDX-License-Identifier: Apache-2.0

package torchfile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// storageTypes gives the elements of torch's typed storages.
var storageTypes = map[string]*elem{
	"DoubleStorage":   {"F64", 8},
	"FloatStorage":    {"F32", 4},
	"HalfStorage":     {"F16", 2},
	"BFloat16Storage": {"BF16", 2},
	"LongStorage":     {"I64", 8},
	"IntStorage":      {"I32", 4},
	"ShortStorage":    {"I16", 2},
	"CharStorage":     {"I8", 1},
	"ByteStorage":     {"U8", 1},
	"BoolStorage":     {"BOOL", 1},
}

// npTypes gives the elements of numpy's type strings.
var npTypes = map[string]*elem{
	"f8": {"F64", 8}, "f4": {"F32", 4}, "f2": {"F16", 2},
	"i8": {"I64", 8}, "i4": {"I32", 4}, "i2": {"I16", 2}, "i1": {"I8", 1},
	"u1": {"U8", 1}, "b1": {"BOOL", 1},
}

// npDType is a numpy.dtype; all that are allowed are little-endian.
type npDType struct{ elem *elem }

// allowed lists every global that a pickle may name. Those that rebuild tensors
// are understood by reduce and build. The others are harmless values that
// checkpoints commonly carry, and stay inert: torch.Size, torch.device, the
// torch dtypes, numpy scalars and argparse.Namespace.
var allowed = allowList()

func allowList() map[global]bool {
	list := map[global]bool{
		{"collections", "OrderedDict"}:         true,
		{"torch._utils", "_rebuild_tensor"}:    true,
		{"torch._utils", "_rebuild_tensor_v2"}: true,
		{"torch._utils", "_rebuild_parameter"}: true,
		{"torch.storage", "_load_from_bytes"}:  true,
		{"torch", "Size"}:                      true,
		{"torch", "device"}:                    true,
		{"argparse", "Namespace"}:              true,
		{"numpy", "ndarray"}:                   true,
		{"numpy", "dtype"}:                     true,
		{"_codecs", "encode"}:                  true,
	}
	for _, core := range []string{"numpy.core", "numpy._core"} {
		list[global{core + ".multiarray", "_reconstruct"}] = true
		list[global{core + ".multiarray", "scalar"}] = true
		list[global{core + ".numeric", "_frombuffer"}] = true
	}
	for name := range storageTypes {
		list[global{"torch", name}] = true
	}
	for name := range strings.FieldsSeq("float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool") {
		list[global{"torch", name}] = true
	}
	return list
}

// reduce gives the value of the allowed global g applied to args.
func (m *machine) reduce(g global, args tuple) (any, error) {
	// numpy 2 renamed its core package.
	g.module = strings.Replace(g.module, "numpy._core", "numpy.core", 1)
	switch g.String() {
	case "collections.OrderedDict":
		if len(args) != 0 {
			return nil, fmt.Errorf("want no arguments, have %d", len(args))
		}
		return &dict{}, nil
	case "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2":
		return rebuildTensor(args)
	case "torch._utils._rebuild_parameter":
		return argument[*Tensor](args, 0)
	case "torch.storage._load_from_bytes":
		return m.loadFromBytes(args)
	case "torch.Size":
		return argument[tuple](args, 0)
	case "torch.device":
		return inert("torch.device"), nil
	case "numpy.core.multiarray._reconstruct":
		return &Tensor{}, nil // build gives it shape and data
	case "numpy.core.multiarray.scalar":
		return inert("numpy scalar"), nil
	case "numpy.core.numeric._frombuffer":
		return fromBuffer(args)
	case "numpy.dtype":
		return makeNpDType(args)
	case "_codecs.encode":
		return m.encode(args)
	}
	return nil, errors.New("not allowed")
}

// newObject gives the value of NEWOBJ, which is a class's __new__.
func newObject(g global, args tuple) (any, error) {
	if g != (global{"argparse", "Namespace"}) || len(args) != 0 {
		return nil, errors.New("not allowed")
	}
	return inert("argparse.Namespace"), nil
}

// build gives obj the state that Python's __setstate__ would.
func build(obj, state any) error {
	switch obj := obj.(type) {
	case *dict:
		return nil // an OrderedDict's attributes, such as a state_dict's _metadata
	case inert:
		return nil
	case *npDType:
		return checkNpState(state)
	case *Tensor:
		return obj.setState(state)
	}
	return errors.New("not allowed")
}

// argument gives args[i] as a T.
func argument[T any](args tuple, i int) (T, error) {
	var zero T
	if i >= len(args) {
		return zero, fmt.Errorf("argument %d is missing", i)
	}
	v, ok := args[i].(T)
	if !ok {
		return zero, fmt.Errorf("argument %d: want %s, have %s", i, describe(any(zero)), describe(args[i]))
	}
	return v, nil
}

// maxDims bounds a tensor's dimensions, which the memo makes cheap to repeat.
const maxDims = 16

// ints gives a tuple of non-negative ints, a shape or strides.
func ints(args tuple, i int) ([]int, error) {
	t, err := argument[tuple](args, i)
	if err != nil {
		return nil, err
	}
	if len(t) > maxDims {
		return nil, fmt.Errorf("argument %d: want at most %d dimensions, have %d", i, maxDims, len(t))
	}
	list := make([]int, len(t))
	for j := range t {
		v, ok := t[j].(int64)
		if !ok || v < 0 {
			return nil, fmt.Errorf("argument %d: want non-negative ints, have %s", i, describe(t[j]))
		}
		list[j] = int(v)
	}
	return list, nil
}

// rebuildTensor takes (storage, offset, shape, strides[, requires_grad, hooks[,
// metadata]]). The metadata, which says that a view is conjugated or negated,
// must be empty.
func rebuildTensor(args tuple) (*Tensor, error) {
	s, err := argument[*storage](args, 0)
	if err != nil {
		return nil, err
	}
	offset, err := argument[int64](args, 1)
	if err != nil {
		return nil, err
	}
	shape, err := ints(args, 2)
	if err != nil {
		return nil, err
	}
	strides, err := ints(args, 3)
	if err != nil {
		return nil, err
	}
	if len(args) > 6 {
		d, isDict := args[6].(*dict)
		if args[6] != nil && !(isDict && len(d.items) == 0) {
			return nil, errors.New("conjugated or negated views are not supported")
		}
	}
	return newTensor(s, int(offset), shape, strides)
}

// loadFromBytes takes (bytes,), a torch file that holds one storage.
func (m *machine) loadFromBytes(args tuple) (*storage, error) {
	b, err := argument[*blob](args, 0)
	if err != nil {
		return nil, err
	}
	if b.loaded != nil {
		return b.loaded, nil
	}
	if m.nested {
		return nil, errors.New("nests torch files deeper than one")
	}
	root, err := load(newSlice(b.src, b.off, b.n), b.n, true)
	if err != nil {
		return nil, fmt.Errorf("bytes at %d: %w", b.off, err)
	}
	s, ok := root.(*storage)
	if !ok {
		return nil, fmt.Errorf("bytes at %d: want a storage, have %s", b.off, describe(root))
	}
	b.loaded = s
	return s, nil
}

// encode takes (text, "latin1"): how protocol 2 spells bytes.
func (m *machine) encode(args tuple) (*blob, error) {
	text, err := argument[string](args, 0)
	if err != nil {
		return nil, err
	}
	if codec, err := argument[string](args, 1); err != nil || codec != "latin1" {
		return nil, errors.New(`want the codec "latin1"`)
	}
	// A string fetched from the memo costs the pickle nothing; its copies do.
	m.decoded += int64(len(text))
	if m.decoded > m.size {
		return nil, fmt.Errorf("makes more than the %d bytes of its pickle", m.size)
	}
	b := make([]byte, 0, len(text))
	for _, r := range text {
		if r > 0xff {
			return nil, fmt.Errorf("character %q is not in latin1", r)
		}
		b = append(b, byte(r))
	}
	return &blob{src: bytes.NewReader(b), n: int64(len(b))}, nil
}

// makeNpDType takes (type string, align, copy).
func makeNpDType(args tuple) (*npDType, error) {
	name, err := argument[string](args, 0)
	if err != nil {
		return nil, err
	}
	e, ok := npTypes[name]
	if !ok {
		return nil, fmt.Errorf("numpy type %.20q is not supported", name)
	}
	return &npDType{e}, nil
}

// checkNpState takes a dtype's state, (version, byte order, subarray, names,
// fields, …), which must say little-endian or not applicable, and no fields.
func checkNpState(state any) error {
	t, _ := state.(tuple)
	if len(t) < 5 || t[2] != nil || t[3] != nil || t[4] != nil {
		return errors.New("structured types are not supported")
	}
	if order, _ := t[1].(string); order != "<" && order != "|" {
		return fmt.Errorf("want byte order '<' or '|', have %v", t[1])
	}
	return nil
}

// setState takes an ndarray's state, (version, shape, dtype, is Fortran order,
// bytes).
func (t *Tensor) setState(state any) error {
	args, ok := state.(tuple)
	if !ok || len(args) != 5 {
		return fmt.Errorf("want a tuple of 5, have %s", describe(state))
	}
	if t.data != nil {
		return errors.New("it has data already")
	}
	fortran, err := argument[bool](args, 3)
	if err != nil {
		return err
	}
	a, err := newArray(args, 1, 2, 4, fortran)
	if err != nil {
		return err
	}
	*t = *a
	return nil
}

// fromBuffer takes (bytes, dtype, shape, "C" or "F"): protocol 5's ndarray.
func fromBuffer(args tuple) (*Tensor, error) {
	order, err := argument[string](args, 3)
	if err != nil {
		return nil, err
	}
	if order != "C" && order != "F" {
		return nil, fmt.Errorf("want order C or F, have %.20q", order)
	}
	return newArray(args, 2, 1, 0, order == "F")
}

// newArray makes an array of the shape, dtype and bytes at those arguments.
func newArray(args tuple, shapeAt, dtypeAt, dataAt int, fortran bool) (*Tensor, error) {
	shape, err := ints(args, shapeAt)
	if err != nil {
		return nil, err
	}
	dtype, err := argument[*npDType](args, dtypeAt)
	if err != nil {
		return nil, err
	}
	b, err := argument[*blob](args, dataAt)
	if err != nil {
		return nil, err
	}
	n, err := product(shape)
	if err != nil {
		return nil, err
	}
	size := int64(dtype.elem.size)
	if b.n%size != 0 || b.n/size != int64(n) {
		return nil, fmt.Errorf("shape %v of %s: want %d elements, have %d bytes", brief(shape), dtype.elem.dtype, n, b.n)
	}
	strides := contiguous(shape)
	if fortran {
		step := 1
		for i, d := range shape {
			strides[i] = step
			step *= max(d, 1)
		}
	}
	s := &storage{src: b.src, off: b.off, elem: dtype.elem, numel: n}
	return newTensor(s, 0, shape, strides)
}
