// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"hash/fnv"
	"io"
	"math"
	"strings"

	"github.com/x448/float16"

	"fromage/compiler/safetensors"
)

// randomTensor describes rows × width normal values whose sequence depends on the name alone: in f16, but FROMAGe's own in f32.
func randomTensor(name string, rows, width int) safetensors.Source {
	mean, deviation := 0.0, 1/math.Sqrt(float64(width))
	switch {
	case name == "logit_scale":
		mean, deviation = math.Log(1/0.07), 0
	case strings.Contains(name, "norm") && strings.HasSuffix(name, ".weight"):
		mean, deviation = 1, 0.1
	case rows == 1:
		deviation = 0.02
	}
	s := safetensors.Source{Name: name, DType: "F32", Shape: []int{rows, width}}
	size := 4
	if strings.HasPrefix(name, "model.decoder.") || strings.HasPrefix(name, "vision_model.") {
		s.DType, size = "F16", 2
	}
	switch {
	case name == "logit_scale":
		s.Shape = nil
	case rows == 1 && !strings.HasPrefix(name, "ret_"):
		s.Shape = []int{width}
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	r := &normal{state: h.Sum64() | 1, size: size, mean: mean, deviation: deviation}
	s.Data = io.LimitReader(r, int64(rows)*int64(width)*int64(size))
	return s
}

func bytesOf(s safetensors.Source) int64 {
	size, _ := safetensors.ItemSize(s.DType)
	n := int64(size)
	for _, d := range s.Shape {
		n *= int64(d)
	}
	return n
}

// normal reads as an endless sequence of normal values: quantiles of the distribution, chosen by xorshift64.
type normal struct {
	state           uint64
	size            int // bytes of a value: 2 for f16, 4 for f32
	mean, deviation float64
	table           []byte // 4096 values, made by the first Read
}

// Read implements io.Reader. It fills p but for what is less than a value.
func (r *normal) Read(p []byte) (int, error) {
	if r.table == nil {
		r.fillTable()
	}
	n := 0
	for len(p)-n >= r.size {
		r.state ^= r.state << 13
		r.state ^= r.state >> 7
		r.state ^= r.state << 17
		for bits := r.state; bits != 0 && len(p)-n >= r.size; bits >>= 13 {
			at := int(bits&4095) * r.size
			n += copy(p[n:n+r.size], r.table[at:at+r.size])
		}
	}
	return n, nil
}

func (r *normal) fillTable() {
	for i := range 4096 {
		v := float32(r.mean + r.deviation*math.Sqrt2*math.Erfinv((2*float64(i)+1)/4096-1))
		if r.size == 2 {
			r.table = binary.LittleEndian.AppendUint16(r.table, float16.Fromfloat32(v).Bits())
		} else {
			r.table = binary.LittleEndian.AppendUint32(r.table, math.Float32bits(v))
		}
	}
}
