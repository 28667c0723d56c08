// SPDX-License-Identifier: Apache-2.0

package events

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// seen is an event as a reader finds it.
type seen struct {
	Time    float64
	Step    int
	Version string
	Restart bool
	Scalars []Scalar
}

// read takes a file apart, checksums included, up to a torn end.
func read(t *testing.T, path string) []seen {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []seen
	for len(data) >= 12 {
		n := binary.LittleEndian.Uint64(data)
		if n > uint64(len(data))-12 || uint64(len(data))-12-n < 4 {
			break
		}
		record := data[12 : 12+n]
		for _, sum := range []struct{ of, at []byte }{{data[:8], data[8:]}, {record, data[12+n:]}} {
			crc := crc32.Checksum(sum.of, crc32.MakeTable(crc32.Castagnoli))
			if got, want := binary.LittleEndian.Uint32(sum.at)-0xa282ead8, crc>>15|crc<<17; got != want {
				t.Fatalf("checksum %08x, want %08x", got, want)
			}
		}
		all = append(all, parse(t, record))
		data = data[16+n:]
	}
	return all
}

func parse(t *testing.T, record []byte) seen {
	var e seen
	fields(t, record, func(number protowire.Number, n uint64, bytes []byte) {
		switch number {
		case 1:
			e.Time = math.Float64frombits(n)
		case 2:
			e.Step = int(n)
		case 3:
			e.Version = string(bytes)
		case 7:
			fields(t, bytes, func(number protowire.Number, n uint64, _ []byte) { e.Restart = number == 1 && n == 1 })
		case 5:
			fields(t, bytes, func(_ protowire.Number, _ uint64, bytes []byte) {
				var s Scalar
				fields(t, bytes, func(number protowire.Number, n uint64, bytes []byte) {
					if number == 1 {
						s.Tag = string(bytes)
					} else {
						s.Value = float64(math.Float32frombits(uint32(n)))
					}
				})
				e.Scalars = append(e.Scalars, s)
			})
		}
	})
	return e
}

// fields calls f for every field of a message.
func fields(t *testing.T, b []byte, f func(number protowire.Number, n uint64, bytes []byte)) {
	t.Helper()
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		b = b[max(n, 0):]
		var value uint64
		var bytes []byte
		switch kind {
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			value, n = protowire.ConsumeFixed64(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			value = uint64(v)
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		}
		if n < 0 {
			t.Fatalf("broken message: %v", protowire.ParseError(n))
		}
		f(number, value, bytes)
		b = b[n:]
	}
}

func only(t *testing.T, dir string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*tfevents*"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("files %q, %v, want one", paths, err)
	}
	return paths[0]
}

// TestBytes compares with the bytes that other programs write.
func TestBytes(t *testing.T) {
	dir, at := t.TempDir(), time.UnixMilli(256500)
	w, err := Create(dir, at, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(at, 1, Scalar{"v/1", 1.5}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := only(t, dir)
	if want := "events.out.tfevents.0000000256.fromage.0"; filepath.Base(path) != want {
		t.Errorf("file %s, want %s", filepath.Base(path), want)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "\x18\x00\x00\x00\x00\x00\x00\x00\xa3\x7f\x4b\x22" + "\x09\x00\x00\x00\x00\x00\x08\x70\x40\x1a\x0dbrain.Event:2" + "\xbc\x98\x21\x2b" +
		"\x19\x00\x00\x00\x00\x00\x00\x00\x8b\xf1\x08\x28" + "\x09\x00\x00\x00\x00\x00\x08\x70\x40\x10\x01\x2a\x0c\x0a\x0a\x0a\x03v/1\x15\x00\x00\xc0\x3f" + "\x2c\xec\xc0\x87"
	if string(got) != want {
		t.Errorf("file is\n% x, want\n% x", got, want)
	}
}

// TestResume starts three times, the first of them killed within a record and the others within the same second.
func TestResume(t *testing.T) {
	dir, at := t.TempDir(), time.Unix(1700000000, 0)
	w, err := Create(dir, at, 0)
	if err != nil {
		t.Fatal(err)
	}
	for step := range 3 {
		if err := w.Write(at.Add(time.Duration(step)*time.Second), step, Scalar{"train/loss", 3.5 - float64(step)}, Scalar{"train/lr", 1e-3}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	first := only(t, dir)
	whole := read(t, first)
	info, err := os.Stat(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(first, info.Size()-1); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w, err := Create(dir, at, 2)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(at, 2, Scalar{"train/loss", math.Inf(1)}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	rate := float64(float32(1e-3))
	want := []seen{
		{Time: 1700000000, Version: "brain.Event:2"},
		{Time: 1700000000, Scalars: []Scalar{{"train/loss", 3.5}, {"train/lr", rate}}},
		{Time: 1700000001, Step: 1, Scalars: []Scalar{{"train/loss", 2.5}, {"train/lr", rate}}},
		{Time: 1700000002, Step: 2, Scalars: []Scalar{{"train/loss", 1.5}, {"train/lr", rate}}},
	}
	if !reflect.DeepEqual(whole, want) {
		t.Errorf("before the kill: %v, want %v", whole, want)
	}
	if got := read(t, first); !reflect.DeepEqual(got, want[:3]) {
		t.Errorf("after the kill: %v, want %v", got, want[:3])
	}
	resumed := []seen{
		{Time: 1700000000, Version: "brain.Event:2"},
		{Time: 1700000000, Step: 2, Restart: true},
		{Time: 1700000000, Step: 2, Scalars: []Scalar{{"train/loss", math.Inf(1)}}},
	}
	for _, n := range []string{"1", "2"} {
		path := strings.TrimSuffix(first, "0") + n
		if got := read(t, path); !reflect.DeepEqual(got, resumed) {
			t.Errorf("%s: %v, want %v", path, got, resumed)
		}
	}
}

func TestRefuses(t *testing.T) {
	if _, err := Create(filepath.Join(t.TempDir(), "none"), time.Now(), 0); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("Create in no folder = %v, want an error that names it", err)
	}
	w, err := Create(t.TempDir(), time.Now(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(time.Now(), 1, Scalar{"\xff", 1}); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("Write of a broken tag = %v, want an error that says so", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(time.Now(), 1); err == nil {
		t.Error("Write after Close: want an error")
	}
}
