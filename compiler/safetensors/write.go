// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"
)

// Source is one tensor to be written.
type Source struct {
	Name  string
	DType string // as in the format: F32, F16, BF16, …
	Shape []int
	Data  io.Reader // exactly shape × dtype bytes, little-endian, row-major
}

// Write writes a safetensors file of the tensors in the order given, reading
// each Data once, when its turn comes. A nil metadata writes none. An error
// while data is being copied leaves w with an incomplete file.
func Write(w io.Writer, tensors []Source, metadata map[string]string) error {
	header, sizes, err := buildHeader(tensors, metadata)
	if err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("safetensors: write header: %w", err)
	}
	for i, t := range tensors {
		n, err := io.CopyN(w, t.Data, sizes[i])
		if err != nil && err != io.EOF {
			return fmt.Errorf("safetensors: write tensor %q: %w", t.Name, err)
		}
		if n != sizes[i] {
			return fmt.Errorf("safetensors: write tensor %q: want %d bytes, have %d", t.Name, sizes[i], n)
		}
		var extra [1]byte
		if _, err := io.ReadFull(t.Data, extra[:]); err != io.EOF {
			return fmt.Errorf("safetensors: write tensor %q: want %d bytes, have more", t.Name, sizes[i])
		}
	}
	return nil
}

// buildHeader gives the file's bytes up to the data, padded with spaces so that
// the data starts at a multiple of 8, and each tensor's size in bytes.
func buildHeader(tensors []Source, metadata map[string]string) ([]byte, []int64, error) {
	var b bytes.Buffer
	b.Write(make([]byte, headerStart))
	b.WriteByte('{')
	if metadata != nil {
		if err := writeField(&b, metadataKey, metadata); err != nil {
			return nil, nil, err
		}
	}
	sizes := make([]int64, len(tensors))
	seen := map[string]bool{metadataKey: true}
	end := int64(0)
	for i, t := range tensors {
		size, err := checkSource(t)
		if err == nil && seen[t.Name] {
			err = fmt.Errorf("name is taken")
		}
		if err == nil && size > 1<<63-1-end {
			err = fmt.Errorf("data of the file overflows")
		}
		if err != nil {
			return nil, nil, fmt.Errorf("safetensors: write tensor %q: %w", t.Name, err)
		}
		seen[t.Name] = true
		sizes[i] = size
		info := struct {
			DType   string   `json:"dtype"`
			Shape   []int    `json:"shape"`
			Offsets [2]int64 `json:"data_offsets"`
		}{t.DType, append([]int{}, t.Shape...), [2]int64{end, end + size}}
		if err := writeField(&b, t.Name, info); err != nil {
			return nil, nil, err
		}
		end += size
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	n := b.Len() - headerStart
	if n > MaxHeader {
		return nil, nil, fmt.Errorf("safetensors: write header: want at most %d bytes, have %d", MaxHeader, n)
	}
	binary.LittleEndian.PutUint64(b.Bytes(), uint64(n))
	return b.Bytes(), sizes, nil
}

func checkSource(t Source) (int64, error) {
	if !utf8.ValidString(t.Name) {
		return 0, fmt.Errorf("name is not valid UTF-8")
	}
	for _, d := range t.Shape {
		if d < 0 {
			return 0, fmt.Errorf("shape %v: negative dimension", t.Shape)
		}
	}
	return byteSize(t.DType, t.Shape)
}

// writeField appends "key":value, after a comma unless it is the first field.
func writeField(b *bytes.Buffer, key string, value any) error {
	if b.Len() > headerStart+1 {
		b.WriteByte(',')
	}
	name, err := json.Marshal(key)
	if err != nil {
		return err
	}
	v, err := json.Marshal(value)
	if err != nil {
		return err
	}
	b.Write(name)
	b.WriteByte(':')
	b.Write(v)
	return nil
}
