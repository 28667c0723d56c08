// SPDX-License-Identifier: Apache-2.0

package vision

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const golden = "../testdata/golden/clip/vision"

// readFile is the content of a test file.
func readFile(t testing.TB, elem ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// goldenTensors reads the f32 tensors of a safetensors file whose names start with prefix, which is cut off.
func goldenTensors(t *testing.T, data []byte, prefix string) map[string][]float32 {
	t.Helper()
	var header map[string]struct {
		Offsets [2]int `json:"data_offsets"`
	}
	n := binary.LittleEndian.Uint64(data)
	if err := json.Unmarshal(data[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	tensors := map[string][]float32{}
	for name, e := range header {
		short, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		raw := data[8+n:][e.Offsets[0]:e.Offsets[1]]
		v := make([]float32, len(raw)/4)
		for i := range v {
			v[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		tensors[short] = v
	}
	return tensors
}

// TestGolden holds pixel values against CLIPImageProcessor's: equal to the last bit for PNG; for JPEG, where Go's inverse
// DCT rounds otherwise than libjpeg's, within one step of 8 bits.
func TestGolden(t *testing.T) {
	config, err := LoadConfig(readFile(t, golden, "preprocessor_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewProcessor(config, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	want := goldenTensors(t, readFile(t, golden, "expected.safetensors"), "image/")
	if len(want) != 13 {
		t.Fatalf("golden images = %d, want 13", len(want))
	}
	for name, want := range want {
		got := make([]float32, 3*32*32)
		if err := p.Process(readFile(t, golden, "images", name), got); err != nil {
			t.Error(err)
			continue
		}
		if len(want) != len(got) {
			t.Fatalf("%s: %d golden values, want %d", name, len(want), len(got))
		}
		differ, worst := 0, 0.0
		for i := range got {
			if got[i] != want[i] {
				differ++
				step := math.Abs(float64(got[i]-want[i])) * config.Std[i/(32*32)] * 255
				worst = max(worst, step)
			}
		}
		t.Logf("%s: %d of %d values differ, by at most %.3f of 255", name, differ, len(got), worst)
		most, steps := 0, 0.0
		if filepath.Ext(name) == ".jpg" {
			most, steps = len(got)/50, 1.001
		}
		if differ > most || worst > steps {
			t.Errorf("Process(%s): %d of %d values differ, by at most %.3f of 255, want %d and %.0f", name, differ, len(got), worst, most, steps)
		}
	}
}
