// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"fromage/compiler/safetensors"
	"fromage/model"
)

const (
	argsFile  = "model_args.json"
	headsFile = "pretrained_ckpt.pth.tar" // of the released models; without it a folder has its heads as any checkpoint has its weights
)

// openHeads opens FROMAGe's trained tensors and what says how they are used: model_args.json beside them, a "model_args" entry in the metadata of a
// safetensors file, or else their shapes.
func (in *inventory) openHeads(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if info.IsDir() {
		dir = path
		if released := filepath.Join(dir, headsFile); exists(released) {
			path = released
		}
	}
	if err := in.openWeights(path, headName); err != nil {
		return err
	}
	args, err := in.readConfig("heads", filepath.Join(dir, argsFile))
	if errors.Is(err, fs.ErrNotExist) {
		args, err = metadataArgs(path)
	}
	if err != nil {
		return err
	}
	if args == nil {
		in.config.Heads, err = in.inferHeads(path)
		return err
	}
	if in.config.Heads, err = model.ParseHeads(args); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// newHeads are maps of zeros.
func (in *inventory) newHeads(h *model.Heads) {
	in.config.Heads = h
	zeros := func(name string, shape ...int) {
		in.tensors[name] = tensor{name: name, file: "new heads", shape: shape, read: func(_, _ int, dst []float32) error {
			clear(dst)
			return nil
		}}
	}
	linear := func(name string, rows, cols int) {
		zeros(name+".weight", rows, cols)
		zeros(name+".bias", rows)
	}
	opt, v := in.config.OPT, in.config.CLIP.HiddenSize
	linear("visual_embeddings", h.VisualTokens*opt.WordEmbedProjDim, v)
	linear("visual_fc", h.SharedDim, v)
	for i, layer := range h.TextLayers {
		width := opt.HiddenSize
		if layer == -1 || layer == opt.Layers {
			width = opt.WordEmbedProjDim
		}
		linear(fmt.Sprintf("text_hidden_fcs.%d.0", i), h.SharedDim, width)
	}
	zeros(model.LogitScale)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// metadataArgs returns the "model_args" of a safetensors file's metadata, nil where there are none.
func metadataArgs(path string) ([]byte, error) {
	if !strings.HasSuffix(path, ".safetensors") {
		return nil, nil
	}
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if args, ok := f.Metadata["model_args"]; ok {
		return []byte(args), nil
	}
	return nil, nil
}

// inferHeads reads the sizes off the tensors. It cannot know which layers several text_hidden_fcs belong to.
func (in *inventory) inferHeads(path string) (*model.Heads, error) {
	prefix, shared := in.tensors["visual_embeddings.weight"], in.tensors["visual_fc.weight"]
	if prefix.shape == nil || shared.shape == nil {
		return nil, fmt.Errorf("%s: want tensors visual_embeddings.weight and visual_fc.weight", path)
	}
	if _, ok := in.tensors["text_hidden_fcs.1.0.weight"]; ok {
		return nil, fmt.Errorf("%s: want a %s beside it that says which text_emb_layers its text_hidden_fcs are of", path, argsFile)
	}
	h := &model.Heads{TextLayers: []int{-1}}
	E := in.config.OPT.WordEmbedProjDim
	rows, _ := prefix.rows()
	if rows <= 0 || rows%E != 0 {
		return nil, fmt.Errorf("%s: tensor %s: want a multiple of OPT's %d rows, have shape %v: these heads are of another OPT", prefix.file, prefix.name, E, prefix.shape)
	}
	h.VisualTokens = rows / E
	h.SharedDim, _ = shared.rows()
	if h.SharedDim <= 0 {
		return nil, fmt.Errorf("%s: tensor %s: want at least one row, have shape %v", shared.file, shared.name, shared.shape)
	}
	return h, nil
}

// headName takes off what saving added to a name, and keeps the names of FROMAGe's own tensors.
func headName(name string) string {
	for _, prefix := range []string{"state_dict.", "module.", "model."} {
		name = strings.TrimPrefix(name, prefix)
	}
	switch name {
	case model.ImageTokenRow, model.RETRow, model.LogitScale:
		return name
	}
	for _, prefix := range []string{"visual_embeddings.", "visual_fc.", "text_hidden_fcs."} {
		if strings.HasPrefix(name, prefix) {
			return name
		}
	}
	return ""
}
