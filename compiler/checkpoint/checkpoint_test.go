// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"fromage/compiler/safetensors"
)

const golden = "../../testdata/golden"

func open(t *testing.T, path string) *Checkpoint {
	t.Helper()
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func read(t *testing.T, c *Checkpoint, name string, first, n int) []float32 {
	t.Helper()
	x, ok := c.Tensor(name)
	if !ok {
		t.Fatalf("no tensor %q in %q", name, c.Names())
	}
	dst := make([]float32, n*x.RowLen())
	if err := x.ReadRows(first, n, dst); err != nil {
		t.Fatal(err)
	}
	return dst
}

func TestGoldenModels(t *testing.T) {
	const embed = "model.decoder.embed_tokens.weight"
	const norm = "model.decoder.final_layer_norm.weight"
	cases := []struct {
		path    string
		tensors int
		dtype   string
		name    string
		shape   []int
		row     int
		col     int
		want    float32
	}{
		{"opt/pre-norm", 52, "F32", embed, []int{523, 64}, 522, 63, -0.2257084995508194},
		{"opt/pre-norm/model.safetensors", 52, "F32", norm, []int{64}, 0, 63, 1.0040349960327148},
		{"opt/odd-dims-f16-bin", 36, "F16", embed, []int{601, 60}, 600, 59, 0.415771484375},
		{"opt/odd-dims-f16-bin", 36, "F16", embed, []int{601, 60}, 1, 0, -0.00754547119140625},
		{"opt/odd-dims-f16-bin/pytorch_model.bin", 36, "F16", norm, []int{60}, 0, 2, 1.1767578125},
		{"opt/sharded-bin", 68, "F32", embed, []int{523, 64}, 1, 0, -0.3038189113140106},
		{"clip/vision", 55, "F32", "vision_model.embeddings.patch_embedding.weight", []int{48, 3, 8, 8}, 1, 5, 0.21946580708026886},
		{"fromage/one-token/initial_ckpt.pth.tar", 9, "F32", "state_dict.model.logit_scale", []int{}, 0, 0, float32(math.Log(1 / 0.07))},
	}
	for _, c := range cases {
		ckpt := open(t, filepath.Join(golden, c.path))
		if len(ckpt.Names()) != c.tensors {
			t.Errorf("%s: %d tensors, want %d", c.path, len(ckpt.Names()), c.tensors)
		}
		x, ok := ckpt.Tensor(c.name)
		if !ok || x.DType != c.dtype || !reflect.DeepEqual(x.Shape, c.shape) {
			t.Errorf("%s: %s = %s %v, %v, want %s %v", c.path, c.name, x.DType, x.Shape, ok, c.dtype, c.shape)
			continue
		}
		if got := read(t, ckpt, c.name, c.row, 1)[c.col]; got != c.want {
			t.Errorf("%s: %s row %d[%d] = %g, want %g", c.path, c.name, c.row, c.col, got, c.want)
		}
	}
}

// TestRowRanges reads a tensor in pieces, over all readers.
func TestRowRanges(t *testing.T) {
	for _, dir := range []string{"opt/pre-norm", "opt/odd-dims-f16-bin", "opt/sharded-bin"} {
		c := open(t, filepath.Join(golden, dir))
		for _, name := range c.Names() {
			x, _ := c.Tensor(name)
			all := read(t, c, name, 0, x.Rows())
			for _, v := range all {
				if math.IsNaN(float64(v)) || math.Abs(float64(v)) > 10 {
					t.Fatalf("%s: %s holds %g", dir, name, v)
				}
			}
			var pieces []float32
			for first := 0; first < x.Rows(); first += 7 {
				pieces = append(pieces, read(t, c, name, first, min(7, x.Rows()-first))...)
			}
			if !reflect.DeepEqual(all, pieces) {
				t.Errorf("%s: %s in pieces differs from the whole", dir, name)
			}
		}
	}
}

// write makes a safetensors file of one-dimensional F32 tensors that hold 1.
func write(t *testing.T, path string, names ...string) {
	t.Helper()
	var sources []safetensors.Source
	for _, name := range names {
		data := binary.LittleEndian.AppendUint32(nil, math.Float32bits(1))
		sources = append(sources, safetensors.Source{Name: name, DType: "F32", Shape: []int{1}, Data: bytes.NewReader(data)})
	}
	writeFile(t, path, sources)
}

func writeFile(t *testing.T, path string, sources []safetensors.Source) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := safetensors.Write(f, sources, nil); err != nil {
		t.Fatal(err)
	}
}

func TestDecode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	cases := []struct {
		dtype string
		data  string
		want  []float32
	}{
		{"F16", "\x00\x3c\x00\xc0\x01\x00\xff\x7b\x00\x7c\x00\x80\xff\x03\x00\x7e", []float32{1, -2, 0x1p-24, 65504, inf, 0, 0x3ffp-24, nan}},
		{"BF16", "\x80\x3f\x00\xc0\x01\x00\x7f\x7f\x80\x7f\x00\x80\xc0\x7f", []float32{1, -2, 0x1p-133, 0xffp120, inf, 0, nan}},
		{"F32", "\x00\x00\x80\x3f\x01\x00\x00\x00\x00\x00\xc0\x7f", []float32{1, 0x1p-149, nan}},
		{"F64", "\x00\x00\x00\x00\x00\x00\xf0\x3f\x9a\x99\x99\x99\x99\x99\xb9\x3f\x00\x00\x00\x00\x00\x00\xf0\x5e", []float32{1, 0.1, inf}},
	}
	for _, c := range cases {
		n := len(c.want)
		writeFile(t, path, []safetensors.Source{{Name: "x", DType: c.dtype, Shape: []int{n}, Data: strings.NewReader(c.data)}})
		got := read(t, open(t, path), "x", 0, 1)
		for i := range got {
			if got[i] != c.want[i] && !(got[i] != got[i] && c.want[i] != c.want[i]) {
				t.Errorf("%s[%d] = %g, want %g", c.dtype, i, got[i], c.want[i])
			}
		}
	}
}

// TestManyChunks reads a tensor larger than the decoding buffer.
func TestManyChunks(t *testing.T) {
	const rows, cols = 1031, 700
	data := make([]byte, 0, 4*rows*cols)
	for i := range rows * cols {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(i)))
	}
	path := filepath.Join(t.TempDir(), "x.safetensors")
	writeFile(t, path, []safetensors.Source{
		{Name: "x", DType: "F32", Shape: []int{rows, cols}, Data: bytes.NewReader(data)},
		{Name: "empty", DType: "F32", Shape: []int{4, 0}, Data: bytes.NewReader(nil)},
		{Name: "int", DType: "I64", Shape: []int{1}, Data: strings.NewReader("12345678")},
	})
	c := open(t, path)
	for i, v := range read(t, c, "x", 3, rows-4) {
		if want := float32(3*cols + i); v != want {
			t.Fatalf("x[%d] = %g, want %g", i, v, want)
		}
	}
	read(t, c, "empty", 1, 3)
	x, _ := c.Tensor("x")
	for _, r := range []struct{ first, n, size int }{{-1, 1, cols}, {0, -1, 0}, {rows, 1, cols}, {rows - 1, 2, 2 * cols}, {0, 1, cols - 1}, {0, math.MaxInt, 0}} {
		if err := x.ReadRows(r.first, r.n, make([]float32, r.size)); err == nil {
			t.Errorf("ReadRows(%d, %d, %d elements) = nil, want an error", r.first, r.n, r.size)
		}
	}
	ints, _ := c.Tensor("int")
	if err := ints.ReadRows(0, 1, make([]float32, 1)); err == nil || !strings.Contains(err.Error(), `tensor "int": want dtype F32, F16, BF16 or F64, have I64`) {
		t.Errorf("ReadRows of I64 = %v", err)
	}
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := x.ReadRows(rows-1, 1, make([]float32, cols)); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("ReadRows of a file cut since = %v, want unexpected EOF", err)
	}
}

func TestShards(t *testing.T) {
	index := func(entries ...string) string {
		var list []string
		for i := 0; i < len(entries); i += 2 {
			list = append(list, fmt.Sprintf("%q:%q", entries[i], entries[i+1]))
		}
		return `{"metadata":{"total_size":8},"weight_map":{` + strings.Join(list, ",") + "}}"
	}
	const s1, s2 = "model-1.safetensors", "model-2.safetensors"
	cases := []struct {
		name, index, want string
	}{
		{"good", index("a", s1, "b", s2), ""},
		{"one of two", index("a", s1), ""},
		{"missing shard", index("a", s1, "b", "model-3.safetensors"), "shard model-3.safetensors: safetensors: open"},
		{"missing tensor", index("a", s1, "c", s2), `tensor "c" is not in `},
		{"wrong shard", index("a", s1, "b", s1, "both", s2), `tensor "b": want it in `},
		{"two shards", index("a", s1, "d", "model-4.safetensors"), `tensor "a" is in `},
		{"parent", index("a", "../model-1.safetensors"), `tensor "a": want the name of a file beside the index, have "../model-1.safetensors"`},
		{"absolute", index("a", "/etc/model.safetensors"), "want the name of a file beside the index"},
		{"backslash", index("a", `..\model.safetensors`), "want the name of a file beside the index"},
		{"drive", index("a", `c:model.safetensors`), "want the name of a file beside the index"},
		{"dots", index("a", ".."), "want the name of a file beside the index"},
		{"nameless", index("a", ""), "want the name of a file beside the index"},
		{"other kind", index("a", "model-1.bin"), "want a .safetensors file"},
		{"tensor twice", index("a", s1, "a", s2), `tensor "a" appears twice`},
		{"no tensors", index(), "names no tensor"},
		{"no map", `{}`, "weight_map: want an object"},
		{"list", `{"weight_map":[]}`, "weight_map: want an object"},
		{"number", `{"weight_map":{"a":1}}`, "want a file name, have 1"},
		{"object", `{"weight_map":{"a":{}}}`, "want a file name"},
		{"not JSON", `{"weight_map":{"a"`, "unexpected end"},
	}
	for _, c := range cases {
		dir := t.TempDir()
		write(t, filepath.Join(dir, s1), "a")
		write(t, filepath.Join(dir, s2), "b", "both")
		write(t, filepath.Join(dir, "model-4.safetensors"), "d", "a")
		file := filepath.Join(dir, "model.safetensors.index.json")
		if err := os.WriteFile(file, []byte(c.index), 0o644); err != nil {
			t.Fatal(err)
		}
		ckpt, err := Open(dir)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			if got := read(t, ckpt, "a", 0, 1)[0]; got != 1 {
				t.Errorf("%s: a = %g, want 1", c.name, got)
			}
			ckpt.Close()
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: error %v, want one with %q and the index's path", c.name, err, c.want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "model.gguf")
	if err := os.WriteFile(other, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                          "want one of model.safetensors",
		other:                        "want a folder, or a file that ends in",
		filepath.Join(dir, "absent"): "no such file",
	} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%s) = %v, want an error with %q", path, err, want)
		}
	}
}

func TestPreference(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "model.safetensors"), "a")
	if err := os.WriteFile(filepath.Join(dir, "pytorch_model.bin"), []byte("not read"), 0o644); err != nil {
		t.Fatal(err)
	}
	if names := open(t, dir).Names(); !reflect.DeepEqual(names, []string{"a"}) {
		t.Errorf("names = %q, want a", names)
	}
}

func TestEmbeddings(t *testing.T) {
	e, err := OpenEmbeddings(filepath.Join(golden, "fromage/one-token/cc3m_embeddings.pkl"))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if len(e.Paths) != 17 || e.D != 32 || e.Paths[2] != "image_02.png" {
		t.Errorf("%d paths, D = %d, want 17 and 32", len(e.Paths), e.D)
	}
	want := read(t, open(t, filepath.Join(golden, "fromage/one-token/expected.safetensors")), "index.embeddings_raw", 0, 17)
	got := make([]float32, 17*32)
	if err := e.ReadRows(0, 17, got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("embeddings differ from index.embeddings_raw: %v", err)
	}
	if err := e.ReadRows(16, 1, got[:32]); err != nil || !reflect.DeepEqual(got[:32], want[16*32:]) {
		t.Errorf("embedding 16 differs: %v", err)
	}
	for _, r := range []struct{ first, n, size int }{{17, 1, 32}, {-1, 1, 32}, {0, 1, 31}} {
		if err := e.ReadRows(r.first, r.n, make([]float32, r.size)); err == nil {
			t.Errorf("ReadRows(%d, %d, %d elements) = nil, want an error", r.first, r.n, r.size)
		}
	}
}

// array is a pickled numpy array of float32 of the value 2, as protocol 4 has it.
func array(shape ...byte) string {
	n := 1
	s := "("
	for _, d := range shape {
		n *= int(d)
		s += "K" + string([]byte{d})
	}
	data := strings.Repeat("\x00\x00\x00\x40", n)
	return "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR(K\x01" + s + "t" +
		"cnumpy\ndtype\n\x8c\x02f4\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb" +
		"\x89C" + string([]byte{byte(len(data))}) + data + "tb"
}

func TestEmbeddingLayouts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cc3m_embeddings.pkl")
	numbers := "](G\x40\x00\x00\x00\x00\x00\x00\x00K\x02K\x02e"
	cases := []struct{ name, paths, embeddings, want string }{
		{"array", "](\x8c\x01a\x8c\x01be", array(2, 3), ""},
		{"array with a middle dimension", "](\x8c\x01a\x8c\x01be", array(2, 1, 3), ""},
		{"arrays", "](\x8c\x01a\x8c\x01be", "](" + array(3) + array(3) + "e", ""},
		{"arrays of one row", "](\x8c\x01a\x8c\x01be", "](" + array(1, 3) + array(1, 1, 3) + "e", ""},
		{"numbers", "](\x8c\x01a\x8c\x01be", "](" + numbers + numbers + "e", ""},
		{"sizes", "](\x8c\x01a\x8c\x01be", "](" + array(3) + array(4) + "e", "embeddings[1]: want 3 elements as the first, have 4"},
		{"count", "](\x8c\x01ae", "](" + array(3) + array(3) + "e", "have 2 and 1"},
		{"matrix", "](\x8c\x01ae", "](" + array(2, 3) + "e", "embeddings[0]: want a vector, have shape [2 3]"},
		{"scalar", "](\x8c\x01ae", "](" + array() + "e", "embeddings[0]: want a vector, have shape []"},
		{"cube", "](\x8c\x01a\x8c\x01be", array(2, 2, 3), "embeddings: want a vector, have shape [2 3]"},
		{"vector", "](\x8c\x01ae", array(3), "want shape (N,D), have [3]"},
		{"strings", "](\x8c\x01ae", "](\x8c\x01ae", "embeddings[0]: want a tensor, have str"},
		{"paths", "](K\x01e", "](" + array(3) + "e", "paths[0]: want a str, have int"},
	}
	for _, c := range cases {
		pickle := "\x80\x04}(\x8c\x05paths" + c.paths + "\x8c\x0aembeddings" + c.embeddings + "u."
		if err := os.WriteFile(path, []byte(pickle), 0o644); err != nil {
			t.Fatal(err)
		}
		e, err := OpenEmbeddings(path)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := make([]float32, 2*3)
		if err := e.ReadRows(0, 2, got); err != nil || !reflect.DeepEqual(got, []float32{2, 2, 2, 2, 2, 2}) {
			t.Errorf("%s: rows = %v, %v, want all 2", c.name, got, err)
		}
		e.Close()
	}
}

func FuzzIndex(f *testing.F) {
	b, err := os.ReadFile(filepath.Join(golden, "opt/sharded-bin/pytorch_model.bin.index.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"weight_map":{"a":"b","c":"d"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseIndex(b)
		if err == nil && len(m) == 0 {
			t.Error("an index of no tensors and no error")
		}
	})
}
