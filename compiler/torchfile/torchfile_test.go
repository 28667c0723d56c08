// SPDX-License-Identifier: Apache-2.0

package torchfile

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"fromage/compiler/safetensors"
)

const golden = "../../testdata/golden"

// rawRows gives all of a tensor's bytes.
func rawRows(t *testing.T, x *Tensor) []byte {
	t.Helper()
	rows, elems := x.rows()
	dst := make([]byte, rows*elems*x.ItemSize())
	if err := x.ReadRows(dst, 0, rows); err != nil {
		t.Fatal(err)
	}
	return dst
}

// TestFromageCheckpoints compares both checkpoints of both cases, bit for bit,
// with the parameters before the first training step and after the last.
func TestFromageCheckpoints(t *testing.T) {
	ckpts := []struct{ file, state string }{
		{"initial_ckpt.pth.tar", "initial."},
		{"fromage_model_pretrained_ckpt.pth.tar", "step3.after."},
	}
	for _, dir := range []string{"one-token", "four-tokens"} {
		want, err := safetensors.Open(filepath.Join(golden, "fromage", dir, "expected.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		defer want.Close()
		for _, ckpt := range ckpts {
			f, err := Open(filepath.Join(golden, "fromage", dir, ckpt.file))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			compared := 0
			for _, name := range f.Names() {
				x, _ := f.Tensor(name)
				short := strings.TrimPrefix(name, "state_dict.model.")
				if name == "state_dict.ret_input_embeddings.weight" {
					short = "ret_embedding"
				}
				w, ok := want.Lookup(ckpt.state + short)
				if !ok {
					continue
				}
				wantBytes, err := io.ReadAll(want.Data(w))
				if err != nil {
					t.Fatal(err)
				}
				if got := rawRows(t, x); !bytes.Equal(got, wantBytes) || x.DType() != w.DType {
					t.Errorf("%s/%s %s: differs from %s", dir, ckpt.file, name, w.Name)
				}
				compared++
			}
			// logit_scale, the [RET] row, and the weights and biases of three maps.
			if compared != 8 {
				t.Errorf("%s/%s: compared %d tensors of %v, want 8", dir, ckpt.file, compared, f.Names())
			}
		}
	}
}

func TestEmbeddingsPickle(t *testing.T) {
	for _, dir := range []string{"one-token", "four-tokens"} {
		f, err := Open(filepath.Join(golden, "fromage", dir, "cc3m_embeddings.pkl"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		paths, err := f.Strings("paths")
		if err != nil || len(paths) != 17 || paths[16] != "image_16.png" {
			t.Errorf("%s: Strings(paths) = %q, %v", dir, paths, err)
		}
		list, err := f.Tensors("embeddings")
		if err != nil {
			t.Fatal(err)
		}
		want, err := safetensors.Open(filepath.Join(golden, "fromage", dir, "expected.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		defer want.Close()
		w, _ := want.Lookup("index.embeddings_raw")
		wantBytes, err := io.ReadAll(want.Data(w))
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for _, x := range list {
			got = append(got, rawRows(t, x)...)
		}
		if !bytes.Equal(got, wantBytes) || len(list) != w.Shape[0] {
			t.Errorf("%s: %d embeddings differ from index.embeddings_raw %v", dir, len(list), w.Shape)
		}
	}
}

func TestHalfCheckpoint(t *testing.T) {
	f, err := Open(filepath.Join(golden, "opt/odd-dims-f16-bin/pytorch_model.bin"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n := len(f.Names()); n != 36 {
		t.Errorf("%d tensors, want 36", n)
	}
	x, _ := f.Tensor("model.decoder.embed_tokens.weight")
	if x.DType() != "F16" || !reflect.DeepEqual(x.Shape, []int{601, 60}) {
		t.Errorf("embed_tokens = %s %v, want F16 [601 60]", x.DType(), x.Shape)
	}
	all := rawRows(t, x)
	some := make([]byte, 2*60*2)
	if err := x.ReadRows(some, 599, 2); err != nil || !bytes.Equal(some, all[599*60*2:]) {
		t.Errorf("ReadRows(599, 2) differs from the end of all rows: %v", err)
	}
}

func TestReadRowsRange(t *testing.T) {
	x := mustTensor(t, 12, 0, []int{3, 4}, []int{4, 1})
	for _, c := range []struct{ first, n, size int }{{-1, 1, 16}, {0, 4, 64}, {3, 1, 16}, {1, -1, 0}, {0, 1, 15}, {4, 0, 0}} {
		if err := x.ReadRows(make([]byte, c.size), c.first, c.n); err == nil {
			t.Errorf("ReadRows(%d bytes, %d, %d) = nil, want an error", c.size, c.first, c.n)
		}
	}
	if err := x.ReadRows(nil, 3, 0); err != nil {
		t.Errorf("ReadRows of no rows = %v", err)
	}
}

// mustTensor is a view of a storage of the int32 values 0, 1, 2, ….
func mustTensor(t *testing.T, numel, offset int, shape, strides []int) *Tensor {
	t.Helper()
	data := make([]byte, 0, 4*numel)
	for i := range numel {
		data = binary.LittleEndian.AppendUint32(data, uint32(i))
	}
	s := &storage{src: bytes.NewReader(data), elem: storageTypes["IntStorage"], numel: numel}
	x, err := newTensor(s, offset, shape, strides)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestStrides(t *testing.T) {
	cases := []struct {
		numel, offset  int
		shape, strides []int
	}{
		{1, 0, []int{}, []int{}},
		{7, 2, []int{5}, []int{1}},
		{9, 0, []int{5}, []int{2}},
		{12, 0, []int{3, 4}, []int{4, 1}},
		{12, 0, []int{4, 3}, []int{1, 4}},                                // transposed
		{24, 0, []int{2, 3, 4}, []int{1, 2, 6}},                          // Fortran order
		{24, 0, []int{3, 4, 2}, []int{4, 1, 12}},                         // permuted
		{40, 3, []int{3, 4}, []int{10, 2}},                               // a slice with steps
		{5, 0, []int{1, 5}, []int{0, 1}},                                 // a leading expanded dimension
		{6, 0, []int{3, 2}, []int{1, 1}},                                 // overlapping windows
		{12, 0, []int{3, 4}, []int{0, 1}},                                // one row, three times
		{1, 0, []int{1, 1, 1}, []int{7, 7, 7}},                           // strides that no step uses
		{300_000, 1, []int{3, 2}, []int{100_000, 30_000}},                // wider than the window
		{70_000, 0, []int{2, 35_000}, []int{1, 2}},                       // more spaced elements than the window holds
		{10, 10, []int{0, 4}, []int{4, 1}},                               // empty
		{2 * 3 * 5 * 7, 0, []int{5, 3, 7, 2}, []int{7, 2 * 35, 1, 35}},   // two runs and two swaps
		{2 * 3 * 5 * 7, 0, []int{2, 3, 5, 7}, []int{105, 35, 7, 1}},      // one run
		{2 * 3 * 5 * 14, 0, []int{2, 3, 5, 7}, []int{210, 70, 14, 2}},    // one run with steps
		{2 * 3 * 5 * 7, 0, []int{7, 5, 3, 2}, []int{1, 7, 35, 35 * 3}},   // reversed
		{2 * 3 * 5 * 7, 1, []int{6, 5, 3, 2}, []int{1, 7, 35, 35 * 3}},   // reversed, cut
		{1000, 17, []int{3, 1, 5, 1, 4}, []int{200, 999, 11, 999, 1}},    // ones between
		{1000, 999, []int{1, 1}, []int{1 << 40, 1 << 50}},                // the last element
		{1 << 17, 5, []int{2, 20_000, 3}, []int{60_001, 3, 1}},           // rows with a gap
		{1 << 17, 0, []int{2, 3, 20_000}, []int{60_000, 1, 3}},           // transposed inside
		{1 << 17, 131071, []int{1}, []int{3}},                            // at the very end
		{1 << 17, 131071 - 3, []int{2}, []int{3}},                        // ends at the very end
		{1 << 17, 0, []int{4, 2, 16_384}, []int{1 << 15, 1 << 14, 1}},    // one large run
		{1 << 17, 0, []int{16_384, 2, 4}, []int{1, 1 << 14, 1 << 15}},    // and its reverse
		{1 << 17, 0, []int{1 << 15, 2}, []int{1, 1 << 15}},               // tall and transposed
		{1 << 17, 0, []int{2, 1 << 15}, []int{1, 3}},                     // spans that the window cuts
		{1 << 17, 1, []int{2, 1 << 14, 2}, []int{1 << 16, 1, 1 << 15}},   // swaps at the end
		{1 << 17, 0, []int{3, 5, 1 << 10}, []int{1 << 15, 1 << 13, 1}},   // gaps at two levels
		{1 << 17, 0, []int{3, 5, 1 << 10}, []int{1 << 13, 1 << 14, 3}},   // and swapped, with steps
		{1 << 17, 0, []int{3, 5, 1 << 3}, []int{1 << 13, 1 << 11, 1000}}, // interleaved
	}
	for _, c := range cases {
		x := mustTensor(t, c.numel, c.offset, c.shape, c.strides)
		rows, elems := x.rows()
		for _, part := range [][2]int{{0, rows}, {rows / 2, rows - rows/2}} {
			dst := make([]byte, part[1]*elems*4)
			if err := x.ReadRows(dst, part[0], part[1]); err != nil {
				t.Fatal(err)
			}
			for i := range len(dst) / 4 {
				got := int(binary.LittleEndian.Uint32(dst[4*i:]))
				if want := storageIndex(x, part[0]*elems+i); got != want {
					t.Fatalf("%v strides %v offset %d: rows %v: element %d = %d, want %d", c.shape, c.strides, c.offset, part, i, got, want)
				}
			}
		}
	}
}

// storageIndex is where the i-th element in row-major order lies.
func storageIndex(x *Tensor, i int) int {
	at := x.offset
	for d := len(x.Shape) - 1; d >= 0; d-- {
		at += i % x.Shape[d] * x.strides[d]
		i /= x.Shape[d]
	}
	return at
}

func TestTensorOutsideStorage(t *testing.T) {
	s := &storage{src: bytes.NewReader(make([]byte, 40)), elem: storageTypes["FloatStorage"], numel: 10}
	cases := []struct {
		offset         int
		shape, strides []int
	}{
		{0, []int{11}, []int{1}},
		{1, []int{10}, []int{1}},
		{10, []int{1}, []int{1}},
		{11, []int{0}, []int{1}},
		{-1, []int{1}, []int{1}},
		{10, []int{}, []int{}},
		{0, []int{2, 5}, []int{6, 1}},
		{0, []int{4}, []int{-1}},
		{0, []int{-1}, []int{1}},
		{0, []int{4}, []int{1, 1}},
		{0, []int{2, 2}, []int{1 << 62, 1 << 62}},
		{0, []int{1 << 60}, []int{0}},
		{0, []int{1 << 32, 1 << 32}, []int{0, 0}},
		{0, []int{1 << 62, 1 << 62, 0}, []int{0, 0, 0}},
		{0, []int{11, 1}, []int{0, 1}},
	}
	for _, c := range cases {
		if x, err := newTensor(s, c.offset, c.shape, c.strides); err == nil {
			t.Errorf("newTensor(10 elements, %d, %v, %v) = %v, want an error", c.offset, c.shape, c.strides, x)
		}
	}
}

// asm assembles a pickle. Each part is a raw string of opcodes, except that
// strings marked with a leading "'" become SHORT_BINUNICODE, ints become BININT,
// and byte slices become BINBYTES.
func asm(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = binary.LittleEndian.AppendUint32(append(b, opBinInt), uint32(p))
		case []byte:
			b = binary.LittleEndian.AppendUint32(append(b, opBinBytes), uint32(len(p)))
			b = append(b, p...)
		case string:
			if text, ok := strings.CutPrefix(p, "'"); ok {
				b = append(append(b, opShortBinUnicode, byte(len(text))), text...)
				continue
			}
			b = append(b, p...)
		default:
			panic(fmt.Sprintf("asm: %T", p))
		}
	}
	return b
}

func floats(values ...float32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

// Pieces of numpy's pickles.
const (
	npReconstruct = "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
	npF4          = "cnumpy\ndtype\n\x8c\x02f4\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)

func TestNumpyPickles(t *testing.T) {
	data := floats(1, 2, 3, 4, 5, 6)
	array := func(shape string, fortran string) []byte {
		return asm(npReconstruct, "(K\x01", shape, npF4, fortran, data, "tb")
	}
	cases := []struct {
		name   string
		pickle []byte
		shape  []int
		want   []byte
	}{
		{"protocol 4", array("K\x02K\x03\x86", "\x89"), []int{2, 3}, data},
		{"numpy 2", bytes.ReplaceAll(array("K\x06\x85", "\x89"), []byte("numpy.core"), []byte("numpy._core")), []int{6}, data},
		{"Fortran order", array("K\x02K\x03\x86", "\x88"), []int{2, 3}, floats(1, 3, 5, 2, 4, 6)},
		{"protocol 5", asm("cnumpy._core.numeric\n_frombuffer\n(\x96", "\x18\x00\x00\x00\x00\x00\x00\x00", string(data),
			npF4, "K\x03K\x02\x86", "'C", "tR"), []int{3, 2}, data},
		{"protocol 2", asm("cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85c_codecs\nencode\n\x8c\x01b\x8c\x06latin1\x86RtR",
			"(K\x01K\x01\x85", npF4, "\x89c_codecs\nencode\n", "'\u0000\u0000\u00c0\u007f", "'latin1", "\x86Rtb"), []int{1}, []byte{0, 0, 0xc0, 0x7f}},
	}
	for _, c := range cases {
		pickle := append(asm("\x80\x04}", "'x"), append(c.pickle, "s."...)...)
		f, err := NewFile(bytes.NewReader(pickle), int64(len(pickle)), "a.pkl")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		x, ok := f.Tensor("x")
		if !ok {
			t.Errorf("%s: no tensor x in %v", c.name, f.Names())
			continue
		}
		if got := rawRows(t, x); !bytes.Equal(got, c.want) || x.DType() != "F32" || !reflect.DeepEqual(x.Shape, c.shape) {
			t.Errorf("%s: %s %v %x, want F32 %v %x", c.name, x.DType(), x.Shape, got, c.shape, c.want)
		}
	}
}

func TestNumberLists(t *testing.T) {
	pickle := asm("\x80\x04}", "'embeddings", "](](G\x3f\xf8\x00\x00\x00\x00\x00\x00K\x02e", "K\x03K\x04\x86es.")
	f, err := NewFile(bytes.NewReader(pickle), int64(len(pickle)), "a.pkl")
	if err != nil {
		t.Fatal(err)
	}
	list, err := f.Tensors("embeddings")
	if err != nil || len(list) != 2 {
		t.Fatalf("Tensors = %v, %v, want 2", list, err)
	}
	for i, want := range [][]float64{{1.5, 2}, {3, 4}} {
		raw := rawRows(t, list[i])
		for j := range want {
			if got := math.Float64frombits(binary.LittleEndian.Uint64(raw[8*j:])); got != want[j] {
				t.Errorf("row %d: element %d = %g, want %g", i, j, got, want[j])
			}
		}
	}
	again := asm("\x80\x04}", "'x", "](](", strings.Repeat("K\x01", 100), "e\x94", strings.Repeat("h\x00", 100), "es.")
	if f, err := NewFile(bytes.NewReader(again), int64(len(again)), "a.pkl"); err != nil {
		t.Error(err)
	} else if _, err := f.Tensors("x"); err == nil || !strings.Contains(err.Error(), "the numbers are more than the file's bytes") {
		t.Errorf("Tensors of one list 101 times = %v, want an error", err)
	}
	if _, err := f.Strings("embeddings"); err == nil {
		t.Error("Strings(embeddings) = nil, want an error")
	}
	if _, err := f.Tensors("absent"); err == nil {
		t.Error("Tensors(absent) = nil, want an error")
	}
}

func TestIntegers(t *testing.T) {
	cases := []struct {
		pickle string
		want   any
	}{
		{"K\xff.", int64(255)},
		{"M\xff\xff.", int64(65535)},
		{"J\xff\xff\xff\xff.", int64(-1)},
		{"\x8a\x00.", int64(0)},
		{"\x8a\x01\xff.", int64(-1)},
		{"\x8a\x02\xff\x00.", int64(255)},
		{"\x8a\x05\x00\x00\x00\x00\x01.", int64(1 << 32)},
		{"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80.", int64(math.MinInt64)},
		{"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00.", longInt("\x00\x00\x00\x00\x00\x00\x00\x80\x00")},
		{"G\xc0\x00\x00\x00\x00\x00\x00\x00.", float64(-2)},
	}
	for _, c := range cases {
		got, err := load(strings.NewReader(c.pickle), int64(len(c.pickle)), false)
		if err != nil || got != c.want {
			t.Errorf("load(%q) = %v, %v, want %v", c.pickle, got, err, c.want)
		}
	}
}

// zipOf is a zip of stored entries.
func zipOf(t testing.TB, method uint16, entries ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := 0; i < len(entries); i += 2 {
		e, err := w.CreateHeader(&zip.FileHeader{Name: entries[i], Method: method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(e, entries[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tensorPickle is {"w": a tensor of numel elements of the storage "0"}.
func tensorPickle(storageType string, numel int) string {
	return string(asm("\x80\x02}", "'w", "ctorch._utils\n_rebuild_tensor_v2\n((", "'storage", "ctorch\n"+storageType+"\n",
		"'0", "'cpu", numel, "tQK\x00", numel, "\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs."))
}

func TestZips(t *testing.T) {
	four := string(floats(1, 2, 3, 4))
	good := zipOf(t, zip.Store, "a/data.pkl", tensorPickle("FloatStorage", 4), "a/byteorder", "little", "a/data/0", four)
	f, err := NewFile(bytes.NewReader(good), int64(len(good)), "x.bin")
	if err != nil {
		t.Fatal(err)
	}
	x, _ := f.Tensor("w")
	if got := rawRows(t, x); string(got) != four {
		t.Errorf("w = %x, want %x", got, four)
	}
	lie := func(old, new string) []byte { return bytes.ReplaceAll(good, []byte(old), []byte(new)) }
	// The directory's sizes of data/0 follow its checksum; here both say 2^31.
	sizes := append(binary.LittleEndian.AppendUint32(nil, 16), binary.LittleEndian.AppendUint32(nil, 16)...)
	huge := bytes.ReplaceAll(good, sizes, []byte("\x00\x00\x00\x80\x00\x00\x00\x80"))
	cases := []struct {
		name string
		file []byte
		want string
	}{
		{"compressed", zipOf(t, zip.Deflate, "a/data.pkl", tensorPickle("FloatStorage", 4), "a/data/0", four), `"a/data.pkl" is compressed`},
		{"no pickle", zipOf(t, zip.Store, "a/data/0", four), "no */data.pkl"},
		{"two pickles", zipOf(t, zip.Store, "a/data.pkl", "N.", "b/data.pkl", "N."), "two data.pkl"},
		{"entry twice", zipOf(t, zip.Store, "a/data.pkl", "N.", "a/data.pkl", "N."), "appears twice"},
		{"storage missing", zipOf(t, zip.Store, "a/data.pkl", tensorPickle("FloatStorage", 4)), `"a/data/0" is missing`},
		{"storage short", zipOf(t, zip.Store, "a/data.pkl", tensorPickle("FloatStorage", 5), "a/data/0", four), "want 5 elements of F32, have 16 bytes"},
		{"wrong type", zipOf(t, zip.Store, "a/data.pkl", tensorPickle("DoubleStorage", 4), "a/data/0", four), "want 4 elements of F64, have 16 bytes"},
		{"unknown type", zipOf(t, zip.Store, "a/data.pkl", tensorPickle("ComplexFloatStorage", 4), "a/data/0", four), "global torch.ComplexFloatStorage is not allowed"},
		{"not a storage", zipOf(t, zip.Store, "a/data.pkl", tensorPickle("Size", 4), "a/data/0", four), "torch.Size is not a storage type"},
		{"negative", zipOf(t, zip.Store, "a/data.pkl", tensorPickle("FloatStorage", -4), "a/data/0", four), "-4 elements"},
		{"big-endian", zipOf(t, zip.Store, "a/data.pkl", "N.", "a/byteorder", "big"), `byteorder: want little, have "big"`},
		{"absurd size", huge, "want 2147483648 bytes within"},
		{"entry renamed", lie("a/data/0", "a/data/9"), `"a/data/0" is missing`},
		{"root", zipOf(t, zip.Store, "a/data.pkl", "N."), "root: want a dict, have None"},
		{"truncated", good[:len(good)-10], "zip"},
		{"os.system", zipOf(t, zip.Store, "a/data.pkl", "\x80\x02}cos\nsystem\nX\x02\x00\x00\x00ls\x85R."),
			"torchfile: x.bin: data.pkl offset 3: GLOBAL: global os.system is not allowed"},
	}
	for _, c := range cases {
		_, err := NewFile(bytes.NewReader(c.file), int64(len(c.file)), "x.bin")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

func TestHostilePickles(t *testing.T) {
	nested := func(open string, n int) string { return strings.Repeat(open, n) }
	// d1 = {a: d0, b: d0}, d2 = {a: d1, b: d1}, …: 2^30 paths to one tensor.
	laughs := []byte(nested("}\x8c\x01a", 30))
	laughs = append(laughs, asm(npReconstruct, "(K\x01K\x01\x85", npF4, "\x89", floats(1), "tb")...)
	for i := range 30 {
		laughs = append(laughs, asm("\x94s", "'b", "h"+string([]byte{byte(i)}), "s")...)
	}
	laughs = append(laughs, '.')
	cases := []struct{ name, pickle, want string }{
		{"empty", "", "unexpected EOF"},
		{"system by name", "cos\nsystem\n\x8c\x02ls\x85R.", "offset 0: GLOBAL: global os.system is not allowed"},
		{"system by stack", "\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.", "offset 12: STACK_GLOBAL: global os.system is not allowed"},
		{"eval", "c__builtin__\neval\n.", "global __builtin__.eval is not allowed"},
		{"attribute path", "ctorch\nStorage.__class__\n.", "is not allowed"},
		{"dotted module", "ctorch.storage._load_from_bytes\n\n.", "is not allowed"},
		{"INST", "(ios\nsystem\n.", "offset 1: opcode 0x69 is not allowed"},
		{"OBJ", "(o.", "opcode 0x6f is not allowed"},
		{"EXT1", "\x82\x01.", "opcode 0x82 is not allowed"},
		{"PERSID", "P0\n.", "opcode 0x50 is not allowed"},
		{"BINPERSID", "\x8c\x010\x85Q.", "offset 4: BINPERSID: persistent id tuple means nothing here"},
		{"REDUCE of a string", "\x8c\x02os)R.", "offset 5: REDUCE: want a global, have str"},
		{"REDUCE of an inert global", "ctorch\nfloat32\n)R.", "REDUCE: torch.float32: not allowed"},
		{"REDUCE of a storage type", "ctorch\nFloatStorage\n)R.", "REDUCE: torch.FloatStorage: not allowed"},
		{"NEWOBJ of another", "ccollections\nOrderedDict\n)\x81.", "NEWOBJ: collections.OrderedDict: not allowed"},
		{"BUILD of a list", "]}b.", "BUILD: list: not allowed"},
		{"BUILD of a global", "cargparse\nNamespace\n}b.", "BUILD: global argparse.Namespace: not allowed"},
		{"memo not set", "h\x05.", "BINGET: memo entry 5 is not set"},
		{"memo bomb", "Nr\xff\xff\xff\xff.", "LONG_BINPUT: want the next memo entry, 0, have 4294967295"},
		{"deep marks", nested("(", 1<<10+1) + ".", "nests deeper than 1024"},
		{"deep lists", nested("]", 1<<19) + ".", "makes more than"},
		{"deep tuples", "N" + nested("\x85", 1<<19) + ".", "makes more than"},
		{"long stack", nested("N", 1<<20+1) + ".", "values on the stack"},
		{"protocol 6", "\x80\x06N.", "PROTO: want a protocol of at most 5, have 6"},
		{"frame", "\x95\xff\xff\xff\xff\xff\xff\xff\xffN.", "FRAME: want at most the 2 bytes that remain"},
		{"string", "X\xff\xff\xff\xffab.", "BINUNICODE: want at most the 3 bytes that remain, have a length of 4294967295"},
		{"string of 2^63", "\x8d\x00\x00\x00\x00\x00\x00\x00\x80ab.", "BINUNICODE8: want at most the 3 bytes"},
		{"bytes", "B\x05\x00\x00\x00ab.", "BINBYTES: want at most the 3 bytes"},
		{"long", "\x8a\xff\x00.", "LONG1: want at most the 2 bytes"},
		{"string encoding", "\x8c\x01\xff.", "not valid UTF-8"},
		{"line", "c" + nested("x", 1000) + "\n\n.", "lines of at most 256 bytes"},
		{"stack below mark", "N(\x85.", "TUPLE1: finds too few values"},
		{"no mark", "Nt.", "TUPLE: finds no mark"},
		{"empty stack", ".", "STOP: finds the stack empty"},
		{"left over", "NN.", "STOP: leaves 1 values"},
		{"trailing", "N.N.", "2 bytes follow the pickle"},
		{"odd items", "}(Nu.", "a key has no value"},
		{"list as key", "}]Ns.", "want a key that is a str or a number, have list"},
		{"key twice", "}\x8c\x01aNs\x8c\x01aNs.", `key "a" appears twice`},
		{"append to dict", "}Na.", "want a list, have dict"},
		{"set in list", "]NNs.", "want a dict, have list"},
		{"root", "].", "root: want a dict, have list"},
		{"cycle", "}\x94\x8c\x01ah\x00s.", "a: its dict of tensors is in two places"},
		{"exponential", string(laughs), "its dict of tensors is in two places"},
		{"deep dicts", nested("}\x8c\x01a", 40) + "N" + nested("s", 40) + ".", "dicts nest deeper than 32"},
		{"names", "}\x8c\x01ccnumpy._core.multiarray\n_reconstruct\n)Rs.", "c: array has no data"},
		{"dotted twice", string(asm("}", "'a.b", npReconstruct, "(K\x01)", npF4, "\x89", floats(1), "tb\x94s", "'a", "}", "'b", "h\x00ss.")), "a.b: two tensors have this name"},
		{"array size", string(asm("}", "'a", npReconstruct, "(K\x01M\x00\x10\x85", npF4, "\x89", floats(1), "tbs.")), "want 4096 elements, have 4 bytes"},
		{"array shape", string(asm("}", "'a", npReconstruct, "(K\x01\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x10\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x10\x86", npF4, "\x89", floats(1), "tbs.")), "overflows"},
		{"big-endian array", strings.Replace(string(asm("}", "'a", npReconstruct, "(K\x01)", npF4, "\x89", floats(1), "tbs.")), "<", ">", 1), "want byte order"},
		{"object array", strings.Replace(string(asm("}", "'a", npReconstruct, "(K\x01)", npF4, "\x89", floats(1), "tbs.")), "f4", "O8", 1), `numpy type "O8" is not supported`},
		{"array built twice", string(asm("}", "'a", npReconstruct, "(K\x01)", npF4, "\x89", floats(1), "tb(K\x01)", npF4, "\x89", floats(1), "tbs.")), "it has data already"},
		{"nested pickle", string(asm("ctorch.storage\n_load_from_bytes\n", []byte("N."), "\x85R.")), "neither a zip nor a legacy torch file"},
		{"nested system", string(asm("ctorch.storage\n_load_from_bytes\n", []byte(legacyMagic+"cos\nsystem\n."), "\x85R.")), "bytes at 37: offset 15: GLOBAL: global os.system is not allowed"},
		{"missing argument", "ctorch._utils\n_rebuild_tensor_v2\n)R.", "argument 0 is missing"},
		{"dimensions", string(asm("}", "'a", npReconstruct, "(K\x01("+nested("K\x01", 17)+"t", npF4, "\x89", floats(1), "tbs.")), "want at most 16 dimensions, have 17"},
		{"latin1", "c_codecs\nencode\n\x8c\x02\xc4\x80\x8c\x06latin1\x86R.", "is not in latin1"},
		{"codec", "c_codecs\nencode\n\x8c\x01a\x8c\x05rot13\x86R.", `want the codec "latin1"`},
	}
	for _, c := range cases {
		_, err := NewFile(strings.NewReader(c.pickle), int64(len(c.pickle)), "x.pkl")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

// TestHarmless reads what checkpoints carry beside tensors.
func TestHarmless(t *testing.T) {
	pickle := asm("\x80\x02}(", "'args", "cargparse\nNamespace\n)\x81}", "'lr", "G\x3f\x50\x62\x4d\xd2\xf1\xa9\xfcsb",
		"'epoch", "K\x07", "'dtype", "ctorch\nfloat16\n", "'device", "ctorch\ndevice\n\x8c\x03cpu\x85R",
		"'shape", "ctorch\nSize\nK\x02K\x03\x86\x85R", "'best", "cnumpy.core.multiarray\nscalar\n", npF4, []byte("\x00\x00\x80?"), "\x86R",
		"'sd", "ccollections\nOrderedDict\n)R}", "'_metadata", "}sb", "u.")
	f, err := NewFile(bytes.NewReader(pickle), int64(len(pickle)), "x.pkl")
	if err != nil || len(f.Names()) != 0 {
		t.Errorf("names = %v, %v, want none", f.Names(), err)
	}
}

// storagePayload is the bytes of one embedding in a golden pickle: a legacy
// torch file of a storage of 32 floats.
func storagePayload(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(golden, "fromage/one-token/cc3m_embeddings.pkl"))
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte(legacyMagic))
	n := int(binary.LittleEndian.Uint32(b[at-4:]))
	return b[at : at+n]
}

func TestLegacy(t *testing.T) {
	good := storagePayload(t)
	v, err := load(bytes.NewReader(good), int64(len(good)), true)
	if s, ok := v.(*storage); err != nil || !ok || s.numel != 32 || s.elem.dtype != "F32" {
		t.Fatalf("load(storage) = %v, %v, want 32 of F32", v, err)
	}
	for n := range good {
		if v, err := load(bytes.NewReader(good[:n]), int64(n), true); err == nil {
			t.Errorf("load(first %d of %d bytes) = %v, want an error", n, len(good), describe(v))
		}
	}
	cases := []struct{ name, old, new, want string }{
		{"version", "M\xe9\x03.", "M\xea\x03.", "legacy version"},
		{"big-endian", "little_endianq\x02\x88", "little_endianq\x02\x89", "little_endian"},
		{"element count", "K Ntq", "K!Ntq", "want 33 elements, have 32"},
		{"type", "FloatStorage", "DoubleStorage", "want 32 elements of F64, have 128 bytes"},
		{"view", "K Ntq", "K K\x01tq", "views of storages"},
		{"keys", "]q\x00", ")q\x00", ""},
	}
	for _, c := range cases {
		bad := bytes.Replace(good, []byte(c.old), []byte(c.new), 1)
		if bytes.Equal(bad, good) {
			t.Fatalf("%s: nothing replaced", c.name)
		}
		_, err := load(bytes.NewReader(bad), int64(len(bad)), true)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

// TestTruncated cuts real files everywhere.
func TestTruncated(t *testing.T) {
	pkl, err := os.ReadFile(filepath.Join(golden, "fromage/one-token/cc3m_embeddings.pkl"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range pkl {
		if _, err := NewFile(bytes.NewReader(pkl[:n]), int64(n), "x.pkl"); err == nil {
			t.Errorf("NewFile(first %d of %d bytes) = nil, want an error", n, len(pkl))
		}
	}
	z := zipOf(t, zip.Store, "a/data.pkl", tensorPickle("FloatStorage", 4), "a/data/0", string(floats(1, 2, 3, 4)))
	for n := range z {
		if _, err := NewFile(bytes.NewReader(z[:n]), int64(n), "x.bin"); err == nil {
			t.Errorf("NewFile(first %d of %d bytes) = nil, want an error", n, len(z))
		}
	}
}

// readSome touches every tensor of a file made from hostile bytes.
func readSome(t *testing.T, f *File, size int) {
	for _, name := range f.Names() {
		x, ok := f.Tensor(name)
		if !ok {
			t.Fatalf("no tensor %q, though it is listed", name)
		}
		rows, elems := x.rows()
		if n, _ := product(x.Shape); n > size {
			t.Fatalf("%q has %d elements in a file of %d bytes", name, n, size)
		}
		if rows > 0 {
			// A cut file may still fail to read; it must not panic.
			_ = x.ReadRows(make([]byte, elems*x.ItemSize()), rows-1, 1)
		}
	}
	for _, it := range f.root.items {
		if key, ok := it.key.(string); ok {
			_, _ = f.Strings(key)
			_, _ = f.Tensors(key)
		}
	}
}

func FuzzPickle(f *testing.F) {
	pkl, err := os.ReadFile(filepath.Join(golden, "fromage/one-token/cc3m_embeddings.pkl"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pkl)
	f.Add(storagePayload(f))
	f.Add(asm("\x80\x02}", "'a", npReconstruct, "(K\x01K\x01\x85", npF4, "\x89", floats(1), "tbs."))
	f.Add(asm("\x80\x04}(", "'args", "cargparse\nNamespace\n)\x81}b", "'e", "](](G\x3f\xf8\x00\x00\x00\x00\x00\x00K\x02eeu."))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = load(bytes.NewReader(b), int64(len(b)), true)
		if file, err := NewFile(bytes.NewReader(b), int64(len(b)), "x"); err == nil {
			readSome(t, file, len(b))
		}
	})
}

func FuzzTorchZip(f *testing.F) {
	f.Add(zipOf(f, zip.Store, "a/data.pkl", tensorPickle("FloatStorage", 4), "a/byteorder", "little", "a/data/0", string(floats(1, 2, 3, 4))))
	if b, err := os.ReadFile(filepath.Join(golden, "fromage/four-tokens/initial_ckpt.pth.tar")); err != nil {
		f.Fatal(err)
	} else {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if file, err := NewFile(bytes.NewReader(b), int64(len(b)), "x"); err == nil {
			readSome(t, file, len(b))
		}
	})
}

// FuzzZippedPickle lets the fuzzer change a zip's pickle without having to find
// its checksum and sizes.
func FuzzZippedPickle(f *testing.F) {
	f.Add([]byte(tensorPickle("FloatStorage", 4)))
	f.Add([]byte(tensorPickle("HalfStorage", 8)))
	f.Fuzz(func(t *testing.T, pickle []byte) {
		b := zipOf(t, zip.Store, "a/data.pkl", string(pickle), "a/data/0", string(floats(1, 2, 3, 4)), "a/data/1", "")
		if file, err := NewFile(bytes.NewReader(b), int64(len(b)), "x"); err == nil {
			readSome(t, file, len(b))
		}
	})
}
