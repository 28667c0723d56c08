// SPDX-License-Identifier: Apache-2.0

package runner_test

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"fromage/compiler"
	"fromage/internal/testmodel"
	"fromage/shaders"
)

// textTower is CLIPTextTransformer and its projection as transformers has them (modeling_clip.py), one text at a time in float64.
type textTower struct {
	w                     map[string][]float32
	hidden, heads, layers int
}

func (c *textTower) vector(name string) []float64 {
	var out []float64
	for _, x := range c.w[name] {
		out = append(out, float64(x))
	}
	return out
}

// linear is x·Wᵀ + b.
func (c *textTower) linear(name string, x []float64) []float64 {
	w := c.vector(name + ".weight")
	y := make([]float64, len(w)/len(x))
	copy(y, c.vector(name+".bias"))
	for i := range y {
		for j, v := range x {
			y[i] += w[i*len(x)+j] * v
		}
	}
	return y
}

func (c *textTower) norm(name string, x []float64) []float64 {
	mean, variance := 0.0, 0.0
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		variance += (v - mean) * (v - mean) / float64(len(x))
	}
	w, b := c.vector(name+".weight"), c.vector(name+".bias")
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = (v-mean)/math.Sqrt(variance+1e-5)*w[i] + b[i]
	}
	return y
}

func (c *textTower) attention(layer string, x [][]float64) [][]float64 {
	var q, k, v [][]float64
	for _, row := range x {
		q = append(q, c.linear(layer+"q_proj", row))
		k = append(k, c.linear(layer+"k_proj", row))
		v = append(v, c.linear(layer+"v_proj", row))
	}
	d := c.hidden / c.heads
	out := make([][]float64, len(x))
	for i := range x {
		mixed := make([]float64, c.hidden)
		for h := range c.heads {
			var weights []float64
			sum := 0.0
			for j := range i + 1 {
				dot := 0.0
				for n := h * d; n < (h+1)*d; n++ {
					dot += q[i][n] * k[j][n]
				}
				weights = append(weights, math.Exp(dot/math.Sqrt(float64(d))))
				sum += weights[j]
			}
			for j, w := range weights {
				for n := h * d; n < (h+1)*d; n++ {
					mixed[n] += w / sum * v[j][n]
				}
			}
		}
		out[i] = c.linear(layer+"out_proj", mixed)
	}
	return out
}

func (c *textTower) embed(ids []int32, pooled int) []float64 {
	tokens, positions := c.vector("text_model.embeddings.token_embedding.weight"), c.vector("text_model.embeddings.position_embedding.weight")
	var x [][]float64
	for at, id := range ids {
		row := make([]float64, c.hidden)
		for i := range row {
			row[i] = tokens[int(id)*c.hidden+i] + positions[at*c.hidden+i]
		}
		x = append(x, row)
	}
	for l := range c.layers {
		layer := "text_model.encoder.layers." + string(rune('0'+l)) + "."
		var h [][]float64
		for _, row := range x {
			h = append(h, c.norm(layer+"layer_norm1", row))
		}
		for i, row := range c.attention(layer+"self_attn.", h) {
			for j, v := range row {
				x[i][j] += v
			}
			m := c.linear(layer+"mlp.fc1", c.norm(layer+"layer_norm2", x[i]))
			for j, v := range m {
				m[j] = v / (1 + math.Exp(-1.702*v))
			}
			for j, v := range c.linear(layer+"mlp.fc2", m) {
				x[i][j] += v
			}
		}
	}
	return c.linear("text_projection", c.norm("text_model.final_layer_norm", x[pooled]))
}

// TestEncodeTexts holds the packed text tower to a plain one, pooled as both kinds of configuration want it.
func TestEncodeTexts(t *testing.T) {
	texts := [][]int32{{5, 9, 300}, {}, {529, 4}, {3, 528, 2, 528, 1, 7}, {8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 500, 501, 502, 503}, {511}}
	for i := range 40 {
		texts = append(texts, texts[i%4])
	}
	for _, eos := range []int{1, 2} {
		dir := t.TempDir()
		weights := testmodel.WriteCLIP(t, dir, testmodel.CLIPConfig(eos))
		testmodel.WriteCLIPTokenizer(t, dir)
		r := testmodel.Compiled(t, compiler.Options{CLIP: dir, Text: true, DType: shaders.F32})
		got, err := r.EncodeTexts(context.Background(), texts)
		if err != nil || len(got) != len(texts) {
			t.Fatalf("EncodeTexts: %d rows, %v, want %d", len(got), err, len(texts))
		}
		c := &textTower{weights, 20, 2, 2}
		for i, text := range texts {
			ids := append(append([]int32{0}, text[:min(len(text), 14)]...), 1)
			pooled := slices.Index(ids, 1)
			if eos == 2 {
				pooled = slices.Index(ids, slices.Max(ids))
			}
			for j, want := range c.embed(ids, pooled) {
				if d := math.Abs(float64(got[i][j]) - want); !(d < 1e-5*(1+math.Abs(want))) {
					t.Fatalf("eos_token_id %d: text %v: value %d = %v, want %v", eos, text, j, got[i][j], want)
				}
			}
		}
		v := [][]float32{make([]float32, 24), make([]float32, 24)}
		for i := range v[1] {
			v[1][i] = float32(i) - 9
		}
		image, err := r.Project(context.Background(), v)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range c.linear("visual_projection", float64s(v[1])) {
			if d := math.Abs(float64(image[1][i]) - want); image[0][i] != 0 || !(d < 1e-4*(1+math.Abs(want))) {
				t.Errorf("Project: value %d = %v and %v, want 0 and %v", i, image[0][i], image[1][i], want)
			}
		}
		if _, err := r.EncodeTexts(context.Background(), [][]int32{{530}}); err == nil || !strings.Contains(err.Error(), "want token numbers below 530, have 530") {
			t.Errorf("a number beyond the vocabulary: %v", err)
		}
	}
	if _, err := testmodel.Load(t, "../testdata/golden/fromage/one-token", shaders.F32).EncodeTexts(context.Background(), texts); err == nil || !strings.Contains(err.Error(), "no text tower") {
		t.Errorf("without a text tower: %v", err)
	}
}

func float64s(x []float32) (out []float64) {
	for _, v := range x {
		out = append(out, float64(v))
	}
	return out
}
