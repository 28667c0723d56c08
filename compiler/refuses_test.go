// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fromage/compiler/checkpoint"
	"fromage/compiler/safetensors"
	"fromage/model"
	"fromage/shaders"
)

func TestRefuses(t *testing.T) {
	opt, clip, fromage := Options{OPT: filepath.Join(golden, "opt/pre-norm")}, Options{CLIP: filepath.Join(golden, "clip/vision")}, whole("one-token")
	const fc1 = "model.decoder.layers.1.fc1.weight"
	set := func(name string, change func(*named)) func(*testing.T, *Options) {
		return func(t *testing.T, o *Options) {
			changeTensors(t, o, func(all []named) []named {
				for i := range all {
					if all[i].name == name {
						change(&all[i])
					}
				}
				return all
			})
		}
	}
	config := func(old, new string) func(*testing.T, *Options) {
		return func(t *testing.T, o *Options) {
			dir := &o.OPT
			if o.OPT == "" {
				dir = &o.CLIP
			}
			*dir = copyDir(t, *dir)
			edit(t, filepath.Join(*dir, "config.json"), old, new)
		}
	}
	for _, c := range []struct {
		name, want string
		o          Options
		dtype      shaders.Format
		change     func(*testing.T, *Options)
	}{
		{"nothing", "want an OPT or a CLIP", Options{}, 0, func(*testing.T, *Options) {}},
		{"heads alone", "and both where there are heads", Options{OPT: opt.OPT, Heads: fromage.Heads}, 0, func(*testing.T, *Options) {}},
		{"missing folder", "no such file", opt, 0, func(_ *testing.T, o *Options) { o.OPT += "x" }},
		{"missing weights", "want one of model.safetensors", opt, 0, func(t *testing.T, o *Options) {
			o.OPT = copyDir(t, o.OPT)
			os.Remove(filepath.Join(o.OPT, "model.safetensors"))
		}},
		{"truncated", "model.safetensors", opt, 0, func(t *testing.T, o *Options) {
			o.OPT = copyDir(t, o.OPT)
			if err := os.Truncate(filepath.Join(o.OPT, "model.safetensors"), 300000); err != nil {
				t.Fatal(err)
			}
		}},
		{"truncated heads", "pth.tar", fromage, 0, func(t *testing.T, o *Options) {
			data, err := os.ReadFile(o.Heads)
			if err != nil {
				t.Fatal(err)
			}
			o.Heads = filepath.Join(t.TempDir(), "heads.pth.tar")
			if err := os.WriteFile(o.Heads, data[:len(data)/2], 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"missing tensor", "want tensor " + fc1 + ", have none; the nearest is model.decoder.layers.0.fc1.weight in", opt, 0,
			renamed(func(n string) string { return strings.Replace(n, fc1, "other", 1) })},
		{"shape", "tensor " + fc1 + ": want 160 × 64 values as the configuration says, have shape [64 160]", opt, 0,
			set(fc1, func(x *named) { x.shape = []int{64, 160} })},
		{"NaN", "tensor " + fc1 + ": row 159: shaders: f32 weight: value 63 of the row: want a magnitude of at most 3.4028234663852886e+38, have NaN", opt, 0,
			set(fc1, func(x *named) { x.values[len(x.values)-1] = float32(math.NaN()) })},
		{"infinity", "tensor model.decoder.layers.1.fc1.bias: row 0: shaders: f32 weight: value 3 of the row", opt, 0,
			set("model.decoder.layers.1.fc1.bias", func(x *named) { x.values[3] = float32(math.Inf(-1)) })},
		{"too large", "tensor " + fc1 + ": row 1: shaders: f16 weight: value 2 of the row: want a magnitude of at most 65504, have 70000", opt, shaders.F16,
			set(fc1, func(x *named) { x.values[64+2] = 70000 })},
		{"NaN in the second of three stacked", "self_attn.k_proj.weight: row 5: shaders: q4 weight: value 1 of the row", opt, shaders.Q4,
			set("model.decoder.layers.0.self_attn.k_proj.weight", func(x *named) { x.values[5*64+1] = float32(math.NaN()) })},
		{"model_type", `want model_type opt, have "llama"`, opt, 0, config(`"model_type": "opt"`, `"model_type": "llama"`)},
		{"clip model_type", `want model_type clip or clip_vision_model, have "siglip"`, clip, 0, config(`"model_type": "clip_vision_model"`, `"model_type": "siglip"`)},
		{"config is no JSON", "config.json", opt, 0, config("{", "[")},
		{"too few layers", "want the 2 layers of", opt, 0, config(`"num_hidden_layers": 3`, `"num_hidden_layers": 2`)},
		{"too many layers", "want tensor model.decoder.layers.3.", opt, 0, config(`"num_hidden_layers": 3`, `"num_hidden_layers": 4`)},
		{"absurdly many layers", "num_hidden_layers: want at most the 52 tensors", opt, 0, config(`"num_hidden_layers": 3`, `"num_hidden_layers": 4000000`)},
		{"vocabulary", "embed_tokens.weight: want 522 × 64 values", opt, 0, config(`"vocab_size": 523`, `"vocab_size": 522`)},
		{"tokenizer too long", "want a tokenizer of at most vocab_size = 400 tokens, have 477", opt, 0, config(`"vocab_size": 523`, `"vocab_size": 400`)},
		{"no tokenizer", "want tokenizer.json", fromage, 0, func(t *testing.T, o *Options) {
			o.OPT = copyDir(t, o.OPT)
			for _, name := range []string{"tokenizer.json", "vocab.json"} {
				os.Remove(filepath.Join(o.OPT, name))
			}
		}},
		{"preprocessor that is no JSON", "preprocessor_config.json", fromage, 0, func(t *testing.T, o *Options) {
			o.CLIP = copyDir(t, o.CLIP)
			edit(t, filepath.Join(o.CLIP, "preprocessor_config.json"), "{", "")
		}},
		{"preprocessor of another size", "pictures of 32 pixels", fromage, 0, func(t *testing.T, o *Options) {
			o.CLIP = copyDir(t, o.CLIP)
			edit(t, filepath.Join(o.CLIP, "preprocessor_config.json"), `"height": 32`, `"height": 64`)
		}},
		{"no preprocessor", "preprocessor_config.json", fromage, 0, func(t *testing.T, o *Options) {
			o.CLIP = copyDir(t, o.CLIP)
			os.Remove(filepath.Join(o.CLIP, "preprocessor_config.json"))
		}},
		{"another head", "lm_head.weight: row 1, column 0: want ", opt, 0, func(t *testing.T, o *Options) {
			changeTensors(t, o, func(all []named) []named {
				for _, x := range all {
					if x.name == embedTokens {
						values := slices.Clone(x.values)
						values[64]++
						return append(all, named{lmHead, x.shape, values})
					}
				}
				return nil
			})
		}},
		{"head of another shape", "lm_head.weight: want shape [523 64]", opt, 0, func(t *testing.T, o *Options) {
			changeTensors(t, o, func(all []named) []named { return append(all, named{lmHead, []int{1, 2}, []float32{1, 2}}) })
		}},
		{"one tensor twice", "are both model.decoder.final_layer_norm.bias", opt, 0, func(t *testing.T, o *Options) {
			changeTensors(t, o, func(all []named) []named {
				return append(all, named{"decoder.final_layer_norm.bias", []int{64}, make([]float32, 64)})
			})
		}},
		{"heads of another OPT", "want 64 × 48 values as the configuration says, have shape [128 48]", fromage, 0, func(_ *testing.T, o *Options) {
			o.Heads = whole("four-tokens").Heads
			o.Heads = copyHeads(t, o.Heads, fromage.Heads)
		}},
		{"[RET] elsewhere", "as the last of 479 tokens, have 400", fromage, 0, func(t *testing.T, o *Options) {
			o.Heads = copyHeads(t, o.Heads, o.Heads)
			edit(t, filepath.Join(filepath.Dir(o.Heads), argsFile), `"retrieval_token_idx": 478`, `"retrieval_token_idx": 400`)
		}},
		{"no row of [RET]", "want tensor ret_input_embeddings.weight", fromage, 0, func(t *testing.T, o *Options) {
			tensors := slices.DeleteFunc(headTensors(t, o.Heads), func(x named) bool { return x.name == model.RETRow })
			o.Heads = filepath.Join(t.TempDir(), "heads.safetensors")
			writeTensors(t, o.Heads, tensors, nil)
		}},
		{"heads that say nothing", "want tensors visual_embeddings.weight", fromage, 0, func(t *testing.T, o *Options) {
			o.Heads = filepath.Join(t.TempDir(), "heads.safetensors")
			writeTensors(t, o.Heads, []named{{"x", []int{1}, []float32{1}}}, nil)
		}},
		{"heads that fit no E", "these heads are of another OPT", fromage, 0, func(t *testing.T, o *Options) {
			o.Heads = filepath.Join(t.TempDir(), "heads.safetensors")
			writeTensors(t, o.Heads, []named{{"visual_embeddings.weight", []int{65, 1}, make([]float32, 65)}, {"visual_fc.weight", []int{1, 1}, []float32{1}}}, nil)
		}},
	} {
		o := c.o
		c.change(t, &o)
		dir := t.TempDir()
		o.DType, o.Out = c.dtype, filepath.Join(dir, "x.bundle")
		err := Compile(context.Background(), o)
		if err == nil || !strings.HasPrefix(err.Error(), "compiler: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: %s is left behind", c.name, left[0].Name())
		}
	}
}

// named is a tensor of a test's checkpoint.
type named struct {
	name   string
	shape  []int
	values []float32
}

func readTensors(t *testing.T, path string) []named {
	t.Helper()
	c, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var all []named
	for _, name := range c.Names() {
		x, _ := c.Tensor(name)
		v := make([]float32, x.Rows()*x.RowLen())
		if err := x.ReadRows(0, x.Rows(), v); err != nil {
			t.Fatal(err)
		}
		all = append(all, named{name, slices.Clone(x.Shape), v})
	}
	return all
}

// headTensors reads a reference's checkpoint under the plain names.
func headTensors(t *testing.T, path string) []named {
	t.Helper()
	var heads []named
	for _, x := range readTensors(t, path) {
		if x.name = headName(x.name); x.name != "" {
			heads = append(heads, x)
		}
	}
	return heads
}

func writeTensors(t *testing.T, path string, tensors []named, metadata map[string]string) {
	t.Helper()
	var sources []safetensors.Source
	for _, x := range tensors {
		var data []byte
		for _, v := range x.values {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
		sources = append(sources, safetensors.Source{Name: x.name, DType: "F32", Shape: x.shape, Data: bytes.NewReader(data)})
	}
	var out bytes.Buffer
	if err := safetensors.Write(&out, sources, metadata); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// changeTensors copies the checkpoint of o, which has an OPT or a CLIP, with other tensors.
func changeTensors(t *testing.T, o *Options, change func([]named) []named) {
	t.Helper()
	dir := &o.OPT
	if o.OPT == "" {
		dir = &o.CLIP
	}
	*dir = copyDir(t, *dir)
	file := filepath.Join(*dir, "model.safetensors")
	writeTensors(t, file, change(readTensors(t, file)), nil)
}

func renamed(rename func(string) string) func(*testing.T, *Options) {
	return func(t *testing.T, o *Options) {
		changeTensors(t, o, func(all []named) []named {
			for i := range all {
				all[i].name = rename(all[i].name)
			}
			return all
		})
	}
}

// copyDir copies a checkpoint's files into a folder that the test may change.
func copyDir(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), filepath.Base(dir))
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			copyFile(t, filepath.Join(dir, e.Name()), filepath.Join(to, e.Name()))
		}
	}
	return to
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// copyHeads puts the heads file beside a copy of the model_args.json that lies beside args.
func copyHeads(t *testing.T, heads, args string) string {
	t.Helper()
	dir := t.TempDir()
	to := filepath.Join(dir, filepath.Base(heads))
	copyFile(t, heads, to)
	copyFile(t, filepath.Join(filepath.Dir(args), argsFile), filepath.Join(dir, argsFile))
	return to
}

// edit replaces text that must be there.
func edit(t *testing.T, path, old, new string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data, []byte(old)) {
		t.Fatal(fmt.Errorf("%s has no %s", path, old))
	}
	if err := os.WriteFile(path, bytes.Replace(data, []byte(old), []byte(new), 1), 0o600); err != nil {
		t.Fatal(err)
	}
}
