// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	"fromage/server/version"
)

// Token is a right to publish. The secret itself is kept nowhere.
type Token struct {
	Name   string
	Scopes []string
	Hash   [32]byte // SHA-256 of the secret
}

// Tokens are a server's.
type Tokens []Token

// Scopes are what a token may be for.
var Scopes = []string{version.ScopeHeads, version.ScopeGallery, version.ScopeBundle, version.ScopeAdmin}

// find compares with every token in the same time, whichever it is.
func (all Tokens) find(secret string) (found *Token) {
	sum := sha256.Sum256([]byte(secret))
	for i := range all {
		if subtle.ConstantTimeCompare(sum[:], all[i].Hash[:]) == 1 {
			found = &all[i]
		}
	}
	return found
}

// NewToken makes a secret of 256 random bits, and the line of it for the file that ReadTokens reads.
func NewToken(name string, scopes []string) (secret, line string, err error) {
	if !version.ValidName(name) {
		return "", "", fmt.Errorf("hub: token: want a name of letters, digits, points, dashes and underscores, have %q", name)
	}
	if err := checkScopes(scopes); err != nil {
		return "", "", fmt.Errorf("hub: token %s: %w", name, err)
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", "", err
	}
	secret = base64.RawURLEncoding.EncodeToString(raw)
	sum := sha256.Sum256([]byte(secret))
	return secret, fmt.Sprintf("%s %s %x\n", name, strings.Join(scopes, ","), sum), nil
}

func checkScopes(scopes []string) error {
	if len(scopes) == 0 {
		return fmt.Errorf("want some of %s, have none", strings.Join(Scopes, ", "))
	}
	for _, s := range scopes {
		if !slices.Contains(Scopes, s) {
			return fmt.Errorf("want some of %s, have %q", strings.Join(Scopes, ", "), s)
		}
	}
	return nil
}

// ReadTokens reads lines of a name, scopes joined by commas, and the SHA-256 of the secret in hex. Empty lines and those that begin with # are passed over.
func ReadTokens(r io.Reader) (all Tokens, err error) {
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		f := strings.Fields(text)
		if len(f) != 3 {
			return nil, fmt.Errorf("hub: tokens: line %d: want a name, scopes and a hash, have %d fields", n, len(f))
		}
		t := Token{Name: f[0], Scopes: strings.Split(f[1], ",")}
		if err := checkScopes(t.Scopes); err != nil {
			return nil, fmt.Errorf("hub: tokens: line %d: %w", n, err)
		}
		raw, err := hex.DecodeString(f[2])
		if err != nil || len(raw) != len(t.Hash) {
			return nil, fmt.Errorf("hub: tokens: line %d: want a SHA-256 in hex (fromage admin token makes a line), have something else", n)
		}
		t.Hash = [32]byte(raw)
		all = append(all, t)
	}
	return all, lines.Err()
}
