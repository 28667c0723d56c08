// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

const golden = "../../testdata/golden"

func TestOpenRealFile(t *testing.T) {
	f, err := Open(filepath.Join(golden, "opt/pre-norm/model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if len(f.Tensors) != 52 || f.Metadata["format"] != "pt" {
		t.Errorf("%d tensors, metadata %v, want 52, format pt", len(f.Tensors), f.Metadata)
	}
	want := Tensor{"model.decoder.embed_tokens.weight", "F32", []int{523, 64}, 8 + 5560 + 33280, 523 * 64 * 4}
	if got, ok := f.Lookup(want.Name); !ok || !reflect.DeepEqual(got, want) || !reflect.DeepEqual(f.Tensors[1], want) {
		t.Errorf("Lookup(%q) = %v, %v, want %v", want.Name, got, ok, want)
	}
	if _, ok := f.Lookup("absent"); ok {
		t.Error("Lookup(absent) = true")
	}
	for _, c := range []struct {
		name  string
		index int
		want  float32
	}{
		{"model.decoder.final_layer_norm.weight", 0, 1.0790696144104004},
		{"model.decoder.final_layer_norm.weight", 63, 1.0040349960327148},
		{"model.decoder.embed_tokens.weight", 523*64 - 1, -0.2257084995508194},
	} {
		x, _ := f.Lookup(c.name)
		if got := float32s(t, f, x, c.index, 1)[0]; got != c.want {
			t.Errorf("%s[%d] = %g, want %g", c.name, c.index, got, c.want)
		}
	}
}

// TestValues reads values known from elsewhere: the logit scale starts at
// ln(1/0.07).
func TestValues(t *testing.T) {
	f, err := Open(filepath.Join(golden, "fromage/one-token/expected.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	scale, _ := f.Lookup("initial.logit_scale")
	if len(scale.Shape) != 0 || scale.Size != 4 {
		t.Errorf("initial.logit_scale = %v, want a scalar", scale)
	}
	if got, want := float32s(t, f, scale, 0, 1)[0], float32(math.Log(1/0.07)); got != want {
		t.Errorf("initial.logit_scale = %g, want %g", got, want)
	}
	lens, _ := f.Lookup("step0.tokens")
	var first [8]byte
	if _, err := f.Data(lens).ReadAt(first[:], 0); err != nil || binary.LittleEndian.Uint64(first[:]) != 2 {
		t.Errorf("step0.tokens[0] = %x, %v, want 2, the leading </s>", first, err)
	}
}

func float32s(t *testing.T, f *File, x Tensor, first, n int) []float32 {
	t.Helper()
	b := make([]byte, 4*n)
	if _, err := f.Data(x).ReadAt(b, int64(4*first)); err != nil {
		t.Fatal(err)
	}
	out := make([]float32, n)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

// file makes a file of a header and n bytes of data.
func file(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, n)...)
}

func parse(b []byte) (*File, error) {
	return NewFile(bytes.NewReader(b), int64(len(b)), "x.safetensors")
}

func TestAccepted(t *testing.T) {
	cases := []struct {
		header string
		data   int
		names  []string
	}{
		{`{}`, 0, nil},
		{`{}   `, 0, nil},
		{`{"__metadata__":{}}`, 0, nil},
		{`{"b":{"dtype":"U8","shape":[3],"data_offsets":[4,7]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}`, 7, []string{"a", "b"}},
		{`{"b":{"data_offsets":[0,2],"shape":[1],"dtype":"BF16"},"empty":{"dtype":"F64","shape":[5,0],"data_offsets":[0,0]}}`, 2, []string{"empty", "b"}},
	}
	for _, c := range cases {
		f, err := parse(file(c.header, c.data))
		if err != nil {
			t.Errorf("%s: %v", c.header, err)
			continue
		}
		var names []string
		for _, x := range f.Tensors {
			names = append(names, x.Name)
		}
		if !reflect.DeepEqual(names, c.names) {
			t.Errorf("%s: names = %q, want %q", c.header, names, c.names)
		}
	}
}

func TestRefused(t *testing.T) {
	one := func(dtype, shape, offsets string) string {
		return `{"a":{"dtype":"` + dtype + `","shape":` + shape + `,"data_offsets":` + offsets + `}}`
	}
	two := func(a, b string) string {
		return `{"a":{"dtype":"U8","shape":[4],"data_offsets":` + a + `},"b":{"dtype":"U8","shape":[4],"data_offsets":` + b + `}}`
	}
	cases := []struct {
		name string
		file []byte
		want string
	}{
		{"nothing", nil, "want at least 8 bytes"},
		{"length only", file("", 0), "does not start with '{'"},
		{"header too long", append(binary.LittleEndian.AppendUint64(nil, MaxHeader+1), '{'), "want at most 100000000"},
		{"header of 2^64-1", append(binary.LittleEndian.AppendUint64(nil, math.MaxUint64), '{'), "want at most 100000000"},
		{"header beyond file", append(binary.LittleEndian.AppendUint64(nil, 3), '{', '}'), "want at most the 2 bytes that follow, have 3"},
		{"leading space", file(" {}", 0), "does not start with '{'"},
		{"array", file("[]", 0), "does not start with '{'"},
		{"not JSON", file(`{"a"}`, 0), "invalid character"},
		{"two values", file(`{}{}`, 0), "more than one JSON value"},
		{"trailing zeros", file("{}\x00", 0), "more than one JSON value"},
		{"not UTF-8", file("{\"\xff\":{}}", 0), "not valid UTF-8"},
		{"tensor twice", file(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0), `key "a" appears twice`},
		{"escaped twice", file(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\u0061":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0), `key "a" appears twice`},
		{"field twice", file(`{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0), `"a": key "dtype" appears twice`},
		{"metadata twice", file(`{"__metadata__":{},"__metadata__":{}}`, 0), "appears twice"},
		{"metadata key twice", file(`{"__metadata__":{"a":"1","a":"2"}}`, 0), "appears twice"},
		{"metadata number", file(`{"__metadata__":{"a":1}}`, 0), "want a string, have 1"},
		{"metadata null", file(`{"__metadata__":null}`, 0), "want {, have"},
		{"field missing", file(`{"a":{"dtype":"U8","shape":[0]}}`, 0), "want dtype, shape and data_offsets"},
		{"unknown field", file(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}}`, 0), "unknown field"},
		{"unknown dtype", file(one("F31", "[1]", "[0,4]"), 4), `dtype "F31" is not known`},
		{"size", file(one("F32", "[2]", "[0,4]"), 4), "want 8 bytes, have 4"},
		{"negative dimension", file(one("F32", "[-1]", "[0,4]"), 4), "want a non-negative integer, have -1"},
		{"fraction", file(one("F32", "[1.0]", "[0,4]"), 4), "want a non-negative integer, have 1.0"},
		{"exponent", file(one("F32", "[1e0]", "[0,4]"), 4), "want a non-negative integer, have 1e0"},
		{"string dimension", file(one("F32", `["1"]`, "[0,4]"), 4), "want a number"},
		{"2^60", file(one("F32", "[1152921504606846976]", "[0,4]"), 4), "want 4611686018427387904 bytes, have 4"},
		{"2^61 overflows", file(one("F32", "[2305843009213693952]", "[0,0]"), 0), "overflows"},
		{"2^120 overflows", file(one("U8", "[1152921504606846976,1152921504606846976]", "[0,0]"), 0), "overflows"},
		{"2^63", file(one("U8", "[9223372036854775808]", "[0,0]"), 0), "want a non-negative integer"},
		{"one offset", file(one("U8", "[0]", "[0]"), 0), "want [begin, end]"},
		{"three offsets", file(one("U8", "[0]", "[0,0,0]"), 0), "want [begin, end]"},
		{"end before begin", file(one("U8", "[0]", "[1,0]"), 0), "want [begin, end]"},
		{"beyond the end", file(one("U8", "[4]", "[0,4]"), 3), "want data end at most 3, have 4"},
		{"far beyond", file(two("[0,4]", "[9223372036854775803,9223372036854775807]"), 8), "want data offset 4"},
		{"2^62 bytes", file(one("U8", "[4611686018427387904]", "[0,4611686018427387904]"), 8), "want data end at most 8"},
		{"overlap", file(two("[0,4]", "[3,7]"), 7), `tensor "b": want data offset 4`},
		{"same place", file(two("[0,4]", "[0,4]"), 4), "want data offset 4"},
		{"hole", file(two("[0,4]", "[5,9]"), 9), "want data offset 4"},
		{"hole at the start", file(one("U8", "[4]", "[1,5]"), 5), "want data offset 0"},
		{"trailing bytes", file(one("U8", "[4]", "[0,4]"), 5), "want 4 bytes of data after the header, have 5"},
		{"deep", file(`{"a":`+strings.Repeat("[", 100_000), 0), "want {"},
	}
	for _, c := range cases {
		_, err := parse(c.file)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "safetensors: x.safetensors: ") {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
	good := file(two("[0,4]", "[4,8]"), 8)
	for n := range good {
		if _, err := parse(good[:n]); err == nil {
			t.Errorf("NewFile(first %d of %d bytes) = nil, want an error", n, len(good))
		}
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open(absent) = %v, want not exist", err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("Open(folder) = nil, want an error")
	}
}

func TestWrite(t *testing.T) {
	meta := map[string]string{"format": "pt", "note": "<é\n\"\\>"}
	sources := []Source{
		{"w", "BF16", []int{2, 3}, strings.NewReader("abcdefghijkl")},
		{"scalar", "F32", nil, iotest.OneByteReader(strings.NewReader("wxyz"))},
		{"none", "F32", []int{0, 7}, strings.NewReader("")},
		{`odd "name"`, "U8", []int{1}, strings.NewReader("!")},
	}
	var b bytes.Buffer
	if err := Write(&b, sources, meta); err != nil {
		t.Fatal(err)
	}
	f, err := parse(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(f.Metadata, meta) {
		t.Errorf("metadata = %q, want %q", f.Metadata, meta)
	}
	if f.Tensors[0].Offset%8 != 0 {
		t.Errorf("data starts at %d, want a multiple of 8", f.Tensors[0].Offset)
	}
	for name, want := range map[string]string{"w": "abcdefghijkl", "scalar": "wxyz", "none": "", `odd "name"`: "!"} {
		x, ok := f.Lookup(name)
		got, err := io.ReadAll(f.Data(x))
		if !ok || err != nil || string(got) != want {
			t.Errorf("%q = %q, %v, want %q", name, got, err, want)
		}
	}
	if x, _ := f.Lookup("w"); x.DType != "BF16" || !reflect.DeepEqual(x.Shape, []int{2, 3}) {
		t.Errorf("w = %v, want BF16 [2 3]", x)
	}
}

func TestWriteRefuses(t *testing.T) {
	text := strings.NewReader
	cases := []struct {
		name    string
		sources []Source
		want    string
	}{
		{"short", []Source{{"a", "U8", []int{3}, text("ab")}}, `tensor "a": want 3 bytes, have 2`},
		{"long", []Source{{"a", "U8", []int{3}, text("abcd")}}, "want 3 bytes, have more"},
		{"twice", []Source{{"a", "U8", []int{1}, text("a")}, {"a", "U8", []int{1}, text("a")}}, "name is taken"},
		{"metadata", []Source{{"__metadata__", "U8", []int{1}, text("a")}}, "name is taken"},
		{"dtype", []Source{{"a", "float", []int{1}, text("a")}}, "not known"},
		{"negative", []Source{{"a", "U8", []int{-1, -1}, text("a")}}, "negative dimension"},
		{"overflow", []Source{{"a", "U8", []int{1 << 62}, text("")}, {"b", "U8", []int{1 << 62}, text("")}}, "overflows"},
		{"name", []Source{{"\xff", "U8", []int{1}, text("a")}}, "not valid UTF-8"},
		{"reader", []Source{{"a", "U8", []int{3}, iotest.ErrReader(errors.New("broken"))}}, "broken"},
	}
	for _, c := range cases {
		err := Write(io.Discard, c.sources, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

func FuzzSafetensors(f *testing.F) {
	b, err := os.ReadFile(filepath.Join(golden, "clip/vision/expected.safetensors"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(file(`{"__metadata__":{"a":"b"},"b":{"dtype":"U8","shape":[3],"data_offsets":[4,7]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}`, 7))
	f.Add(file(`{}`, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := parse(b)
		if err != nil {
			return
		}
		total := int64(0)
		var sources []Source
		for _, x := range file.Tensors {
			total += x.Size
			if x.Offset+x.Size > int64(len(b)) {
				t.Fatalf("%v ends beyond the file's %d bytes", x, len(b))
			}
			sources = append(sources, Source{x.Name, x.DType, x.Shape, file.Data(x)})
		}
		if total > int64(len(b)) {
			t.Fatalf("tensors hold %d bytes of a file of %d", total, len(b))
		}
		// What is read can be written and read again.
		var out bytes.Buffer
		if err := Write(&out, sources, file.Metadata); err != nil {
			t.Fatal(err)
		}
		again, err := parse(out.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if len(again.Tensors) != len(file.Tensors) || len(again.Metadata) != len(file.Metadata) {
			t.Fatalf("written and read again: %d tensors of %d", len(again.Tensors), len(file.Tensors))
		}
	})
}
