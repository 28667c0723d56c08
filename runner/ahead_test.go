// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

// submits counts what is sent to a device.
type submits struct {
	gpu.Device
	n int
}

func (d *submits) Submit(l *gpu.List) error {
	d.n++
	return d.Device.Submit(l)
}

// TestAhead: where the device itself picks tokens, answers, their events and what is left in the sequence are those of the host's loop, whatever stops
// them, in fewer submits.
func TestAhead(t *testing.T) {
	defer func(d time.Duration) { aheadTime = d }(aheadTime)
	aheadTime = time.Minute
	ctx, b := context.Background(), compiled(t, shaders.F32)
	counted := &submits{Device: cpu.New()}
	load := func(dev gpu.Device) *Runner {
		r, err := Load(ctx, dev, b, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	host, device := load(cpu.New()), load(kerneltest.AsHardware(counted))
	defer host.Close()
	defer device.Close()
	rng := rand.New(rand.NewPCG(3, 4))
	stops, tokens, sent := map[string]int{}, 0, 0
	for i := range 60 {
		opt := DefaultOptions()
		opt.NumWords, opt.IgnoreEOS = 1+rng.IntN(40), i%3 > 0
		if i%12 == 11 {
			opt.NumWords = host.Settings().MaxPositions
		}
		opt.MaxNumRets, opt.MinWordTokens = rng.IntN(4), rng.IntN(2)*rng.IntN(9)
		opt.RetScaleFactor = []float64{1, 1, 1.5, 40}[rng.IntN(4)]
		talk := func(r *Runner, s *Sequence) (answer *Answer, events []Event) {
			for _, id := range []int{5, 9 + i} {
				s.AppendTokens(Token{ID: id % r.Settings().Vocabulary})
				var err error
				if answer, err = s.Generate(ctx, opt, nil, func(e Event) { events = append(events, e) }); err != nil {
					t.Fatal(err)
				}
			}
			return answer, events
		}
		prompts := [2]*Sequence{}
		for j, r := range []*Runner{host, device} {
			prompts[j] = randomSequences(r, 2+i%7)[0]
			prompts[j].AppendTokens(Token{ID: i})
			defer prompts[j].Close()
		}
		want, events := talk(host, prompts[0])
		before := counted.n
		got, heard := talk(device, prompts[1])
		if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(heard, events) {
			t.Errorf("%+v: answer %+v, want %+v", opt, got, want)
		}
		if !slices.EqualFunc(prompts[1].Tokens(), prompts[0].Tokens(), func(a, b Token) bool { return a.ID == b.ID }) {
			t.Errorf("%+v: %d tokens in the sequence, want %d", opt, prompts[1].Len(), prompts[0].Len())
		}
		stops[got.Stop]++
		tokens, sent = tokens+len(got.IDs), sent+counted.n-before
	}
	if stops["length"] == 0 || stops["rets"] == 0 || stops["context"] == 0 || 2*sent > tokens {
		t.Errorf("%d tokens in %d submits; answers ended by %v", tokens, sent, stops)
	}
}
