// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/x448/float16"

	"fromage/internal/atomicfile"
)

// picture is a row with some of every kind of metadata.
func picture(rng *rand.Rand, i, d int) Row {
	r := Row{Meta: Meta{Path: fmt.Sprintf("folder/%05d.webp", i)}, Embedding: make([]float32, d)}
	for j := range r.Embedding {
		r.Embedding[j] = float32(rng.NormFloat64()) * 3
	}
	if i%2 == 0 {
		r.Caption, r.Licence = fmt.Sprintf("a picture of %d – ü", i), "CC-BY-4.0"
	}
	if i%3 == 0 {
		r.Hash = [32]byte{1, byte(i), 31: 7}
	}
	return r
}

func pictures(seed uint64, n, d int) []Row {
	rng := rand.New(rand.NewPCG(seed, 1))
	rows := make([]Row, n)
	for i := range rows {
		rows[i] = picture(rng, i, d)
	}
	return rows
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func save(t testing.TB, x *Index) []byte {
	t.Helper()
	var b bytes.Buffer
	_, err := x.WriteTo(&b)
	must(t, err)
	return b.Bytes()
}

// same fails unless x holds rows from row 0 on, as far as rows go, and no others.
func same(t testing.TB, x *Index, rows []Row) {
	t.Helper()
	d := x.Header().D
	if x.Rows() != len(rows) {
		t.Fatalf("Rows() = %d, want %d", x.Rows(), len(rows))
	}
	have := make([]float32, len(rows)*d)
	must(t, x.Vectors(0, len(rows), have))
	for i, r := range rows {
		m, err := x.Row(i)
		must(t, err)
		if m != r.Meta {
			t.Fatalf("Row(%d) = %+v, want %+v", i, m, r.Meta)
		}
		for j, want := range unit(r.Embedding, x.Header().DType) {
			if have[i*d+j] != want {
				t.Fatalf("Vectors row %d value %d = %v, want %v", i, j, have[i*d+j], want)
			}
		}
	}
}

// unit is v as it comes back: divided by its norm and rounded.
func unit(v []float32, t DType) []float32 {
	var sum, most float64
	for _, a := range v {
		sum += float64(a) * float64(a)
		most = max(most, math.Abs(float64(a)))
	}
	out := make([]float32, len(v))
	for j, a := range v {
		out[j] = float32(float64(a) / math.Sqrt(sum))
		if t == F16 {
			out[j] = float16.Fromfloat32(out[j]).Float32()
		}
	}
	if t == Q8 {
		sum = 0
		for j, a := range v {
			out[j] = float32(math.Round(float64(a) * 127 / most))
			sum += float64(out[j]) * float64(out[j])
		}
		for j := range out {
			out[j] *= float32(1 / math.Sqrt(sum))
		}
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	for _, dtype := range []DType{F32, F16, Q8} {
		for _, d := range []int{1, 7, 8, 9, 64, 257} {
			t.Run(fmt.Sprintf("%v/%d", dtype, d), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "gallery.index")
				h := Header{D: d, DType: dtype, Model: [32]byte{3, 31: 9}}
				x, err := Create(path, h)
				must(t, err)
				rows := pictures(1, 53, d)
				must(t, x.Append(rows[:20]))
				must(t, x.Append(nil))
				must(t, x.Append(rows[20:21]))
				same(t, x, rows[:21])
				must(t, x.Close())

				x, err = OpenAppend(path)
				must(t, err)
				must(t, x.Append(rows[21:]))
				same(t, x, rows)
				written := save(t, x)
				must(t, x.Close())

				x, err = Open(path)
				must(t, err)
				defer x.Close()
				same(t, x, rows)
				if x.Header() != h || x.Notice() != "" {
					t.Errorf("Header(), Notice() = %v, %q, want %v and none", x.Header(), x.Notice(), h)
				}
				onDisk, err := os.ReadFile(path)
				must(t, err)
				if !bytes.Equal(onDisk, written) {
					t.Error("WriteTo wrote other bytes than are in the file")
				}
				y, err := Parse("bytes", written)
				must(t, err)
				same(t, y, rows)
				if err := y.Append(rows[:1]); err == nil || !strings.Contains(err.Error(), "reading only") {
					t.Errorf("Append to a parsed index = %v, want a refusal", err)
				}
			})
		}
	}
}

// A batch larger than a segment is split, stays contiguous by blocks, and can be read across the borders.
func TestManySegments(t *testing.T) {
	const d, n = 65536, 75 // 32 rows a segment
	x, err := New(Header{D: d, DType: F32})
	must(t, err)
	rows := pictures(2, n, d)
	must(t, x.Append(rows[:70]))
	must(t, x.Append(rows[70:]))
	same(t, x, rows)
	for _, from := range []int{0, 1, 31, 32, 33, 70, n - 1, n} {
		row := from
		for b, err := range x.Blocks(from) {
			must(t, err)
			if b.First != row || len(b.Data) != b.N*d*4 || len(b.Data) > BlockBytes {
				t.Fatalf("Blocks(%d): %d bytes for %d rows from %d, want from %d", from, len(b.Data), b.N, b.First, row)
			}
			for j := range b.N {
				want := unit(rows[row+j].Embedding, F32)
				if have := f32(b.Data[(j*d+5)*4:]); have != want[5] {
					t.Fatalf("Blocks(%d): row %d value 5 = %v, want %v", from, row+j, have, want[5])
				}
			}
			row += b.N
		}
		if row != n {
			t.Errorf("Blocks(%d) ended before row %d, want %d", from, row, n)
		}
	}
	for _, from := range []int{-1, n + 1} {
		for _, err := range x.Blocks(from) {
			if err == nil {
				t.Errorf("Blocks(%d) gave a block, want an error", from)
			}
		}
	}
	y, err := Parse("bytes", save(t, x))
	must(t, err)
	same(t, y, rows)
}

func TestRefusals(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, h := range []Header{{D: 0, DType: F32}, {D: MaxD + 1, DType: F32}, {D: 4}, {D: 4, DType: 4}} {
		if _, err := New(h); err == nil {
			t.Errorf("New(%v) succeeded, want an error", h)
		}
	}
	x, err := New(Header{D: 2, DType: F32})
	must(t, err)
	good := Row{Meta{Path: "good.png"}, []float32{1, 2}}
	must(t, x.Append([]Row{good}))
	for _, c := range []struct {
		row  Row
		want string
	}{
		{Row{Meta{Path: "zero.png"}, []float32{0, 0}}, "zero.png"},
		{Row{Meta{Path: "nan.png"}, []float32{0, nan}}, "nan.png"},
		{Row{Meta{Path: "inf.png"}, []float32{1, inf}}, "inf.png"},
		{Row{Meta{Path: "neginf.png"}, []float32{1, -inf}}, "neginf.png"},
		{Row{Meta{Path: "short.png"}, []float32{1}}, "short.png"},
		{Row{Meta{}, []float32{1, 1}}, "path"},
		{Row{Meta{Path: "long.png", Caption: strings.Repeat("x", maxField+1)}, []float32{1, 1}}, "long.png"},
	} {
		err := x.Append([]Row{good, c.row})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "row 1") {
			t.Errorf("Append(%s) = %v, want an error naming row 1 and %q", c.row.Path, err, c.want)
		}
	}
	same(t, x, []Row{good})
	// Values whose squares overflow or vanish in float32 are fine.
	extreme := []Row{{Meta{Path: "huge"}, []float32{3e38, 0}}, {Meta{Path: "tiny"}, []float32{0, 1e-45}}}
	must(t, x.Append(extreme))
	v := make([]float32, 4)
	must(t, x.Vectors(1, 2, v))
	if want := [4]float32{1, 0, 0, 1}; [4]float32(v) != want {
		t.Errorf("extreme vectors = %v, want %v", v, want)
	}
	if err := x.CheckModel(2, [32]byte{}); err != nil {
		t.Errorf("CheckModel(same) = %v", err)
	}
	if x.CheckModel(3, [32]byte{}) == nil || x.CheckModel(2, [32]byte{1}) == nil {
		t.Error("CheckModel accepted another size or model")
	}
	for _, i := range []int{-1, 3} {
		if _, err := x.Row(i); err == nil {
			t.Errorf("Row(%d) succeeded, want an error", i)
		}
	}
	for _, c := range [][3]int{{-1, 1, 9}, {0, 4, 9}, {3, 1, 9}, {0, -1, 9}, {0, 2, 3}} {
		if x.Vectors(c[0], c[1], make([]float32, c[2])) == nil {
			t.Errorf("Vectors(%d, %d, room for %d) succeeded, want an error", c[0], c[1], c[2])
		}
		if x.Stored(c[0], c[1], make([]byte, 4*c[2])) == nil {
			t.Errorf("Stored(%d, %d, room for %d values) succeeded, want an error", c[0], c[1], c[2])
		}
	}
	if x.ImportPairs([]string{"a"}, nil) == nil {
		t.Error("ImportPairs with fewer embeddings than paths succeeded")
	}
	must(t, x.ImportPairs([]string{"a"}, [][]float32{{0, -2}}))
	if m, err := x.Row(3); err != nil || m != (Meta{Path: "a"}) {
		t.Errorf("Row of an imported pair = %v, %v", m, err)
	}
	if _, err := Create(filepath.Join(t.TempDir(), "none", "x"), Header{D: 1, DType: F32}); err == nil {
		t.Error("Create in a folder that is not there succeeded")
	}
}

func TestRemoveFindCompact(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gallery.index")
	x, err := Create(path, Header{D: 5, DType: F16, Model: [32]byte{1}})
	must(t, err)
	rows := pictures(3, 200, 5)
	rows[17].Path = rows[150].Path // a path that comes twice
	for i := 0; i < 200; i += 10 {
		must(t, x.Append(rows[i:i+10]))
		if row, ok, err := x.Find(rows[i+9].Path); err != nil || !ok || row != i+9 && row != 17 {
			t.Fatalf("Find(%s) = %d, %v, %v, want %d", rows[i+9].Path, row, ok, err, i+9)
		}
	}
	if row, ok, err := x.Find(rows[17].Path); row != 17 || !ok || err != nil {
		t.Errorf("Find of a path that comes twice = %d, %v, %v, want the first, 17", row, ok, err)
	}
	must(t, x.Remove(17, 0, 199, 0))
	must(t, x.Remove(0))
	if row, ok, _ := x.Find(rows[17].Path); row != 150 || !ok {
		t.Errorf("Find after removing the first = %d, %v, want 150", row, ok)
	}
	if _, ok, _ := x.Find(rows[0].Path); ok {
		t.Error("Find found a removed row")
	}
	if x.Remove(200) == nil || x.Remove(-1) == nil {
		t.Error("Remove of a row that is not there succeeded")
	}
	n, err := x.RemovePaths(rows[150].Path, "nowhere", rows[5].Path, rows[5].Path)
	if n != 2 || err != nil {
		t.Errorf("RemovePaths = %d, %v, want 2", n, err)
	}
	if x.Len() != 195 || x.Rows() != 200 || x.Live(150) || !x.Live(1) || x.Live(200) || x.Live(-1) {
		t.Errorf("Len(), Rows() = %d, %d, want 195, 200", x.Len(), x.Rows())
	}
	must(t, x.Close())

	reader, err := Open(path)
	must(t, err)
	defer reader.Close()
	same(t, reader, rows)
	if reader.Len() != 195 || reader.Live(17) {
		t.Errorf("reopened: Len() = %d, Live(17) = %v, want 195, false", reader.Len(), reader.Live(17))
	}

	must(t, os.WriteFile(path+".compact", []byte("left by a killed run"), 0o666))
	must(t, Compact(path))
	same(t, reader, rows) // the old file is still open

	var kept []Row
	for i, r := range rows {
		if reader.Live(i) {
			kept = append(kept, r)
		}
	}
	y, err := OpenAppend(path)
	must(t, err)
	same(t, y, kept)
	if y.Len() != len(kept) || y.Header() != reader.Header() || len(y.state.Load().segs) != 1 {
		t.Errorf("compacted: %d rows in %d segments, want %d in 1", y.Len(), len(y.state.Load().segs), len(kept))
	}
	must(t, y.Append(rows[:1]))
	same(t, y, append(kept, rows[0]))
	must(t, y.Close())
	if _, err := os.Stat(path + ".compact"); !errors.Is(err, os.ErrNotExist) {
		t.Error("Compact left its temporary file")
	}
}

func TestOneWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gallery.index")
	x, err := Create(path, Header{D: 3, DType: F32})
	must(t, err)
	if _, err := Create(path, Header{D: 3, DType: F32}); !errors.Is(err, os.ErrExist) {
		t.Errorf("Create over a file = %v, want %v", err, os.ErrExist)
	}
	if err := atomicfile.Lock(nil); err == nil {
		t.Skip("NO LOCK ON THIS HOST: two writers are not told apart")
	}
	if _, err := OpenAppend(path); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("OpenAppend beside a writer = %v, want a refusal", err)
	}
	if err := Compact(path); err == nil {
		t.Error("Compact beside a writer succeeded")
	}
	must(t, x.Close())
	x, err = OpenAppend(path)
	must(t, err)
	must(t, x.Close())
}

// Readers in this process and readers of the file see whole appends while a writer adds, removes and compacts.
func TestConcurrentReaders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gallery.index")
	const d, batchRows, batches = 4, 9, 25
	x, err := Create(path, Header{D: d, DType: F32})
	must(t, err)
	rows := pictures(6, batchRows*batches, d)
	must(t, x.Append(rows[:batchRows]))
	first, err := Open(path)
	must(t, err)
	defer first.Close()

	done := make(chan struct{})
	var readers sync.WaitGroup
	check := func(x *Index) {
		n := x.Rows()
		if n%batchRows != 0 {
			t.Errorf("Rows() = %d, want whole appends of %d", n, batchRows)
		}
		hits, err := x.Search(rows[n-1].Embedding, 3, Options{})
		if err != nil || hits[0].Row != n-1 {
			t.Errorf("Search for row %d = %v, %v", n-1, hits, err)
		}
		if _, _, err := x.Find(rows[n-1].Path); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				check(x)
				y, err := Open(path)
				if err != nil {
					t.Error(err)
					return
				}
				check(y)
				if err := y.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := 1; i < batches; i++ {
		must(t, x.Append(rows[i*batchRows:(i+1)*batchRows]))
		must(t, x.Remove(i*batchRows))
	}
	close(done)
	readers.Wait()
	same(t, first, rows[:batchRows])
	same(t, x, rows)
	if first.Len() != batchRows || x.Len() != len(rows)-batches+1 {
		t.Errorf("Len() = %d and %d, want %d and %d", first.Len(), x.Len(), batchRows, len(rows)-batches+1)
	}
	must(t, x.Close())
}
