// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"fmt"
	"strings"
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

func TestRepeated(t *testing.T) {
	const text = "a\n//#repeat i N\nlet x#i = #iu;\n//#repeat j M\ny#j += x#i;\n//#end\n//#end\nb\n"
	want := "a\nlet x0 = 0u;\ny0 += x0;\ny1 += x0;\nlet x1 = 1u;\ny0 += x1;\ny1 += x1;\nb\n"
	if got := shaders.Repeated("k", text, map[string]int{"N": 2, "M": 2}); got != want {
		t.Errorf("Repeated = %q, want %q", got, want)
	}
	for _, bad := range []string{"//#repeat i N\nx\n", "//#repeat i K\nx\n//#end\n"} {
		func() {
			defer func() {
				if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "k: want a constant and an end") {
					t.Errorf("Repeated of %q panics with %v", bad, r)
				}
			}()
			shaders.Repeated("k", bad, map[string]int{"N": 2})
		}()
	}
}
