// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"fromage/bench"
	"fromage/gpu"
	"fromage/runner"
	"fromage/wasm/headless"
	"fromage/wasm/headless/lines"
)

// sandboxPrompt is what the guest continues; it has no picture and no [RET].
const sandboxPrompt = "a photo of a"

// benchSandbox times what a guest in the sandbox says, from outside: tokens reach the host as lines. The guest's kernels are those of the device.
func (a *app) benchSandbox(ctx context.Context, dev gpu.Device, tokens int, report *bench.Report) error {
	config, err := a.guestFiles(sandbox{files: "."})
	if err != nil {
		return err
	}
	config.Index = ""
	if config.Wasm, err = headless.Program(); err != nil {
		return err
	}
	r := headless.NewRuntime(ctx)
	defer r.Close(context.WithoutCancel(ctx))
	line := a.startProgress("starting the sandbox", "B")
	config.Progress = line.set
	m, err := headless.Instantiate(ctx, r, dev, config)
	a.endProgress()
	if err != nil {
		return err
	}
	defer m.Close(context.WithoutCancel(ctx))
	g, err := m.Guest(ctx)
	if err != nil {
		return err
	}
	defer g.Close()
	const rounds = 5
	var first, decode []float64
	for i := range rounds + 1 {
		f, d, err := askTimed(ctx, g, tokens)
		if err != nil {
			return err
		}
		if i > 0 { // the first compiles kernels
			first, decode = append(first, f), append(decode, d)
		}
	}
	slices.Sort(first)
	slices.Sort(decode)
	report.Sandbox = &bench.Sandbox{Model: g.Ready().Model, FirstMS: first[rounds/2], Decode: decode[rounds/2], MemoryBytes: g.Memory()}
	return nil
}

// askTimed has a guest say so many tokens: the milliseconds to the first, and tokens a second from there.
func askTimed(ctx context.Context, g *headless.Guest, tokens int) (firstMS, perSecond float64, err error) {
	o := runner.DefaultOptions()
	o.NumWords, o.IgnoreEOS, o.MaxNumRets, o.RetScaleFactor = tokens, true, 0, 0
	var first, last time.Time
	n := 0
	began := time.Now()
	err = g.Ask(ctx, lines.Request{Prompt: []lines.Item{{Text: sandboxPrompt}}, Options: &o}, func(l lines.Line) {
		if l.Token == nil {
			return
		}
		if last = time.Now(); n == 0 {
			first = last
		}
		n++
	})
	if err == nil && n < 2 {
		err = fmt.Errorf("bench: sandbox: want two tokens or more of %q, have %d", sandboxPrompt, n)
	}
	if err != nil {
		return 0, 0, err
	}
	return first.Sub(began).Seconds() * 1e3, float64(n-1) / last.Sub(first).Seconds(), nil
}
