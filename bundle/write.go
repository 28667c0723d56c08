// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Target is what a bundle is written to: a file, or a Memory.
type Target interface {
	io.WriterAt
	Truncate(size int64) error
}

// Memory is a Target and an io.ReaderAt in memory, for small bundles.
type Memory struct{ Bytes []byte }

// WriteAt implements io.WriterAt.
func (m *Memory) WriteAt(p []byte, offset int64) (int, error) {
	if grow := offset + int64(len(p)) - int64(len(m.Bytes)); grow > 0 {
		m.Bytes = append(m.Bytes, make([]byte, grow)...)
	}
	return copy(m.Bytes[offset:], p), nil
}

// ReadAt implements io.ReaderAt.
func (m *Memory) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= int64(len(m.Bytes)) {
		return 0, io.EOF
	}
	n := copy(p, m.Bytes[offset:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Truncate shortens m; it never lengthens it.
func (m *Memory) Truncate(size int64) error {
	m.Bytes = m.Bytes[:min(size, int64(len(m.Bytes)))]
	return nil
}

// Writer writes a bundle: any number of blobs, then Finish or Abort. It is for one goroutine.
type Writer struct {
	to     Target
	at     int64 // where the next blob begins
	seen   map[string]Blob
	err    error // what ended it
	commit func() error
	abort  func()
}

var errDone = errors.New("bundle: the writer is finished")

// NewWriter writes a bundle to an empty target.
func NewWriter(to Target) *Writer {
	return &Writer{to: to, at: headerSize, seen: map[string]Blob{}, commit: func() error { return nil }, abort: func() {}}
}

// Blob stores the bytes that write writes, at least one, and says where they are. If they are those of an earlier blob, it is that one.
// After an error only Abort may follow.
func (w *Writer) Blob(write func(io.Writer) error) (Blob, error) {
	if w.err != nil {
		return Blob{}, w.err
	}
	b := &blobWriter{to: w.to, start: w.at, whole: sha256.New(), chunk: sha256.New()}
	if w.err = write(b); w.err != nil {
		return Blob{}, w.err
	}
	if b.size == 0 {
		w.err = fmt.Errorf("bundle: blob at offset %d: want at least one byte, have none", w.at)
		return Blob{}, w.err
	}
	blob := b.blob()
	if old, ok := w.seen[blob.SHA256]; ok {
		return old, nil
	}
	w.seen[blob.SHA256] = blob
	end := blob.Offset + blob.Size
	w.at = align(end)
	// What a longer duplicate may have left there has to become zeros.
	return blob, w.write(make([]byte, w.at-end), end)
}

// Finish checks the manifest, with HeadsHash filled in, writes it, and puts the bundle in its place: until then nobody sees it.
// An error leaves nothing behind.
func (w *Writer) Finish(m Manifest) error {
	if w.err == nil {
		w.err = w.finish(m)
	}
	if w.err != nil {
		err := w.err
		w.Abort()
		return err
	}
	w.err = errDone
	return nil
}

func (w *Writer) finish(m Manifest) error {
	m.Settings.HeadsHash = m.HeadsHash()
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("bundle: manifest: %w", err)
	}
	if len(data) > MaxManifest {
		return fmt.Errorf("bundle: manifest: want at most %d bytes, have %d", MaxManifest, len(data))
	}
	// A reader sees what was marshalled, so that is what is checked.
	var again Manifest
	if err := again.parse(data); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	if _, err := again.tile(w.at); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	header := make([]byte, 0, headerSize)
	header = append(header, magic...)
	header = binary.LittleEndian.AppendUint32(header, version)
	header = binary.LittleEndian.AppendUint32(header, 0)
	header = binary.LittleEndian.AppendUint64(header, uint64(w.at))
	header = binary.LittleEndian.AppendUint64(header, uint64(len(data)))
	sum := sha256.Sum256(data)
	header = append(header, sum[:]...)
	if err := w.write(data, w.at); err != nil {
		return err
	}
	if err := w.write(header, 0); err != nil {
		return err
	}
	if err := w.to.Truncate(w.at + int64(len(data))); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	if err := w.commit(); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	return nil
}

// Abort gives the bundle up and removes what was written. After Finish it does nothing.
func (w *Writer) Abort() {
	if w.err == errDone {
		return
	}
	w.err = errDone
	w.abort()
}

func (w *Writer) write(p []byte, offset int64) error {
	if _, err := w.to.WriteAt(p, offset); err != nil {
		w.err = fmt.Errorf("bundle: %w", err)
	}
	return w.err
}

// blobWriter writes one blob and hashes it, as a whole and by chunks.
type blobWriter struct {
	to           Target
	start, size  int64
	whole, chunk hash.Hash
	chunks       []string
}

// Write implements io.Writer.
func (b *blobWriter) Write(p []byte) (int, error) {
	n, err := b.to.WriteAt(p, b.start+b.size)
	if err != nil {
		return n, fmt.Errorf("bundle: %w", err)
	}
	for len(p) > 0 {
		part := p[:min(len(p), int(ChunkSize-b.size%ChunkSize))]
		b.whole.Write(part)
		b.chunk.Write(part)
		b.size += int64(len(part))
		if b.size%ChunkSize == 0 {
			b.endChunk()
		}
		p = p[len(part):]
	}
	return n, nil
}

func (b *blobWriter) endChunk() {
	b.chunks = append(b.chunks, hex.EncodeToString(b.chunk.Sum(nil)))
	b.chunk.Reset()
}

func (b *blobWriter) blob() Blob {
	if b.size%ChunkSize != 0 {
		b.endChunk()
	}
	if len(b.chunks) == 1 {
		b.chunks = nil
	}
	return Blob{SHA256: hex.EncodeToString(b.whole.Sum(nil)), Offset: b.start, Size: b.size, Chunks: b.chunks}
}

func align(n int64) int64 { return (n + alignment - 1) / alignment * alignment }
