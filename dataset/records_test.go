// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var testOf = [32]byte{7}

// record is the key and payload number i.
func record(i int) ([32]byte, []byte) {
	return [32]byte{byte(i), 1}, []byte{byte(i), 2, 3}
}

// appendRecords opens a file, appends records, and closes it.
func appendRecords(t *testing.T, path string, first, n int) {
	t.Helper()
	r := open(t, path)
	defer r.f.Close()
	if err := r.lock(context.Background(), testOf, nil); err != nil {
		t.Fatal(err)
	}
	var keys [][32]byte
	var payloads [][]byte
	for i := first; i < first+n; i++ {
		k, p := record(i)
		keys, payloads = append(keys, k), append(payloads, p)
	}
	if err := r.append(keys, payloads); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string) *recordFile {
	t.Helper()
	r, err := openRecords(path, 3, testOf)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// holds wants exactly records 0 … n−1 but those left out.
func holds(t *testing.T, what, path string, n int, without ...int) {
	t.Helper()
	r := open(t, path)
	defer r.f.Close()
	for i := range n {
		key, want := record(i)
		got := make([]byte, 3)
		err := r.read(key, got)
		if gone := bytes.IndexByte(bytesOf(without), byte(i)) >= 0; gone != (err != nil) || !gone && !bytes.Equal(got, want) {
			t.Errorf("%s: record %d = %v, %v, want %v", what, i, got, err, want)
		}
	}
	if len(r.at) != n-len(without) {
		t.Errorf("%s: %d records, want %d", what, len(r.at), n-len(without))
	}
}

func bytesOf(x []int) (out []byte) {
	for _, v := range x {
		out = append(out, byte(v))
	}
	return out
}

// TestRecordsCut cuts a file at every byte, as a kill would, and goes on with it.
func TestRecordsCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	appendRecords(t, path, 0, 3)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const size = 32 + 3 + 4
	for n := range len(whole) + 1 {
		write(t, path, whole[:n])
		kept := max(0, (n-recordHeaderSize)/size)
		holds(t, "cut", path, kept)
		appendRecords(t, path, kept, 2)
		holds(t, "cut and gone on with", path, kept+2)
		if info, err := os.Stat(path); err != nil || info.Size() != int64(recordHeaderSize+size*(kept+2)) {
			t.Fatalf("cut after %d bytes and gone on with, the file has %d", n, info.Size())
		}
	}
}

// TestRecordsDamaged flips every byte: in the header the file is refused, elsewhere one record is passed over.
func TestRecordsDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	appendRecords(t, path, 0, 3)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x10
		write(t, path, damaged)
		if i < recordHeaderSize {
			if _, err := openRecords(path, 3, testOf); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("byte %d changed: openRecords: %v, want an error that names the file", i, err)
			}
			continue
		}
		lost := (i - recordHeaderSize) / (32 + 3 + 4)
		holds(t, "damaged", path, 3, lost)
		appendRecords(t, path, lost, 1)
		holds(t, "damaged and mended", path, 3)
	}
	for _, other := range []struct {
		payload int
		of      [32]byte
	}{{4, testOf}, {3, [32]byte{8}}, {0, testOf}, {1 << 30, testOf}} {
		write(t, path, whole)
		if _, err := openRecords(path, other.payload, other.of); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("openRecords(%d, %d): %v, want an error that names the file", other.payload, other.of[0], err)
		}
	}
}

// TestRecordsShared: a second writer waits for the first, and then knows what that one wrote; Ctrl-C ends the waiting.
func TestRecordsShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	first, second := open(t, path), open(t, path)
	defer first.f.Close()
	defer second.f.Close()
	if err := first.lock(context.Background(), testOf, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := second.lock(ctx, testOf, cancel); err != context.Canceled {
		t.Errorf("lock of a locked file, cancelled: %v", err)
	}
	key, payload := record(0)
	err := second.lock(context.Background(), testOf, func() {
		if err := first.append([][32]byte{key}, [][]byte{payload}); err != nil {
			t.Error(err)
		}
		first.unlock()
	})
	if err != nil || !second.has(key) {
		t.Errorf("lock of a locked file: %v; knows what was written meanwhile: %t", err, second.has(key))
	}
}

// FuzzRecords: no bytes make the reader fail otherwise than by an error, and what it lists has its checksum.
func FuzzRecords(f *testing.F) {
	r := &recordFile{payload: 3}
	key, payload := record(1)
	one := append(append(key[:], payload...), 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(one[35:], crc32.Checksum(one[:35], castagnoli))
	f.Add(r.header(testOf))
	f.Add(append(r.header(testOf), one...))
	f.Add(append(append(r.header(testOf), one...), one[:20]...))
	f.Add([]byte(nil))
	path := filepath.Join(f.TempDir(), "a")
	f.Fuzz(func(t *testing.T, data []byte) {
		write(t, path, data)
		r, err := openRecords(path, 3, testOf)
		if err != nil {
			return
		}
		defer r.f.Close()
		for key, at := range r.at {
			x := data[at-32 : at+3+4]
			if [32]byte(x) != key || crc32.Checksum(x[:35], castagnoli) != binary.LittleEndian.Uint32(x[35:]) {
				t.Errorf("record at %d is listed, and is damaged", at)
			}
		}
	})
}
