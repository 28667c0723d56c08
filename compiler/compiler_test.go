// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fromage/bundle"
	"fromage/compiler/checkpoint"
	"fromage/gpu/cpu"
	"fromage/model"
	"fromage/plan"
	"fromage/runner"
	"fromage/shaders"
	"fromage/tokenizer"
)

const golden = "../testdata/golden"

// whole names the parts of a golden FROMAGe.
func whole(name string) Options {
	dir := filepath.Join(golden, "fromage", name)
	return Options{
		OPT: filepath.Join(dir, "facebook/opt-tiny"), CLIP: filepath.Join(dir, "openai/clip-tiny"),
		Heads: filepath.Join(dir, "fromage_model_pretrained_ckpt.pth.tar"),
	}
}

// goldens are all golden checkpoints.
func goldens() map[string]Options {
	all := map[string]Options{"one-token": whole("one-token"), "four-tokens": whole("four-tokens")}
	for _, dir := range []string{"pre-norm", "post-norm-proj", "odd-dims-f16-bin", "sharded-bin"} {
		all[dir] = Options{OPT: filepath.Join(golden, "opt", dir)}
	}
	for _, dir := range []string{"vision", "full-clip"} {
		all[dir] = Options{CLIP: filepath.Join(golden, "clip", dir)}
	}
	return all
}

func compile(t testing.TB, o Options) *bundle.Bundle {
	t.Helper()
	var to bundle.Memory
	if err := CompileTo(context.Background(), bundle.NewWriter(&to), o); err != nil {
		t.Fatal(err)
	}
	return read(t, &to)
}

func read(t testing.TB, m *bundle.Memory) *bundle.Bundle {
	t.Helper()
	b, err := bundle.Read(m, int64(len(m.Bytes)))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Verify(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	return b
}

// blob returns a blob's bytes.
func blob(t testing.TB, b *bundle.Bundle, x bundle.Blob) []byte {
	t.Helper()
	var data []byte
	if err := b.Chunks(context.Background(), x, func(_ int64, chunk []byte) error { data = append(data, chunk...); return nil }); err != nil {
		t.Fatal(err)
	}
	return data
}

// stored decodes a weight of a bundle.
func stored(t testing.TB, b *bundle.Bundle, name string) (values []float32, format shaders.Format) {
	t.Helper()
	for i, x := range b.Manifest().Tensors {
		if x.Name != name {
			continue
		}
		cols := b.Manifest().Model.Weights[i].Cols
		for _, s := range x.Shards {
			data, scales := blob(t, b, s.Values), []byte(nil)
			if s.Scales != nil {
				scales = blob(t, b, *s.Scales)
			}
			rowBytes, scaleBytes := x.Format.RowBytes(cols), x.Format.ScaleBytes(cols)
			for r := range s.Rows {
				row := make([]float32, cols)
				x.Format.DecodeRow(data[r*rowBytes:(r+1)*rowBytes], scales[r*scaleBytes:(r+1)*scaleBytes], row)
				values = append(values, row...)
			}
		}
		return values, x.Format
	}
	t.Fatalf("the bundle has no weight %s", name)
	return nil, 0
}

// originals reads all tensors of the checkpoints by the names that package model uses.
func originals(t testing.TB, o Options) map[string][]float32 {
	t.Helper()
	all := map[string][]float32{}
	for _, path := range []string{o.OPT, o.CLIP, o.Heads} {
		if path == "" {
			continue
		}
		c, err := checkpoint.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, name := range c.Names() {
			x, _ := c.Tensor(name)
			if !strings.HasPrefix(x.DType, "F") && x.DType != "BF16" {
				continue
			}
			v := make([]float32, x.Rows()*x.RowLen())
			if err := x.ReadRows(0, x.Rows(), v); err != nil {
				t.Fatal(err)
			}
			if path == o.Heads {
				name = strings.TrimPrefix(strings.TrimPrefix(name, "state_dict."), "model.")
			} else if name == "logit_scale" {
				continue // CLIP's own
			}
			all[name] = v
		}
	}
	return all
}

// allowed is how far a value may lie from what is stored of it: nothing, half a unit of f16, half a step of the block's range (with f16 scales).
func allowed(format shaders.Format, block []float32) float64 {
	lo, hi := slices.Min(block), slices.Max(block)
	largest := max(math.Abs(float64(lo)), math.Abs(float64(hi)))
	switch format {
	case shaders.F32:
		return 0
	case shaders.F16:
		return largest/2048 + 1e-7
	case shaders.Q8:
		return largest/127*0.51 + 1e-7
	}
	// The fit may cut a tenth off each end of the range.
	return float64(hi-lo)*0.16 + largest/1000
}

func TestGolden(t *testing.T) {
	for name, o := range goldens() {
		want := originals(t, o)
		for _, o.DType = range []shaders.Format{shaders.F32, shaders.F16, shaders.Q8, shaders.Q4} {
			b := compile(t, o)
			if o.Heads != "" {
				E := b.Manifest().Settings.EmbedDim
				at := b.Manifest().Settings.ImageToken
				want[model.ImageTokenRow] = want[embedTokens][at*E : (at+1)*E]
			}
			for _, w := range b.Manifest().Model.Weights {
				got, format := stored(t, b, w.Name)
				if wanted := wantFormat(w, o.DType); format != wanted {
					t.Errorf("%s as %s: %s (%d columns) is %s, want %s", name, o.DType, w.Name, w.Cols, format, wanted)
				}
				var x []float32
				for _, s := range w.Sources {
					x = append(x, want[s.Tensor]...)
				}
				if w.Name == embedTokens {
					x = x[:w.Rows*w.Cols]
				}
				if len(got) != len(x) {
					t.Fatalf("%s as %s: %s has %d values, want %d", name, o.DType, w.Name, len(got), len(x))
				}
				block := min(32, w.Cols)
				for i := range got {
					first := i / w.Cols * w.Cols
					first += (i - first) / block * block
					if d := math.Abs(float64(got[i] - x[i])); !(d <= allowed(format, x[first:min(first+block, len(x))])) {
						t.Fatalf("%s as %s: %s[%d] = %g, want %g", name, o.DType, w.Name, i, got[i], x[i])
					}
				}
			}
		}
	}
}

// wantFormat is the policy in words: matrices as asked where whole words and blocks allow it, positions no smaller than f16, tokens and
// OPT's fc1 (all goldens are small) no smaller than q8, all else f32.
func wantFormat(w plan.WeightSpec, asked shaders.Format) shaders.Format {
	if w.Name == embedTokens || strings.HasPrefix(w.Name, "model.") && strings.HasSuffix(w.Name, ".fc1.weight") {
		asked = min(asked, shaders.Q8)
	}
	switch {
	case !w.Matrix || asked == shaders.F32:
		return shaders.F32
	case asked == shaders.Q8 && w.Cols%64 == 0 && w.Name != embedPositions, asked == shaders.Q4 && w.Cols%32 == 0 && w.Name != embedPositions:
		return asked
	case w.Cols%8 == 0:
		return shaders.F16
	}
	return shaders.F32
}

func TestSettings(t *testing.T) {
	b := compile(t, whole("four-tokens"))
	want := bundle.Settings{
		Vocabulary: 479, EmbedDim: 32, HiddenDim: 32, Layers: 3, MaxPositions: 128, VisionDim: 48, ImageSize: 32, ImageTokens: 17,
		VisualTokens: 4, SharedDim: 24, RET: 478, ImageToken: 477, BOS: 2, EOS: 2, Pad: 1, HeadsHash: b.Manifest().HeadsHash(),
	}
	if got := b.Manifest().Settings; !reflect.DeepEqual(got, want) {
		t.Errorf("settings = %+v, want %+v", got, want)
	}
	raw, err := b.File(bundle.FileTokenizer)
	if err != nil {
		t.Fatal(err)
	}
	var tok tokenizer.Tokenizer
	if err := tok.UnmarshalBinary(raw); err != nil {
		t.Fatal(err)
	}
	if ids := tok.Encode("a[RET]<|image|>", false); len(ids) < 3 || ids[len(ids)-2] != 478 || ids[len(ids)-1] != 477 || tok.Special(478) || !tok.Special(477) {
		t.Errorf("Encode(a[RET]<|image|>) = %v, want 478 and the special 477 at the end", ids)
	}
	file, err := os.ReadFile(filepath.Join(golden, "fromage/four-tokens/openai/clip-tiny/preprocessor_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := b.File(bundle.FilePreprocessor); err != nil || !bytes.Equal(got, file) {
		t.Errorf("preprocessor_config.json differs from the checkpoint's: %v", err)
	}
	if len(b.Manifest().Sources) != 4 || b.Manifest().Name != "opt-tiny + clip-tiny + fromage_model_pretrained_ckpt.pth.tar" {
		t.Errorf("sources %v of %q, want four and the names of the parts", b.Manifest().Sources, b.Manifest().Name)
	}
}

// TestImageTokenRow holds the row of <|image|> to the one that the reference has after resizing the table.
func TestImageTokenRow(t *testing.T) {
	for _, name := range []string{"one-token", "four-tokens"} {
		f, err := checkpoint.Open(filepath.Join(golden, "fromage", name, "expected.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		x, ok := f.Tensor("trained.image_token_embedding")
		if !ok {
			t.Fatal("no trained.image_token_embedding")
		}
		want := make([]float32, x.Rows()*x.RowLen())
		if err := x.ReadRows(0, x.Rows(), want); err != nil {
			t.Fatal(err)
		}
		b := compile(t, whole(name))
		if got, _ := stored(t, b, model.AddedTokens); !slices.Equal(got[:len(want)], want) {
			t.Errorf("%s: row of <|image|> = %v, want %v", name, got[:4], want[:4])
		}
	}
}

func TestImageTokenRowElsewhere(t *testing.T) {
	// The heads' own row goes before OPT's.
	o := whole("four-tokens")
	heads := headTensors(t, o.Heads)
	own := slices.Repeat([]float32{0.25}, 32)
	o.Heads = filepath.Join(t.TempDir(), "heads.safetensors")
	writeTensors(t, o.Heads, append(heads, named{model.ImageTokenRow, []int{1, 32}, own}), nil)
	if got, _ := stored(t, compile(t, o), model.AddedTokens); !slices.Equal(got[:32], own) {
		t.Errorf("row of <|image|> = %v, want the heads' own", got[:32])
	}
	// A table that ends with the tokenizer has none: the mean.
	o = whole("four-tokens")
	o.OPT = copyDir(t, o.OPT)
	file := filepath.Join(o.OPT, "model.safetensors")
	tensors := readTensors(t, file)
	mean := make([]float32, 32)
	for i := range tensors {
		if x := &tensors[i]; x.name == embedTokens {
			x.shape[0] = 477
			x.values = x.values[:477*32]
			for j := range mean {
				sum := 0.0
				for r := range 477 {
					sum += float64(x.values[r*32+j])
				}
				mean[j] = float32(sum / 477)
			}
		}
	}
	writeTensors(t, file, tensors, nil)
	edit(t, filepath.Join(o.OPT, "config.json"), `"vocab_size": 520`, `"vocab_size": 477`)
	if got, _ := stored(t, compile(t, o), model.AddedTokens); !slices.Equal(got[:32], mean) {
		t.Errorf("row of <|image|> = %v, want the mean %v", got[:4], mean[:4])
	}
}

func TestDeterministic(t *testing.T) {
	o := whole("one-token")
	o.DType = shaders.Q4
	var first bundle.Memory
	for i := range 3 {
		var to bundle.Memory
		if err := CompileTo(context.Background(), bundle.NewWriter(&to), o); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = to
		} else if !bytes.Equal(first.Bytes, to.Bytes) {
			t.Fatal("compiling again makes another file")
		}
	}
}

// TestShards compiles with shards of a few rows: the model must compute exactly what it computes in one piece.
func TestShards(t *testing.T) {
	for _, dtype := range []shaders.Format{shaders.F32, shaders.Q8} {
		o := whole("one-token")
		o.DType = dtype
		var want *runner.Outputs
		for _, maxShard := range []int{bundle.MaxShard, 2000} {
			in, err := open(o)
			if err != nil {
				t.Fatal(err)
			}
			defer in.close()
			l, err := in.layout(dtype, maxShard)
			if err != nil {
				t.Fatal(err)
			}
			var to bundle.Memory
			if err := in.write(context.Background(), bundle.NewWriter(&to), l, o); err != nil {
				t.Fatal(err)
			}
			b := read(t, &to)
			layout := b.Manifest().Layouts()["model.decoder.layers.0.self_attn.q_proj.weight"]
			if split := len(layout.Shards) > 1; split != (maxShard == 2000) {
				t.Errorf("shards of %d bytes: qkv in %v rows", maxShard, layout.Shards)
			}
			got := outputs(t, b)
			if want == nil {
				want = got
			} else if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: outputs in shards of %d bytes differ", dtype, maxShard)
			}
		}
	}
}

// TestPieces writes weights of several pieces, stacked of tensors whose ends are not those of pieces.
func TestPieces(t *testing.T) {
	for _, c := range []struct {
		format     shaders.Format
		rows, cols int
	}{{shaders.F32, pieceValues + 5, 1}, {shaders.Q8, 5003, 1024}, {shaders.F32, 3, pieceValues + 1}, {shaders.F16, pieceValues/8 + 1, 8}} {
		value := func(i int) float32 { return float32(i%4093) - 2000 }
		x := weight{name: "x", rows: c.rows, cols: c.cols, format: c.format, shards: []int{1, c.rows - 1}}
		for at, n := 0, 0; at < c.rows; at += n {
			n = min(c.rows-at, c.rows/3+1)
			x.sources = append(x.sources, source{tensor{read: func(first, n int, dst []float32) error {
				for i := range dst {
					dst[i] = value((at+first)*c.cols + i)
				}
				return nil
			}}, 0, n, c.cols})
		}
		var to bundle.Memory
		w := &writer{ctx: context.Background(), to: bundle.NewWriter(&to)}
		got, err := w.weight(&x)
		if err != nil {
			t.Fatal(err)
		}
		row, first := make([]float32, c.cols), 0
		for _, s := range got.Shards {
			values, scales := make([]byte, 0, s.Values.Size), []byte(nil)
			for r := first; r < first+s.Rows; r++ {
				for i := range row {
					row[i] = value(r*c.cols + i)
				}
				v, sc := make([]byte, c.format.RowBytes(c.cols)), make([]byte, c.format.ScaleBytes(c.cols))
				c.format.EncodeRow(row, v, sc)
				values, scales = append(values, v...), append(scales, sc...)
			}
			first += s.Rows
			values = append(values, make([]byte, pad16(len(values))-int64(len(values)))...)
			if !bytes.Equal(to.Bytes[s.Values.Offset:][:s.Values.Size], values) {
				t.Errorf("%s %d × %d: values of %d rows differ", c.format, c.rows, c.cols, s.Rows)
			}
			if s.Scales != nil && !bytes.Equal(to.Bytes[s.Scales.Offset:][:len(scales)], scales) || s.Scales == nil && len(scales) > 0 {
				t.Errorf("%s %d × %d: scales of %d rows differ", c.format, c.rows, c.cols, s.Rows)
			}
		}
	}
}

// outputs runs text through the language model on the cpu device.
func outputs(t *testing.T, b *bundle.Bundle) *runner.Outputs {
	t.Helper()
	r, err := runner.Load(context.Background(), cpu.New(), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := r.NewSequence()
	defer s.Close()
	for _, id := range []int{2, 17, 450, 477, 478, 33} {
		s.AppendTokens(runner.Token{ID: id})
	}
	out, err := r.Outputs(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestLayout66B decides for the largest OPT, in f32, without any file.
func TestLayout66B(t *testing.T) {
	in := &inventory{tensors: map[string]tensor{}, config: model.Config{
		OPT: &model.OPT{VocabSize: 50272, HiddenSize: 9216, Layers: 64, FFN: 36864, MaxPositions: 2048, Heads: 72, WordEmbedProjDim: 9216, PreNorm: true, Bias: true, Activation: "relu"},
	}}
	var err error
	if in.model, err = model.Build(in.config); err != nil {
		t.Fatal(err)
	}
	for _, w := range in.model.Weights {
		total := 0
		for _, s := range w.Sources {
			total += s.Rows
		}
		for _, s := range w.Sources {
			in.tensors[s.Tensor] = tensor{name: s.Tensor, file: "x", shape: []int{s.Rows, w.Rows * w.Cols / total}}
		}
	}
	for _, c := range []struct {
		dtype     shaders.Format
		fc1, most int // shards of fc1, most bytes in all
	}{{shaders.F32, 11, 266e9}, {shaders.F16, 6, 133e9}, {shaders.Q8, 3, 71e9}, {shaders.Q4, 2, 42e9}} {
		l, err := in.layout(c.dtype, bundle.MaxShard)
		if err != nil {
			t.Fatal(err)
		}
		if l.total > int64(c.most) || l.total < int64(c.most)*9/10 {
			t.Errorf("%s: %d bytes in all, want about %d", c.dtype, l.total, c.most)
		}
		for _, w := range l.weights {
			rows := 0
			for _, n := range w.shards {
				rows += n
				if size := pad16(n * w.format.RowBytes(w.cols)); size > bundle.MaxShard || n <= 0 {
					t.Errorf("%s: %s: a shard of %d rows, %d bytes", c.dtype, w.name, n, size)
				}
			}
			if rows != w.rows {
				t.Errorf("%s: %s: shards of %d rows, want %d", c.dtype, w.name, rows, w.rows)
			}
			if strings.HasSuffix(w.name, "fc1.weight") && len(w.shards) != c.fc1 {
				t.Errorf("%s: %s in %d shards, want %d", c.dtype, w.name, len(w.shards), c.fc1)
			}
		}
	}
}

// TestNames compiles checkpoints that name their tensors otherwise; the weights must come out the same.
func TestNames(t *testing.T) {
	opt, clip, fromage := Options{OPT: filepath.Join(golden, "opt/pre-norm")}, Options{CLIP: filepath.Join(golden, "clip/vision")}, whole("one-token")
	for _, c := range []struct {
		name   string
		o      Options
		change func(*testing.T, *Options)
	}{
		{"opt without model.", opt, renamed(func(n string) string { return strings.TrimPrefix(n, "model.") })},
		{"opt with its head", opt, func(t *testing.T, o *Options) {
			changeTensors(t, o, func(all []named) []named {
				for _, x := range all {
					if x.name == embedTokens {
						return append(all, named{lmHead, x.shape, x.values})
					}
				}
				return nil
			})
		}},
		{"opt with the head alone", opt, renamed(func(n string) string { return strings.Replace(n, embedTokens, lmHead, 1) })},
		{"old opt config", opt, func(t *testing.T, o *Options) {
			o.OPT = copyDir(t, o.OPT)
			for _, key := range []string{`"enable_bias": true,`, `"layer_norm_elementwise_affine": true,`, `"tie_word_embeddings": true,`, `"_remove_final_layer_norm": false,`} {
				edit(t, filepath.Join(o.OPT, "config.json"), key, "")
			}
		}},
		{"clip without prefix", clip, renamed(func(n string) string { return strings.TrimPrefix(n, "vision_model.") })},
		{"heads wrapped", fromage, func(t *testing.T, o *Options) {
			tensors := headTensors(t, o.Heads)
			for i := range tensors {
				tensors[i].name = "state_dict.module.model." + tensors[i].name
			}
			o.Heads = t.TempDir()
			writeTensors(t, filepath.Join(o.Heads, "model.safetensors"), tensors, nil)
		}},
		{"heads with their arguments", fromage, func(t *testing.T, o *Options) {
			tensors := headTensors(t, o.Heads)
			o.Heads = filepath.Join(t.TempDir(), "heads.safetensors")
			writeTensors(t, o.Heads, tensors, map[string]string{"model_args": `{"n_visual_tokens":1,"shared_emb_dim":32,"text_emb_layers":[-1]}`})
		}},
		{"flat row of [RET]", fromage, func(t *testing.T, o *Options) {
			tensors := headTensors(t, o.Heads)
			for i := range tensors {
				if tensors[i].name == model.RETRow {
					tensors[i].shape = tensors[i].shape[1:]
				}
			}
			o.Heads = filepath.Join(t.TempDir(), "heads.safetensors")
			writeTensors(t, o.Heads, tensors, nil)
		}},
	} {
		want := compile(t, c.o).Manifest()
		c.change(t, &c.o)
		got := compile(t, c.o).Manifest()
		if !reflect.DeepEqual(got.Tensors, want.Tensors) || !reflect.DeepEqual(got.Settings, want.Settings) {
			t.Errorf("%s: the bundle differs", c.name)
		}
	}
}

func TestProgressAndCancel(t *testing.T) {
	dir := t.TempDir()
	o := whole("one-token")
	o.DType, o.Out = shaders.Q8, filepath.Join(dir, "x.bundle")
	var last Progress
	o.Progress = func(p Progress) {
		if p.Done <= last.Done || p.Tensor == "" || p.Total <= 0 || p.Rate() <= 0 {
			t.Errorf("progress %+v after %+v", p, last)
		}
		last = p
	}
	if err := Compile(context.Background(), o); err != nil || last.Done != last.Total {
		t.Fatalf("Compile = %v, progress up to %d of %d", err, last.Done, last.Total)
	}
	before, err := os.ReadFile(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	o.Progress = func(p Progress) {
		if p.Done > p.Total/2 {
			cancel()
		}
	}
	if err := Compile(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("Compile after cancel = %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%d files are left, want the old bundle", len(left))
	}
	if after, err := os.ReadFile(o.Out); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the old bundle is changed: %v", err)
	}
}

// full is a disk with room for so many bytes.
type full struct {
	bundle.Memory
	room int64
}

func (f *full) WriteAt(p []byte, offset int64) (int, error) {
	if offset+int64(len(p)) > f.room {
		return 0, errors.New("no space left on device")
	}
	return f.Memory.WriteAt(p, offset)
}

func TestDiskFull(t *testing.T) {
	o := whole("one-token")
	var whole bundle.Memory
	if err := CompileTo(context.Background(), bundle.NewWriter(&whole), o); err != nil {
		t.Fatal(err)
	}
	size := int64(len(whole.Bytes))
	for _, room := range []int64{0, 100, 10000, size / 2, size - 100000, size - 1} {
		err := CompileTo(context.Background(), bundle.NewWriter(&full{room: room}), o)
		if err == nil || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("room for %d of %d bytes: %v, want no space", room, size, err)
		}
	}
}
