// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeTokenizer writes vocab.json and merges.txt of n tokens: OPT's special ones, the 256 bytes in GPT-2's alphabet, then pairs of two bytes.
func writeTokenizer(dir string, n int) error {
	vocabulary := map[string]int{}
	for _, token := range []string{"<s>", "<pad>", "</s>", "<unk>"} {
		vocabulary[token] = len(vocabulary)
	}
	alphabet := byteAlphabet()
	for _, a := range alphabet {
		vocabulary[string(a)] = len(vocabulary)
	}
	var merges strings.Builder
	merges.WriteString("#version: 0.2\n")
	for i := 0; len(vocabulary) < n; i++ {
		if i == len(alphabet)*len(alphabet) {
			return fmt.Errorf("tokenizer: want at most %d tokens, have %d", len(vocabulary), n)
		}
		a, b := string(alphabet[i/len(alphabet)]), string(alphabet[i%len(alphabet)])
		if _, ok := vocabulary[a+b]; !ok {
			vocabulary[a+b] = len(vocabulary)
			fmt.Fprintf(&merges, "%s %s\n", a, b)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "merges.txt"), []byte(merges.String()), 0o644); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, "vocab.json"), vocabulary)
}

// byteAlphabet is bytes_to_unicode of GPT-2's encoder.py: printable bytes stand for themselves and come first, the others are U+0100 and on.
func byteAlphabet() []rune {
	var printable, others []rune
	for b := range rune(256) {
		if b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae {
			printable = append(printable, b)
		} else {
			others = append(others, 256+rune(len(others)))
		}
	}
	return append(printable, others...)
}
