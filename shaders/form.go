// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"fmt"
	"slices"
	"strings"

	"fromage/gpu"
)

// withChoices says whether a device may have chosen forms. Those of a guest in a sandbox are its host's, whose description has none.
const withChoices = withReach

// choose returns the form of a dispatch that gpu.Info.Choices names for its class, where that is one of those that the device can run, else the rule's.
// All forms of a dispatch compute the same. Attention over f16 is not measured apart: it takes the form that is the fastest over f32.
func choose(info gpu.Info, class func() string, forms func() []Dispatch, rule Dispatch) Dispatch {
	if len(info.Choices) == 0 {
		return rule
	}
	name, ok := info.Choices[class()]
	if !ok || name == rule.Kernel.Name {
		return rule
	}
	for _, d := range forms() {
		if strings.Replace(d.Kernel.Name, ".f16.vec4", ".vec4", 1) == name {
			return d
		}
	}
	return rule
}

// as is a device that the rules take for one on which a CPU does the work, or for a GPU, with nothing chosen. What the rules know of subgroups they know
// of the device as it is.
func as(software bool, info gpu.Info) gpu.Info {
	if info.Software != software {
		info.Features.Subgroups = false
	}
	info.Software, info.Choices = software, nil
	return info
}

// alone is a device without subgroups.
func alone(info gpu.Info) gpu.Info {
	info.Features.Subgroups = false
	return info
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

// LinearForms returns a Linear in every form that is worth trying: matrix-vector texts with as many tokens a workgroup as there are or fewer, tiles where
// one would not be nearly empty, and what the rule has for devices that a CPU plays.
func LinearForms(info gpu.Info, f Format, p LinearParams) []Dispatch {
	T, F, k := int(p.T), int(p.F), linearBase(f)
	if p.K%4 != 0 {
		return nil
	}
	var all []Dispatch
	add := func(v variant, groups int) { all = append(all, Dispatch{kernel(v, k), p.encode(), grid(groups)}) }
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
				add(v, ceil(F, rows)*ceil(T, tokens))
			}
		}
	}
	if T > 8 {
		add(variant{file: "linear_tile64", text: linearTile64Text, imports: f.imports()}, ceil(T, linearTile64SIDE)*ceil(F, linearTile64SIDE))
	}
	if T > 64 {
		add(variant{file: "linear_tile", text: linearTileText, imports: f.imports()}, ceil(T, linearTileSIDE)*ceil(F, linearTileSIDE))
	}
	return append(all, Linear(as(true, info), f, p), Linear(as(true, alone(info)), f, p))
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
	return Class{
		Name: linearClass(f, p),
		Forms: func(info gpu.Info) []Dispatch {
			return distinct(Linear(as(info.Software, info), f, p), LinearForms(info, f, p))
		},
		Bytes: []int{4 * T * K, F * f.RowBytes(K), F * f.ScaleBytes(K), 0, 0, 4 * T * F}, At: -1,
	}
}

// distinct is first, then those of more that run other kernels.
func distinct(first Dispatch, more []Dispatch) []Dispatch {
	all := []Dispatch{first}
	for _, d := range more {
		if !slices.ContainsFunc(all, func(o Dispatch) bool { return o.Kernel == d.Kernel }) {
			all = append(all, d)
		}
	}
	return all
}

// attentionClass is the class of an Attention: how many tokens it has.
func attentionClass(p AttentionParams) string { return "attention.T" + bound(int(p.T), 4) }

// attentionForms are what the rule has for GPUs and for devices that a CPU plays, and a workgroup for each token and head.
func attentionForms(info gpu.Info, kept Format, p AttentionParams) []Dispatch {
	v, _ := attentionAlone(kept, p)
	return []Dispatch{
		Attention(as(false, info), kept, p), Attention(as(true, info), kept, p), Attention(as(true, alone(info)), kept, p), attentionDispatch(v, kept, p, int(p.T*p.Heads)),
	}
}

// attentionExample is a class where T is the least or the most of typical ones, none elsewhere.
func attentionExample(p AttentionParams) []Class {
	if p.T != 1 && p.T <= 64 {
		return nil
	}
	T, count := int(p.T), 256
	tokens := make([]uint32, 4*T)
	for t := range T {
		tokens[4*t+3] = uint32(count)
	}
	return []Class{{
		Name: attentionClass(p),
		Forms: func(info gpu.Info) []Dispatch {
			return distinct(Attention(as(info.Software, info), F32, p), attentionForms(info, F32, p))
		},
		Bytes: []int{4 * T * int(p.QStride), 4 * count * int(p.KVStride), 16 * T, 4 * T * int(p.Heads*p.Dh)}, Tokens: tokens, At: 2,
	}}
}

// Hash tells the kernels' texts from every other version of them.
func Hash() string { return textsHash }
