// SPDX-License-Identifier: Apache-2.0

package version

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fromage/index"
	"fromage/server/wire"
)

const size = 6 // bytes of a row's values here

func row(id uint64, text string) Row {
	return Row{id, index.Meta{Path: text + ".png", Caption: text, Hash: ID([]byte(text))}, fmt.Appendf(nil, "%06d", id)[:size]}
}

func testManifest() *Manifest {
	page := []Page{{Number: 0, Hash: ID([]byte("page")), Size: 4, Rows: 2}}
	return &Manifest{Seq: 3, By: "me", Note: "new", Models: []Model{{
		Name: "a-1", Bundle: File{Size: 3, Pieces: []Piece{{ID([]byte("x")), 1}, {ID([]byte("y")), 2}}}, Heads: &File{Size: 1, Pieces: []Piece{{Size: 1}}},
		Gallery: Gallery{Dim: 3, Rows: 2, Next: 9, Pages: page, Features: &Piece{Size: 5}},
	}}}
}

func TestManifest(t *testing.T) {
	m := testManifest()
	data, id, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode(data)
	if err != nil || !reflect.DeepEqual(again, m) || id != ID(data) {
		t.Errorf("Decode(Encode(%+v)) = %+v, %v", m, again, err)
	}
	for _, c := range []struct {
		name   string
		change func(*Manifest)
		want   string
	}{
		{"name", func(m *Manifest) { m.Models[0].Name = "../a" }, "want names"},
		{"hidden name", func(m *Manifest) { m.Models[0].Name = ".a" }, "want names"},
		{"same names", func(m *Manifest) { m.Models = append(m.Models, m.Models[0]) }, "want names that differ"},
		{"sizes", func(m *Manifest) { m.Models[0].Bundle.Size = 4 }, "want pieces of 4 bytes"},
		{"size of a piece", func(m *Manifest) { m.Models[0].Bundle.Pieces[0].Size = MaxPiece + 1 }, "piece 0"},
		{"rows", func(m *Manifest) { m.Models[0].Gallery.Rows = 3 }, "want 3 rows"},
		{"page", func(m *Manifest) { m.Models[0].Gallery.Pages[0].Number = 1 }, "ascending numbers up to 0"},
		{"embeddings", func(m *Manifest) { m.Models[0].Gallery.DType = "f32" }, "want f16, as nothing, or q8"},
		{"note", func(m *Manifest) { m.Note = strings.Repeat("x", maxText+1) }, "bytes of by and note"},
	} {
		m := testManifest()
		c.change(m)
		if _, _, err := m.Encode(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
	}
	for _, bad := range []string{"", "{", `{"format":2}`, `{"format":1,"x":1}`, string(data) + "{}"} {
		if _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("Decode(%.40q) succeeded", bad)
		}
	}
}

func TestChangeScope(t *testing.T) {
	for _, c := range []struct{ json, scope string }{
		{`{"model":"a","remove":["x.png"]}`, ScopeGallery}, {`{"rollback":3}`, ScopeAdmin}, {`{"model":"a","embeddings":"q8"}`, ScopeGallery}, {`{"model":"a","embeddings":"f32"}`, ""},
		{`{"model":"a","heads":{"size":1,"sha256":"` + strings.Repeat("0", 64) + `","pieces":[{"hash":"` + strings.Repeat("0", 64) + `","size":1}]}}`, ScopeHeads},
		{`{"model":"a"}`, ""}, {`{"remove":["x"]}`, ""}, {`{"model":"a","rollback":3}`, ""}, {`{"model":"a/b","remove":["x"]}`, ""}, {`{"model":"a","remove":["x"],"rollback":2}`, ""},
	} {
		change, err := DecodeChange([]byte(c.json))
		scope := ""
		if err == nil {
			scope, _ = change.Scope()
		}
		if scope != c.scope {
			t.Errorf("DecodeChange(%s) = scope %q, %v, want %q", c.json, scope, err, c.scope)
		}
	}
}

// pages are versions of a page, from each of which every other is to be reached.
func pages() map[string][]Row {
	a := []Row{row(1, "a"), row(2, "b"), row(5, "c")}
	caption := slices.Clone(a)
	caption[1].Caption = "another"
	values := slices.Clone(a)
	for i := range values {
		values[i].Values = []byte("abcdef")
	}
	replaced := slices.Clone(a)
	replaced[2] = row(5, "d")
	return map[string][]Row{
		"none": nil, "a": a, "removed": {a[0], a[2]}, "added": append(slices.Clone(a), row(9, "d")), "caption": caption, "values": values, "replaced": replaced,
		"other": {row(3, "e"), row(1023, "f")},
	}
}

func TestDeltas(t *testing.T) {
	for from, a := range pages() {
		for to, b := range pages() {
			base, target := EncodePage(a, size), EncodePage(b, size)
			delta, err := Delta(base, target, size)
			if err != nil {
				t.Fatal(err)
			}
			if have, err := Apply(base, delta, size); err != nil || !bytes.Equal(have, target) {
				t.Errorf("Apply(%s, Delta(%s, %s)) = %x, %v, want %x", from, from, to, have, err, target)
			}
		}
	}
}

// TestDeltaSize wants what is sent to be what is new.
func TestDeltaSize(t *testing.T) {
	var rows []Row
	for i := range PageRows {
		rows = append(rows, row(uint64(i), fmt.Sprintf("picture %d", i)))
	}
	base := EncodePage(rows, size)
	for _, c := range []struct {
		name string
		most int
		rows []Row
	}{
		{"nothing", 8, rows},
		{"a row removed", 10, slices.Concat(rows[:100], rows[101:])},
		{"all values", PageRows*(size+1) + 16, func() []Row {
			r := slices.Clone(rows)
			for i := range r {
				r[i].Values = []byte("abcdef")
			}
			return r
		}()},
	} {
		delta, err := Delta(base, EncodePage(c.rows, size), size)
		if err != nil || len(delta) > c.most {
			t.Errorf("%s: %d bytes, %v, want at most %d", c.name, len(delta), err, c.most)
		}
	}
}

func TestIndexIsTheSameForTheSameRows(t *testing.T) {
	rows := pages()["added"]
	var all [2]bytes.Buffer
	for i := range all {
		m := Model{Identity: wire.Hash{1}, Gallery: Gallery{Dim: size / 2}}
		x, err := m.Index(rows)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.WriteTo(&all[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(all[0].Bytes(), all[1].Bytes()) {
		t.Error("two indexes of the same rows differ")
	}
}

func TestReadRowsChecks(t *testing.T) {
	rows := pages()["a"]
	data := EncodePage(rows, size)
	for _, c := range []struct {
		name string
		g    Gallery
		want string
	}{
		{"good", Gallery{Dim: size / 2, Next: 6, Pages: []Page{{0, ID(data), 1, 3}}}, ""},
		{"hash", Gallery{Dim: size / 2, Next: 6, Pages: []Page{{0, ID(nil), 1, 3}}}, "want SHA-256"},
		{"number of rows", Gallery{Dim: size / 2, Next: 6, Pages: []Page{{0, ID(data), 1, 2}}}, "want 2 rows"},
		{"page", Gallery{Dim: size / 2, Next: 6, Pages: []Page{{1, ID(data), 1, 3}}}, "ids of the page"},
		{"next", Gallery{Dim: size / 2, Next: 5, Pages: []Page{{0, ID(data), 1, 3}}}, "below 5"},
		{"size of values", Gallery{Dim: size/2 + 1, Next: 6, Pages: []Page{{0, ID(data), 1, 3}}}, "bytes of values"},
	} {
		_, err := c.g.ReadRows(func(Page) ([]byte, error) { return data, nil })
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestHeads(t *testing.T) {
	heads := map[string][]float32{"b": {1, -2, 3}, "a": {0.5}}
	data, err := EncodeHeads(heads)
	if err != nil {
		t.Fatal(err)
	}
	if have, err := DecodeHeads(data); err != nil || !reflect.DeepEqual(have, heads) {
		t.Errorf("DecodeHeads(EncodeHeads(%v)) = %v, %v", heads, have, err)
	}
	if again, _ := EncodeHeads(heads); !bytes.Equal(again, data) {
		t.Error("equal heads are written differently")
	}
}

func TestProjection(t *testing.T) {
	p, err := NewProjection(map[string][]float32{"visual_fc.weight": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, "visual_fc.bias": {0.5, -1}})
	if err != nil {
		t.Fatal(err)
	}
	// (1+4+9+16+25)+0.5 and (6+14+24+36+50)−1, divided by their norm.
	for _, dtype := range []index.DType{index.F16, index.Q8} {
		data, err := p.Embed([]float32{1, 2, 3, 4, 5}, dtype)
		if err != nil {
			t.Fatal(err)
		}
		x, err := index.New(index.Header{D: 2, DType: dtype})
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Append([]index.Row{{Meta: index.Meta{Path: "a"}, Embedding: []float32{55.5, 129}}}); err != nil {
			t.Fatal(err)
		}
		for b := range x.Blocks(0) {
			if !bytes.Equal(b.Data, data) {
				t.Errorf("Embed in %v = %x, want %x as an index stores it", dtype, data, b.Data)
			}
		}
	}
	if _, err := p.Embed([]float32{1}, index.F16); err == nil {
		t.Error("Embed of 1 value for 5 succeeded")
	}
}

func TestAdditions(t *testing.T) {
	all := []Addition{{index.Meta{Path: "a.png", Hash: ID(nil)}, []float32{1, 2}}, {index.Meta{Path: "b.png", Licence: "l", Hash: ID(nil)}, []float32{3, 4}}}
	data := EncodeAdditions(all)
	if have, err := DecodeAdditions(data, 2); err != nil || !reflect.DeepEqual(have, all) {
		t.Errorf("DecodeAdditions = %v, %v, want %v", have, err, all)
	}
	all[1].Features[0] = float32(nan())
	if _, err := DecodeAdditions(EncodeAdditions(all), 2); err == nil {
		t.Error("DecodeAdditions of NaN succeeded")
	}
}

func nan() float64 { z := 0.0; return z / z }

func FuzzApply(f *testing.F) {
	for _, a := range pages() {
		for _, b := range pages() {
			base := EncodePage(a, size)
			delta, _ := Delta(base, EncodePage(b, size), size)
			f.Add(base, delta)
		}
	}
	f.Fuzz(func(t *testing.T, base, delta []byte) {
		page, err := Apply(base, delta, size)
		if err != nil {
			return
		}
		rows, err := DecodePage(page, size)
		if err != nil || !slices.IsSortedFunc(rows, func(a, b Row) int { return byNumber(a.ID, b.ID) }) {
			t.Errorf("Apply made a page that cannot be read: %v", err)
		}
	})
}

func byNumber(a, b uint64) int {
	if a < b {
		return -1
	}
	return 1
}

func FuzzDecode(f *testing.F) {
	data, _, err := testManifest().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Decode(data)
		if err != nil {
			return
		}
		if _, _, err := m.Encode(); err != nil {
			t.Errorf("a manifest that was read cannot be written: %v", err)
		}
	})
}

// TestRandomPaths goes from page to page at random and wants the bytes of a fresh page each time.
func TestRandomPaths(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	held := EncodePage(nil, size)
	for range 300 {
		var rows []Row
		for id := range uint64(40) {
			if rng.IntN(3) > 0 {
				r := row(id, fmt.Sprint("p", rng.IntN(2)))
				binary.LittleEndian.PutUint16(r.Values, uint16(rng.IntN(3)))
				rows = append(rows, r)
			}
		}
		target := EncodePage(rows, size)
		delta, err := Delta(held, target, size)
		if err != nil {
			t.Fatal(err)
		}
		if held, err = Apply(held, delta, size); err != nil || !bytes.Equal(held, target) {
			t.Fatalf("Apply: %v, or other bytes than a fresh page", err)
		}
	}
}
