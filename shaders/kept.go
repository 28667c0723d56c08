// SPDX-License-Identifier: Apache-2.0

package shaders

import (
	"fmt"
	"math"

	"fromage/gpu"
)

// Keys and values are kept as f32 or, two a word, as f16: AttentionKeeps says for which sizes. To Go a buffer of them is []float32 in either case.

// AttentionKeeps says whether attention over keys and values in a format is possible with these sizes: f32 always, f16 where all are multiples of 4.
func AttentionKeeps(f Format, sizes ...uint32) bool {
	return f == F32 || f == F16 && fours(sizes...)
}

func fours(sizes ...uint32) bool {
	all := uint32(0)
	for _, n := range sizes {
		all |= n
	}
	return all%4 == 0
}

// keeping completes the variant of a kernel whose text imports `four`.
func (v variant) keeping(f Format, sizes ...uint32) variant {
	if !AttentionKeeps(f, sizes...) {
		panic(fmt.Sprintf("shaders: %s: want f32, or f16 and multiples of 4, have %v and %v", v.file, f, sizes))
	}
	if f == F16 {
		if v.imports == nil {
			v.imports = map[string]string{}
		}
		v.imports["four"] = "four_f16"
	}
	return v
}

// keptIn has a kernel reach half as many words of the binding with what is kept in f16.
func keptIn(f Format, binding int, k gpu.Kernel) gpu.Kernel {
	if reach := k.Reach; f == F16 && reach != nil {
		k.Reach = func(params []byte) []uint64 {
			all := reach(params)
			if all != nil {
				all[binding] = (all[binding] + 1) / 2
			}
			return all
		}
	}
	return k
}

// keep stores x from value i on.
func (f Format) keep(buffer []float32, i int, x []float32) {
	if f == F32 {
		copy(buffer[i:][:len(x)], x)
		return
	}
	f.EncodeRow(x, bytesOf(wordsOf(buffer))[2*i:][:2*len(x)], nil)
}

// attended returns the rows of kv that T tokens attend to as f32, and the tokens with places in them.
func (f Format) attended(kv []float32, stride, T int, tokens []uint32) ([]float32, []uint32) {
	if f == F32 {
		return kv, tokens
	}
	from, to := math.MaxInt, 0
	for t := range T {
		if first, count := int(tokens[4*t+2]), int(tokens[4*t+3]); count > 0 {
			from, to = min(from, first), max(to, first+count)
		}
	}
	if to == 0 {
		return nil, tokens
	}
	n := f.RowBytes(stride)
	b := bytesOf(wordsOf(kv))[from*n : to*n] // a wild table shows before there is made room for it
	rows := make([]float32, (to-from)*stride)
	parallel(to-from, func(from, to int) { f.DecodeRow(b[from*n:to*n], nil, rows[from*stride:to*stride]) })
	moved := append([]uint32(nil), tokens...)
	for t := range T {
		moved[4*t+2] -= uint32(from)
	}
	return rows, moved
}
