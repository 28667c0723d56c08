// SPDX-License-Identifier: Apache-2.0

package eval

import (
	"math"
	"strings"
)

// bleu counts what BLEUScore of torchmetrics counts (functional/text/bleu.py), for n-grams of 1 to 4 words: words are what spaces separate, the closest
// reference length is the first of equally close ones, and nothing is smoothed.
type bleu struct {
	matched, made   [4]int // n-grams by n−1: in a reference as well, and in all
	length, against int    // words made, and of the closest references
}

// add counts a text against its references.
func (b *bleu) add(text string, references []string) {
	words := strings.Fields(text)
	most := map[string]int{} // n-gram → how often a reference has it at most
	closest := -1
	for _, r := range references {
		have := strings.Fields(r)
		if d := distance(len(have), len(words)); closest < 0 || d < distance(closest, len(words)) {
			closest = len(have)
		}
		for gram, n := range ngrams(have) {
			most[gram] = max(most[gram], n)
		}
	}
	b.length += len(words)
	b.against += max(0, closest)
	for gram, n := range ngrams(words) {
		size := strings.Count(gram, " ")
		b.made[size] += n
		b.matched[size] += min(n, most[gram])
	}
}

func distance(a, b int) int { return max(a-b, b-a) }

// ngrams counts runs of 1 to 4 words, joined by spaces.
func ngrams(words []string) map[string]int {
	counts := map[string]int{}
	for i := range words {
		for n := 1; n <= 4 && i+n <= len(words); n++ {
			counts[strings.Join(words[i:i+n], " ")]++
		}
	}
	return counts
}

// scores returns BLEU-1 to BLEU-4, in percent: the geometric mean of the shares of matched n-grams up to n, times the penalty for being short.
func (b *bleu) scores() [4]float64 {
	var out [4]float64
	penalty := 1.0
	if b.length <= b.against {
		penalty = math.Exp(1 - float64(b.against)/float64(b.length))
	}
	sum := 0.0
	for n := range out {
		if b.matched[n] == 0 {
			break
		}
		sum += math.Log(float64(b.matched[n]) / float64(b.made[n]))
		out[n] = 100 * penalty * math.Exp(sum/float64(n+1))
	}
	return out
}
