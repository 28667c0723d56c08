// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// replaced is Replace in memory.
func replaced(b *Bundle, weights map[string][]float32, progress func(done, total int64)) ([]byte, error) {
	var to Memory
	w := NewWriter(&to)
	err := Replace(context.Background(), w, b, weights, progress)
	if err != nil {
		w.Abort()
	}
	return to.Bytes, err
}

// floats reads a weight that is stored as one piece of f32.
func floats(t *testing.T, b *Bundle, name string) []float32 {
	t.Helper()
	for _, tensor := range b.m.Tensors {
		if tensor.Name != name {
			continue
		}
		var data []byte
		err := b.Chunks(context.Background(), tensor.Shards[0].Values, func(_ int64, chunk []byte) error {
			data = append(data, chunk...)
			return nil
		})
		spec, _ := b.m.Model.Weight(name)
		if err != nil || len(data) < 4*spec.Rows*spec.Cols {
			t.Fatalf("%s: %d bytes, %v", name, len(data), err)
		}
		x := make([]float32, spec.Rows*spec.Cols)
		for i := range x {
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
		}
		return x
	}
	t.Fatalf("the bundle has no %s", name)
	return nil
}

func TestReplace(t *testing.T) {
	ctx, data := context.Background(), tiny(t)
	b, err := openBytes(data)
	if err != nil {
		t.Fatal(err)
	}
	heads := map[string][]float32{}
	for _, w := range b.m.Model.Weights {
		if !w.Head {
			continue
		}
		for i := range w.Rows * w.Cols {
			heads[w.Name] = append(heads[w.Name], float32(len(heads))+float32(i)/8)
		}
	}
	if len(heads) < 8 {
		t.Fatalf("heads: %d, want maps, biases, logit_scale and added_tokens", len(heads))
	}
	if same, err := replaced(b, nil, nil); err != nil || !bytes.Equal(same, data) {
		t.Errorf("no heads make another file: %v", err)
	}
	if data, err = replaced(b, heads, nil); err != nil {
		t.Fatal(err)
	}
	if b, err = openBytes(data); err != nil {
		t.Fatal(err)
	}
	for range 5 { // maps have no order
		if same, err := replaced(b, heads, nil); err != nil || !bytes.Equal(same, data) {
			t.Fatalf("the same heads make another file: %v", err)
		}
	}

	var last, of int64
	fresh := map[string][]float32{"logit_scale": {3}, "visual_fc.weight": slices.Repeat([]float32{0.25}, len(heads["visual_fc.weight"]))}
	other, err := replaced(b, fresh, func(done, total int64) {
		if done <= last || done > total {
			t.Errorf("progress: %d after %d of %d", done, last, total)
		}
		last, of = done, total
	})
	if err != nil || last != of || of == 0 {
		t.Fatalf("Replace = %v, told of %d of %d bytes", err, last, of)
	}
	again, err := openBytes(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Verify(ctx, nil); err != nil {
		t.Error(err)
	}
	for name, x := range heads {
		if want := fresh[name]; want != nil {
			x = want
		}
		if got := floats(t, again, name); !slices.Equal(got, x) {
			t.Errorf("%s = %.3v, want %.3v", name, got, x)
		}
	}
	if again.m.Settings.HeadsHash == b.m.Settings.HeadsHash {
		t.Error("other heads have the same heads_hash")
	}
	for i, tensor := range again.m.Tensors {
		for j, s := range tensor.Shards {
			old := b.m.Tensors[i].Shards[j]
			if fresh[tensor.Name] == nil && (s.Values.SHA256 != old.Values.SHA256 || (s.Scales == nil) != (old.Scales == nil) || s.Scales != nil && s.Scales.SHA256 != old.Scales.SHA256) {
				t.Errorf("%s, piece %d, changed", tensor.Name, j)
			}
		}
	}
	for name := range b.m.Files {
		got, err := again.File(name)
		want, _ := b.File(name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("file %s changed: %v", name, err)
		}
	}
	// And back.
	if back, err := replaced(again, heads, nil); err != nil || !bytes.Equal(back, data) {
		t.Errorf("the old heads in place of the new do not make the old file: %v", err)
	}
	if unchanged, err := openBytes(data); err != nil || !reflect.DeepEqual(unchanged.m, b.m) {
		t.Error("Replace changed the bundle that it reads")
	}
}

func TestReplaceErrors(t *testing.T) {
	data := tiny(t)
	b, err := openBytes(data)
	if err != nil {
		t.Fatal(err)
	}
	quantised := ""
	for _, tensor := range b.m.Tensors {
		if len(tensor.Shards) == 2 {
			quantised = tensor.Name
		}
	}
	for _, c := range []struct {
		name string
		n    int
		want string
	}{
		{"logit_scale", 2, "replace logit_scale: want 1 × 1 values for one piece of f32, have 2"},
		{"logit_scale", 0, "have 0"},
		{"visual_fc.weight", 47, "want 6 × 8 values"},
		{"nothing", 1, "replace nothing: want a weight of the bundle"},
		{quantised, 1, "for 2 of q8"},
	} {
		if _, err := replaced(b, map[string][]float32{c.name: make([]float32, c.n)}, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d values of %s: Replace = %v, want an error with %q", c.n, c.name, err, c.want)
		}
	}

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w := NewWriter(&Memory{})
	if err := Replace(ctx, w, b, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Replace after Ctrl-C = %v, want %v", err, context.Canceled)
	}
	w.Abort()
	damaged := bytes.Clone(data)
	damaged[70] ^= 1
	if b, err = openBytes(damaged); err != nil {
		t.Fatal(err)
	}
	if _, err := replaced(b, nil, nil); err == nil || !strings.Contains(err.Error(), "want SHA-256") {
		t.Errorf("Replace of a damaged bundle = %v, want an error of its hash", err)
	}
}
