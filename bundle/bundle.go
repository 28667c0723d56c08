// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"fromage/plan"
)

const (
	magic      = "FROMAGE\x00"
	version    = 1
	headerSize = 64
	alignment  = 64
)

// MaxManifest is the most bytes of a manifest; OPT-66b's has 2 MB.
const MaxManifest = 16 << 20

// Bundle is an open bundle. Its methods may be called concurrently.
type Bundle struct {
	m      Manifest
	r      io.ReaderAt
	name   string // in errors: the path
	spans  []span // the blobs, in the order of their bytes
	end    int64  // where the manifest begins
	closer io.Closer
}

// Read checks the header and the manifest of a bundle of size bytes, and where its blobs lie; blobs' bytes are read and checked when asked for.
func Read(r io.ReaderAt, size int64) (*Bundle, error) { return read(r, size, "bundle") }

func read(r io.ReaderAt, size int64, name string) (*Bundle, error) {
	b := &Bundle{r: r, name: name}
	data, err := b.readManifest(size)
	if err != nil {
		return nil, err
	}
	if err := b.m.parse(data); err != nil {
		return nil, fmt.Errorf("bundle: %s: %w", name, err)
	}
	if b.spans, err = b.m.tile(b.end); err != nil {
		return nil, fmt.Errorf("bundle: %s: %w", name, err)
	}
	return b, nil
}

// readManifest checks the header and returns the manifest's bytes.
func (b *Bundle) readManifest(size int64) ([]byte, error) {
	var h [headerSize]byte
	if size < headerSize {
		return nil, fmt.Errorf("bundle: %s: want a header of %d bytes, have a file of %d", b.name, headerSize, size)
	}
	if err := b.readAt(h[:], 0); err != nil {
		return nil, err
	}
	if string(h[:8]) != magic {
		return nil, fmt.Errorf("bundle: %s: offset 0: want a bundle's first bytes %q, have %q", b.name, magic, h[:8])
	}
	if v := binary.LittleEndian.Uint32(h[8:]); v != version {
		return nil, fmt.Errorf("bundle: %s: offset 8: want version %d, have %d", b.name, version, v)
	}
	if v := binary.LittleEndian.Uint32(h[12:]); v != 0 {
		return nil, fmt.Errorf("bundle: %s: offset 12: want 0, have %d", b.name, v)
	}
	offset, n := binary.LittleEndian.Uint64(h[16:]), binary.LittleEndian.Uint64(h[24:])
	if n > MaxManifest || offset < headerSize || offset%alignment != 0 || offset > uint64(size) || offset+n != uint64(size) {
		return nil, fmt.Errorf("bundle: %s: offset 16: want a manifest that ends with the file (%d bytes), have %d bytes at %d: the file is cut short or damaged", b.name, size, n, offset)
	}
	data := make([]byte, n)
	if err := b.readAt(data, int64(offset)); err != nil {
		return nil, err
	}
	if have := sha256.Sum256(data); !bytes.Equal(have[:], h[32:]) {
		return nil, fmt.Errorf("bundle: %s: manifest at offset %d: want SHA-256 %x, have %x: the file is damaged", b.name, offset, h[32:], have)
	}
	b.end = int64(offset)
	return data, nil
}

func (b *Bundle) readAt(p []byte, offset int64) error {
	if n, err := b.r.ReadAt(p, offset); n < len(p) {
		return fmt.Errorf("bundle: %s: %d bytes at offset %d: %w", b.name, len(p), offset, err)
	}
	return nil
}

// parse reads a manifest and checks all of it but where blobs lie.
func (m *Manifest) parse(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if rest := bytes.TrimSpace(data[d.InputOffset():]); len(rest) > 0 {
		return fmt.Errorf("manifest: %d bytes after its end", len(rest))
	}
	return m.check()
}

// Manifest returns the manifest, which is not to be changed.
func (b *Bundle) Manifest() *Manifest { return &b.m }

// Close closes the file that Open opened.
func (b *Bundle) Close() error {
	if b.closer == nil {
		return nil
	}
	return b.closer.Close()
}

// Layouts says how each weight is stored, by name, as plan.Program.Lower wants it.
func (m *Manifest) Layouts() map[string]plan.Layout {
	layouts := make(map[string]plan.Layout, len(m.Tensors))
	for _, t := range m.Tensors {
		l := plan.Layout{Format: t.Format}
		for _, s := range t.Shards {
			l.Shards = append(l.Shards, s.Rows)
		}
		layouts[t.Name] = l
	}
	return layouts
}

// Chunks calls f with the bytes of a blob of the manifest, in order, ChunkSize at a time, each after its hash has been checked. The offset counts from
// the blob's start; chunk is f's until f returns.
func (b *Bundle) Chunks(ctx context.Context, blob Blob, f func(offset int64, chunk []byte) error) error {
	s, ok := find(b.spans, blob.Offset)
	if !ok || s.blob.SHA256 != blob.SHA256 || s.blob.Size != blob.Size {
		return fmt.Errorf("bundle: %s: there is no blob %s of %d bytes at offset %d", b.name, blob.SHA256, blob.Size, blob.Offset)
	}
	return b.chunks(ctx, s, f)
}

func (b *Bundle) chunks(ctx context.Context, s span, f func(offset int64, chunk []byte) error) error {
	buffer := make([]byte, min(ChunkSize, s.blob.Size))
	for i, offset := 0, int64(0); offset < s.blob.Size; i, offset = i+1, offset+ChunkSize {
		if err := ctx.Err(); err != nil {
			return err
		}
		chunk := buffer[:min(ChunkSize, s.blob.Size-offset)]
		if err := b.readAt(chunk, s.blob.Offset+offset); err != nil {
			return fmt.Errorf("%w (%s: chunk %d)", err, s.label, i)
		}
		want := s.blob.SHA256
		if len(s.blob.Chunks) > 0 {
			want = s.blob.Chunks[i]
		}
		if have := sha256.Sum256(chunk); hex.EncodeToString(have[:]) != want {
			return fmt.Errorf("bundle: %s: %s: chunk %d (%d bytes at offset %d): want SHA-256 %s, have %x: the file is damaged",
				b.name, s.label, i, len(chunk), s.blob.Offset+offset, want, have)
		}
		if err := f(offset, chunk); err != nil {
			return err
		}
	}
	return nil
}

// File returns one of Manifest.Files, its hash checked.
func (b *Bundle) File(name string) ([]byte, error) {
	blob, ok := b.m.Files[name]
	if !ok {
		return nil, fmt.Errorf("bundle: %s: there is no file %q", b.name, name)
	}
	data := make([]byte, 0, blob.Size)
	err := b.Chunks(context.Background(), blob, func(_ int64, chunk []byte) error {
		data = append(data, chunk...)
		return nil
	})
	return data, err
}

// Verify reads the whole file and checks every byte of it, blobs' own hashes included. progress, where given, hears of the bytes done.
func (b *Bundle) Verify(ctx context.Context, progress func(done, total int64)) error {
	at := int64(headerSize)
	for _, s := range b.spans {
		if err := b.zeros(at, s.blob.Offset); err != nil {
			return err
		}
		whole := sha256.New()
		err := b.chunks(ctx, s, func(offset int64, chunk []byte) error {
			whole.Write(chunk)
			if progress != nil {
				progress(s.blob.Offset+offset+int64(len(chunk)), b.end)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if have := hex.EncodeToString(whole.Sum(nil)); have != s.blob.SHA256 {
			return fmt.Errorf("bundle: %s: %s: want SHA-256 %s, have %s: the manifest contradicts itself", b.name, s.label, s.blob.SHA256, have)
		}
		at = s.blob.Offset + s.blob.Size
	}
	return b.zeros(at, b.end)
}

// zeros wants the bytes between two blobs, fewer than alignment, to be zero.
func (b *Bundle) zeros(from, to int64) error {
	gap := make([]byte, to-from)
	if err := b.readAt(gap, from); err != nil {
		return err
	}
	for i, v := range gap {
		if v != 0 {
			return fmt.Errorf("bundle: %s: offset %d: want 0 between blobs, have %d: the file is damaged", b.name, from+int64(i), v)
		}
	}
	return nil
}
