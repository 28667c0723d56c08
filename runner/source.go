// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"errors"
	"fmt"
	"math"

	"fromage/bundle"
	"fromage/gpu"
	"fromage/machine"
	"fromage/plan"
	"fromage/shaders"
	"fromage/tokenizer"
	"fromage/vision"
)

// Source is where the contents of a bundle come from; see package machine.
type Source = machine.Source

// Target is a blob and the device buffer that it fills.
type Target = machine.Target

// Progress tells how far an operation is, in its own unit.
type Progress = machine.Progress

// Load uploads the bundle's weights to dev, which stays the caller's to close. progress, if any, counts bytes of weights.
func Load(ctx context.Context, dev gpu.Device, b *bundle.Bundle, progress func(Progress)) (*Runner, error) {
	return LoadFrom(ctx, dev, b.Manifest(), machine.Chunks{Open: b.File, Each: b.Chunks}, progress)
}

// LoadFrom is Load where the bundle's contents come from elsewhere than a file.
func LoadFrom(ctx context.Context, dev gpu.Device, manifest *bundle.Manifest, from Source, progress func(Progress)) (*Runner, error) {
	return load(ctx, dev, manifest, from, nil, progress)
}

// LoadPictures is LoadFrom for what pictures need, which is a small part of a bundle: what it returns can Embed, and search a Gallery, while LoadRest
// brings what all else needs. Room on the device is taken for everything, so that a model that does not fit is known before it has all come.
func LoadPictures(ctx context.Context, dev gpu.Device, manifest *bundle.Manifest, from Source, progress func(Progress)) (*Runner, error) {
	return load(ctx, dev, manifest, from, ForPictures(manifest), progress)
}

// ForPictures says of each weight whether LoadPictures uploads it: those of programs vision and maps, and the retrieval factor, which no program reads.
func ForPictures(manifest *bundle.Manifest) func(weight string) bool {
	return func(weight string) bool {
		if weight == logitScale {
			return true
		}
		for _, p := range manifest.Model.Programs {
			if (p.Name == "vision" || p.Name == "maps") && p.Find(weight) != 0 {
				return true
			}
		}
		return false
	}
}

// LoadRest uploads what LoadPictures left out. A device that is lost meanwhile is made good as in any call (OnLoss), with all weights at once.
func (r *Runner) LoadRest(ctx context.Context, from Source, progress func(Progress)) error {
	r.mu.Lock()
	m := r.m
	r.mu.Unlock()
	err := m.Load(ctx, from, nil, progress) // other calls run meanwhile
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mend(ctx, func() error {
		switch {
		case r.m != m:
			return nil // the device was lost, and this or another call has put everything onto the next
		case err != nil:
			return err
		}
		return r.setHeads(r.heads) // what came over those that were set before
	})
}

func load(ctx context.Context, dev gpu.Device, manifest *bundle.Manifest, from Source, want func(string) bool, progress func(Progress)) (*Runner, error) {
	m, err := machine.Reserve(dev, manifest)
	if err != nil {
		return nil, err
	}
	if err := m.Load(ctx, from, want, progress); err != nil {
		return nil, err
	}
	r := &Runner{m: m, kv: newKVCache(m, shaders.F32), maxTokens: maxTokens}
	if raw, err := optionalFile(manifest, from, bundle.FileTokenizer); err != nil {
		return nil, err
	} else if raw != nil {
		r.tok = &tokenizer.Tokenizer{}
		if err := r.tok.UnmarshalBinary(raw); err != nil {
			return nil, fmt.Errorf("runner: %s: %w", bundle.FileTokenizer, err)
		}
	}
	if raw, err := optionalFile(manifest, from, bundle.FilePreprocessor); err != nil {
		return nil, err
	} else if raw != nil {
		config, err := vision.LoadConfig(raw)
		if err != nil {
			return nil, fmt.Errorf("runner: %s: %w", bundle.FilePreprocessor, err)
		}
		if r.vision, err = vision.NewProcessor(config, vision.Limits{}); err != nil {
			return nil, fmt.Errorf("runner: %s: %w", bundle.FilePreprocessor, err)
		}
		if h, w := config.Shape(); h != m.Manifest.Settings.ImageSize || w != h {
			return nil, fmt.Errorf("runner: %s: want pictures of %d pixels a side, have %d × %d", bundle.FilePreprocessor, m.Manifest.Settings.ImageSize, w, h)
		}
	}
	return r, r.readScale()
}

// LoadRandom makes a runner of a manifest without a file (compiler.Blank), its weights made up, for measuring speed. It has no tokenizer.
func LoadRandom(ctx context.Context, dev gpu.Device, manifest *bundle.Manifest, progress func(Progress)) (*Runner, error) {
	// The pattern is small numbers in every format: f16 pairs near 0.01, which as f32 are near 0.0004 and as codes and scales finite.
	pattern := make([]byte, bundle.ChunkSize)
	state := uint32(1)
	for i := 0; i < len(pattern); i += 2 {
		state = state*1664525 + 1013904223
		pattern[i], pattern[i+1] = byte(state>>24), 0x20|byte(state>>16)&0x81
	}
	random := machine.Chunks{Each: func(ctx context.Context, blob bundle.Blob, f func(int64, []byte) error) error {
		for at := int64(0); at < blob.Size; at += bundle.ChunkSize {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := f(at, pattern[:min(bundle.ChunkSize, blob.Size-at)]); err != nil {
				return err
			}
		}
		return nil
	}}
	m, err := machine.New(ctx, dev, manifest, random, progress)
	if err != nil {
		return nil, err
	}
	return &Runner{m: m, kv: newKVCache(m, shaders.F32), scale: 1, maxTokens: maxTokens}, nil
}

// optionalFile returns a file of the bundle, nil where it has none: a bundle of OPT alone needs no preprocessor.
func optionalFile(manifest *bundle.Manifest, from Source, name string) ([]byte, error) {
	if _, ok := manifest.Files[name]; !ok {
		return nil, nil
	}
	return from.File(name)
}

// readScale fetches logit_scale where the model has one.
func (r *Runner) readScale() error {
	r.scale = 1
	if _, ok := r.m.Weights[logitScale]; !ok {
		return nil
	}
	x, err := r.m.ReadWeight(logitScale)
	if err != nil {
		return err
	}
	r.scale = float32(math.Exp(float64(x[0])))
	return nil
}

// logitScale is the name of the weight with the logarithm of the retrieval factor.
const logitScale = "logit_scale"

// Reopen opens a device in place of one that was lost, and says where the weights come from again.
type Reopen func(ctx context.Context) (gpu.Device, Source, error)

// OnLoss lets the runner survive the loss of its device (gpu.ErrLost): it calls reopen, uploads the weights anew, computes again what sequences had
// computed, from their tokens, and goes on with the call that failed; a generation continues with the token it was at. Device then returns the new
// device. What others made on the old one, such as a Gallery, they make again.
func (r *Runner) OnLoss(reopen Reopen) { r.reopen = reopen }

// maxLosses is how many losses one call survives; more mean that the call is what loses the device.
const maxLosses = 3

// mend calls f, and again after a loss of the device that could be made good. The runner is locked.
func (r *Runner) mend(ctx context.Context, f func() error) error {
	err := f()
	for n := 0; n < maxLosses && r.reopen != nil && errors.Is(err, gpu.ErrLost); n++ {
		if e := r.restore(ctx); e != nil {
			return fmt.Errorf("runner: recover from the loss of the device: %w", e)
		}
		err = f()
	}
	return err
}

// restore puts the runner on a new device, where no sequence has anything computed.
func (r *Runner) restore(ctx context.Context) error {
	dev, from, err := r.reopen(ctx)
	if err != nil {
		return err
	}
	m, err := machine.New(ctx, dev, r.m.Manifest, from, nil)
	if err != nil {
		return err
	}
	r.kv.forget()
	r.m, r.kv = m, newKVCache(m, r.kv.format)
	if r.heads == nil {
		return nil
	}
	return r.setHeads(r.heads)
}

// Kernels returns, each once, the kernels that a device with these properties runs for a model: its pictures, one at a time, and its text in runs of
// the given numbers of tokens, with keys and values kept in a format (SetKV). A device that compiles them while weights are on their way is ready sooner.
func Kernels(info gpu.Info, manifest *bundle.Manifest, kv shaders.Format, tokens ...int) ([]*gpu.Kernel, error) {
	runs := map[string][]plan.Dims{"vision": {plan.RunImages(1, manifest.Settings.ImageTokens)}, "maps": {plan.RunImages(1, 1)}}
	for _, n := range tokens {
		runs["lm"] = append(runs["lm"], plan.Run(n, 1, 0))
	}
	long := plan.Run(1, 1, 0)
	long[plan.Past] = manifest.Settings.MaxPositions
	runs["lm"] = append(runs["lm"], long)
	layouts := manifest.Layouts()
	var kernels []*gpu.Kernel
	seen := map[string]bool{}
	for _, p := range manifest.Model.Programs {
		keep(layouts, p, kv)
		for _, dims := range runs[p.Name] {
			steps, err := p.Lower(info, layouts, dims)
			if err != nil {
				return nil, err
			}
			for _, s := range steps {
				if k := s.Dispatch.Kernel; !seen[k.Name] {
					seen[k.Name] = true
					kernels = append(kernels, k)
				}
			}
		}
	}
	if !info.Software {
		kernels = append(kernels, shaders.NextToken(info, shaders.NextTokenParams{}).Kernel)
	}
	return kernels, nil
}
