// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"slices"
	"testing"

	"fromage/plan"
)

// TestTapped taps every linear layer of the language model once, and leaves the program as it was.
func TestTapped(t *testing.T) {
	m := tiny(t)
	p, err := m.Program("lm")
	if err != nil {
		t.Fatal(err)
	}
	before := slices.Clone(p.Values)
	tapped, taps := p.Tapped()
	if err := tapped.Check(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Values, before) {
		t.Error("Tapped changed the program itself")
	}
	var weights []string
	for _, tap := range taps {
		v := tapped.Value(tap.Value)
		if v.Kind != plan.Output || v.Name != tap.Output {
			t.Errorf("tap %s is %s %q, want an output", tap.Output, v.Kind, v.Name)
		}
		weights = append(weights, tap.Weights...)
	}
	var want []string
	for _, op := range p.Ops {
		if l, ok := op.(*plan.Linear); ok {
			for _, w := range l.W {
				want = append(want, p.Value(w).Name)
			}
		}
	}
	slices.Sort(weights)
	slices.Sort(want)
	if !slices.Equal(weights, want) || len(want) == 0 {
		t.Errorf("taps of %q, want %q", weights, want)
	}
	at := slices.IndexFunc(taps, func(x plan.Tap) bool { return x.Output == "hidden" })
	if at < 0 || !slices.Contains(taps[at].Weights, "model.decoder.embed_tokens.weight") || !slices.Contains(taps[at].Weights, "added_tokens") {
		t.Errorf("taps = %+v, want hidden as what the tied output layers read", taps)
	}
	maps, err := m.Program("maps")
	if err != nil {
		t.Fatal(err)
	}
	if _, taps := maps.Tapped(); len(taps) > 0 {
		t.Errorf("taps of maps = %+v, want none: it reads an input", taps)
	}
}
