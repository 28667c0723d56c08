// SPDX-License-Identifier: Apache-2.0

// Package trainer learns FROMAGe's maps, its logit scale and the row of [RET] on a frozen OPT and a frozen CLIP, with the programs and kernels that
// inference runs and those that take gradients back.
//
// What enters is a loaded model and examples (tokens, CLIP states); what leaves is trained parameters, losses, checkpoints. The mathematics is that of the
// reference's main.py to the letter, but nothing is computed that the result does not depend on: sequences are packed without padding, the retrieval loss
// goes back through the [RET] positions only, and no frozen weight has a gradient. The package refuses to know files of captions and pictures.
package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"fromage/gpu"
	"fromage/machine"
	"fromage/plan"
	"fromage/shaders"
)

// Config is how a step is computed. The zero value of Memory stands for DefaultMemory.
type Config struct {
	CapLossScale, RetLossScale float64 // factors on the captioning losses and on the retrieval losses
	Accumulation               int     // how many batches an update sums gradients of
	GradClip                   float64 // largest norm of all gradients together; 0 does not clip
	Beta1, Beta2, Eps          float64 // of AdamW
	WeightDecay                float64
	Memory                     int // bytes that one run's activations may take
	// Activations is how they wait for the way back, F32 or F16: half the memory, for gradients that differ by a thousandth as a rule.
	Activations shaders.Format
	// Shrunk, if any, hears that the device had no room for a run, and what runs may take from then on.
	Shrunk func(err error, memory, tokens int)
}

// DefaultMemory bounds the activations of one run where nobody says otherwise; no API tells how much memory a GPU has free.
const DefaultMemory = 6 << 30

// DefaultConfig is the paper's recipe.
func DefaultConfig() Config {
	return Config{CapLossScale: 1, RetLossScale: 1, Accumulation: 1, GradClip: 1, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8}
}

// Trainer is a model in training: its heads on the device are the current parameters.
type Trainer struct {
	m        *machine.Machine
	c        Config
	programs *programs
	params   []param
	norms    gpu.Buffer // partial sums of squares of the gradients
	sums     int        // how many
	updates  int        // how many there were
	frozen   float64    // mean norm of the token table's rows other than [RET]
	most     int        // tokens of one run
	kv       int        // tokens that there are keys and values for
	own      map[string]gpu.Buffer
	took     func(part string, flops float64, d time.Duration) // of Watch
}

// param is a trained weight, or the part of one that is trained.
type param struct {
	name     string
	first, n int
	weight   gpu.Buffer
	grad     gpu.Buffer
	m, v     gpu.Buffer // AdamW's moments
}

// New readies a loaded model with heads for training.
func New(ctx context.Context, m *machine.Machine, c Config) (*Trainer, error) {
	s := m.Manifest.Settings
	if s.SharedDim == 0 {
		return nil, fmt.Errorf("trainer: want a model with OPT, CLIP and heads")
	}
	if c.Memory == 0 {
		c.Memory = DefaultMemory
	}
	if c.Accumulation < 1 {
		return nil, fmt.Errorf("trainer: grad-accumulation-steps: want at least 1, have %d", c.Accumulation)
	}
	if c.Activations > shaders.F16 {
		return nil, fmt.Errorf("trainer: activations: want f32 or f16, have %v", c.Activations)
	}
	programs, err := build(&m.Manifest.Model, float32(c.RetLossScale/float64(c.Accumulation)), c.Activations == shaders.F16)
	if err != nil {
		return nil, err
	}
	t := &Trainer{m: m, c: c, programs: programs, own: map[string]gpu.Buffer{}}
	for _, p := range []*plan.Program{programs.caption, programs.retrieve, programs.embed, programs.contrast, programs.back, programs.mapsBack} {
		m.Add(p)
	}
	for i := range s.Layers {
		m.Layouts[kv(i)] = plan.Layout{Format: c.Activations}
	}
	if _, err := programs.caption.Lower(m.Info, m.Layouts, t.dims(2, 1, 0, 1)); c.Activations != shaders.F32 && err != nil {
		return nil, errors.Join(fmt.Errorf("trainer: activations in %v: %w", c.Activations, err), t.close())
	}
	if err := t.allocate(); err != nil {
		return nil, errors.Join(err, t.close())
	}
	if t.frozen, err = t.meanNorm(ctx); err != nil {
		return nil, errors.Join(err, t.close())
	}
	t.most = t.capacity()
	return t, nil
}

// Close gives back what training has on the device; the model stays.
func (t *Trainer) Close() { _ = t.close() }

func (t *Trainer) close() error {
	t.Watch(nil)
	for _, name := range running {
		if strings.HasPrefix(name, own) {
			t.m.Drop(name)
		}
	}
	t.m.Free(t.own)
	for name := range t.own {
		delete(t.m.States, name)
	}
	return nil
}

// buffer makes a buffer that lives as long as the trainer.
func (t *Trainer) buffer(name string, floats int) (gpu.Buffer, error) {
	b, err := t.m.Dev.NewBuffer(name, machine.Padded(4*floats))
	if err == nil {
		t.own[name] = b
	}
	return b, err
}

// drop gives a buffer back, if there is one of that name.
func (t *Trainer) drop(name string) {
	if b, ok := t.own[name]; ok {
		_ = t.m.Dev.Free(b)
		delete(t.own, name)
		delete(t.m.States, name)
	}
}

// allocate makes the parameters' gradients and moments.
func (t *Trainer) allocate() (err error) {
	for _, w := range t.m.Manifest.Model.Weights {
		if !w.Head {
			continue
		}
		p := param{name: w.Name, n: w.Rows * w.Cols, weight: t.m.Weights[w.Name][0].Values}
		if p.grad, err = t.buffer(grad(w.Name), p.n); err != nil {
			return err
		}
		t.m.States[grad(w.Name)] = p.grad
		if w.Name == addedTokens {
			p.first, p.n = w.Cols, w.Cols // [RET]
		}
		if p.m, err = t.buffer(own+"m."+w.Name, w.Rows*w.Cols); err != nil {
			return err
		}
		if p.v, err = t.buffer(own+"v."+w.Name, w.Rows*w.Cols); err != nil {
			return err
		}
		t.params = append(t.params, p)
	}
	for _, p := range t.params {
		t.sums += p.squares(0).Sums()
	}
	t.norms, err = t.buffer(own+"norms", t.sums)
	return err
}

// meanNorm is the mean L2 norm of the token table's rows but for [RET]'s: what its row is scaled to after every update.
func (t *Trainer) meanNorm(ctx context.Context) (float64, error) {
	sum, count := 0.0, 0
	norm := func(row []float32) {
		s := 0.0
		for _, x := range row {
			s += float64(x) * float64(x)
		}
		sum += math.Sqrt(s)
		count++
	}
	lm, err := t.m.Manifest.Model.Program("lm")
	if err != nil {
		return 0, err
	}
	for _, name := range outputRows(lm) {
		if name == addedTokens {
			row, err := t.m.ReadWeight(name)
			if err != nil {
				return 0, err
			}
			norm(row[:len(row)/2]) // <|image|>
			continue
		}
		if err := t.m.EachRow(ctx, name, norm); err != nil {
			return 0, err
		}
	}
	return sum / float64(count), nil
}

// dims are the sizes of a run.
func (t *Trainer) dims(tokens, rows, images, prefix int) plan.Dims {
	d := plan.Run(tokens, rows, prefix)
	d[plan.Images], d[plan.Pairs] = images, images*images
	d[plan.Chunk] = min(rows, t.chunk())
	return d
}

// maxLogits is how many bytes of logits may exist at a time.
const maxLogits = 256 << 20

// chunk is how many rows of logits exist at a time.
func (t *Trainer) chunk() int {
	return max(1, min(t.m.Info.Limits.MaxBinding, maxLogits, t.c.Memory/4)/(4*t.m.Manifest.Settings.Vocabulary))
}

// capacity is the most tokens of a run whose buffers the device allows and that fits the memory.
func (t *Trainer) capacity() int {
	fits := func(n int) bool {
		for name, d := range map[string]plan.Dims{"caption": t.dims(n, n, 0, n/2+1), "retrieve": t.dims(n, n, n/8+1, 0)} {
			prog, err := t.m.Program(own + name)
			if err != nil {
				return false
			}
			largest, total := prog.Needs(d)
			kv := n * t.kvRow()
			if max(largest, kv) > t.m.Info.Limits.MaxBinding || total+kv*t.m.Manifest.Settings.Layers > t.c.Memory {
				return false
			}
		}
		return true
	}
	most := 64
	for most < 1<<20 && fits(2*most) {
		most *= 2
	}
	for step := most / 2; step > 0; step /= 2 {
		if fits(most + step) {
			most += step
		}
	}
	return most
}

// kvRow is the bytes of a token's keys and values in a layer.
func (t *Trainer) kvRow() int { return t.c.Activations.RowBytes(2 * t.m.Manifest.Settings.HiddenDim) }

// Tokens returns how many tokens go into one run: longer batches are computed in several, with the same result.
func (t *Trainer) Tokens() int { return t.most }

// Updates returns how many updates there were.
func (t *Trainer) Updates() int { return t.updates }

// Update makes AdamW's step with the gradients that Accumulate summed, clipped by their norm, which it returns; scales [RET]'s row to the mean norm of the
// others, and clears the gradients. rate is the learning rate. A norm that is not finite changes nothing.
func (t *Trainer) Update(rate float64) (norm float64, err error) {
	if t.took == nil {
		return t.update(rate)
	}
	if err := t.m.Dev.Wait(); err != nil {
		return 0, err
	}
	began := time.Now()
	if norm, err = t.update(rate); err == nil {
		err = t.m.Dev.Wait()
	}
	t.took("optimizer", 0, time.Since(began))
	return norm, err
}

func (t *Trainer) update(rate float64) (norm float64, err error) {
	var list gpu.List
	if err := t.squares(&list); err != nil {
		return 0, err
	}
	if err := t.m.Dev.Submit(&list); err != nil {
		return 0, err
	}
	if norm, err = t.norm(); err != nil {
		return 0, err
	}
	if math.IsNaN(norm) || math.IsInf(norm, 0) {
		return norm, fmt.Errorf("%w: norm of the gradients %g", ErrNotFinite, norm)
	}
	list.Reset()
	t.updates++
	for _, p := range t.params {
		d := shaders.AdamW(t.m.Info, shaders.AdamWParams{
			First: uint32(p.first), N: uint32(p.n), Norms: uint32(t.sums), LR: float32(rate), Beta1: float32(t.c.Beta1), Beta2: float32(t.c.Beta2),
			Eps: float32(t.c.Eps), Decay: float32(t.c.WeightDecay), Clip: float32(t.c.GradClip),
			Correction1: float32(1 - math.Pow(t.c.Beta1, float64(t.updates))), Correction2: float32(1 - math.Pow(t.c.Beta2, float64(t.updates))),
		})
		if err := t.dispatch(&list, d, p.grad, t.norms, p.weight, p.m, p.v); err != nil {
			return 0, err
		}
		if p.name == addedTokens {
			d := shaders.RescaleRow(t.m.Info, shaders.RescaleRowParams{First: uint32(p.first), N: uint32(p.n), Norm: float32(t.frozen)})
			if err := t.dispatch(&list, d, p.weight); err != nil {
				return 0, err
			}
		}
		list.Clear(p.grad, 0, 4*(p.first+p.n))
	}
	return norm, t.m.Dev.Submit(&list)
}

// squares adds the dispatches that compute the squared norm of each gradient.
func (t *Trainer) squares(list *gpu.List) error {
	at := 0
	for _, p := range t.params {
		s := p.squares(at)
		if err := t.dispatch(list, shaders.SquareSums(t.m.Info, s), p.grad, t.norms); err != nil {
			return err
		}
		at += s.Sums()
	}
	return nil
}

func (p param) squares(at int) shaders.SquareSumsParams {
	return shaders.SquareSumsParams{First: uint32(p.first), N: uint32(p.n), At: uint32(at)}
}

func (t *Trainer) norm() (float64, error) {
	squares := make([]float32, t.sums)
	if err := t.m.Dev.Read(t.norms, 0, machine.Bytes(squares)); err != nil {
		return 0, err
	}
	sum := 0.0
	for _, x := range squares {
		sum += float64(x)
	}
	return math.Sqrt(sum), nil
}

func (t *Trainer) dispatch(list *gpu.List, d shaders.Dispatch, buffers ...gpu.Buffer) error {
	p, err := t.m.Dev.Compile(d.Kernel)
	if err != nil {
		return fmt.Errorf("trainer: %w", err)
	}
	list.Dispatch(p, d.Groups, d.Params, buffers...)
	return nil
}

// Gradients reads the gradients that Accumulate summed, by weight; of added_tokens, the row of <|image|> means nothing.
func (t *Trainer) Gradients() (map[string][]float32, error) {
	out := map[string][]float32{}
	for _, p := range t.params {
		x := make([]float32, p.first+p.n)
		if err := t.m.Dev.Read(p.grad, 0, machine.Bytes(x)); err != nil {
			return nil, fmt.Errorf("trainer: read the gradient of %s: %w", p.name, err)
		}
		out[p.name] = x
	}
	return out, nil
}

// Contrastive reads what the contrastive loss of the last batch, of B examples in one run, was made of: the logits (B·B) of pictures by texts, and the
// embeddings (B,S) of both, not normalised.
func (t *Trainer) Contrastive(B int) (logits []float32, text, image [][]float32, err error) {
	prog, err := t.m.Program(own + "retrieve")
	if err != nil {
		return nil, nil, nil, err
	}
	maps, err := t.m.Program("maps")
	if err != nil {
		return nil, nil, nil, err
	}
	rows, err := prog.Rows("logits", B*B, 1)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, row := range rows {
		logits = append(logits, row...)
	}
	S := t.m.Manifest.Settings.SharedDim
	if text, err = prog.Rows("text", B, S); err != nil {
		return nil, nil, nil, err
	}
	image, err = maps.Rows("retrieval", B, S)
	return logits, text, image, err
}
