// SPDX-License-Identifier: Apache-2.0

package trainer

import (
	"math"
	"math/rand/v2"
)

// Schedule is the learning rate over steps: linear from 0 over WarmupSteps, then multiplied by Gamma after every Decay steps. It is the reference's
// GradualWarmupScheduler over StepLR, which main.py does not advance after the last step of an epoch.
type Schedule struct {
	Rate          float64
	WarmupSteps   int
	StepsPerEpoch int
	Decay         int // steps; the reference's lr-schedule-step-size, which counts epochs, times StepsPerEpoch
	Gamma         float64
}

// At returns the learning rate of a step, counted from 0.
func (s Schedule) At(step int) float64 {
	n := step - step/max(1, s.StepsPerEpoch)
	if n <= s.WarmupSteps {
		if s.WarmupSteps == 0 {
			return s.Rate
		}
		return s.Rate * float64(n) / float64(s.WarmupSteps)
	}
	return s.Rate * math.Pow(s.Gamma, float64((n-s.WarmupSteps-1)/max(1, s.Decay)))
}

// Sampler draws batches: passes over all N examples, each in an order of its own, whose incomplete last batch is left out. A batch depends on nothing but
// the seed and its number, so that a run goes on anywhere.
type Sampler struct {
	N, Batch   int
	Seed       uint64
	ConcatProb float64

	pass  int
	order []int // of that pass
}

// Next returns the examples of a batch, and whether its captions are concatenated in pairs.
func (s *Sampler) Next(number int) (examples []int, concat bool) {
	size := min(s.Batch, s.N)
	batches := s.N / size
	if pass := number / batches; s.order == nil || pass != s.pass {
		s.pass, s.order = pass, rand.New(rand.NewPCG(s.Seed, uint64(pass))).Perm(s.N)
	}
	at := number % batches * size
	// A stream of its own, so that the probability does not change the order.
	coin := rand.New(rand.NewPCG(^s.Seed, uint64(number))).Float64()
	return s.order[at : at+size], coin < s.ConcatProb
}
