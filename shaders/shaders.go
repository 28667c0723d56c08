// SPDX-License-Identifier: Apache-2.0

// Package shaders holds every kernel of fromage: the WGSL text, the rule that chooses a variant and a grid for a size and a device, and the Go
// twin that says in plain sequential code what the kernel computes.
//
// What enters is a device's description and the parameters of one operation; what leaves is a Dispatch: which kernel, which parameter bytes,
// how many workgroups. The package refuses to know buffers, models and devices that run.
//
// A kernel NAME is three neighbours: NAME.wgsl, NAME.go, NAME_test.go. The head of the .wgsl (struct Params, bindings, constants) is the only
// truth about its interface; kernels_gen.go is generated from it by `go generate`. Further texts for the same operation are NAME_variant.wgsl
// and begin with `//#kernel NAME`. Text shared by several kernels stands in shared/ and comes in by `//#import name`.
package shaders

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"

	"fromage/gpu"
)

//go:generate go run fromage/internal/genkernels

// Dispatch is one run of a kernel, ready for a gpu.List once the caller knows pipeline and buffers.
type Dispatch struct {
	Kernel *gpu.Kernel
	Params []byte
	Groups [3]int
}

// variant says how a kernel's text is made from its file.
type variant struct {
	file    string            // without .wgsl
	text    string            // of the file; "" for the kernel's own
	imports map[string]string // what `//#import KEY` brings in, where it is not shared/KEY.wgsl
	consts  map[string]int    // values for `const KEY: u32 = …u;`
}

// name tells the variant's text from every other: the file, then the imports and constants that differ from the file's own. What several
// imports have in common (the format) is named once.
func (v variant) name() string {
	parts := []string{v.file}
	for _, key := range sortedKeys(v.imports) {
		if part := strings.TrimPrefix(v.imports[key], key+"_"); !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	for _, key := range sortedKeys(v.consts) {
		parts = append(parts, fmt.Sprintf("%s%d", key, v.consts[key]))
	}
	return strings.Join(parts, ".")
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i] < keys[j] })
	return keys
}

var kernels sync.Map // name → *gpu.Kernel

// kernel returns the kernel of v; each is made once. base carries the kernel's own file and text, and what is
// the same for all variants: parameters, bindings, twin.
func kernel(v variant, base gpu.Kernel) *gpu.Kernel {
	name := v.name()
	if k, ok := kernels.Load(name); ok {
		return k.(*gpu.Kernel)
	}
	if v.text == "" && v.file == base.Name {
		v.text = base.Source
	}
	base.Name = name
	base.Source = source(v)
	base.Subgroups = strings.Contains(base.Source, "subgroup")
	k, _ := kernels.LoadOrStore(name, &base)
	return k.(*gpu.Kernel)
}

// source makes the whole text of a variant, bare: lines `//#import KEY` and `const NAME: u32 = 1u;` are replaced. A missing text or constant is our own
// mistake, so it panics. Package regexp would be a tenth of a wasm guest.
func source(v variant) string {
	var imported, text strings.Builder
	for line := range strings.Lines(v.text) {
		key, ok := strings.CutPrefix(line, "//#import ")
		if !ok {
			imported.WriteString(line)
			continue
		}
		key = strings.TrimSuffix(key, "\n")
		if file, ok := v.imports[key]; ok {
			key = file
		}
		part := shared(key)
		if part == "" {
			panic("shaders: there is no shared/" + key + ".wgsl")
		}
		imported.WriteString(part)
		imported.WriteString("\n")
	}
	if imported.Len() == 0 {
		panic("shaders: the variant " + v.file + " has no text")
	}
	seen := 0
	for line := range strings.Lines(Bare(imported.String())) {
		if name, rest, ok := constant(line); ok {
			if n, ok := v.consts[name]; ok {
				seen++
				line = fmt.Sprintf("const %s: u32 = %du;%s", name, n, rest)
			}
		}
		text.WriteString(line)
	}
	if seen != len(v.consts) {
		panic(fmt.Sprintf("shaders: %s has not all of the constants %v", v.file, sortedKeys(v.consts)))
	}
	return text.String()
}

// Bare is a text without indentation and comments, `//#` lines apart. Lines keep their numbers, for the compiler's messages.
func Bare(text string) string {
	var bare strings.Builder
	for line := range strings.Lines(text) {
		if code, _, found := strings.Cut(line, "//"); found && !strings.HasPrefix(line, "//#") {
			line = code + "\n"
		}
		bare.WriteString(strings.Trim(line, " \n"))
		bare.WriteByte('\n')
	}
	return bare.String()
}

// constant takes a line `const NAME: u32 = 1u; …` apart.
func constant(line string) (name, rest string, ok bool) {
	line, ok = strings.CutPrefix(line, "const ")
	if !ok {
		return "", "", false
	}
	name, rest, ok = strings.Cut(line, ": u32 = ")
	if !ok {
		return "", "", false
	}
	rest, ok = strings.CutPrefix(strings.TrimLeft(rest, "0123456789"), "u;")
	return name, rest, ok
}

// ceil returns how many groups of size n cover total.
func ceil(total, n int) int { return (total + n - 1) / n }

// grid spreads n workgroups over two dimensions where they are more than one dimension may have. The kernel finds its number as
// y·gridWidth + x and stops beyond n.
func grid(n int) [3]int {
	if n <= gridWidth {
		return [3]int{n, 1, 1}
	}
	return [3]int{gridWidth, ceil(n, gridWidth), 1}
}

// gridWidth is the x size of a grid that had to be spread over two dimensions; shared/grid.wgsl has the same number.
const gridWidth = 32768
