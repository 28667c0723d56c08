// SPDX-License-Identifier: Apache-2.0

package index

import (
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func sums(b []byte, s segment) (vectors, meta uint32) {
	return crc32.Checksum(b[s.vectors():s.metadata()], castagnoli), crc32.Checksum(b[s.metadata():s.end()], castagnoli)
}

// naive scores every row in float64 and sorts.
func naive(t testing.TB, x *Index, e []float32, opt Options) []Hit {
	d := x.Header().D
	all := make([]float32, x.Rows()*d)
	must(t, x.Vectors(0, x.Rows(), all))
	var hits []Hit
	for i := range x.Rows() {
		var s float64
		for j, v := range e {
			s += float64(v) * float64(all[i*d+j])
		}
		if !x.Live(i) || slices.Contains(opt.Exclude, i) {
			continue
		}
		if slices.Contains(opt.Seen, i) {
			s -= SeenPenalty
		}
		hits = append(hits, Hit{i, float32(s)})
	}
	slices.SortStableFunc(hits, func(a, b Hit) int {
		switch {
		case a.Score > b.Score:
			return -1
		case a.Score < b.Score:
			return 1
		}
		return 0
	})
	return hits
}

// Vectors of ±1/8 and small whole queries have exact products, so order and ties must be exactly those of the sort.
func TestSearchExact(t *testing.T) {
	const d = 64
	rng := rand.New(rand.NewPCG(8, 8))
	for _, dtype := range []DType{F32, F16, Q8} {
		for _, n := range []int{1, 2, 255, 256, 257, 3001} {
			x, err := New(Header{D: d, DType: dtype})
			must(t, err)
			rows := make([]Row, n)
			for i := range rows {
				rows[i] = Row{Meta{Path: fmt.Sprint(i)}, make([]float32, d)}
				for j := range d {
					rows[i].Embedding[j] = float32(rng.IntN(2)*2 - 1)
				}
			}
			must(t, x.Append(rows[:n/2]))
			must(t, x.Append(rows[n/2:]))
			opt := Options{}
			if n > 200 {
				must(t, x.Remove(rng.Perm(n)[:50]...))
				p := rng.Perm(n)
				opt = Options{Seen: p[:40], Exclude: p[30:60]}
			}
			e := make([]float32, d)
			for j := range e {
				e[j] = float32(rng.IntN(7) - 3)
			}
			want := naive(t, x, e, opt)
			scores := make([]float32, n)
			all := make([]float32, n*d)
			must(t, x.Vectors(0, n, all))
			for i := range scores {
				for j, v := range e {
					scores[i] += v * all[i*d+j]
				}
			}
			for _, k := range []int{1, 2, 10, n, n + 7} {
				have, err := x.Search(e, k, opt)
				must(t, err)
				if w := want[:min(k, len(want))]; !slices.Equal(have, w) {
					t.Fatalf("%v n=%d: Search(k=%d) = %v, want %v", dtype, n, k, have, w)
				}
				have, err = x.TopK(scores, k, opt)
				must(t, err)
				if w := want[:min(k, len(want))]; !slices.Equal(have, w) {
					t.Fatalf("%v n=%d: TopK(k=%d) = %v, want %v", dtype, n, k, have, w)
				}
			}
		}
	}
}

// ordered is the documented sum of a row's products.
func ordered(v, e []float32) float32 {
	var a [8]float32
	for j := range e {
		a[j%8] += float32(v[j] * e[j])
	}
	return sum(a)
}

func TestSearchRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	for _, dtype := range []DType{F32, F16, Q8} {
		for _, d := range []int{1, 7, 8, 9, 63, 256, 257} {
			const n = 700
			x, err := New(Header{D: d, DType: dtype})
			must(t, err)
			must(t, x.Append(pictures(10, n, d)))
			all := make([]float32, n*d)
			must(t, x.Vectors(0, n, all))
			e := picture(rng, 0, d).Embedding
			hits, err := x.Search(e, n, Options{})
			must(t, err)
			if len(hits) != n {
				t.Fatalf("%v d=%d: Search = %d hits, want %d", dtype, d, len(hits), n)
			}
			var norm float64
			for _, v := range e {
				norm += float64(v) * float64(v)
			}
			tol := 1e-6 * math.Sqrt(norm)
			for _, w := range naive(t, x, e, Options{}) {
				i := slices.IndexFunc(hits, func(h Hit) bool { return h.Row == w.Row })
				have := hits[i].Score
				if math.Abs(float64(have-w.Score)) > tol {
					t.Fatalf("%v d=%d: score of row %d = %v, want %v", dtype, d, w.Row, have, w.Score)
				}
				if want := ordered(all[w.Row*d:(w.Row+1)*d], e); have != want {
					t.Fatalf("%v d=%d: score of row %d = %v, want exactly %v", dtype, d, w.Row, have, want)
				}
			}
			if !slices.IsSortedFunc(hits, func(a, b Hit) int {
				if a.before(b) {
					return -1
				}
				return 1
			}) {
				t.Fatalf("%v d=%d: hits are not in order", dtype, d)
			}
		}
	}
}

// Seen pictures come after all others, in their own order, as often as k asks for them.
func TestSeen(t *testing.T) {
	x, err := New(Header{D: 2, DType: F32})
	must(t, err)
	must(t, x.ImportPairs([]string{"a", "b", "c", "d"}, [][]float32{{1, 0}, {3, 4}, {0, 1}, {-1, 0}}))
	for _, c := range []struct {
		k    int
		opt  Options
		want []Hit
	}{
		{2, Options{}, []Hit{{0, 1}, {1, 0.6}}},
		{2, Options{Seen: []int{0}}, []Hit{{1, 0.6}, {2, 0}}},
		{9, Options{Seen: []int{0, 1, 0}}, []Hit{{2, 0}, {3, -1}, {0, -999}, {1, 0.6 - 1000}}},
		{9, Options{Seen: []int{0}, Exclude: []int{0, 3}}, []Hit{{1, 0.6}, {2, 0}}},
		{1, Options{Seen: []int{0, 1, 2, 3}}, []Hit{{0, -999}}},
	} {
		have, err := x.Search([]float32{1, 0}, c.k, c.opt)
		if err != nil || !slices.Equal(have, c.want) {
			t.Errorf("Search(k=%d, %+v) = %v, %v, want %v", c.k, c.opt, have, err, c.want)
		}
		have, err = x.TopK([]float32{1, 0.6, 0, -1}, c.k, c.opt)
		if err != nil || !slices.Equal(have, c.want) {
			t.Errorf("TopK(k=%d, %+v) = %v, %v, want %v", c.k, c.opt, have, err, c.want)
		}
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	have, err := x.TopK([]float32{nan, 5, nan}, 3, Options{})
	if want := []Hit{{1, 5}, {0, inf}, {2, inf}}; err != nil || !slices.Equal(have, want) {
		t.Errorf("TopK with NaN = %v, %v, want %v", have, err, want)
	}
	must(t, x.Remove(1))
	have, err = x.TopK([]float32{nan, 5, 2, nan}, 2, Options{})
	if want := []Hit{{2, 2}, {0, inf}}; err != nil || !slices.Equal(have, want) {
		t.Errorf("TopK with a removed row = %v, %v, want %v", have, err, want)
	}
	for name, search := range map[string]func() ([]Hit, error){
		"short":    func() ([]Hit, error) { return x.Search([]float32{1}, 1, Options{}) },
		"nan":      func() ([]Hit, error) { return x.Search([]float32{1, nan}, 1, Options{}) },
		"inf":      func() ([]Hit, error) { return x.Search([]float32{inf, 0}, 1, Options{}) },
		"k=0":      func() ([]Hit, error) { return x.Search([]float32{1, 0}, 0, Options{}) },
		"seen":     func() ([]Hit, error) { return x.Search([]float32{1, 0}, 1, Options{Seen: []int{4}}) },
		"excluded": func() ([]Hit, error) { return x.TopK(nil, 1, Options{Exclude: []int{-1}}) },
		"scores":   func() ([]Hit, error) { return x.TopK(make([]float32, 5), 1, Options{}) },
	} {
		if hits, err := search(); err == nil {
			t.Errorf("%s: %v, want an error", name, hits)
		}
	}
	empty, err := New(Header{D: 2, DType: F32})
	must(t, err)
	if hits, err := empty.Search([]float32{1, 0}, 5, Options{}); len(hits) != 0 || err != nil {
		t.Errorf("Search of an empty index = %v, %v, want none", hits, err)
	}
}

// million makes an index file of 1 M rows of 256 values.
func million(b *testing.B, dtype DType) string {
	path := filepath.Join(b.TempDir(), "million.index")
	x, err := Create(path, Header{D: 256, DType: dtype})
	must(b, err)
	rng := rand.New(rand.NewPCG(11, 11))
	must(b, x.write(func(w *batch) error {
		e := make([]float32, 256)
		for i := range 1_000_000 {
			for j := range e {
				e[j] = rng.Float32() - 0.5
			}
			m := Meta{Path: fmt.Sprintf("pictures/%07d.jpg", i), Caption: "a picture of something or other", Licence: "CC-BY-4.0"}
			if err := w.addRow(m, e); err != nil {
				return err
			}
		}
		return nil
	}))
	must(b, x.Close())
	return path
}

func BenchmarkMillion(b *testing.B) {
	for _, dtype := range []DType{F32, F16, Q8} {
		path := million(b, dtype)
		info, err := os.Stat(path)
		must(b, err)
		x, err := Open(path)
		must(b, err)
		e := pictures(12, 1, 256)[0].Embedding
		gigabytes := func(b *testing.B, bytes int64) {
			b.ReportMetric(float64(bytes)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
		}
		b.Run(fmt.Sprintf("Open/%v", dtype), func(b *testing.B) {
			for b.Loop() {
				y, err := Open(path)
				must(b, err)
				must(b, y.Close())
			}
			gigabytes(b, info.Size())
		})
		b.Run(fmt.Sprintf("Search/%v", dtype), func(b *testing.B) {
			for b.Loop() {
				_, err := x.Search(e, 10, Options{})
				must(b, err)
			}
			gigabytes(b, 256_000_000*int64(dtype.Size()))
		})
		b.Run(fmt.Sprintf("TopK/%v", dtype), func(b *testing.B) {
			scores := make([]float32, 1_000_000)
			for i := range scores {
				scores[i] = float32(i*7919%1_000_003) / 1e6
			}
			for b.Loop() {
				_, err := x.TopK(scores, 10, Options{})
				must(b, err)
			}
		})
		b.Run(fmt.Sprintf("FirstFind/%v", dtype), func(b *testing.B) {
			for b.Loop() {
				x.paths = paths{}
				_, _, err := x.Find("pictures/0500000.jpg")
				must(b, err)
			}
		})
		must(b, x.Close())
		must(b, os.Remove(path))
	}
}
