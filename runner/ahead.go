// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"time"

	"fromage/gpu"
	"fromage/machine"
	"fromage/plan"
	"fromage/shaders"
)

// ahead generates a sequence's tokens: one at a time where the host draws them, and where the most likely ones are wanted of a GPU several in one submit,
// the device itself putting each into the token table. Reading logits back would cost a GPU as much time as a small model.
type ahead struct {
	s       *Sequence
	sampler *Sampler
	begun   bool // the prompt was read
}

// mostAhead is the most tokens of one submit.
const mostAhead = 32

// aheadTime is about how long a submit should take: what is generated beyond the end of an answer is wasted, and nothing is shown meanwhile. Tests change it.
var aheadTime = 16 * time.Millisecond

// next appends between one and most tokens to the sequence and returns them; i is how many there were before.
func (a *ahead) next(ctx context.Context, i, most int) ([]int32, error) {
	r := a.s.r
	if !a.begun || r.m.Info.Software || a.sampler.opt.Temperature > 0 {
		res, err := a.s.last(ctx, want{logits: true})
		if err != nil {
			return nil, err
		}
		id := a.sampler.Next(res.logits[0], i)
		a.s.tokens = append(a.s.tokens, Token{ID: id})
		a.begun = true
		return []int32{int32(id)}, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := min(max(1, r.ahead), most)
	control := append(shaders.NextTokenControl(a.sampler.opt.MinWordTokens-i, a.sampler.ret, float32(a.sampler.opt.RetScaleFactor)), make([]uint32, mostAhead)...)
	start := time.Now()
	if err := r.mend(ctx, func() error { return a.submit(ctx, n, control) }); err != nil {
		return nil, err
	}
	perToken := time.Since(start) / time.Duration(n)
	r.ahead = max(1, min(mostAhead, 2*max(n, r.ahead), int(aheadTime/max(perToken, 1))))
	ids := make([]int32, n)
	for j := range ids {
		ids[j] = int32(control[shaders.NextTokenHead+j])
		a.s.tokens = append(a.s.tokens, Token{ID: int(ids[j])})
	}
	a.s.computed = len(a.s.tokens) - 1
	return ids, nil
}

// submit runs the sequence's last token and the n−1 that follow it, and reads what they are into control.
func (a *ahead) submit(ctx context.Context, n int, control []uint32) error {
	s, r, known := a.s, a.s.r, len(a.s.tokens)
	defer func() { s.tokens = s.tokens[:known] }()
	if s.tokens = s.tokens[:known-1]; s.computed < known-1 {
		if _, err := r.forwardOnce(ctx, []feed{{s: s}}, want{}); err != nil {
			return err
		}
	}
	s.computed = known - 1
	s.tokens = append(s.tokens[:known], make([]Token, n-1)...)
	if err := r.kv.reserve([]*Sequence{s}); err != nil {
		return err
	}
	buffer, err := r.aheadControl()
	if err != nil {
		return err
	}
	if err := r.m.Dev.Write(buffer, 0, machine.Bytes(control[:shaders.NextTokenHead])); err != nil {
		return err
	}
	prog, err := r.m.Program("lm")
	if err != nil {
		return err
	}
	in := r.pack([]place{{s: s, at: known - 1, labels: []uint32{ignored}}})
	inputs := map[string][]byte{"tokens": machine.Bytes(in.tokens), "rows": machine.Bytes(in.rows)}
	d := shaders.NextToken(r.m.Info, shaders.NextTokenParams{V: uint32(r.m.Manifest.Settings.Vocabulary)})
	p, err := r.m.Dev.Compile(d.Kernel)
	if err != nil {
		return err
	}
	dims := plan.Run(1, 1, 0)
	dims[plan.Past] = s.rows
	err = prog.Repeat(dims, n, inputs, "logits", func(list *gpu.List) {
		list.Dispatch(p, d.Groups, d.Params, prog.Buffer("logits"), buffer, prog.Buffer("tokens"), prog.Buffer("rows"))
	})
	if err != nil {
		return err
	}
	return r.m.Dev.Read(buffer, 0, machine.Bytes(control[:shaders.NextTokenHead+n]))
}

// aheadControl is the buffer in which NextToken counts and leaves its tokens.
func (r *Runner) aheadControl() (gpu.Buffer, error) {
	const name = "next tokens"
	if b, ok := r.m.States[name]; ok {
		return b, nil
	}
	b, err := r.m.Dev.NewBuffer(name, machine.Padded(4*(shaders.NextTokenHead+mostAhead)))
	if err == nil {
		r.m.States[name] = b
	}
	return b, err
}
