// SPDX-License-Identifier: Apache-2.0

// Package runner runs a compiled FROMAGe on a gpu.Device: it embeds pictures, reads interleaved pictures and text, generates, retrieves and scores.
//
// What enters is an open bundle, a device, texts and pictures; what leaves is tokens, texts, embeddings and likelihoods. It follows the reference's
// fromage/models.py, with a KV cache that the reference does not have. The package refuses to know checkpoints and how the programs were built: it
// runs what the bundle says.
package runner

import (
	"context"
	"fmt"
	"sync"

	"fromage/bundle"
	"fromage/gpu"
	"fromage/machine"
	"fromage/plan"
	"fromage/tokenizer"
	"fromage/vision"
)

// Runner is a bundle loaded onto a device. One call runs at a time; calls from several goroutines wait for one another.
type Runner struct {
	mu     sync.Mutex
	m      *machine.Machine
	kv     *kvCache
	tok    *tokenizer.Tokenizer
	vision *vision.Processor
	// scale is exp(logit_scale), the factor on retrieval scores.
	scale     float32
	maxTokens int
	ahead     int // tokens of the next submit where the device picks them, by the time of earlier ones
	reopen    Reopen
	heads     map[string][]float32 // those that SetHeads put in place of the bundle's
}

// Settings returns what the bundle says of the model.
func (r *Runner) Settings() bundle.Settings { return r.m.Manifest.Settings }

// RET returns the number of [RET], −1 where the model has no heads.
func (r *Runner) RET() int {
	if s := r.m.Manifest.Settings; s.SharedDim > 0 {
		return s.RET
	}
	return -1
}

// Manifest returns what the bundle says of everything but the weights' values; it is not to be changed.
func (r *Runner) Manifest() *bundle.Manifest { return r.m.Manifest }

// Tokenizer returns the model's tokenizer, nil if the bundle has none.
func (r *Runner) Tokenizer() *tokenizer.Tokenizer { return r.tok }

// Vision returns the processor that makes pixel values for this model.
func (r *Runner) Vision() *vision.Processor { return r.vision }

// Scale returns exp(logit_scale), the factor on the cosines that retrieval ranks by.
func (r *Runner) Scale() float32 { return r.scale }

// Device returns what the model runs on.
func (r *Runner) Device() gpu.Device { return r.m.Dev }

// Machine returns what holds the model on its device, for training: a caller that changes heads there tells the runner by HeadsChanged.
func (r *Runner) Machine() *machine.Machine { return r.m }

// Dispatches returns how many kernel dispatches one decoded token takes, of which only the logits are wanted.
func (r *Runner) Dispatches() (int, error) {
	p, err := r.m.Manifest.Model.Program("lm")
	if err != nil {
		return 0, err
	}
	steps, err := p.Lower(r.m.Info, r.m.Layouts, plan.Run(1, 1, 0), "logits")
	return len(steps), err
}

// LMBytes returns the stored bytes of the weights that decoding a token reads: all of program lm's but the position table. The token table counts once:
// its rows are the output layer's.
func (r *Runner) LMBytes() int64 {
	p, err := r.m.Manifest.Model.Program("lm")
	if err != nil {
		return 0
	}
	var sum int64
	for _, t := range r.m.Manifest.Tensors {
		if id := p.Find(t.Name); id == 0 || !p.Multiplies(id) {
			continue
		}
		for _, s := range t.Shards {
			sum += s.Values.Size
			if s.Scales != nil {
				sum += s.Scales.Size
			}
		}
	}
	return sum
}

// Image is a picture as the model sees it.
type Image struct {
	Prefix    [][]float32 // k rows (E): its place in a prompt
	Retrieval []float32   // (S): visual_fc, not normalised; what an index holds, normalised
}

// Embed runs decoded pixel values, each (3,S,S) as package vision makes them, through CLIP and the maps. progress, if any, counts pictures.
func (r *Runner) Embed(ctx context.Context, pixels [][]float32, progress func(Progress)) ([]Image, error) {
	return inBatches(ctx, r, r.imageBatch(), pixels, progress, func(batch [][]float32) ([]Image, error) {
		pooled, _, err := r.pooled(batch, false)
		if err != nil {
			return nil, err
		}
		return r.maps(pooled)
	})
}

// Encode runs pixel values, each (3,S,S), through CLIP alone → pooled states v (Dv), which no head has a part in.
func (r *Runner) Encode(ctx context.Context, pixels [][]float32) ([][]float32, error) {
	return inBatches(ctx, r, r.imageBatch(), pixels, nil, func(batch [][]float32) ([][]float32, error) {
		pooled, _, err := r.pooled(batch, false)
		return pooled, err
	})
}

// mapsBatch is how many pooled states go into one run of the maps.
const mapsBatch = 256

// Maps runs pooled states (Dv), as Encode makes them, through the maps.
func (r *Runner) Maps(ctx context.Context, pooled [][]float32) ([]Image, error) {
	return inBatches(ctx, r, mapsBatch, pooled, nil, r.maps)
}

// inBatches calls f with up to n rows at a time, again after a loss of the device, and joins what it makes of them. It locks the runner.
func inBatches[T any](ctx context.Context, r *Runner, n int, rows [][]float32, progress func(Progress), f func([][]float32) ([]T, error)) ([]T, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]T, 0, len(rows))
	for len(out) < len(rows) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		batch := rows[len(out):min(len(out)+n, len(rows))]
		var made []T
		err := r.mend(ctx, func() (err error) {
			made, err = f(batch)
			return err
		})
		if err != nil {
			return nil, err
		}
		if out = append(out, made...); progress != nil {
			progress(Progress{Done: int64(len(out)), Total: int64(len(rows)), What: "pictures"})
		}
	}
	return out, nil
}

// imageBatch is how many pictures go into one run.
func (r *Runner) imageBatch() int {
	return max(1, min(16, 2048/r.m.Manifest.Settings.ImageTokens))
}

// Pooled runs pictures through CLIP alone: pooled (B,Dv), the pooler_output of Hugging Face's CLIPVisionModel, and its last_hidden_state (B·N rows of Dv).
func (r *Runner) Pooled(pixels [][]float32) (pooled, hidden [][]float32, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pooled(pixels, true)
}

func (r *Runner) pooled(pixels [][]float32, withHidden bool) (pooled, hidden [][]float32, err error) {
	prog, err := r.m.Program("vision")
	if err != nil {
		return nil, nil, err
	}
	s, B := r.m.Manifest.Settings, len(pixels)
	in := struct {
		pixels           []float32
		tokens, classRow []uint32
	}{}
	for b, p := range pixels {
		if len(p) != 3*s.ImageSize*s.ImageSize {
			return nil, nil, fmt.Errorf("runner: picture %d: want %d pixel values (3,%d,%d), have %d", b, 3*s.ImageSize*s.ImageSize, s.ImageSize, s.ImageSize, len(p))
		}
		in.pixels = append(in.pixels, p...)
		in.classRow = append(in.classRow, uint32(b*s.ImageTokens))
		for i := range s.ImageTokens {
			in.tokens = append(in.tokens, 0, uint32(i), uint32(b*s.ImageTokens), uint32(s.ImageTokens))
		}
	}
	err = prog.Run(plan.RunImages(B, s.ImageTokens), map[string][]byte{"pixels": machine.Bytes(in.pixels), "tokens": machine.Bytes(in.tokens), "class_rows": machine.Bytes(in.classRow)})
	if err != nil {
		return nil, nil, err
	}
	if pooled, err = prog.Rows("pooled", B, s.VisionDim); err != nil || !withHidden {
		return pooled, nil, err
	}
	hidden, err = prog.Rows("hidden", B*s.ImageTokens, s.VisionDim)
	return pooled, hidden, err
}

// maps runs pooled states (B,Dv) through visual_embeddings and visual_fc.
func (r *Runner) maps(pooled [][]float32) ([]Image, error) {
	prog, err := r.m.Program("maps")
	if err != nil {
		return nil, err
	}
	s, B := r.m.Manifest.Settings, len(pooled)
	v, err := joined(pooled, s.VisionDim)
	if err != nil {
		return nil, err
	}
	if err := prog.Run(plan.RunImages(B, 1), map[string][]byte{"v": machine.Bytes(v)}); err != nil {
		return nil, err
	}
	prefix, err := prog.Rows("prefix", B*s.VisualTokens, s.EmbedDim)
	if err != nil {
		return nil, err
	}
	retrieval, err := prog.Rows("retrieval", B, s.SharedDim)
	if err != nil {
		return nil, err
	}
	images := make([]Image, B)
	for i := range images {
		images[i] = Image{prefix[i*s.VisualTokens : (i+1)*s.VisualTokens], retrieval[i]}
	}
	return images, nil
}

// Close frees what the runner has on its device; the device stays open.
func (r *Runner) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.m.Close()
}
