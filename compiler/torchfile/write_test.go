// SPDX-License-Identifier: Apache-2.0

package torchfile

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestWriteAsTorch writes what checkpoints of the reference hold, and compares with the bytes that torch wrote, but for what follows the entries:
// torch ends even small files with the records of large ones, and its directory leaves the padding out.
func TestWriteAsTorch(t *testing.T) {
	for _, name := range []string{
		"fromage/one-token/initial_ckpt", "fromage/one-token/fromage_model_pretrained_ckpt",
		"fromage/four-tokens/initial_ckpt", "fromage/four-tokens/fromage_model_pretrained_ckpt",
	} {
		path := filepath.Join(golden, name+".pth.tar")
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var state Dict
		for _, name := range f.Names() {
			x, _ := f.Tensor(name)
			state = append(state, Item{strings.TrimPrefix(name, "state_dict."), Source{x.DType(), x.Shape, rawRows(t, x)}})
		}
		got := written(t, filepath.Base(name)+".pth", Dict{{"state_dict", state}})
		last := strings.Index(string(want), "/.data/serialization_id")
		if last < 0 || !bytes.Equal(got[:last], want[:last]) {
			t.Errorf("%s: differs from torch's file before serialization_id", name)
		}
		if at := strings.Index(string(got), "/.data/serialization_id"); at != last {
			t.Errorf("%s: serialization_id at %d, want %d", name, at, last)
		}
	}
}

func written(t *testing.T, archive string, root Dict) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, archive, root); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestWriteAndRead reads every kind of value back.
func TestWriteAndRead(t *testing.T) {
	ints := []int{0, 255, 256, 65535, 65536, -1, math.MaxInt32, math.MinInt32, math.MaxInt32 + 1, math.MinInt32 - 1, 1 << 39, -(1 << 39), math.MaxInt64, math.MinInt64}
	floats := []float64{0, -1.5, math.Pi, math.Inf(1), math.SmallestNonzeroFloat64}
	root := Dict{{"text", "ä\n"}, {"yes", true}, {"no", false}, {"nothing", Dict{}}}
	for i, v := range ints {
		root = append(root, Item{fmt.Sprintf("int %d", i), v})
	}
	for i, v := range floats {
		root = append(root, Item{fmt.Sprintf("float %d", i), v})
	}
	// So many that the memo's short form does not do.
	var tensors Dict
	shapes := [][]int{{}, {1}, {3}, {2, 3}, {2, 3, 4}, {2, 1, 3, 2}, {0, 5}, {300}}
	for i := range 80 {
		shape := shapes[i%len(shapes)]
		n, _ := product(shape)
		tensors = append(tensors, Item{fmt.Sprintf("t%d", i), Source{"F32", shape, bytes.Repeat([]byte{byte(i), 1, 2, 3}, n)}})
	}
	tensors = append(tensors, Item{"long", Source{"I64", []int{1}, make([]byte, 8)}})
	root = append(root, Item{"tensors", tensors})
	data := written(t, "a", root)
	if !bytes.Equal(data, written(t, "a", root)) {
		t.Error("two files of the same differ")
	}
	f, err := NewFile(bytes.NewReader(data), int64(len(data)), "written")
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range root {
		want := item.Value
		switch v := want.(type) {
		case int:
			want = int64(v)
		case Dict:
			continue
		}
		if got, _ := f.root.get(item.Key); got != want {
			t.Errorf("%s = %v, want %v", item.Key, got, want)
		}
	}
	if len(f.Names()) != len(tensors) {
		t.Fatalf("have %d tensors, want %d", len(f.Names()), len(tensors))
	}
	for _, item := range tensors {
		x, _ := f.Tensor("tensors." + item.Key)
		want := item.Value.(Source)
		if len(want.Shape) == 0 && len(x.Shape) == 0 {
			x.Shape = want.Shape
		}
		if !reflect.DeepEqual(x.Shape, want.Shape) || x.DType() != want.DType {
			t.Errorf("%s is %s %v, want %s %v", item.Key, x.DType(), x.Shape, want.DType, want.Shape)
		} else if len(want.Data) > 0 && !bytes.Equal(rawRows(t, x), want.Data) {
			t.Errorf("%s differs", item.Key)
		}
	}
}

// TestWriteAligns reads the zip by its directory, checksums included.
func TestWriteAligns(t *testing.T) {
	root := Dict{{"a", Source{"U8", []int{67}, make([]byte, 67)}}, {"b", Source{"BF16", []int{0}, nil}}, {"c", Source{"F16", []int{3}, make([]byte, 6)}}}
	data := written(t, "archive", root)
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range z.File {
		names = append(names, e.Name)
		if off, err := e.DataOffset(); err != nil || off%alignment != 0 || e.Method != zip.Store {
			t.Errorf("%s: method %d at %d (%v), want it stored at a multiple of %d", e.Name, e.Method, off, err, alignment)
		}
		r, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(r); err != nil {
			t.Errorf("%s: %v", e.Name, err)
		}
	}
	want := strings.Fields("archive/data.pkl archive/.format_version archive/.storage_alignment archive/byteorder archive/data/0 archive/data/1 archive/data/2 archive/version archive/.data/serialization_id")
	if !reflect.DeepEqual(names, want) {
		t.Errorf("entries are %q, want %q", names, want)
	}
}

func TestFromFloats(t *testing.T) {
	values := []float32{1, -2, 0x1.01p0, 0x1.03p0, 0x1.010002p0, math.MaxFloat32, float32(math.NaN()), float32(math.Inf(-1))}
	s, err := FromFloats("BF16", []int{8}, values)
	want := []byte{0x80, 0x3f, 0, 0xc0, 0x80, 0x3f, 0x82, 0x3f, 0x81, 0x3f, 0x80, 0x7f, 0xc0, 0x7f, 0x80, 0xff}
	if err != nil || !bytes.Equal(s.Data, want) {
		t.Errorf("FromFloats(BF16) = % x, %v, want % x", s.Data, err, want)
	}
	s, err = FromFloats("F32", []int{2}, values[:2])
	want = []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}
	if err != nil || !bytes.Equal(s.Data, want) {
		t.Errorf("FromFloats(F32) = % x, %v, want % x", s.Data, err, want)
	}
	if _, err := FromFloats("I64", nil, nil); err == nil {
		t.Error("FromFloats(I64): want an error")
	}
}

func TestWriteRefuses(t *testing.T) {
	deep := Dict{}
	for range maxNesting + 1 {
		deep = Dict{{"d", deep}}
	}
	cases := []struct {
		archive, want string
		root          Dict
	}{
		{"", "archive", nil},
		{"a/b", "archive", nil},
		{"a", "x: tensor of F32 [2 3]: want 6 elements of 4 bytes, have 20 bytes", Dict{{"x", Source{"F32", []int{2, 3}, make([]byte, 20)}}}},
		{"a", "dtype", Dict{{"x", Source{"F31", nil, nil}}}},
		{"a", "negative", Dict{{"x", Source{"F32", []int{-1}, nil}}}},
		{"a", "overflows", Dict{{"x", Source{"F32", []int{math.MaxInt, 5}, nil}}}},
		{"a", "name of its own", Dict{{"x", 1}, {"x", 2}}},
		{"a", "UTF-8", Dict{{"\xff", 1}}},
		{"a", "UTF-8", Dict{{"x", "\xff"}}},
		{"a", "float32", Dict{{"x", Dict{{"y", float32(1)}}}}},
		{"a", "within each other", deep},
	}
	for _, c := range cases {
		if err := Write(io.Discard, c.archive, c.root); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Write(%q, %.80v) = %v, want an error with %q", c.archive, c.root, err, c.want)
		}
	}
	full := errors.New("disk full")
	for _, room := range []int{0, 10, 200, 1000} {
		if err := Write(&limited{room, full}, "a", Dict{{"x", 1}}); !errors.Is(err, full) {
			t.Errorf("Write with room for %d bytes = %v, want %v", room, err, full)
		}
	}
}

// limited takes so many bytes.
type limited struct {
	room int
	err  error
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.room {
		return 0, l.err
	}
	l.room -= len(p)
	return len(p), nil
}
