// SPDX-License-Identifier: Apache-2.0

package vision

import (
	"strings"
	"testing"
)

func TestLoadConfig(t *testing.T) {
	clip := DefaultConfig()
	tiny := clip
	tiny.ShortestEdge, tiny.CropHeight, tiny.CropWidth, tiny.RescaleFactor = 32, 32, 32, 0.00392156862745098
	exact := clip
	exact.ShortestEdge, exact.ResizeHeight, exact.ResizeWidth, exact.Resample = 0, 40, 50, Bilinear
	exact.DoCenterCrop = false
	half := clip
	half.DoNormalize, half.DoRescale = false, false
	half.Mean, half.Std = [3]float64{0.5, 0.5, 0.5}, [3]float64{1, 2, 3}
	half.CropHeight, half.CropWidth = 10, 12
	tests := []struct {
		name, json string
		want       Config
	}{
		{"nothing", `{}`, clip},
		{"openai/clip-vit-large-patch14", `{"crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true,
			"feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
			"image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 224}`, clip},
		{"golden", string(readFile(t, golden, "preprocessor_config.json")), tiny},
		{"fixed size", `{"size": {"height": 40, "width": 50}, "do_center_crop": false, "resample": 2}`, exact},
		{"nulls", `{"size": null, "crop_size": null, "image_mean": null, "do_resize": null, "resample": null}`, clip},
		{"steps off", `{"do_rescale": false, "do_normalize": false, "image_mean": 0.5, "image_std": [1, 2, 3],
			"crop_size": {"height": 10, "width": 12}, "do_convert_rgb": false}`, half},
	}
	for _, test := range tests {
		got, err := LoadConfig([]byte(test.json))
		if err != nil || got != test.want {
			t.Errorf("LoadConfig(%s) = %+v, %v, want %+v", test.name, got, err, test.want)
		}
	}
}

func TestLoadConfigRefuses(t *testing.T) {
	tests := []struct{ json, want string }{
		{``, "unexpected end"},
		{`null`, "want an object, have null"},
		{`[1]`, "cannot unmarshal array"},
		{`{"image_processor_type": "SiglipImageProcessor"}`, `want CLIPImageProcessor, have "SiglipImageProcessor"`},
		{`{"size": "224"}`, `size: want a number, {shortest_edge} or {height, width}, have "224"`},
		{`{"size": {"longest_edge": 224, "shortest_edge": 224}}`, "size: want"},
		{`{"size": {"height": 224}}`, "size: want"},
		{`{"size": 0}`, "size.height: want 1 to 2048 pixels, have 0"},
		{`{"size": -1}`, "size.shortest_edge: want 1 to 2048 pixels, have -1"},
		{`{"size": 100000}`, "size.shortest_edge: want 1 to 2048 pixels, have 100000"},
		{`{"crop_size": 0}`, "crop_size.height: want 1 to 2048"},
		{`{"crop_size": {"width": 3}}`, "crop_size: want a number or {height, width}"},
		{`{"resample": 5}`, "resample: want 0 (nearest), 1 (lanczos), 2 (bilinear) or 3 (bicubic), have 5"},
		{`{"do_center_crop": false}`, "no fixed output shape"},
		{`{"do_center_crop": false, "do_resize": false, "size": {"height": 3, "width": 3}}`, "no fixed output shape"},
		{`{"image_std": [1, 0, 1]}`, "image_std[1]: want a number other than 0"},
		{`{"image_mean": [1, 2]}`, "image_mean: want a number or 3 of them, have [1, 2]"},
		{`{"image_mean": 1e300}`, "want float32 numbers, have 1e+300"},
	}
	for _, test := range tests {
		_, err := LoadConfig([]byte(test.json))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("LoadConfig(%s) = %v, want %q", test.json, err, test.want)
		}
	}
}

// FuzzConfig checks that any configuration is refused or works on a small picture.
func FuzzConfig(f *testing.F) {
	f.Add(readFile(f, golden, "preprocessor_config.json"))
	f.Add([]byte(`{"size": 224, "crop_size": 224, "resample": 1, "image_mean": 0.5}`))
	f.Add([]byte(`{"size": {"height": 4, "width": 5}, "do_center_crop": false, "resample": 0}`))
	f.Add([]byte(`{"do_resize": false, "crop_size": {"height": 40, "width": 1}, "do_rescale": false}`))
	pic := &Picture{3, 7, make([]uint8, 63)}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := LoadConfig(data)
		if err != nil {
			return
		}
		p, err := NewProcessor(c, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		h, w := p.Shape()
		if err := p.Preprocess(pic, make([]float32, 3*h*w)); err != nil {
			t.Error(err)
		}
	})
}
