// SPDX-License-Identifier: Apache-2.0

package trainer

import (
	"strings"
	"time"

	"fromage/machine"
	"fromage/plan"
)

// Parts are the parts of a step as Watch tells them, in the order in which they are shown.
var Parts = []string{
	"maps", "captioning forward", "captioning loss", "captioning back", "retrieval forward", "retrieval loss", "contrastive loss", "retrieval back", "maps back", "optimizer",
}

// Watch has took hear how long each of Parts takes and how many floating-point operations its matrix products have. A step that is watched is computed
// part by part, each waited for, with the same result; nil ends it. What is in no part is the host's packing and reading.
func (t *Trainer) Watch(took func(part string, flops float64, d time.Duration)) {
	t.took, t.m.Watch = took, nil
	if took == nil {
		return
	}
	parts := map[*plan.Program][]string{}
	t.m.Watch = &machine.Watch{
		Part: func(p *plan.Program, op int) string {
			if parts[p] == nil {
				parts[p] = partsOf(p)
			}
			return parts[p][op]
		},
		Took: func(p *plan.Program, part string, ops []int, dims plan.Dims, d time.Duration) {
			sum, flops := 0.0, p.FLOPs(dims)
			for _, op := range ops {
				sum += flops[op]
			}
			took(part, sum, d)
		},
	}
}

// partsOf names the part of each of a program's operations: what comes before the first loss or gradient is forward.
func partsOf(p *plan.Program) []string {
	names := map[string][2]string{
		"maps":      {"maps", "maps"},
		"caption":   {"captioning forward", "captioning back"},
		"retrieve":  {"retrieval forward", "retrieval back"},
		"embed":     {"retrieval forward", "retrieval back"},
		"contrast":  {"contrastive loss", "contrastive loss"},
		"back":      {"retrieval forward", "retrieval back"},
		"maps_back": {"maps", "maps back"},
	}[strings.TrimPrefix(p.Name, own)]
	loss := "captioning loss"
	if names[0] == "retrieval forward" {
		loss = "retrieval loss"
	}
	all, back := make([]string, len(p.Ops)), 0
	contrastive := false
	for i, op := range p.Ops {
		switch op.(type) {
		case *plan.CrossEntropy:
			all[i], back = loss, 1
			continue
		case *plan.Similarities:
			contrastive, back = true, 1
		case *plan.LinearBack, *plan.LinearWeightBack:
			contrastive, back = false, 1
		}
		if all[i] = names[back]; contrastive {
			all[i] = "contrastive loss"
		}
	}
	return all
}

// Memory is what training holds on its device, in bytes.
type Memory struct {
	Weights     int `json:"weights"`     // of the whole model
	Optimizer   int `json:"optimizer"`   // gradients and moments
	KV          int `json:"kv"`          // keys and values of one run
	Activations int `json:"activations"` // of the programs' buffers
	Tokens      int `json:"run_tokens"`  // of the longest run that there may be
}

// Memory tells what is held after the steps so far.
func (t *Trainer) Memory() Memory {
	m := Memory{Optimizer: 4 * t.sums, Tokens: t.most}
	for _, tensor := range t.m.Manifest.Tensors {
		for _, s := range tensor.Shards {
			m.Weights += int(s.Values.Size)
			if s.Scales != nil {
				m.Weights += int(s.Scales.Size)
			}
		}
	}
	for _, p := range t.params {
		m.Optimizer += 3 * machine.Padded(4*(p.first+p.n))
	}
	s := t.m.Manifest.Settings
	m.KV = s.Layers * machine.Padded(t.kv*t.kvRow())
	for _, name := range running {
		if p, err := t.m.Program(name); err == nil {
			m.Activations += p.Held()
		}
	}
	return m
}
