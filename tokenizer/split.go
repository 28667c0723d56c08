// SPDX-License-Identifier: Apache-2.0

package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// class is what GPT-2's regular expression tells characters apart by.
type class uint8

const (
	other  class = iota
	letter       // \p{L}
	number       // \p{N}
	space        // \s: White_Space, which U+00A0 has and U+001C … U+001F, U+200B have not
)

var asciiClass = func() (classes [utf8.RuneSelf]class) {
	for b := range classes {
		classes[b] = runeClass(rune(b))
	}
	return classes
}()

func runeClass(r rune) class {
	switch {
	case unicode.IsLetter(r):
		return letter
	case unicode.IsNumber(r):
		return number
	case unicode.IsSpace(r):
		return space
	}
	return other
}

// firstClass returns the class and the width in bytes of the first character of
// s, which is not empty.
func firstClass(s string) (class, int) {
	if s[0] < utf8.RuneSelf {
		return asciiClass[s[0]], 1
	}
	r, n := utf8.DecodeRuneInString(s)
	return runeClass(r), n
}

// pieceLen returns how many bytes of s, which is not empty, GPT-2's regular
// expression matches first:
//
//	's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
func pieceLen(s string) int {
	if n := contractionLen(s); n > 0 {
		return n
	}
	start := 0
	if s[0] == ' ' && len(s) > 1 {
		start = 1
	}
	c, n := firstClass(s[start:])
	if c == space {
		return spaceLen(s)
	}
	end := start + n
	for end < len(s) {
		next, n := firstClass(s[end:])
		if next != c {
			break
		}
		end += n
	}
	return end
}

// contractionLen returns the length of the contraction that s starts with, or 0.
func contractionLen(s string) int {
	if len(s) < 2 || s[0] != '\'' {
		return 0
	}
	switch s[1] {
	case 's', 't', 'm', 'd':
		return 2
	}
	if len(s) < 3 {
		return 0
	}
	switch s[1:3] {
	case "re", "ve", "ll":
		return 3
	}
	return 0
}

// spaceLen is pieceLen where s starts with white space that no word takes along:
// the whole run if nothing follows it, else all but its last character, which
// stays for the next piece, and that one only if it is alone.
func spaceLen(s string) int {
	end, last := 0, 0
	for end < len(s) {
		c, n := firstClass(s[end:])
		if c != space {
			break
		}
		last = end
		end += n
	}
	if end == len(s) || last == 0 {
		return end
	}
	return last
}

// Sanitize returns s with U+FFFD in place of bytes that are not UTF-8, one for
// each longest start of a character, as Python's decode(errors="replace") and
// the browsers' TextDecoder do.
func Sanitize(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 2)
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			n = startLen(s)
		}
		b.WriteRune(r)
		s = s[n:]
	}
	return b.String()
}

// startLen returns how many bytes of s, which starts with an error, belong to
// that error: all that could have gone on to be a character, at least one.
func startLen(s string) int {
	for n := min(3, len(s)); n > 1; n-- {
		if !utf8.FullRuneInString(s[:n]) {
			return n
		}
	}
	return 1
}
