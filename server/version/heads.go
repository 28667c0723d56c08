// SPDX-License-Identifier: Apache-2.0

package version

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"fromage/bundle"
	"fromage/compiler/safetensors"
	"fromage/index"
	"fromage/server/wire"
)

// MaxHeads is the most bytes of heads; those of OPT-66b with ViT-L have 90 MB.
const MaxHeads = 512 << 20

// EncodeHeads writes trained parameters, by weight, as safetensors of f32: equal heads are equal bytes.
func EncodeHeads(heads map[string][]float32) ([]byte, error) {
	var tensors []safetensors.Source
	for _, name := range slices.Sorted(maps.Keys(heads)) {
		tensors = append(tensors, safetensors.Source{Name: name, DType: "F32", Shape: []int{len(heads[name])}, Data: bytes.NewReader(FloatBytes(heads[name]))})
	}
	var b bytes.Buffer
	if err := safetensors.Write(&b, tensors, nil); err != nil {
		return nil, fmt.Errorf("version: heads: %w", err)
	}
	return b.Bytes(), nil
}

// DecodeHeads reads what EncodeHeads wrote.
func DecodeHeads(data []byte) (map[string][]float32, error) {
	f, err := safetensors.NewFile(bytes.NewReader(data), int64(len(data)), "heads")
	if err != nil {
		return nil, fmt.Errorf("version: %w", err)
	}
	heads := map[string][]float32{}
	for _, t := range f.Tensors {
		if t.DType != "F32" {
			return nil, fmt.Errorf("version: heads: tensor %s: want F32, have %s", t.Name, t.DType)
		}
		raw, err := io.ReadAll(f.Data(t))
		if err != nil {
			return nil, fmt.Errorf("version: heads: tensor %s: %w", t.Name, err)
		}
		heads[t.Name] = Floats(raw)
	}
	return heads, nil
}

// FloatBytes is x in little-endian bytes.
func FloatBytes(x []float32) []byte {
	b := make([]byte, 0, 4*len(x))
	for _, v := range x {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

// Floats reads what FloatBytes wrote.
func Floats(b []byte) []float32 {
	x := make([]float32, len(b)/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return x
}

// FitHeads wants every trained parameter of a bundle and no other, finite, in its size.
func FitHeads(m *bundle.Manifest, heads map[string][]float32) error {
	n := 0
	for _, w := range m.Model.Weights {
		if !w.Head {
			continue
		}
		n++
		x, ok := heads[w.Name]
		if !ok || len(x) != w.Rows*w.Cols {
			return fmt.Errorf("version: heads: tensor %s: want %d × %d values, have %d", w.Name, w.Rows, w.Cols, len(x))
		}
		for i, v := range x {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return fmt.Errorf("version: heads: tensor %s: value %d: want a finite one, have %g", w.Name, i, v)
			}
		}
	}
	if n == 0 || n != len(heads) {
		return fmt.Errorf("version: heads: want the %d trained parameters of the model, have %d tensors", n, len(heads))
	}
	return nil
}

// Identity is the bundle's heads_hash with these heads in place of its own.
func Identity(m *bundle.Manifest, heads map[string][]float32) (id wire.Hash, err error) {
	changed := *m
	changed.Tensors = slices.Clone(m.Tensors)
	for i, t := range changed.Tensors {
		x, ok := heads[t.Name]
		if !ok {
			continue
		}
		raw := FloatBytes(x)
		raw = append(raw, make([]byte, (16-len(raw)%16)%16)...)
		sum := sha256.Sum256(raw)
		shard := t.Shards[0]
		shard.Values.SHA256 = hex.EncodeToString(sum[:])
		changed.Tensors[i].Shards = []bundle.Shard{shard}
	}
	hash := changed.HeadsHash()
	if hash == "" {
		return id, fmt.Errorf("version: model %s: want heads, have none", m.Name)
	}
	return id, id.UnmarshalText([]byte(hash))
}

// Projection is visual_fc: features v (Dv) → embedding (S), weight (S,Dv) and bias (S).
type Projection struct{ weight, bias []float32 }

// NewProjection takes visual_fc out of heads.
func NewProjection(heads map[string][]float32) (*Projection, error) {
	p := &Projection{heads["visual_fc.weight"], heads["visual_fc.bias"]}
	if len(p.bias) == 0 || len(p.weight) == 0 || len(p.weight)%len(p.bias) != 0 {
		return nil, fmt.Errorf("version: heads: want visual_fc.weight and .bias, have %d and %d values", len(p.weight), len(p.bias))
	}
	return p, nil
}

// Embed returns the stored embedding of features v.
func (p *Projection) Embed(v []float32, t index.DType) ([]byte, error) {
	if len(v)*len(p.bias) != len(p.weight) {
		return nil, fmt.Errorf("version: features: want %d values, have %d", len(p.weight)/len(p.bias), len(v))
	}
	y := make([]float32, len(p.bias))
	for i := range y {
		y[i] = float32(float64(p.bias[i]) + dot(p.weight[i*len(v):][:len(v)], v))
	}
	b, err := t.AppendRow(nil, y)
	if err != nil {
		return nil, fmt.Errorf("version: %w", err)
	}
	return b, nil
}

// dot adds up in four parts, which a processor does at the same time.
func dot(w, v []float32) float64 {
	var a, b, c, d float64
	n := len(w) &^ 3
	for j := 0; j < n; j += 4 {
		a += float64(w[j]) * float64(v[j])
		b += float64(w[j+1]) * float64(v[j+1])
		c += float64(w[j+2]) * float64(v[j+2])
		d += float64(w[j+3]) * float64(v[j+3])
	}
	for j := n; j < len(w); j++ {
		a += float64(w[j]) * float64(v[j])
	}
	return a + b + c + d
}

// Addition is a picture that is published: its file is a piece named Meta.Hash.
type Addition struct {
	index.Meta
	Features []float32 // (Dv): CLIP's pooled state
}

// Additions is the most rows of one piece of them.
const Additions = PageRows

// EncodeAdditions writes at most Additions rows.
func EncodeAdditions(all []Addition) []byte {
	rows, size := make([]Row, len(all)), 0
	for i, a := range all {
		rows[i] = Row{ID: uint64(i), Meta: a.Meta, Values: FloatBytes(a.Features)}
		size = len(rows[i].Values)
	}
	return EncodePage(rows, size)
}

// DecodeAdditions reads rows with features of dim values, all finite, each with a path and the hash of its file.
func DecodeAdditions(data []byte, dim int) ([]Addition, error) {
	rows, err := DecodePage(data, 4*dim)
	if err != nil {
		return nil, err
	}
	all := make([]Addition, len(rows))
	for i, r := range rows {
		all[i] = Addition{r.Meta, Floats(r.Values)}
		if r.Hash == [32]byte{} {
			return nil, fmt.Errorf("version: addition %d: want the hash of its file, have none", i)
		}
		for j, v := range all[i].Features {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return nil, fmt.Errorf("version: addition %d: feature %d: want a finite value, have %g", i, j, v)
			}
		}
	}
	return all, nil
}
