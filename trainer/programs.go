// SPDX-License-Identifier: Apache-2.0

package trainer

import (
	"fmt"
	"slices"

	"fromage/plan"
)

// Trained weights, by the names that package model gives them.
const (
	addedTokens = "added_tokens" // (2,E): the rows of <|image|>, which is frozen, and [RET]
	logitScale  = "logit_scale"
)

// programs are what a step runs besides the bundle's own "maps":
//
//	caption   tokens (T,4), prefix (I,E), prefix_rows (I), rows, labels, weights (R) → nll (R,2), d.prefix (I,E)
//	retrieve  tokens (T,4), rows, labels, weights (R), ret_rows (B), ret_tokens (B,4), image (B,S) → nll, stats (2B,4), logits (B·B), text (B,S), d.image (B,S)
//	embed     the beginning of retrieve, to text: where a batch is more than one run …
//	contrast  image (B,S), text (B,S) → stats, logits, d.image, d.text: … this follows for all of it, …
//	back      tokens (T,4), ret_rows (B), ret_tokens (B,4), d.text (B,S): … and this computes the beginning again, run after run
//	maps_back v (B,Dv), d.prefix (B,k·E), d.image (B,S)
//
// All add gradients of trained weights to states "d.NAME". They are made of the bundle's "lm" and "maps", so that training computes what inference does.
// The source is train in the reference's main.py and FromageModel.forward in fromage/models.py.
type programs struct {
	caption, retrieve, embed, contrast, back, mapsBack *plan.Program
}

// prefix of names that training has for itself, so that the runner's KV cache is not touched.
const own = "train."

func state(name string) string { return own + name }

// running names all that a step runs.
var running = []string{"maps", own + "caption", own + "retrieve", own + "embed", own + "contrast", own + "back", own + "maps_back"}

// grad is the name of the state with the gradient of a weight.
func grad(weight string) string { return own + "d." + weight }

var (
	wanted   = plan.Dim{Of: plan.Rows, N: 1}
	images   = plan.Dim{Of: plan.Images, N: 1}
	prefixes = plan.Dim{Of: plan.Prefix, N: 1}
)

// build makes the programs. weight is the factor on the contrastive loss; half has captioning's activations wait as f16.
func build(m *plan.Model, weight float32, half bool) (*programs, error) {
	lm, err := m.Program("lm")
	if err != nil {
		return nil, err
	}
	maps, err := m.Program("maps")
	if err != nil {
		return nil, err
	}
	p := &programs{}
	s := source{m: m, lm: lm, maps: maps, weight: weight, half: half}
	for _, part := range []struct {
		name    string
		program **plan.Program
		build   func(b *plan.Builder) error
	}{
		{"caption", &p.caption, s.caption}, {"retrieve", &p.retrieve, s.retrieve}, {"embed", &p.embed, s.embed},
		{"contrast", &p.contrast, s.contrast}, {"back", &p.back, s.back}, {"maps_back", &p.mapsBack, s.mapsBack},
	} {
		made := &plan.Model{Weights: slices.Clone(m.Weights)}
		b := plan.NewBuilder(made, own+part.name)
		if err := part.build(b); err != nil {
			return nil, fmt.Errorf("trainer: program %s: %w", part.name, err)
		}
		if err := b.Done(); err != nil {
			return nil, fmt.Errorf("trainer: %w", err)
		}
		*part.program = made.Programs[0]
	}
	return p, nil
}

// source is what the programs are made of.
type source struct {
	m        *plan.Model
	lm, maps *plan.Program
	weight   float32
	half     bool
}

// sum returns the state for the gradient of a trained weight, 0 for one that is frozen.
func (s source) sum(b *plan.Builder, name string) plan.ID {
	w, err := s.m.Weight(name)
	if err != nil || !w.Head {
		return 0
	}
	return b.Accumulator(grad(name), w.Rows, w.Cols)
}

// use returns a weight in the builder's program.
func (s source) use(b *plan.Builder, name string) (plan.ID, error) {
	w, err := s.m.Weight(name)
	if err != nil {
		return 0, err
	}
	return b.Weight(*w), nil
}

// trained lists the builder's trained weights with the states of their gradients.
func (s source) trained(b *plan.Builder) map[plan.ID]plan.ID {
	sums := map[plan.ID]plan.ID{}
	for _, w := range s.m.Weights {
		if id := b.Find(w.Name); id != 0 && w.Head {
			sums[id] = s.sum(b, w.Name)
		}
	}
	return sums
}

// outputRows returns the names of the weights whose rows logits are made of, in order: those of the language model's last linear layer.
func outputRows(lm *plan.Program) []string {
	logits := lm.Find("logits")
	for _, op := range lm.Ops {
		o, ok := op.(*plan.Linear)
		if !ok || o.Y != logits {
			continue
		}
		names := make([]string, len(o.W))
		for i, id := range o.W {
			names[i] = lm.Value(id).Name
		}
		return names
	}
	return nil
}

// crossEntropy adds the next-token loss at the wanted rows. Of the output rows, only [RET]'s is trained.
func (s source) crossEntropy(b *plan.Builder, hidden plan.ID, wantDX bool) (plan.ID, error) {
	names := outputRows(s.lm)
	if len(names) == 0 || names[len(names)-1] != addedTokens {
		return 0, fmt.Errorf("want logits of a linear layer whose last rows are %s, have %v", addedTokens, names)
	}
	w := make([]plan.ID, len(names))
	for i, name := range names {
		var err error
		if w[i], err = s.use(b, name); err != nil {
			return 0, err
		}
	}
	nll, dx := b.CrossEntropy(hidden, w, b.Numbers("labels", wanted, 1), b.Input("weights", wanted, 1), s.sum(b, addedTokens), wantDX)
	b.Output("nll", nll)
	return dx, nil
}

// caption is the captioning loss, back to the visual embeddings.
func (s source) caption(b *plan.Builder) error {
	out, err := b.Inline(s.lm, nil, state, "hidden")
	if err != nil {
		return err
	}
	dx, err := s.crossEntropy(b, out["hidden"], true)
	if err != nil {
		return err
	}
	prefix := b.Find("prefix")
	d, err := b.Grad(plan.Gradients{
		Of: map[plan.ID]plan.ID{out["hidden"]: dx}, Inputs: []plan.ID{prefix}, PrefixRows: b.Numbers("prefix_rows", prefixes, 1), Half: s.half,
	})
	if err != nil {
		return err
	}
	b.Output("d.prefix", d[prefix])
	return nil
}

// text is the retrieval embedding of captions at their [RET], the last token of each.
func (s source) text(b *plan.Builder) (plan.ID, plan.ID, error) {
	at := b.Numbers("ret_rows", images, 1)
	out, err := b.Inline(s.lm, map[string]plan.ID{"rows": at}, state, "retrieval")
	return out["retrieval"], at, err
}

// textLoss is the next-token loss of captions with their [RET]: it reaches only the output row of [RET], from states that no gradient goes back into.
func (s source) textLoss(b *plan.Builder) error {
	out, err := b.Inline(s.lm, nil, state, "hidden")
	if err != nil {
		return err
	}
	_, err = s.crossEntropy(b, out["hidden"], false)
	return err
}

// textBack takes the gradient of the retrieval embeddings back to the maps and to [RET] as an input: through its own positions only, since it is the
// last token and everything before it is frozen.
func (s source) textBack(b *plan.Builder, text, at, d plan.ID) error {
	_, err := b.Grad(plan.Gradients{
		Of: map[plan.ID]plan.ID{text: d}, Weights: s.trained(b), Rows: at, TokenRows: b.Numbers("ret_tokens", images, plan.TokenColumns),
	})
	return err
}

func (s source) contrastive(b *plan.Builder, text plan.ID) (dtext plan.ID, err error) {
	scale, err := s.use(b, logitScale)
	if err != nil {
		return 0, err
	}
	image := b.Input("image", images, b.Cols(text))
	logits, stats, dimage, dtext := b.Contrastive(image, text, scale, s.sum(b, logitScale), s.weight)
	b.Output("logits", logits)
	b.Output("stats", stats)
	b.Output("d.image", dimage)
	return dtext, nil
}

func (s source) retrieve(b *plan.Builder) error {
	text, at, err := s.text(b)
	if err != nil {
		return err
	}
	b.Output("text", text)
	dtext, err := s.contrastive(b, text)
	if err != nil {
		return err
	}
	if err := s.textBack(b, text, at, dtext); err != nil {
		return err
	}
	return s.textLoss(b)
}

func (s source) embed(b *plan.Builder) error {
	text, _, err := s.text(b)
	if err != nil {
		return err
	}
	b.Output("text", text)
	return s.textLoss(b)
}

func (s source) contrast(b *plan.Builder) error {
	dtext, err := s.contrastive(b, b.Input("text", images, s.sharedDim()))
	if err == nil {
		b.Output("d.text", dtext)
	}
	return err
}

func (s source) sharedDim() int { return s.maps.Value(s.maps.Find("retrieval")).Cols }

func (s source) back(b *plan.Builder) error {
	text, at, err := s.text(b)
	if err != nil {
		return err
	}
	return s.textBack(b, text, at, b.Input("d.text", images, s.sharedDim()))
}

func (s source) mapsBack(b *plan.Builder) error {
	out, err := b.Inline(s.maps, nil, state, "prefix", "retrieval")
	if err != nil {
		return err
	}
	_, err = b.Grad(plan.Gradients{
		Of: map[plan.ID]plan.ID{
			out["prefix"]: b.Input("d.prefix", images, b.Cols(out["prefix"])), out["retrieval"]: b.Input("d.image", images, b.Cols(out["retrieval"])),
		},
		Weights: s.trained(b),
	})
	return err
}
