// SPDX-License-Identifier: Apache-2.0

package tokenizer

import (
	"encoding/binary"
	"fmt"
)

// The compact form is, with every number an unsigned varint:
//
//	magic
//	tokens, merges, id of </s>
//	per token: length of its text in bytes <<3 | kind
//	the texts of all tokens in a row
//	per merge, by rank: left id, right id, product id
const magic = "OPTBPE1\n"

// MarshalBinary returns the tables, added tokens included, in the form that
// UnmarshalBinary reads without parsing JSON. It never fails.
func (t *Tokenizer) MarshalBinary() ([]byte, error) {
	b := []byte(magic)
	b = binary.AppendUvarint(b, uint64(len(t.text)))
	b = binary.AppendUvarint(b, uint64(len(t.merges)))
	b = binary.AppendUvarint(b, uint64(t.bos))
	for id, text := range t.text {
		b = binary.AppendUvarint(b, uint64(len(text))<<kindBits|uint64(t.kind[id]))
	}
	for _, text := range t.text {
		b = append(b, text...)
	}
	for _, m := range t.merges {
		for _, id := range []int32{m.left, m.right, m.product} {
			b = binary.AppendUvarint(b, uint64(id))
		}
	}
	return b, nil
}

// UnmarshalBinary replaces t by what MarshalBinary wrote. On an error t is as it
// was.
func (t *Tokenizer) UnmarshalBinary(data []byte) error {
	r := reader{data: data}
	if len(data) < len(magic) || string(data[:len(magic)]) != magic {
		return fmt.Errorf("tokenizer: tables byte 0: want %q", magic)
	}
	r.at = len(magic)
	tokens := r.number("a number of tokens", len(data)/2) // two bytes each at least
	merges := r.number("a number of merges", len(data)/3)
	bos := r.number("an id of </s>", tokens-1)
	next := Tokenizer{bos: int32(bos)}
	r.readTokens(&next, tokens)
	r.readMerges(&next, merges)
	if r.err == nil && r.at != len(data) {
		r.fail("want the end, have %d bytes more", len(data)-r.at)
	}
	if r.err != nil {
		return r.err
	}
	next.index()
	*t = next
	return nil
}

// reader reads the compact form up to the first error.
type reader struct {
	data []byte
	at   int
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("tokenizer: tables byte %d: %s", r.at, fmt.Sprintf(format, args...))
	}
}

// number reads a number of at most most, or 0 after an error.
func (r *reader) number(what string, most int) int {
	if r.err != nil {
		return 0
	}
	x, n := binary.Uvarint(r.data[r.at:])
	if n <= 0 || most < 0 || x > uint64(most) {
		r.fail("want %s of at most %d", what, most)
		return 0
	}
	r.at += n
	return int(x)
}

func (r *reader) readTokens(t *Tokenizer, n int) {
	if r.err != nil {
		return
	}
	t.text, t.kind = make([]string, n), make([]kind, n)
	ends := make([]int, n)
	total := 0
	for id := range n {
		x := r.number("a length and kind of a token", len(r.data)<<kindBits)
		t.kind[id] = kind(x & (1<<kindBits - 1))
		if x>>kindBits == 0 || t.kind[id]&(added|special) == special {
			r.fail("token %d: want a text, and special only if added", id)
		}
		total += x >> kindBits
		if total > len(r.data)-r.at {
			r.fail("token %d: want texts of %d bytes in all at most, have %d", id, len(r.data)-r.at, total)
		}
		if r.err != nil {
			return
		}
		ends[id] = total
	}
	texts, start := string(r.data[r.at:r.at+total]), 0
	for id, end := range ends {
		t.text[id], start = texts[start:end], end
	}
	r.at += total
}

func (r *reader) readMerges(t *Tokenizer, n int) {
	if r.err != nil {
		return
	}
	made, err := byteTokens(t)
	if err != nil {
		r.fail("%v", err)
		return
	}
	if n > (len(r.data)-r.at)/3 {
		r.fail("want room for %d merges, have %d bytes", n, len(r.data)-r.at)
		return
	}
	t.merges = make([]merge, n)
	for rank := range t.merges {
		var ids [3]int32
		for i := range ids {
			ids[i] = int32(r.number("a token id", len(t.text)-1))
		}
		m := merge{ids[0], ids[1], ids[2]}
		if r.err != nil {
			return
		}
		if err := m.check(made); err != nil {
			r.fail("merge %d: %v", rank, err)
			return
		}
		if !m.spells(t) {
			r.fail("merge %d: want token %d to be %q, have %q", rank, m.product, t.text[m.left]+t.text[m.right], t.text[m.product])
			return
		}
		t.merges[rank] = m
	}
}

// spells reports whether the product's text is those of its parts in a row.
func (m merge) spells(t *Tokenizer) bool {
	left, right, product := t.text[m.left], t.text[m.right], t.text[m.product]
	return t.kind[m.product]&literal == 0 && len(product) == len(left)+len(right) &&
		product[:len(left)] == left && product[len(left):] == right
}

// byteTokens returns, by id, whether a token stands for one byte.
func byteTokens(t *Tokenizer) (made []bool, err error) {
	made = make([]bool, len(t.text))
	var seen [256]bool
	count := 0
	for id, text := range t.text {
		if len(text) != 1 || t.kind[id]&literal != 0 {
			continue
		}
		if seen[text[0]] {
			return nil, fmt.Errorf("want one token for byte %#02x, have another, %d", text[0], id)
		}
		seen[text[0]], made[id] = true, true
		count++
	}
	if count != 256 {
		return nil, fmt.Errorf("want a token for each of 256 bytes, have %d", count)
	}
	return made, nil
}
