// SPDX-License-Identifier: Apache-2.0

package plan

import "slices"

// Tap is a value that linear layers of a program read.
type Tap struct {
	Output  string   // its name in the program that Tapped made
	Value   ID       // in both programs
	Weights []string // the names of the matrices that it is multiplied with
}

// Tapped returns a copy of the program in which every value that a linear layer reads is an output, but for inputs, which the caller knows. The taps
// are in the order in which they are first read.
func (p *Program) Tapped() (*Program, []Tap) {
	out := &Program{Name: p.Name + " tapped", Values: slices.Clone(p.Values), Ops: p.Ops}
	var taps []Tap
	for _, op := range p.Ops {
		l, ok := op.(*Linear)
		if !ok || p.Value(l.X).Kind == Input {
			continue
		}
		at := slices.IndexFunc(taps, func(t Tap) bool { return t.Value == l.X })
		if at < 0 {
			at = len(taps)
			v := out.Value(l.X)
			if v.Kind == Activation {
				v.Kind, v.Name = Output, "x of "+p.Value(l.W[0]).Name
			}
			taps = append(taps, Tap{Output: v.Name, Value: l.X})
		}
		for _, w := range l.W {
			taps[at].Weights = append(taps[at].Weights, p.Value(w).Name)
		}
	}
	return out, taps
}
