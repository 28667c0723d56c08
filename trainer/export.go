// SPDX-License-Identifier: Apache-2.0

package trainer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"fromage/bundle"
	"fromage/compiler/safetensors"
	"fromage/compiler/torchfile"
	"fromage/machine"
	"fromage/model"
	"fromage/plan"
)

// tensor is one of the heads as checkpoints have them.
type tensor struct {
	name   string
	shape  []int
	values []float32
}

// tensors cuts weights into the checkpoint tensors that they are made of, in the model's order.
func tensors(m *plan.Model, weights map[string][]float32) ([]tensor, error) {
	var all []tensor
	for _, w := range m.Weights {
		if !w.Head {
			continue
		}
		x := weights[w.Name]
		if len(x) != w.Rows*w.Cols {
			return nil, fmt.Errorf("trainer: export %s: want %d values, have %d", w.Name, w.Rows*w.Cols, len(x))
		}
		for _, s := range w.Sources {
			t := tensor{name: s.Tensor, shape: []int{s.Rows, w.Cols}, values: x[:s.Rows*w.Cols]}
			switch {
			case w.Name == logitScale:
				t.shape = nil
			case w.Rows == 1:
				t.shape = []int{w.Cols}
			}
			all, x = append(all, t), x[s.Rows*w.Cols:]
		}
	}
	return all, nil
}

// modelArgs is the reference's model_args.json: all that its load_fromage asks for.
type modelArgs struct {
	OPT          string  `json:"opt_version"`
	CLIP         string  `json:"visual_encoder"`
	FreezeLM     bool    `json:"freeze_lm"`
	FreezeVM     bool    `json:"freeze_vm"`
	VisualTokens int     `json:"n_visual_tokens"`
	ImageDropout float64 `json:"image_embed_dropout_prob"`
	TextDropout  float64 `json:"text_embed_dropout_prob"`
	SharedDim    int     `json:"shared_emb_dim"`
	TextLayers   []int   `json:"text_emb_layers"`
	RET          int     `json:"retrieval_token_idx"`
}

func args(s bundle.Settings, opt, clip string) ([]byte, error) {
	layers := s.TextLayers
	if layers == nil {
		layers = []int{-1}
	}
	return json.MarshalIndent(modelArgs{
		OPT: opt, CLIP: clip, FreezeLM: true, FreezeVM: true, VisualTokens: s.VisualTokens, SharedDim: s.SharedDim, TextLayers: layers, RET: s.RET,
	}, "", "    ")
}

// WriteHeads writes weights as a safetensors file, with what model_args.json says in its metadata: what `fromage compile --heads` takes.
func WriteHeads(w io.Writer, m *bundle.Manifest, weights map[string][]float32) error {
	all, err := tensors(&m.Model, weights)
	if err != nil {
		return err
	}
	meta, err := args(m.Settings, "", "")
	if err != nil {
		return err
	}
	var sources []safetensors.Source
	for _, t := range all {
		sources = append(sources, safetensors.Source{Name: t.name, DType: "F32", Shape: t.shape, Data: bytes.NewReader(machine.Bytes(t.values))})
	}
	return safetensors.Write(w, sources, map[string]string{"model_args": string(meta)})
}

// WriteReference writes weights as the reference's pruned pretrained_ckpt.pth.tar, which its load_fromage reads, and returns the model_args.json that it
// wants beside it, with the names of the two frozen models on the Hugging Face hub. The source is fromage/prune_model_ckpt.py.
func WriteReference(w io.Writer, m *bundle.Manifest, weights map[string][]float32, opt, clip string) ([]byte, error) {
	all, err := tensors(&m.Model, weights)
	if err != nil {
		return nil, err
	}
	var state torchfile.Dict
	for _, t := range all {
		name := "model." + t.name
		switch t.name {
		case model.ImageTokenRow:
			continue // frozen: the reference has it from OPT
		case model.RETRow:
			name = t.name
		}
		source, err := torchfile.FromFloats("F32", t.shape, t.values)
		if err != nil {
			return nil, err
		}
		state = append(state, torchfile.Item{Key: name, Value: source})
	}
	slices.SortFunc(state, func(a, b torchfile.Item) int { return strings.Compare(a.Key, b.Key) })
	data, err := args(m.Settings, opt, clip)
	if err != nil {
		return nil, err
	}
	return data, torchfile.Write(w, "pretrained_ckpt", torchfile.Dict{{Key: "state_dict", Value: state}})
}
