// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"fmt"
	"slices"

	"fromage/gpu"
)

// form is one way to run a dispatch: a text, and the number of its workgroups. All forms of a dispatch compute the same.
type form struct {
	variant
	groups int
}

// choose returns the form that gpu.Info.Choices names for a class of dispatches, where it is one of those that the device can run, else the rule's.
func choose(info gpu.Info, class func() string, forms func() []form, rule form) form {
	if len(info.Choices) == 0 {
		return rule
	}
	name, ok := info.Choices[class()]
	if !ok {
		return rule
	}
	for _, f := range forms() {
		if f.name() == name {
			return f
		}
	}
	return rule
}

// bound is the first of ascending limits that n does not exceed, as a part of a class's name, or + beyond the last.
func bound(n int, limits ...int) string {
	for _, l := range limits {
		if n <= l {
			return fmt.Sprint(l)
		}
	}
	return "+"
}

// linearClass is the class of a Linear: its format, and how many tokens and features it has.
func linearClass(f Format, p LinearParams) string {
	return fmt.Sprintf("linear.%s.T%s.F%s", f, bound(int(p.T), 1, 4, 8, 16, 64), bound(int(p.F), 2047, 8191))
}

// linearForms are the ways to run a Linear that are worth trying: matrix-vector texts with as many tokens a workgroup as there are or fewer, tiles where
// one would not be nearly empty, and what devices get that are played by a CPU.
func linearForms(info gpu.Info, f Format, p LinearParams) []form {
	T, F := int(p.T), int(p.F)
	if p.K%4 != 0 {
		return nil
	}
	var all []form
	sums := map[string]int{"linear_sum_group": 0}
	if s := info.Features; s.Subgroups {
		sums["linear_sum_subgroups"] = 0
		if s.SubgroupMin == s.SubgroupMax && s.SubgroupMin >= 8 && s.SubgroupMin <= 64 {
			sums["linear_sum_subgroup"] = s.SubgroupMin
		}
	}
	for _, sum := range sortedKeys(sums) {
		for _, tokens := range linearTokens(T) {
			for _, rows := range []int{1, 2, 4} {
				v := variant{file: "linear_row", text: linearRowText, imports: f.imports(), consts: map[string]int{"TOKENS": tokens, "ROWS": rows}}
				v.imports["linear_chunk"], v.imports["linear_sum"] = "linear_chunk_"+f.String(), sum
				if wg := sums[sum]; wg > 0 {
					v.consts["WG"] = wg
				}
				all = append(all, form{v, ceil(F, rows) * ceil(T, tokens)})
			}
		}
	}
	if T > 8 {
		all = append(all, form{variant{file: "linear_tile64", text: linearTile64Text, imports: f.imports()}, ceil(T, linearTile64SIDE) * ceil(F, linearTile64SIDE)})
	}
	if T > 64 {
		all = append(all, form{variant{file: "linear_tile", text: linearTileText, imports: f.imports()}, ceil(T, linearTileSIDE) * ceil(F, linearTileSIDE)})
	}
	for _, tokens := range linearTokens(T) {
		for _, near := range slices.Compact([]int{0, linearNear(info, f, int(p.K))}) {
			v, groups := linearBlockOf(f, T, F, tokens, near)
			all = append(all, form{v, groups})
		}
	}
	return all
}

// linearTokens is how many tokens a workgroup of a matrix-vector text may take.
func linearTokens(T int) []int {
	switch {
	case T == 1:
		return []int{1}
	case T <= 4:
		return []int{1, 4}
	case T <= 16:
		return []int{4, 8}
	}
	return []int{8}
}

// Class is a set of dispatches that take the same form, by one of them.
type Class struct {
	Name   string
	Forms  func(gpu.Info) []Dispatch // every form that the device can run; the first is the rule's
	Bytes  []int                     // sizes of the buffers
	Tokens []uint32                  // contents of the token table, the only ones that matter to the time
	At     int                       // the binding of the table
}

// typical are the sizes by which classes are measured: large enough that a GPU's time is the work's and not the start's, or small where a CPU plays one.
func typical(software bool) (T, F []int, K int) {
	if software {
		return []int{1, 4, 8, 16, 32, 68}, []int{512, 2048, 8192}, 256
	}
	return []int{1, 4, 8, 16, 64, 256}, []int{1024, 4096, 16384}, 2048
}

// Classes are the classes of Linear, in these formats, and of Attention, those of single tokens first.
func Classes(software bool, formats ...Format) []Class {
	var all []Class
	tokens, features, K := typical(software)
	for _, T := range tokens {
		for _, F := range features {
			for _, f := range formats {
				all = append(all, linearExample(f, LinearParams{T: uint32(T), K: uint32(K), F: uint32(F), Stride: uint32(F)}))
			}
		}
		all = append(all, attentionExample(AttentionParams{T: uint32(T), Heads: 8, Dh: 64, QStride: 512, KVStride: 1024, VOffset: 512, Scale: 1})...)
	}
	return all
}

func linearExample(f Format, p LinearParams) Class {
	T, F, K := int(p.T), int(p.F), int(p.K)
	name := linearClass(f, p)
	return Class{
		Name: name,
		Forms: func(info gpu.Info) []Dispatch {
			return inForms(info, name, linearForms(info, f, p), func(info gpu.Info) Dispatch { return Linear(info, f, p) })
		},
		Bytes: []int{4 * T * K, F * f.RowBytes(K), F * f.ScaleBytes(K), 0, 0, 4 * T * F}, At: -1,
	}
}

// inForms is a dispatch as the rule makes it, then in each other form.
func inForms(info gpu.Info, class string, forms []form, make func(gpu.Info) Dispatch) []Dispatch {
	info.Choices = nil
	all := []Dispatch{make(info)}
	for _, f := range forms {
		info.Choices = map[string]string{class: f.name()}
		if d := make(info); !slices.ContainsFunc(all, func(o Dispatch) bool { return o.Kernel == d.Kernel }) {
			all = append(all, d)
		}
	}
	return all
}

// attentionClass is the class of an Attention: how many tokens it has.
func attentionClass(p AttentionParams) string { return "attention.T" + bound(int(p.T), 4) }

// attentionForms are a workgroup for each head of a token, an invocation, and subgroups whose lanes share rows where they are as small as a CPU's vectors:
// in this order the better the more a CPU plays the device.
func attentionForms(info gpu.Info, p AttentionParams, rows string) []form {
	of := func(file, text string) variant {
		return variant{file: file, text: text, imports: map[string]string{"rows": rows}}
	}
	groups := int(p.T) * int(p.Heads)
	all := []form{{of("attention", ""), groups}, {of("attention_software", attentionSoftwareText), ceil(groups, attentionSoftwareWG)}}
	if near := sharedLanes(info); near > 0 && p.T > 1 && rows == "rows_vec4" {
		v := of("attention_near", attentionNearText)
		v.consts = map[string]int{"NEAR": near}
		all = append(all, form{v, ceil(int(p.T), near) * int(p.Heads)})
	}
	return all
}

// attentionExample is a class where T is the least or the most of typical ones, none elsewhere.
func attentionExample(p AttentionParams) []Class {
	if p.T != 1 && p.T <= 64 {
		return nil
	}
	T, count, name := int(p.T), 256, attentionClass(p)
	tokens := make([]uint32, 4*T)
	for t := range T {
		tokens[4*t+3] = uint32(count)
	}
	return []Class{{
		Name: name,
		Forms: func(info gpu.Info) []Dispatch {
			return inForms(info, name, attentionForms(info, p, "rows_vec4"), func(info gpu.Info) Dispatch { return Attention(info, p) })
		},
		Bytes: []int{4 * T * int(p.QStride), 4 * count * int(p.KVStride), 16 * T, 4 * T * int(p.Heads*p.Dh)}, Tokens: tokens, At: 2,
	}}
}

// Hash tells the kernels' texts from every other version of them.
func Hash() string { return textsHash }
