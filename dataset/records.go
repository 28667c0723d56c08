// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"time"

	"fromage/internal/atomicfile"
)

// A record file is a header and records of one size, only ever appended to. All numbers are little-endian:
//
//	offset  bytes
//	     0      8  magic: "FROMREC" and a zero byte
//	     8      4  payload size n, u32
//	    12     32  what the records are of: a key of the file's own
//	    44      4  CRC-32C of the bytes before
//	    48      …  records: key (32), payload (n), CRC-32C of both (4)
//
// A kill can leave part of a record at the end, and a power cut records of rubbish: the next writer cuts off the one, and every reader passes over the
// other. Of two records with one key either may be taken: keys are hashes of what payloads are made of.
type recordFile struct {
	f       *os.File
	payload int
	end     int64 // of the last whole record
	damaged int   // records passed over

	mu sync.RWMutex
	at map[[32]byte]int64 // where each key's payload is
}

const (
	recordMagic      = "FROMREC\x00"
	recordHeaderSize = 48
	maxPayload       = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openRecords opens or makes a record file, and lists it.
func openRecords(path string, payload int, of [32]byte) (*recordFile, error) {
	if payload <= 0 || payload > maxPayload {
		return nil, fmt.Errorf("dataset: %s: want records of 1 to %d bytes, have %d", path, maxPayload, payload)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("dataset: %w", err)
	}
	r := &recordFile{f: f, payload: payload, at: map[[32]byte]int64{}}
	if err := r.begin(of); err != nil {
		f.Close()
		return nil, fmt.Errorf("dataset: %s: %w", path, err)
	}
	return r, nil
}

func (r *recordFile) header(of [32]byte) []byte {
	h := append([]byte(recordMagic), 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(h[8:], uint32(r.payload))
	h = append(h, of[:]...)
	return binary.LittleEndian.AppendUint32(h, crc32.Checksum(h, castagnoli))
}

// begin checks the header and lists the records. A file that ends within its header was just begun.
func (r *recordFile) begin(of [32]byte) error {
	want := r.header(of)
	have := make([]byte, len(want))
	n, err := io.ReadFull(r.f, have)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	if !bytes.HasPrefix(want, have[:n]) {
		return errors.New("want a cache of this model's features, have another file there: move it away")
	}
	r.end = recordHeaderSize
	if n < len(want) {
		return nil
	}
	return r.list()
}

// list reads what was appended since it was called last.
func (r *recordFile) list() error {
	size, err := r.f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	one := make([]byte, 32+r.payload+4)
	in := bufio.NewReaderSize(io.NewSectionReader(r.f, r.end, size-r.end), 1<<20)
	for size-r.end >= int64(len(one)) {
		if _, err := io.ReadFull(in, one); err != nil {
			return err
		}
		if crc32.Checksum(one[:len(one)-4], castagnoli) == binary.LittleEndian.Uint32(one[len(one)-4:]) {
			r.put([32]byte(one), r.end+32)
		} else {
			r.damaged++
		}
		r.end += int64(len(one))
	}
	return nil
}

// lock makes this process the only writer until unlock, waiting for another that is at work, and reads what that one wrote. waits, if any, is called
// once where there is one to wait for.
func (r *recordFile) lock(ctx context.Context, of [32]byte, waits func()) error {
	for atomicfile.Lock(r.f) != nil {
		if waits != nil {
			waits()
			waits = nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	err := r.list()
	if err == nil {
		err = r.f.Truncate(r.end)
	}
	if err == nil {
		_, err = r.f.WriteAt(r.header(of), 0)
	}
	if err != nil {
		r.unlock()
		return fmt.Errorf("dataset: %w", err)
	}
	return nil
}

// unlock lets others write.
func (r *recordFile) unlock() { _ = atomicfile.Unlock(r.f) }

// append adds records; the file is locked. Those of one call reach the file in one write.
func (r *recordFile) append(keys [][32]byte, payloads [][]byte) error {
	var all []byte
	for i, key := range keys {
		from := len(all)
		all = append(append(all, key[:]...), payloads[i]...)
		all = binary.LittleEndian.AppendUint32(all, crc32.Checksum(all[from:], castagnoli))
	}
	if _, err := r.f.WriteAt(all, r.end); err != nil {
		return fmt.Errorf("dataset: %w", err)
	}
	for _, key := range keys {
		r.put(key, r.end+32)
		r.end += int64(32 + r.payload + 4)
	}
	return nil
}

// read returns a key's payload.
func (r *recordFile) read(key [32]byte, payload []byte) error {
	r.mu.RLock()
	at, ok := r.at[key]
	r.mu.RUnlock()
	if !ok {
		return fmt.Errorf("dataset: %s: there is no record %x", r.f.Name(), key)
	}
	if _, err := r.f.ReadAt(payload, at); err != nil {
		return fmt.Errorf("dataset: %w", err)
	}
	return nil
}

// has says whether there is a record with this key. It may be called while others are appended.
func (r *recordFile) has(key [32]byte) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.at[key]
	return ok
}

func (r *recordFile) put(key [32]byte, at int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at[key] = at
}
