// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// headerReader walks the header token by token: json.Unmarshal would silently
// keep the last of two equal keys, the very ambiguity that the format forbids.
type headerReader struct {
	*json.Decoder
}

// parseHeader gives the header's tensors, with offsets relative to the data, in
// the order of its keys.
func parseHeader(header []byte) ([]Tensor, map[string]string, error) {
	if !utf8.Valid(header) {
		return nil, nil, errors.New("not valid UTF-8")
	}
	h := headerReader{json.NewDecoder(bytes.NewReader(header))}
	h.UseNumber()
	var tensors []Tensor
	var metadata map[string]string
	err := h.object(func(key string) (err error) {
		if key == metadataKey {
			metadata, err = h.metadata()
			return err
		}
		t, err := h.tensor()
		t.Name = key
		tensors = append(tensors, t)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	// Only padding may follow; writers use spaces to align the data.
	if _, err := h.Token(); err != io.EOF {
		return nil, nil, fmt.Errorf("offset %d: more than one JSON value", headerStart+h.InputOffset())
	}
	return tensors, metadata, nil
}

// object reads an object, calling value for each key with the decoder at the
// key's value.
func (h headerReader) object(value func(key string) error) error {
	if err := h.delim('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for h.More() {
		key, err := h.str()
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("key %q appears twice", key)
		}
		seen[key] = true
		if err := value(key); err != nil {
			return fmt.Errorf("%q: %w", key, err)
		}
	}
	return h.delim('}')
}

func (h headerReader) metadata() (map[string]string, error) {
	m := map[string]string{}
	err := h.object(func(key string) (err error) {
		m[key], err = h.str()
		return err
	})
	return m, err
}

// tensor reads {"dtype": …, "shape": […], "data_offsets": [begin, end]}.
func (h headerReader) tensor() (Tensor, error) {
	var t Tensor
	var offsets []int
	fields := 0
	err := h.object(func(key string) (err error) {
		fields++
		switch key {
		case "dtype":
			t.DType, err = h.str()
		case "shape":
			t.Shape, err = h.ints()
		case "data_offsets":
			offsets, err = h.ints()
		default:
			err = errors.New("unknown field")
		}
		return err
	})
	if err != nil {
		return t, err
	}
	if fields != 3 {
		return t, errors.New("want dtype, shape and data_offsets")
	}
	if len(offsets) != 2 || offsets[0] > offsets[1] {
		return t, fmt.Errorf("data_offsets: want [begin, end], have %s", briefShape(offsets))
	}
	want, err := byteSize(t.DType, t.Shape)
	if err != nil {
		return t, err
	}
	t.Offset, t.Size = int64(offsets[0]), int64(offsets[1]-offsets[0])
	if t.Size != want {
		return t, fmt.Errorf("shape %s of %s: want %d bytes, have %d", briefShape(t.Shape), t.DType, want, t.Size)
	}
	return t, nil
}

// ints reads an array of non-negative integers. It is never nil.
func (h headerReader) ints() ([]int, error) {
	if err := h.delim('['); err != nil {
		return nil, err
	}
	list := []int{}
	for h.More() {
		tok, err := h.Token()
		if err != nil {
			return nil, err
		}
		num, ok := tok.(json.Number)
		if !ok {
			return nil, fmt.Errorf("want a number, have %.40v", tok)
		}
		v, err := strconv.ParseUint(num.String(), 10, strconv.IntSize-1)
		if err != nil {
			return nil, fmt.Errorf("want a non-negative integer, have %s", num)
		}
		list = append(list, int(v))
	}
	return list, h.delim(']')
}

func (h headerReader) str() (string, error) {
	tok, err := h.Token()
	if err != nil {
		return "", err
	}
	s, ok := tok.(string)
	if !ok {
		return "", fmt.Errorf("want a string, have %.40v", tok)
	}
	return s, nil
}

func (h headerReader) delim(want json.Delim) error {
	tok, err := h.Token()
	if err != nil {
		return err
	}
	if tok != want {
		return fmt.Errorf("want %v, have %v", want, tok)
	}
	return nil
}
