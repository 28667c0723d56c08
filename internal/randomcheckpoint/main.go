// SPDX-License-Identifier: Apache-2.0

// Command randomcheckpoint makes checkpoints of public models' shapes with random weights, to measure with: an OPT in sharded f16 safetensors, a CLIP
// vision tower, FROMAGe's heads, and a tokenizer of the right length.
//
//	go run ./internal/randomcheckpoint -shape 6.7b -clip l14 -o DIR
//
// makes DIR/opt, DIR/clip and DIR/heads. Equal flags make equal files. Weights are normal with a deviation of 1/√columns, so that activations keep
// their size; nothing is held in memory but one buffer.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fromage/compiler/safetensors"
	"fromage/model"
)

func main() {
	log.SetFlags(0)
	opts, clips := model.OPTShapes(), model.CLIPShapes()
	shape := flag.String("shape", "125m", "of the OPT: "+strings.Join(slices.Sorted(maps.Keys(opts)), ", "))
	tower := flag.String("clip", "l14", "shape of the CLIP: "+strings.Join(slices.Sorted(maps.Keys(clips)), ", "))
	visual := flag.Int("visual-tokens", 1, "visual tokens of the heads")
	shard := flag.Int64("shard", 5<<30, "most bytes of an OPT file")
	out := flag.String("o", "", "folder to make the checkpoints in")
	flag.Parse()
	o, ok := opts[*shape]
	c, ok2 := clips[*tower]
	if *out == "" || !ok || !ok2 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := generate(*out, o, c, *visual, *shard); err != nil {
		log.Fatal("randomcheckpoint: ", err)
	}
}

// added is how many tokens OPT's table has rows for beyond its tokenizer.
const added = 7

func generate(dir string, o model.OPT, c model.CLIP, visual int, shard int64) error {
	heads := model.Heads{VisualTokens: visual, SharedDim: 256, TextLayers: []int{-1}, RET: o.VocabSize - added + 1}
	m, err := model.Build(model.Config{OPT: &o, CLIP: &c, Heads: &heads, Vocabulary: o.VocabSize - added + 2})
	if err != nil {
		return err
	}
	var lm, vision, maps []safetensors.Source
	for _, w := range m.Weights {
		total := 0
		for _, s := range w.Sources {
			total += s.Rows
		}
		for _, s := range w.Sources {
			t := randomTensor(s.Tensor, s.Rows, w.Rows*w.Cols/total)
			switch {
			case s.Tensor == model.ImageTokenRow: // OPT's own row, as in the released model
			case s.Tensor == "model.decoder.embed_tokens.weight":
				lm = append(lm, randomTensor(s.Tensor, o.VocabSize, w.Cols))
			case strings.HasPrefix(s.Tensor, "model.decoder."):
				lm = append(lm, t)
			case s.Tensor == "vision_model.embeddings.patch_embedding.weight":
				t.Shape = []int{s.Rows, 3, c.PatchSize, c.PatchSize}
				vision = append(vision, t)
			case strings.HasPrefix(s.Tensor, "vision_model."):
				vision = append(vision, t)
			default:
				maps = append(maps, t)
			}
		}
	}
	for _, part := range []struct {
		dir     string
		sources []safetensors.Source
		files   map[string]any
	}{
		{"opt", lm, map[string]any{"config.json": o}},
		{"clip", vision, map[string]any{"config.json": c, "preprocessor_config.json": preprocessor(c.ImageSize)}},
		{"heads", maps, map[string]any{"model_args.json": heads}},
	} {
		if err := writePart(filepath.Join(dir, part.dir), part.sources, part.files, shard); err != nil {
			return err
		}
	}
	return writeTokenizer(filepath.Join(dir, "opt"), o.VocabSize-added)
}

func preprocessor(size int) any {
	return map[string]any{
		"crop_size": map[string]int{"height": size, "width": size}, "size": map[string]int{"shortest_edge": size},
		"do_center_crop": true, "do_normalize": true, "do_rescale": true, "do_resize": true, "do_convert_rgb": true, "resample": 3, "rescale_factor": 1.0 / 255,
		"image_mean": []float64{0.48145466, 0.4578275, 0.40821073}, "image_std": []float64{0.26862954, 0.26130258, 0.27577711},
		"image_processor_type": "CLIPImageProcessor",
	}
}

func writePart(dir string, sources []safetensors.Source, files map[string]any, shard int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, content := range files {
		if err := writeJSON(filepath.Join(dir, name), content); err != nil {
			return err
		}
	}
	return writeShards(dir, sources, shard)
}

func writeJSON(path string, content any) error {
	data, err := json.MarshalIndent(content, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// writeShards writes one file, or several of at most limit bytes and their index.
func writeShards(dir string, sources []safetensors.Source, limit int64) error {
	var shards [][]safetensors.Source
	size, total := int64(0), int64(0)
	for _, s := range sources {
		n := bytesOf(s)
		if len(shards) == 0 || size+n > limit {
			shards, size = append(shards, nil), 0
		}
		shards[len(shards)-1] = append(shards[len(shards)-1], s)
		size += n
		total += n
	}
	if len(shards) == 1 {
		return writeFile(filepath.Join(dir, "model.safetensors"), shards[0])
	}
	weights := map[string]string{}
	for i, shard := range shards {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		for _, s := range shard {
			weights[s.Name] = name
		}
		if err := writeFile(filepath.Join(dir, name), shard); err != nil {
			return err
		}
	}
	return writeJSON(filepath.Join(dir, "model.safetensors.index.json"), map[string]any{"metadata": map[string]int64{"total_size": total}, "weight_map": weights})
}

func writeFile(path string, sources []safetensors.Source) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := safetensors.Write(f, sources, map[string]string{"format": "pt"}); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
