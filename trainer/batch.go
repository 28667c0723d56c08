// SPDX-License-Identifier: Apache-2.0

package trainer

import "fromage/tokenizer"

// Example is a caption and its picture as training sees them.
type Example struct {
	Tokens []int32   // </s>, the caption, [RET]; at most max-len
	V      []float32 // (Dv): CLIP's pooled state of the picture
}

// Tokenize returns the tokens of a caption: the leading </s>, the text, and [RET], which takes the last place where the text is cut to most tokens. ok is
// false for captions that training has no meaning for, since they contain [RET] or <pad> themselves. The source is CsvDataset in fromage/data.py.
func Tokenize(t *tokenizer.Tokenizer, caption string, ret, pad int32, most int) (tokens []int32, ok bool) {
	tokens = t.Encode(caption, true)
	for _, id := range tokens {
		if id == ret || id == pad {
			return nil, false
		}
	}
	if len(tokens) >= most {
		tokens = tokens[:most-1]
	}
	return append(tokens[:len(tokens):len(tokens)], ret), true
}

// packed is the inputs of one run of a program over some of a batch's examples: tokens packed without padding.
type packed struct {
	first, n     int      // examples
	tokens       []uint32 // (T,4)
	prefixRows   []uint32 // (I): the places of visual embeddings
	rows, labels []uint32 // (R): the places that predict a labelled token, and the token
	retRows      []uint32 // (n): the places of [RET]
	retTokens    []uint32 // (n,4): the token table's rows there
}

func (p *packed) T() int { return len(p.tokens) / 4 }

// sequence is what one causal sequence has of examples, before it is put in place.
type sequence struct {
	first, n int
	ids      []uint32 // numbers; visual embeddings count from the vocabulary's size on, within the sequence
	labels   []int32  // of the next token, −1 where it has none
}

// captioning makes the sequences of the captioning loss: each picture's k visual embeddings, then its caption without [RET]; two examples after one another
// where concat is set, the last alone where they are odd in number. What follows the last labelled token is left out, since nothing depends on it.
func captioning(examples []Example, k, vocabulary int, concat bool) []sequence {
	step := 1
	if concat {
		step = 2
	}
	var all []sequence
	for first := 0; first < len(examples); first += step {
		s := sequence{first: first, n: min(step, len(examples)-first)}
		visual := vocabulary
		for _, e := range examples[first : first+s.n] {
			for range k {
				s.put(uint32(visual), -1)
				visual++
			}
			for _, id := range e.Tokens[:len(e.Tokens)-1] {
				s.labels[len(s.labels)-1] = id
				s.put(uint32(id), -1)
			}
		}
		last := len(s.ids) - 1
		s.ids, s.labels = s.ids[:last], s.labels[:last]
		all = append(all, s)
	}
	return all
}

// retrieval makes the sequences of the retrieval losses: each caption with its [RET], every token but the first a label.
func retrieval(examples []Example) []sequence {
	all := make([]sequence, len(examples))
	for i, e := range examples {
		s := sequence{first: i, n: 1}
		for j, id := range e.Tokens {
			if j > 0 {
				s.labels[j-1] = id
			}
			s.put(uint32(id), -1)
		}
		all[i] = s
	}
	return all
}

func (s *sequence) put(id uint32, label int32) {
	s.ids, s.labels = append(s.ids, id), append(s.labels, label)
}

// pack puts sequences into as few runs of up to most tokens as their order allows. A sequence of more is a run of its own.
func pack(sequences []sequence, vocabulary, most int) []*packed {
	var runs []*packed
	var p *packed
	for _, s := range sequences {
		if p == nil || p.T()+len(s.ids) > most {
			p = &packed{first: s.first}
			runs = append(runs, p)
		}
		p.n += s.n
		start := p.T()
		visual := uint32(len(p.prefixRows))
		for at, id := range s.ids {
			t := uint32(start + at)
			if id >= uint32(vocabulary) {
				id += visual
				p.prefixRows = append(p.prefixRows, t)
			}
			if label := s.labels[at]; label >= 0 {
				p.rows, p.labels = append(p.rows, t), append(p.labels, uint32(label))
			}
			p.tokens = append(p.tokens, id, uint32(at), uint32(start), uint32(at+1))
		}
		end := uint32(p.T() - 1)
		p.retRows = append(p.retRows, end)
		p.retTokens = append(p.retTokens, p.tokens[4*end:]...)
	}
	return runs
}

// labelled counts the labels of all runs.
func labelled(runs []*packed) (n int) {
	for _, p := range runs {
		n += len(p.labels)
	}
	return n
}
