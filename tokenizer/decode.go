// SPDX-License-Identifier: Apache-2.0

package tokenizer

import "unicode/utf8"

// Decode returns the text of ids, without special tokens if skipSpecial. Ids
// that are no token's, such as those of the padding rows at the end of OPT's
// embedding matrix, give nothing; bytes that are not UTF-8 give U+FFFD as in
// [Sanitize].
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	var text []byte
	for _, id := range ids {
		if !skipSpecial || !t.Special(id) {
			text = append(text, t.Text(id)...)
		}
	}
	return Sanitize(string(text))
}

// Decoder decodes ids one by one. What Push and, at the end, Flush return in a
// row is what Decode returns for all ids at once.
type Decoder struct {
	t           *Tokenizer
	skipSpecial bool
	rest        []byte // the start of a character
}

// NewDecoder returns a decoder at the start of a text.
func (t *Tokenizer) NewDecoder(skipSpecial bool) *Decoder {
	return &Decoder{t: t, skipSpecial: skipSpecial}
}

// Push returns the text that id completes; a character that is not yet whole
// waits for the next id.
func (d *Decoder) Push(id int32) string {
	if d.skipSpecial && d.t.Special(id) {
		return ""
	}
	d.rest = append(d.rest, d.t.Text(id)...)
	whole := len(d.rest)
	for i := len(d.rest) - 1; i >= max(0, len(d.rest)-3); i-- {
		if !utf8.FullRune(d.rest[i:]) {
			whole = i
		}
	}
	text := Sanitize(string(d.rest[:whole]))
	d.rest = append(d.rest[:0], d.rest[whole:]...)
	return text
}

// Flush returns U+FFFD if a character was left unfinished, else nothing, and
// starts a new text.
func (d *Decoder) Flush() string {
	text := Sanitize(string(d.rest))
	d.rest = d.rest[:0]
	return text
}
