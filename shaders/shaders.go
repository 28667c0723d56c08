// SPDX-License-Identifier: Apache-2.0

// Package shaders holds every kernel of fromage: the WGSL text, the rule that chooses a variant and a grid for a size and a device, and the Go
// twin that says in plain sequential code what the kernel computes.
//
// What enters is a device's description and the parameters of one operation; what leaves is a Dispatch: which kernel, which parameter bytes,
// how many workgroups. The package refuses to know buffers, models and devices that run.
//
// A kernel NAME is three neighbours: NAME.wgsl, NAME.go, NAME_test.go. The head of the .wgsl (struct Params, bindings, constants) is the only
// truth about its interface; kernels_gen.go is generated from it by `go generate`. Further texts for the same operation are NAME_variant.wgsl
// and begin with `//#kernel NAME`. Text shared by several kernels stands in shared/ and comes in by `//#import name`;
// `//#repeat i NAME` to `//#end` comes as often as a constant says.
package shaders

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
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

// source makes the whole text of a variant, bare: lines `//#import KEY` and `const NAME: u32 = 1u;` are replaced, and what stands between `//#repeat i NAME`
// and `//#end` comes as often as the constant says, #i being 0, 1, … A missing text or constant is our own mistake, so it panics. Package regexp would be a
// tenth of a wasm guest.
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
	seen, consts := 0, map[string]int{}
	for line := range strings.Lines(Bare(imported.String())) {
		if name, n, rest, ok := constant(line); ok {
			if chosen, ok := v.consts[name]; ok {
				seen++
				n, line = chosen, fmt.Sprintf("const %s: u32 = %du;%s", name, chosen, rest)
			}
			consts[name] = n
		}
		text.WriteString(line)
	}
	if seen != len(v.consts) {
		panic(fmt.Sprintf("shaders: %s has not all of the constants %v", v.file, sortedKeys(v.consts)))
	}
	return repeated(v.file, text.String(), consts)
}

// repeated writes repetitions out, those within others too.
func repeated(file, text string, consts map[string]int) string {
	before, rest, ok := strings.Cut(text, "//#repeat ")
	if !ok {
		return text
	}
	head, rest, _ := strings.Cut(rest, "\n")
	number, name, _ := strings.Cut(head, " ")
	end := endOf(rest)
	if end < 0 || consts[name] == 0 {
		panic(fmt.Sprintf("shaders: %s: want a constant and an end for the repetition %q", file, head))
	}
	var all strings.Builder
	all.WriteString(before)
	for n := range consts[name] {
		all.WriteString(strings.ReplaceAll(rest[:end], "#"+number, strconv.Itoa(n)))
	}
	all.WriteString(strings.TrimPrefix(rest[end:], "//#end\n"))
	return repeated(file, all.String(), consts)
}

// endOf is where the `//#end` stands that ends a repetition whose text begins here, −1 if there is none.
func endOf(text string) int {
	at, depth := 0, 1
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "//#repeat "):
			depth++
		case line == "//#end\n":
			depth--
		}
		if depth == 0 {
			return at
		}
		at += len(line)
	}
	return -1
}

// Bare is a text without indentation and comments, `//#` lines apart. Lines keep their numbers, for the compiler's messages.
func Bare(text string) string {
	var bare strings.Builder
	for line := range strings.Lines(text) {
		line = strings.Trim(line, " \n")
		if !strings.HasPrefix(line, "//#") {
			line, _, _ = strings.Cut(line, "//")
		}
		bare.WriteString(strings.TrimRight(line, " "))
		bare.WriteByte('\n')
	}
	return bare.String()
}

// constant takes a line `const NAME: u32 = 1u; …` apart.
func constant(line string) (name string, n int, rest string, ok bool) {
	if line, ok = strings.CutPrefix(line, "const "); !ok {
		return "", 0, "", false
	}
	if name, rest, ok = strings.Cut(line, ": u32 = "); !ok {
		return "", 0, "", false
	}
	number, rest, ok := strings.Cut(rest, "u;")
	n, err := strconv.Atoi(number)
	return name, n, rest, ok && err == nil
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
