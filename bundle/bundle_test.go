// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fromage/gpu"
	"fromage/model"
	"fromage/plan"
	"fromage/shaders"
)

// tinyManifest is of a whole FROMAGe, without tensors.
func tinyManifest(t testing.TB) Manifest {
	t.Helper()
	m, err := model.Build(model.Config{
		OPT:        &model.OPT{VocabSize: 40, HiddenSize: 64, Layers: 1, FFN: 64, MaxPositions: 8, Heads: 2, WordEmbedProjDim: 64, PreNorm: true, Bias: true, Activation: "relu"},
		CLIP:       &model.CLIP{HiddenSize: 8, Intermediate: 8, Layers: 1, Heads: 2, ImageSize: 4, PatchSize: 2, Channels: 3, Activation: "quick_gelu", Eps: 1e-5},
		Heads:      &model.Heads{VisualTokens: 2, SharedDim: 6, TextLayers: []int{-1}},
		Vocabulary: 40,
	})
	if err != nil {
		t.Fatal(err)
	}
	return Manifest{
		Name: "tiny", DType: shaders.Q8, Model: *m,
		Settings: Settings{
			Vocabulary: 40, EmbedDim: 64, HiddenDim: 64, Layers: 1, MaxPositions: 8, VisionDim: 8, ImageSize: 4, ImageTokens: 5,
			VisualTokens: 2, SharedDim: 6, RET: 39, ImageToken: 38, BOS: 2, EOS: 2, Pad: 1,
		},
		Files: map[string]Blob{}, Sources: map[string]string{"config.json": "00"},
	}
}

// fill writes blobs of the right sizes for all weights, every one with different bytes, and two shards for the matrices in q8.
func fill(t testing.TB, w *Writer, m *Manifest) {
	t.Helper()
	n := byte(0)
	blob := func(size int64) Blob {
		n++
		b, err := w.Blob(func(to io.Writer) error {
			for i := range size {
				if _, err := to.Write([]byte{n + byte(i)*7 + byte(i>>8)}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, s := range m.Model.Weights {
		tensor := Tensor{Name: s.Name}
		split := []int{s.Rows}
		if s.Matrix && shaders.Q8.Fits(s.Cols) {
			tensor.Format, split = shaders.Q8, []int{1, s.Rows - 1}
		}
		for _, rows := range split {
			shard := Shard{Rows: rows, Values: blob(padded(rows, tensor.Format.RowBytes(s.Cols)))}
			if tensor.Format == shaders.Q8 {
				scales := blob(padded(rows, tensor.Format.ScaleBytes(s.Cols)))
				shard.Scales = &scales
			}
			tensor.Shards = append(tensor.Shards, shard)
		}
		m.Tensors = append(m.Tensors, tensor)
	}
	m.Files[FileTokenizer] = blob(100)
	m.Files[FilePreprocessor] = blob(3)
}

func tiny(t testing.TB) []byte {
	t.Helper()
	var to Memory
	w, m := NewWriter(&to), tinyManifest(t)
	fill(t, w, &m)
	if err := w.Finish(m); err != nil {
		t.Fatal(err)
	}
	return to.Bytes
}

func openBytes(data []byte) (*Bundle, error) {
	return Read(bytes.NewReader(data), int64(len(data)))
}

func verifyBytes(data []byte) error {
	b, err := openBytes(data)
	if err != nil {
		return err
	}
	return b.Verify(context.Background(), nil)
}

func TestRoundTrip(t *testing.T) {
	data := tiny(t)
	path := filepath.Join(t.TempDir(), "tiny.fromage")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	last := int64(0)
	if err := b.Verify(context.Background(), func(done, total int64) {
		if done <= last || done > total {
			t.Errorf("progress(%d, %d) after %d", done, total, last)
		}
		last = done
	}); err != nil {
		t.Fatal(err)
	}
	l := b.Manifest().Layouts()["model.decoder.layers.0.fc1.weight"]
	if l.Format != shaders.Q8 || fmt.Sprint(l.Shards) != "[1 63]" {
		t.Errorf("layout of fc1 = %v, want q8 [1 63]", l)
	}
	lm, err := b.m.Model.Program("lm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lm.Lower(gpu.Info{}, b.Manifest().Layouts(), plan.Run(3, 1, 0)); err != nil {
		t.Errorf("Lower: %v", err)
	}
	if file, err := b.File(FilePreprocessor); err != nil || len(file) != 3 {
		t.Errorf("File(%s) = %v, %v, want 3 bytes", FilePreprocessor, file, err)
	}
	if _, err := b.File("other"); err == nil || !strings.Contains(err.Error(), `no file "other"`) {
		t.Errorf("File(other) = %v, want an error", err)
	}
	foreign := b.m.Files[FileTokenizer]
	foreign.Size++
	if err := b.Chunks(context.Background(), foreign, func(int64, []byte) error { return nil }); err == nil {
		t.Error("Chunks of a blob that is not in the manifest = nil, want an error")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Verify(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify of a cancelled context = %v", err)
	}
	if again := tiny(t); !bytes.Equal(data, again) {
		t.Error("the same contents make another file")
	}
}

// TestDamage flips a bit in every 13th byte, and cuts the file short: all must be seen.
func TestDamage(t *testing.T) {
	data := tiny(t)
	step := 13
	if testing.Short() {
		step = 97
	}
	for i := 0; i < len(data); i++ {
		if i > headerSize && i%step != 0 {
			continue
		}
		data[i] ^= 1 << (i % 8)
		err := verifyBytes(data)
		data[i] ^= 1 << (i % 8)
		if err == nil || !strings.HasPrefix(err.Error(), "bundle: bundle: ") {
			t.Fatalf("a flipped bit in byte %d of %d: %v, want an error", i, len(data), err)
		}
	}
	for i := 0; i < len(data); i += 1 + len(data)/300 {
		if err := verifyBytes(data[:i]); err == nil {
			t.Fatalf("cut to %d of %d bytes: want an error", i, len(data))
		}
	}
	if err := verifyBytes(append(data[:len(data):len(data)], 0)); err == nil {
		t.Error("a byte too many: want an error")
	}
}

func TestDamageIsNamed(t *testing.T) {
	data := tiny(t)
	b, err := openBytes(data)
	if err != nil {
		t.Fatal(err)
	}
	var fc1 Tensor
	for _, tensor := range b.m.Tensors {
		if tensor.Name == "model.decoder.layers.0.fc1.weight" {
			fc1 = tensor
		}
	}
	for _, c := range []struct {
		at   int64
		want string
	}{
		{0, "offset 0: want a bundle's first bytes"},
		{8, "offset 8: want version 1"},
		{13, "offset 12"},
		{16, "offset 16"},
		{40, "manifest at offset"},
		{fc1.Shards[1].Values.Offset + 5, "tensor model.decoder.layers.0.fc1.weight: shard 1: values: chunk 0"},
		{fc1.Shards[0].Scales.Offset, "tensor model.decoder.layers.0.fc1.weight: shard 0: scales: chunk 0"},
		{b.m.Files[FileTokenizer].Offset + 99, "file tokenizer.bin: chunk 0"},
		{b.m.Files[FileTokenizer].Offset + 100, fmt.Sprintf("offset %d: want 0 between blobs", b.m.Files[FileTokenizer].Offset+100)},
		{int64(len(data)) - 1, "manifest at offset"},
	} {
		data[c.at] ^= 4
		if err := verifyBytes(data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("flipped byte %d: %v, want %q", c.at, err, c.want)
		}
		data[c.at] ^= 4
	}
}

func TestChunks(t *testing.T) {
	m := tinyManifest(t)
	var to Memory
	w := NewWriter(&to)
	fill(t, w, &m)
	big := make([]byte, 2*ChunkSize+5)
	for i := range big {
		big[i] = byte(i % 251)
	}
	// In pieces that straddle chunks, and twice: the second is stored as the first.
	for range 2 {
		before := w.at
		blob, err := w.Blob(func(to io.Writer) error {
			for from := 0; from < len(big); from += 3 << 20 {
				if _, err := to.Write(big[from:min(len(big), from+3<<20)]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if old := m.Files[FileTokenizer]; old.Size == blob.Size && (old.Offset != blob.Offset || w.at != before) {
			t.Errorf("equal blob at %d, want it where the first is, %d", blob.Offset, old.Offset)
		}
		m.Files[FileTokenizer] = blob
	}
	// The blob that fill made for the tokenizer is now nobody's.
	if err := w.Finish(m); err == nil || !strings.Contains(err.Error(), "want it at offset") {
		t.Fatalf("Finish with a blob that is nobody's: %v", err)
	}

	w, to = NewWriter(&to), Memory{}
	blob, err := w.Blob(func(to io.Writer) error { _, err := to.Write(big); return err })
	if err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256(big[:ChunkSize]); len(blob.Chunks) != 3 || blob.Chunks[0] != fmt.Sprintf("%x", want) || blob.SHA256 != fmt.Sprintf("%x", sha256.Sum256(big)) {
		t.Errorf("blob = %+v, want three chunks, the first %x", blob, want)
	}
	b := &Bundle{r: &to, name: "big", spans: []span{{blob, "big"}}}
	var got []byte
	if err := b.Chunks(context.Background(), blob, func(offset int64, chunk []byte) error {
		if offset != int64(len(got)) {
			t.Errorf("chunk at %d, want %d", offset, len(got))
		}
		got = append(got, chunk...)
		return nil
	}); err != nil || !bytes.Equal(got, big) {
		t.Errorf("Chunks: %v, %d bytes, want %d", err, len(got), len(big))
	}
	to.Bytes[headerSize+ChunkSize+1]++
	if err := b.Chunks(context.Background(), blob, func(int64, []byte) error { return nil }); err == nil || !strings.Contains(err.Error(), "big: chunk 1") {
		t.Errorf("Chunks of a damaged second chunk = %v", err)
	}
}

// TestManifestRules breaks each rule of a manifest in turn.
func TestManifestRules(t *testing.T) {
	var to Memory
	w, good := NewWriter(&to), tinyManifest(t)
	fill(t, w, &good)
	data, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		change     func(m *Manifest)
	}{
		{"nothing", "", func(m *Manifest) {}},
		{"tensors", "want a tensor for each", func(m *Manifest) { m.Tensors = m.Tensors[1:] }},
		{"tensor order", "in its place", func(m *Manifest) { m.Tensors[0], m.Tensors[1] = m.Tensors[1], m.Tensors[0] }},
		{"format", "cannot be stored as q4", func(m *Manifest) { m.Tensors[0].Format = shaders.Q4 }},
		{"rows", "want 1 to", func(m *Manifest) { m.Tensors[0].Shards[0].Rows++ }},
		{"no rows", "want 1 to", func(m *Manifest) { m.Tensors[0].Shards[0].Rows = 0 }},
		{"no shards", "in its shards, have 0", func(m *Manifest) { m.Tensors[0].Shards = nil }},
		{"value size", "bytes of values", func(m *Manifest) { m.Tensors[0].Shards[0].Values.Size += 16 }},
		{"scales where there are none", "want 0 bytes of scales", func(m *Manifest) { m.Tensors[0].Shards[0].Scales = &m.Tensors[0].Shards[0].Values }},
		{"empty scales", "want 0 bytes of scales", func(m *Manifest) { m.Tensors[0].Shards[0].Scales = &Blob{} }},
		{"hash", "SHA-256 in lowercase hex", func(m *Manifest) {
			m.Files[FileTokenizer] = Blob{SHA256: "AB", Offset: m.Files[FileTokenizer].Offset, Size: 100}
		}},
		{"chunks", "want 0 chunk hashes", func(m *Manifest) {
			b := m.Files[FileTokenizer]
			b.Chunks = []string{b.SHA256}
			m.Files[FileTokenizer] = b
		}},
		{"offset in the header", "want it at offset 64", func(m *Manifest) { m.Tensors[0].Shards[0].Values.Offset = 0 }},
		{"offset beyond", "want it at offset", func(m *Manifest) { m.Tensors[3].Shards[0].Values.Offset = 1 << 60 }},
		{"negative offset", "want it at offset", func(m *Manifest) { m.Tensors[3].Shards[0].Values.Offset = -64 }},
		{"unknown file", `file "x"`, func(m *Manifest) { m.Files["x"] = m.Files[FileTokenizer] }},
		{"missing file", "file tokenizer.bin: want it", func(m *Manifest) { delete(m.Files, FileTokenizer) }},
		{"large file", "of at most", func(m *Manifest) { m.Files[FileTokenizer] = Blob{Size: 1 << 40} }},
		{"vocabulary", "embedding tables of 41 rows", func(m *Manifest) { m.Settings.Vocabulary = 41 }},
		{"no vocabulary", "vocabulary: want 1 to", func(m *Manifest) { m.Settings.Vocabulary = 0 }},
		{"negative", "pad: want numbers in a vocabulary", func(m *Manifest) { m.Settings.Pad = -1 }},
		{"embed_dim", "input prefix", func(m *Manifest) { m.Settings.EmbedDim = 32 }},
		{"hidden_dim", "kv.0", func(m *Manifest) { m.Settings.HiddenDim = 32 }},
		{"layers", "kv.1", func(m *Manifest) { m.Settings.Layers = 2 }},
		{"max_positions", "tables of 11 rows", func(m *Manifest) { m.Settings.MaxPositions = 9 }},
		{"vision_dim", "output hidden", func(m *Manifest) { m.Settings.VisionDim = 9 }},
		{"image_size", "input pixels", func(m *Manifest) { m.Settings.ImageSize = 5 }},
		{"image_tokens", "image_tokens: want 5", func(m *Manifest) { m.Settings.ImageTokens = 6 }},
		{"visual_tokens", "output prefix", func(m *Manifest) { m.Settings.VisualTokens = 1 }},
		{"shared_dim", "output retrieval", func(m *Manifest) { m.Settings.SharedDim = 7 }},
		{"ret", "ret and image_token", func(m *Manifest) { m.Settings.RET = 38 }},
		{"program twice", "each at most once", func(m *Manifest) { m.Model.Programs = append(m.Model.Programs, m.Model.Programs[0]) }},
		{"program missing", "want lm with score", func(m *Manifest) { m.Model.Programs = m.Model.Programs[:3] }},
		{"no program", "want a program, have none", func(m *Manifest) { m.Model.Programs[1] = nil }},
		{"program name", `program "maps lm"`, func(m *Manifest) { m.Model.Programs[1].Name = "maps lm" }},
	} {
		var m Manifest
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		c.change(&m)
		if m.Settings.HeadsHash = ""; len(m.Model.Programs) < 2 || m.Model.Programs[1] != nil {
			m.Settings.HeadsHash = m.HeadsHash()
		}
		err := m.check()
		if err == nil {
			_, err = m.tile(w.at)
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	good.Settings.HeadsHash = strings.Repeat("0", 64)
	if err := good.check(); err == nil || !strings.Contains(err.Error(), "heads_hash") {
		t.Errorf("another heads_hash: %v", err)
	}
}

func TestHeadsHash(t *testing.T) {
	b, err := openBytes(tiny(t))
	if err != nil {
		t.Fatal(err)
	}
	m := &b.m
	before := m.HeadsHash()
	for i, tensor := range m.Tensors {
		old := tensor.Shards[0].Values.SHA256
		m.Tensors[i].Shards[0].Values.SHA256 = strings.Repeat("0", 64)
		changes := m.HeadsHash() != before
		m.Tensors[i].Shards[0].Values.SHA256 = old
		if want := m.Model.Weights[i].Head || strings.HasPrefix(tensor.Name, "vision_model."); changes != want {
			t.Errorf("a change of %s changes HeadsHash: %t, want %t", tensor.Name, changes, want)
		}
	}
}

func TestNeeds(t *testing.T) {
	b, err := openBytes(tiny(t))
	if err != nil {
		t.Fatal(err)
	}
	// The stacked q, k and v are 192 rows of 64 bytes, the first of them in a shard of its own.
	got := b.Manifest().Needs()
	if want := (Needs{Weights: got.Weights, Cache: 2 * 4 * 64 * 8, Buffer: 191 * 64}); got != want || got.Memory() != got.Weights+got.Cache {
		t.Errorf("Needs() = %+v, want %+v", got, want)
	}
	var blobs int64
	for _, span := range b.spans {
		blobs += span.blob.Size
	}
	if files := b.Manifest().Files; got.Weights != blobs-files[FileTokenizer].Size-files[FilePreprocessor].Size {
		t.Errorf("Needs().Weights = %d, want all %d bytes of blobs but the two files", got.Weights, blobs)
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tiny.fromage")
	files := func() string {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return strings.Join(names, " ")
	}
	create := func() (*Writer, Manifest) {
		w, err := Create(path)
		if err != nil {
			t.Fatal(err)
		}
		m := tinyManifest(t)
		fill(t, w, &m)
		return w, m
	}
	w, _ := create()
	w.Abort()
	w.Abort()
	if files() != "" {
		t.Errorf("after Abort: %s", files())
	}
	w, m := create()
	m.Settings.Layers = 7
	if err := w.Finish(m); err == nil || files() != "" {
		t.Errorf("Finish of a wrong manifest = %v, leaves %q", err, files())
	}
	w, m = create()
	boom := errors.New("boom")
	if _, err := w.Blob(func(io.Writer) error { return boom }); err != boom {
		t.Errorf("Blob = %v, want boom", err)
	}
	if err := w.Finish(m); err != boom || files() != "" {
		t.Errorf("Finish after an error = %v, leaves %q", err, files())
	}
	w, m = create()
	if err := w.Finish(m); err != nil {
		t.Fatal(err)
	}
	w.Abort()
	if files() != "tiny.fromage" {
		t.Errorf("after Finish: %q", files())
	}
	if data, err := os.ReadFile(path); err != nil || !bytes.Equal(data, tiny(t)) {
		t.Errorf("the file differs from the one in memory: %v", err)
	}
	if _, err := w.Blob(func(io.Writer) error { return nil }); err == nil {
		t.Error("Blob after Finish = nil, want an error")
	}
	if _, err := Create(filepath.Join(dir, "absent", "x")); err == nil {
		t.Error("Create in a folder that is absent = nil, want an error")
	}
	if _, err := Open(filepath.Join(dir, "absent")); err == nil {
		t.Error("Open of an absent file = nil, want an error")
	}
}

func FuzzRead(f *testing.F) {
	data := tiny(f)
	f.Add(data)
	f.Add(data[:headerSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := openBytes(data)
		if err != nil {
			return
		}
		// Errors are fine; panics are not.
		_ = b.Verify(context.Background(), nil)
	})
}

// FuzzManifest puts any manifest into a file whose header vouches for it.
func FuzzManifest(f *testing.F) {
	data := tiny(f)
	end := binary.LittleEndian.Uint64(data[16:])
	f.Add(data[end:])
	f.Fuzz(func(t *testing.T, manifest []byte) {
		file := append(data[:end:end], manifest...)
		binary.LittleEndian.PutUint64(file[24:], uint64(len(manifest)))
		sum := sha256.Sum256(manifest)
		copy(file[32:], sum[:])
		b, err := openBytes(file)
		if err != nil {
			return
		}
		if len(b.Manifest().Layouts()) != len(b.m.Model.Weights) {
			t.Error("want a layout for every weight")
		}
		_ = b.Verify(context.Background(), nil)
		for _, p := range b.m.Model.Programs {
			if _, err := p.Lower(gpu.Info{}, b.Manifest().Layouts(), plan.Run(2, 1, 1)); err != nil && !strings.Contains(err.Error(), "want one shard of f32") {
				t.Errorf("Lower(%s): %v", p.Name, err)
			}
		}
	})
}
