// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"math"
	"os"
	"path/filepath"
	"slices"

	"fromage/compiler"
	"fromage/vision"
)

// clip verifies CLIPVisionModel and, where the folder has images, the image processor.
func (v *verification) clip() error {
	done, err := v.load(compiler.Options{CLIP: v.dir})
	if err != nil {
		return err
	}
	defer done()
	pixels, err := v.pictures("pixel_values")
	if err != nil {
		return err
	}
	pooled, hidden, err := v.r.Pooled(pixels)
	if err != nil {
		return err
	}
	if err := v.tensor("pooler_output", flat(pooled)); err != nil {
		return err
	}
	if err := v.tensor("last_hidden_state", flat(hidden)); err != nil {
		return err
	}
	return v.images()
}

// pictures splits a tensor (B,3,S,S) into B pictures.
func (v *verification) pictures(name string) ([][]float32, error) {
	x, err := v.want.floats(name)
	if err != nil {
		return nil, err
	}
	s := v.r.Settings().ImageSize
	return slices.Collect(slices.Chunk(x, 3*s*s)), nil
}

// rounding is how far resampling and decoding may be off: one step of 1/255 for a lossless file, before CLIP divides by its smallest deviation;
// JPEG decoders may differ by two steps more.
var rounding = map[bool]float64{true: 1.01 / 255 / 0.26130258, false: 3.01 / 255 / 0.26130258}

func (v *verification) images() error {
	names := v.want.under("image/")
	if len(names) == 0 {
		return nil
	}
	raw, err := os.ReadFile(filepath.Join(v.dir, "preprocessor_config.json"))
	if err != nil {
		return err
	}
	config, err := vision.LoadConfig(raw)
	if err != nil {
		return err
	}
	processor, err := vision.NewProcessor(config, vision.Limits{})
	if err != nil {
		return err
	}
	h, w := processor.Shape()
	got := make([]float32, 3*h*w)
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(v.dir, "images", name))
		if err != nil {
			return err
		}
		if err := processor.Process(data, got); err != nil {
			return err
		}
		want, err := v.want.floats("image/" + name)
		if err != nil {
			return err
		}
		largest := 0.0
		for _, x := range want {
			largest = max(largest, math.Abs(float64(x)))
		}
		v.add(compare("image/"+name, got, want, rounding[filepath.Ext(name) == ".png"]/largest))
	}
	return nil
}
