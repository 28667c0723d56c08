// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
)

// Options are the reference's arguments of generate_for_images_and_texts and generate, with its defaults in DefaultOptions.
type Options struct {
	NumWords       int     `json:"num_words"`        // most tokens to generate
	RetScaleFactor float64 `json:"ret_scale_factor"` // factor on the logit of [RET]: above 1 pictures are returned more eagerly
	MinWordTokens  int     `json:"min_word_tokens"`  // tokens before [RET] is allowed
	Temperature    float64 `json:"temperature"`      // 0: the most likely token; else logits are divided by it and sampled
	TopP           float64 `json:"top_p"`            // sample from the most likely tokens that make up this probability
	MaxNumRets     int     `json:"max_num_rets"`     // most [RET]s to answer with pictures
	MaxImgPerRet   int     `json:"max_img_per_ret"`  // pictures for each
	Seed           uint64  `json:"seed"`             // of the sampler
	IgnoreEOS      bool    `json:"ignore_eos"`       // go on after </s>, as the reference does
}

// DefaultOptions are the reference's defaults, with the 32 words that its generate has.
func DefaultOptions() Options {
	return Options{NumWords: 32, RetScaleFactor: 1, TopP: 1, MaxNumRets: 1, MaxImgPerRet: 1}
}

// Check says which option is out of its range.
func (o Options) Check() error {
	switch {
	case o.NumWords < 0:
		return fmt.Errorf("num-words: want 0 or more, have %d", o.NumWords)
	case o.Temperature < 0 || math.IsNaN(o.Temperature) || math.IsInf(o.Temperature, 0):
		return fmt.Errorf("temperature: want 0 or more, have %g", o.Temperature)
	case !(o.TopP > 0 && o.TopP <= 1):
		return fmt.Errorf("top-p: want above 0 and up to 1, have %g", o.TopP)
	case o.Temperature == 0 && o.TopP != 1:
		return fmt.Errorf("top-p: cannot be set where temperature is 0 (greedy decoding), have %g", o.TopP)
	case math.IsNaN(o.RetScaleFactor) || math.IsInf(o.RetScaleFactor, 0):
		return fmt.Errorf("ret-scale-factor: want a finite number, have %g", o.RetScaleFactor)
	case o.MinWordTokens < 0 || o.MaxNumRets < 0 || o.MaxImgPerRet < 0:
		return fmt.Errorf("min-word-tokens, max-num-rets, max-img-per-ret: want 0 or more, have %d, %d, %d", o.MinWordTokens, o.MaxNumRets, o.MaxImgPerRet)
	}
	return nil
}

// Sampler picks next tokens from logits.
type Sampler struct {
	opt Options
	ret int
	rng *rand.Rand
}

// NewSampler makes a sampler; ret is the number of [RET], negative where the model has none.
func NewSampler(opt Options, ret int) *Sampler {
	return &Sampler{opt, ret, rand.New(rand.NewPCG(opt.Seed, 0x66726f6d616765))}
}

// Next picks the i-th generated token (from 0) from logits (V), which it changes: FromageModel.generate in fromage/models.py.
func (s *Sampler) Next(logits []float32, i int) int {
	switch {
	case s.ret < 0:
	case i < s.opt.MinWordTokens:
		logits[s.ret] = float32(math.Inf(-1))
	default:
		logits[s.ret] *= float32(s.opt.RetScaleFactor)
	}
	if s.opt.Temperature == 0 {
		return argmax(logits)
	}
	return s.sample(logits)
}

// argmax returns the lowest index of the largest value; NaN is never the largest.
func argmax(x []float32) int {
	best := 0
	for i, v := range x {
		if v > x[best] || x[best] != x[best] {
			best = i
		}
	}
	return best
}

// sample draws from softmax(logits/temperature), cut to the smallest set of most likely tokens whose probability exceeds top-p.
func (s *Sampler) sample(logits []float32) int {
	order := make([]int, len(logits))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return logits[order[a]] > logits[order[b]] })
	largest := float64(logits[order[0]])
	weights, total := make([]float64, len(order)), 0.0
	for i, t := range order {
		weights[i] = math.Exp((float64(logits[t]) - largest) / s.opt.Temperature)
		total += weights[i]
	}
	kept, sum := len(order), 0.0
	if s.opt.TopP < 1 {
		// A token is dropped when those before it already exceed top-p; the first never is.
		for i := range order {
			if i > 0 && sum > s.opt.TopP*total {
				kept = i
				break
			}
			sum += weights[i]
		}
	}
	sum = 0
	for _, w := range weights[:kept] {
		sum += w
	}
	at := s.rng.Float64() * sum
	for i, w := range weights[:kept] {
		if at -= w; at < 0 {
			return order[i]
		}
	}
	return order[0]
}
