// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sort"
	"strings"

	"fromage/plan"
	"fromage/shaders"
)

// Most that a manifest may list, well above any model's: they bound the time that checking one takes.
const (
	maxWeights  = 4096
	maxPrograms = 16
	maxValues   = 1 << 14
	maxFileSize = 64 << 20
)

// check holds a manifest to everything that can be seen without the file: the model's rules, a tensor for each weight, settings that the programs bear out.
func (m *Manifest) check() error {
	if len(m.Model.Weights) > maxWeights || len(m.Model.Programs) > maxPrograms {
		return fmt.Errorf("manifest: want at most %d weights and %d programs, have %d and %d", maxWeights, maxPrograms, len(m.Model.Weights), len(m.Model.Programs))
	}
	for _, p := range m.Model.Programs {
		if p != nil && (len(p.Values) > maxValues || len(p.Ops) > maxValues) {
			return fmt.Errorf("manifest: program %s: want at most %d values and operations, have %d and %d", p.Name, maxValues, len(p.Values), len(p.Ops))
		}
	}
	if err := m.Model.Check(); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if len(m.Tensors) != len(m.Model.Weights) {
		return fmt.Errorf("manifest: want a tensor for each of %d weights, have %d", len(m.Model.Weights), len(m.Tensors))
	}
	for i := range m.Tensors {
		if err := m.Tensors[i].check(&m.Model.Weights[i]); err != nil {
			return fmt.Errorf("manifest: tensor %d: %w", i, err)
		}
	}
	for name, blob := range m.Files {
		if known := []string{FileTokenizer, FilePreprocessor, FileTextTokenizer, FileTextTokenizerBPE}; !slices.Contains(known, name) || blob.Size > maxFileSize {
			return fmt.Errorf("manifest: file %q of %d bytes: want one of %s, of at most %d", name, blob.Size, strings.Join(known, ", "), maxFileSize)
		}
	}
	if err := m.checkSettings(); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if want := m.HeadsHash(); m.Settings.HeadsHash != want {
		return fmt.Errorf("manifest: heads_hash: want %s, have %q", want, m.Settings.HeadsHash)
	}
	return nil
}

func (t *Tensor) check(w *plan.WeightSpec) error {
	if t.Name != w.Name {
		return fmt.Errorf("want weight %s in its place, have %s", w.Name, t.Name)
	}
	if !t.Format.Fits(w.Cols) || !w.Matrix && t.Format != shaders.F32 {
		return fmt.Errorf("%s: %d × %d cannot be stored as %s", t.Name, w.Rows, w.Cols, t.Format)
	}
	rows := 0
	for i, s := range t.Shards {
		if s.Rows <= 0 || s.Rows > w.Rows-rows {
			return fmt.Errorf("%s: shard %d: want 1 to %d rows, have %d", t.Name, i, w.Rows-rows, s.Rows)
		}
		rows += s.Rows
		if want := padded(s.Rows, t.Format.RowBytes(w.Cols)); s.Values.Size != want || want > MaxShard {
			return fmt.Errorf("%s: shard %d: want %d bytes of values, at most %d, have %d", t.Name, i, want, MaxShard, s.Values.Size)
		}
		want, have := padded(s.Rows, t.Format.ScaleBytes(w.Cols)), int64(0)
		if s.Scales != nil {
			have = s.Scales.Size
		}
		if want != have || want > MaxShard || (want == 0) != (s.Scales == nil) {
			return fmt.Errorf("%s: shard %d: want %d bytes of scales, at most %d, have %d", t.Name, i, want, MaxShard, have)
		}
	}
	if rows != w.Rows {
		return fmt.Errorf("%s: want %d rows in its shards, have %d", t.Name, w.Rows, rows)
	}
	return nil
}

// padded is the size of a blob of rows: their bytes, and zeros up to a multiple of 16.
func padded(rows, rowBytes int) int64 { return (int64(rows)*int64(rowBytes) + 15) / 16 * 16 }

// HeadsHash tells bundles whose image and text embeddings can be compared: the SHA-256, in hex, over the SHA-256s of the stored bytes of all weights
// of program vision and all heads, in the model's order. It is "" where there are no heads.
func (m *Manifest) HeadsHash() string {
	vision, err := m.Model.Program("vision")
	if err != nil {
		return ""
	}
	h, heads := sha256.New(), false
	for i, w := range m.Model.Weights {
		if i >= len(m.Tensors) || !w.Head && vision.Find(w.Name) == 0 {
			continue
		}
		heads = heads || w.Head
		fmt.Fprintf(h, "%s %s\n", w.Name, m.Tensors[i].Format)
		for _, s := range m.Tensors[i].Shards {
			fmt.Fprintln(h, s.Values.SHA256)
			if s.Scales != nil {
				fmt.Fprintln(h, s.Scales.SHA256)
			}
		}
	}
	if !heads {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

// span is one blob, and what it is in errors.
type span struct {
	blob  Blob
	label string
}

// tile lists the blobs in the order of their bytes and checks that they fill the file from the header to end as the package's format says.
func (m *Manifest) tile(end int64) ([]span, error) {
	var spans []span
	for _, t := range m.Tensors {
		for i, s := range t.Shards {
			label := fmt.Sprintf("tensor %s", t.Name)
			if len(t.Shards) > 1 {
				label += fmt.Sprintf(": shard %d", i)
			}
			spans = append(spans, span{s.Values, label + ": values"})
			if s.Scales != nil {
				spans = append(spans, span{*s.Scales, label + ": scales"})
			}
		}
	}
	for name, blob := range m.Files {
		spans = append(spans, span{blob, "file " + name})
	}
	sort.Slice(spans, func(i, j int) bool {
		a, b := spans[i], spans[j]
		return a.blob.Offset < b.blob.Offset || a.blob.Offset == b.blob.Offset && a.label < b.label
	})
	kept := spans[:0]
	at := int64(headerSize)
	for _, s := range spans {
		if n := len(kept); n > 0 && s.blob.Offset == kept[n-1].blob.Offset && equal(s.blob, kept[n-1].blob) {
			continue
		}
		if err := s.blob.check(); err != nil {
			return nil, fmt.Errorf("manifest: %s: %w", s.label, err)
		}
		if s.blob.Offset != at || s.blob.Size > end-at {
			return nil, fmt.Errorf("manifest: %s: want it at offset %d and to end by %d, have %d bytes at %d", s.label, at, end, s.blob.Size, s.blob.Offset)
		}
		at = align(at + s.blob.Size)
		kept = append(kept, s)
	}
	if at != end {
		return nil, fmt.Errorf("manifest: want blobs up to offset %d, where the manifest begins, have them up to %d", end, at)
	}
	return kept, nil
}

func equal(a, b Blob) bool {
	return a.Size == b.Size && a.SHA256 == b.SHA256 && slices.Equal(a.Chunks, b.Chunks)
}

func find(spans []span, offset int64) (span, bool) {
	i := sort.Search(len(spans), func(i int) bool { return spans[i].blob.Offset >= offset })
	if i == len(spans) || spans[i].blob.Offset != offset {
		return span{}, false
	}
	return spans[i], true
}

// check holds a blob's size and hashes to the format.
func (b *Blob) check() error {
	if b.Size <= 0 {
		return fmt.Errorf("want at least one byte, have %d", b.Size)
	}
	want := 0
	if b.Size > ChunkSize {
		want = int((b.Size-1)/ChunkSize) + 1
	}
	if len(b.Chunks) != want {
		return fmt.Errorf("want %d chunk hashes for %d bytes, have %d", want, b.Size, len(b.Chunks))
	}
	for _, h := range append([]string{b.SHA256}, b.Chunks...) {
		if raw, err := hex.DecodeString(h); err != nil || len(raw) != sha256.Size || hex.EncodeToString(raw) != h {
			return fmt.Errorf("want a SHA-256 in lowercase hex, have %q", h)
		}
	}
	return nil
}
