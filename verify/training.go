// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"fromage/compiler"
	"fromage/runner"
	"fromage/trainer"
)

// stepJSON is a training step of expected.json.
type stepJSON struct {
	CaptioningCE float32 `json:"captioning_ce"`
	RetrievalCE  float32 `json:"retrieval_ce"`
	CaptionLoss  float32 `json:"caption_loss"`
	ImageLoss    float32 `json:"image_loss"`
	GradNorm     float32 `json:"grad_norm"`
	Loss         float32 `json:"loss"`
	LR           float64 `json:"lr"`
	Concat       bool    `json:"concat_captions"`
}

// optimizerJSON is what expected.json says of AdamW.
type optimizerJSON struct {
	Betas       [2]float64 `json:"betas"`
	Eps         float64    `json:"eps"`
	WeightDecay float64    `json:"weight_decay"`
	GradClip    float64    `json:"grad_clip"`
}

// training takes the reference's training steps from the reference's beginning, and compares every loss, gradient and parameter after each.
func (v *verification) training(want expectedJSON) error {
	done, err := v.load(compiler.Options{
		OPT: filepath.Join(v.dir, want.ModelArgs.OPT), CLIP: filepath.Join(v.dir, want.ModelArgs.CLIP), Heads: filepath.Join(v.dir, "initial_ckpt.pth.tar"),
	})
	if err != nil {
		return err
	}
	defer done()
	c := trainer.DefaultConfig()
	c.Beta1, c.Beta2, c.Eps = want.Optimizer.Betas[0], want.Optimizer.Betas[1], want.Optimizer.Eps
	c.WeightDecay, c.GradClip = want.Optimizer.WeightDecay, want.Optimizer.GradClip
	t, err := trainer.New(v.ctx, v.r.Machine(), c)
	if err != nil {
		return err
	}
	defer t.Close()
	for i, step := range want.Steps {
		if err := v.step(t, fmt.Sprintf("step%d.", i), step); err != nil {
			return fmt.Errorf("verify: step %d: %w", i, err)
		}
	}
	return nil
}

func (v *verification) step(t *trainer.Trainer, name string, want stepJSON) error {
	examples, err := v.examples(name)
	if err != nil {
		return err
	}
	if err := v.captioningLogits(name, examples, want.Concat); err != nil {
		return err
	}
	l, err := t.Accumulate(v.ctx, examples, want.Concat)
	if err != nil {
		return err
	}
	for _, c := range []struct {
		name      string
		got, want float32
	}{
		{"captioning_ce", float32(l.CaptioningCE), want.CaptioningCE}, {"retrieval_ce", float32(l.RetrievalCE), want.RetrievalCE},
		{"caption_loss", float32(l.CaptionLoss), want.CaptionLoss}, {"image_loss", float32(l.ImageLoss), want.ImageLoss}, {"loss", float32(l.Total), want.Loss},
	} {
		v.add(compare(name+c.name, []float32{c.got}, []float32{c.want}, 1e-4))
	}
	if err := v.contrastive(t, name, len(examples)); err != nil {
		return err
	}
	grads, err := t.Gradients()
	if err != nil {
		return err
	}
	if err := v.parameters(name+"grad.", grads); err != nil {
		return err
	}
	norm, err := t.Update(want.LR)
	if err != nil {
		return err
	}
	v.add(compare(name+"grad_norm", []float32{float32(norm)}, []float32{want.GradNorm}, 2e-4))
	s, err := t.Snapshot()
	if err != nil {
		return err
	}
	return v.parameters(name+"after.", s.Weights)
}

// examples are a step's captions and pictures.
func (v *verification) examples(name string) ([]trainer.Example, error) {
	pixels, err := v.pictures(name + "pixel_values")
	if err != nil {
		return nil, err
	}
	pooled, _, err := v.r.Pooled(pixels)
	if err != nil {
		return nil, err
	}
	tokens, err := v.want.ints(name + "tokens")
	if err != nil {
		return nil, err
	}
	lengths, err := v.want.ints(name + "caption_len")
	if err != nil {
		return nil, err
	}
	if len(tokens) != len(pooled) || len(lengths[0]) != len(pooled) {
		return nil, fmt.Errorf("want as many captions as pictures, have %d and %d", len(tokens), len(pooled))
	}
	out := make([]trainer.Example, len(pooled))
	for i, row := range tokens {
		for _, id := range row[:lengths[0][i]] {
			out[i].Tokens = append(out[i].Tokens, int32(id))
		}
		out[i].V = pooled[i]
	}
	return out, nil
}

// captioningLogits compares the logits of captioning at the places before the padding, which nothing depends on.
func (v *verification) captioningLogits(name string, examples []trainer.Example, concat bool) error {
	want, err := v.want.rows(name + "captioning.logits")
	if err != nil {
		return err
	}
	labels, err := v.want.ints(name + "captioning.labels")
	if err != nil {
		return err
	}
	pooled := make([][]float32, len(examples))
	for i, e := range examples {
		pooled[i] = e.V
	}
	images, err := v.r.Maps(v.ctx, pooled)
	if err != nil {
		return err
	}
	per, length := 1, len(labels[0])
	if concat {
		per = 2
	}
	var gotRows, wantRows [][]float32
	for n := 0; n*length < len(want); n++ {
		s := v.r.NewSequence()
		for i := n * per; i < (n+1)*per; i++ {
			for _, row := range images[i].Prefix {
				s.AppendTokens(runner.Token{Visual: row})
			}
			for _, id := range examples[i].Tokens[:len(examples[i].Tokens)-1] {
				s.AppendTokens(runner.Token{ID: int(id)})
			}
		}
		out, err := v.r.Outputs(v.ctx, s)
		s.Close()
		if err != nil {
			return err
		}
		gotRows, wantRows = append(gotRows, out.Logits...), append(wantRows, want[n*length:n*length+len(out.Logits)]...)
	}
	v.add(compare(name+"captioning.logits", flat(gotRows), flat(wantRows), relative))
	return nil
}

// contrastive compares what the contrastive loss is made of.
func (v *verification) contrastive(t *trainer.Trainer, name string, B int) error {
	logits, text, image, err := t.Contrastive(B)
	if err != nil {
		return err
	}
	scale, err := v.r.Machine().ReadWeight("logit_scale")
	if err != nil {
		return err
	}
	var texts, scaled []float32
	for i := range B {
		texts = append(texts, runner.Normalised(text[i])...)
		for _, x := range runner.Normalised(image[i]) {
			scaled = append(scaled, x*float32(math.Exp(float64(scale[0]))))
		}
	}
	if err := v.tensor(name+"logits_per_image", logits); err != nil {
		return err
	}
	if err := v.tensor(name+"text_embedding", texts); err != nil {
		return err
	}
	return v.tensor(name+"visual_embedding_scaled", scaled)
}

// parameters compares one value for each trained parameter, by the reference's names.
func (v *verification) parameters(prefix string, have map[string][]float32) error {
	names := v.want.under(prefix)
	slices.Sort(names)
	for _, name := range names {
		got := have[strings.TrimPrefix(name, "model.")]
		if name == "ret_embedding" {
			if added := have["added_tokens"]; added != nil {
				got = added[len(added)/2:]
			}
		}
		if err := v.tensor(prefix+name, got); err != nil {
			return err
		}
	}
	if len(names) != len(have) {
		return fmt.Errorf("%s: want %d parameters, have %d", prefix, len(have), len(names))
	}
	return nil
}
