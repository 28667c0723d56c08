// SPDX-License-Identifier: Apache-2.0

package testmodel

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fromage/compiler/safetensors"
	"fromage/model"
)

// CLIPConfig is a small CLIPModel's config.json. Its text tower ends texts with token 1, and takes them from WriteCLIPTokenizer.
func CLIPConfig(eos int) map[string]any {
	return map[string]any{
		"model_type": "clip", "projection_dim": 12,
		"vision_config": map[string]any{"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32, "patch_size": 8},
		"text_config": map[string]any{
			"vocab_size": 530, "hidden_size": 20, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16,
			"hidden_act": "quick_gelu", "bos_token_id": 0, "eos_token_id": eos,
		},
	}
}

// WriteCLIP writes a CLIPModel with random weights, all f32, as Hugging Face lays it out, and returns the weights by name.
func WriteCLIP(t testing.TB, dir string, config map[string]any) map[string][]float32 {
	t.Helper()
	raw := WriteConfig(t, dir, config)
	vision, err := model.ParseCLIP(raw)
	if err != nil {
		t.Fatal(err)
	}
	text, err := model.ParseCLIPText(raw)
	if err != nil {
		t.Fatal(err)
	}
	built, err := model.Build(model.Config{CLIP: vision, Text: text})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	weights := map[string][]float32{}
	var sources []safetensors.Source
	for _, w := range built.Weights {
		total := 0
		for _, s := range w.Sources {
			total += s.Rows
		}
		for _, s := range w.Sources {
			width := w.Rows * w.Cols / total
			x := make([]float32, s.Rows*width)
			for i := range x {
				x[i] = float32(rng.NormFloat64() / math.Sqrt(float64(width)))
				if strings.Contains(s.Tensor, "norm") && strings.HasSuffix(s.Tensor, ".weight") {
					x[i] += 1
				}
			}
			weights[s.Tensor] = x
			var data bytes.Buffer
			_ = binary.Write(&data, binary.LittleEndian, x)
			shape := []int{s.Rows, width}
			switch {
			case strings.HasSuffix(s.Tensor, "patch_embedding.weight"):
				shape = []int{s.Rows, 3, vision.PatchSize, vision.PatchSize}
			case s.Rows == 1:
				shape = shape[1:]
			}
			sources = append(sources, safetensors.Source{Name: s.Tensor, DType: "F32", Shape: shape, Data: &data})
		}
	}
	f, err := os.Create(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := safetensors.Write(f, sources, nil); err != nil {
		t.Fatal(err)
	}
	size := vision.ImageSize
	writeJSON(t, dir, "preprocessor_config.json", map[string]any{"crop_size": size, "size": size, "image_processor_type": "CLIPImageProcessor"})
	return weights
}

// WriteConfig writes a config.json alone.
func WriteConfig(t testing.TB, dir string, config map[string]any) []byte {
	t.Helper()
	return writeJSON(t, dir, "config.json", config)
}

// WriteCLIPTokenizer writes vocab.json and merges.txt of CLIP's kind: its two tokens, the bytes within a word and at its end, and a few merges.
func WriteCLIPTokenizer(t testing.TB, dir string) {
	t.Helper()
	vocab := map[string]int{"<|startoftext|>": 0, "<|endoftext|>": 1}
	next := rune(256)
	for b := range rune(256) {
		r := b
		if !(b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae) {
			r = next
			next++
		}
		vocab[string(r)], vocab[string(r)+"</w>"] = len(vocab), len(vocab)+1
	}
	merges := "#version: 0.2\n"
	for _, m := range []string{"a t</w>", "c at</w>", "o n</w>", "t h", "th e</w>", "i n", "a in", "l l</w>", "' s</w>", "d o", "do g</w>"} {
		left, right, _ := strings.Cut(m, " ")
		vocab[left+right] = len(vocab)
		merges += fmt.Sprintln(m)
	}
	writeJSON(t, dir, "vocab.json", vocab)
	if err := os.WriteFile(filepath.Join(dir, "merges.txt"), []byte(merges), 0o666); err != nil {
		t.Fatal(err)
	}
}

func writeJSON(t testing.TB, dir, name string, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err == nil {
		err = os.MkdirAll(dir, 0o777)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), data, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}
