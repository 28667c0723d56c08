// SPDX-License-Identifier: Apache-2.0

package tokenizer

// Vocabulary files spell bytes as printable characters (bytes_to_unicode in
// GPT-2's encoder.py): printable ones stand for themselves, the other 68 are
// U+0100, U+0101, … in order, so that a space is "Ġ" and a newline "Ċ".
var (
	byteRune [256]rune
	runeByte = map[rune]byte{}
)

func init() {
	next := rune(256)
	for b := range rune(256) {
		r := b
		if !(b >= '!' && b <= '~' || b >= '¡' && b <= '¬' || b >= '®') {
			r, next = next, next+1
		}
		byteRune[b], runeByte[r] = r, byte(b)
	}
}

// toAlphabet spells text as a vocabulary file does.
func toAlphabet(text string) string {
	key := make([]rune, len(text))
	for i := range len(text) {
		key[i] = byteRune[text[i]]
	}
	return string(key)
}

// fromAlphabet returns the text that key spells; !ok if key holds a character
// that stands for no byte.
func fromAlphabet(key string) (text string, ok bool) {
	b := make([]byte, 0, len(key))
	for _, r := range key {
		c, ok := runeByte[r]
		if !ok {
			return "", false
		}
		b = append(b, c)
	}
	return string(b), true
}
