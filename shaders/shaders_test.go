// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestCases(t *testing.T) {
	kerneltest.Run(t, shaders.Cases())
}

// TestBare: comments and indentation go; lines stay, also those that say what a text is made of.
func TestBare(t *testing.T) {
	const text = "//#kernel a\n// One.\n\nfn f() { // two\n    let x = 1u; // three\n}\n//#import grid"
	if got, want := shaders.Bare(text), "//#kernel a\n\n\nfn f() {\nlet x = 1u;\n}\n//#import grid\n"; got != want || shaders.Bare(got) != want {
		t.Errorf("Bare = %q, want %q", got, want)
	}
}
