// SPDX-License-Identifier: Apache-2.0

package eval

import "math"

// answerScores measures scores of the candidates of every round of every dialogue, in order; higher is better.
func answerScores(dialogs []Dialog, scores [][]float64) AnswerScores {
	var ranks []int
	out := AnswerScores{}
	first := make([]int, len(dialogs)) // the round that each dialogue begins with
	for i, d := range dialogs {
		first[i] = len(ranks)
		for n, r := range d.Rounds {
			rank := rankOf(scores[first[i]+n], r.Truth)
			ranks = append(ranks, rank)
			out.MRR += 100 / float64(rank+1)
			out.MeanRank += float64(rank + 1)
		}
	}
	out.Recall = recall(ranks)
	out.MRR /= float64(len(ranks))
	out.MeanRank /= float64(len(ranks))
	var right, published mean
	for i, d := range dialogs {
		if d.Annotated == 0 {
			continue
		}
		right.add(ndcg(scores[first[i]+d.Annotated-1], d.Relevance))
		// Of the last dialogue's last round there is none, and the script stops.
		if at := first[i] + d.Annotated; at < len(scores) {
			published.add(ndcg(scores[at], d.Relevance))
		}
	}
	out.NDCG, out.NDCGPublished = right.percent(), published.percent()
	return out
}

// mean adds up numbers, but for those that are none.
type mean struct {
	sum float64
	n   int
}

func (m *mean) add(x float64) {
	if x == x {
		m.sum += x
		m.n++
	}
}

func (m *mean) percent() float64 {
	if m.n == 0 {
		return 0
	}
	return 100 * m.sum / float64(m.n)
}

// ndcg is the discounted gain of as many of the best answers as are relevant, as a share of the largest possible, NaN where none is relevant.
func ndcg(scores, relevance []float64) float64 {
	n := 0
	for _, r := range relevance {
		if r != 0 {
			n++
		}
	}
	// Candidates beyond either list, which the script would fail at, count as irrelevant.
	gain := func(order []int) float64 {
		sum := 0.0
		for i, at := range order {
			if at < len(relevance) {
				sum += relevance[at] / math.Log2(float64(i+2))
			}
		}
		return sum
	}
	return gain(topOf(scores, n)) / gain(topOf(relevance, n))
}
