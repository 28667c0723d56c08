// SPDX-License-Identifier: Apache-2.0

package vision

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// Filter is a resampling filter, numbered as Pillow's Image.Resampling.
type Filter int

// The filters that are computed.
const (
	Nearest  Filter = 0
	Lanczos  Filter = 1
	Bilinear Filter = 2
	Bicubic  Filter = 3
)

// Config is a CLIPImageProcessor's configuration. The steps run in the order of the fields.
type Config struct {
	DoResize bool
	// ShortestEdge is the length in pixels that resizing gives the shorter edge, keeping the aspect ratio;
	// 0 means that ResizeHeight and ResizeWidth are the size itself.
	ShortestEdge              int
	ResizeHeight, ResizeWidth int
	Resample                  Filter

	DoCenterCrop          bool
	CropHeight, CropWidth int // pixels; a smaller picture is padded with black

	DoRescale     bool
	RescaleFactor float64 // applied to 0..255

	DoNormalize bool
	Mean, Std   [3]float64 // of the red, green and blue channel after rescaling
}

// DefaultConfig is CLIPImageProcessor's configuration where a file leaves everything out: that of OpenAI's CLIP models at 224 pixels.
func DefaultConfig() Config {
	return Config{
		DoResize: true, ShortestEdge: 224, Resample: Bicubic,
		DoCenterCrop: true, CropHeight: 224, CropWidth: 224,
		DoRescale: true, RescaleFactor: 1.0 / 255,
		DoNormalize: true,
		Mean:        [3]float64{0.48145466, 0.4578275, 0.40821073},
		Std:         [3]float64{0.26862954, 0.26130258, 0.27577711},
	}
}

// configFile is preprocessor_config.json; what is absent or null keeps its default.
type configFile struct {
	DoResize      *bool           `json:"do_resize"`
	Size          json.RawMessage `json:"size"`
	Resample      *Filter         `json:"resample"`
	DoCenterCrop  *bool           `json:"do_center_crop"`
	CropSize      json.RawMessage `json:"crop_size"`
	DoRescale     *bool           `json:"do_rescale"`
	RescaleFactor *float64        `json:"rescale_factor"`
	DoNormalize   *bool           `json:"do_normalize"`
	Mean          json.RawMessage `json:"image_mean"`
	Std           json.RawMessage `json:"image_std"`
	Processor     string          `json:"image_processor_type"`
	Extractor     string          `json:"feature_extractor_type"`
}

// LoadConfig reads a preprocessor_config.json: the old style, with size and crop_size as numbers, and the new one, with objects.
// Absent keys take their value from [DefaultConfig]. do_convert_rgb is not read: a [Picture] is RGB already.
// It refuses a processor other than CLIP's, and whatever [Config.Validate] refuses.
func LoadConfig(data []byte) (Config, error) {
	var f *configFile
	if err := json.Unmarshal(data, &f); err != nil {
		return Config{}, fmt.Errorf("vision: preprocessor config: %w", err)
	}
	if f == nil {
		return Config{}, errors.New("vision: preprocessor config: want an object, have null")
	}
	for _, name := range []string{f.Processor, f.Extractor} {
		switch name {
		case "", "CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPFeatureExtractor":
		default:
			return Config{}, fmt.Errorf("vision: preprocessor config: image_processor_type: want CLIPImageProcessor, have %q", name)
		}
	}
	c := DefaultConfig()
	set(&c.DoResize, f.DoResize)
	set(&c.Resample, f.Resample)
	set(&c.DoCenterCrop, f.DoCenterCrop)
	set(&c.DoRescale, f.DoRescale)
	set(&c.RescaleFactor, f.RescaleFactor)
	set(&c.DoNormalize, f.DoNormalize)
	err := errors.Join(c.setSize(f.Size), c.setCrop(f.CropSize),
		setChannels(&c.Mean, "image_mean", f.Mean), setChannels(&c.Std, "image_std", f.Std))
	if err != nil {
		return Config{}, err
	}
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

func set[T any](dst *T, v *T) {
	if v != nil {
		*dst = *v
	}
}

func absent(raw json.RawMessage) bool {
	return len(raw) == 0 || string(raw) == "null"
}

func (c *Config) setSize(raw json.RawMessage) error {
	if absent(raw) {
		return nil
	}
	c.ShortestEdge = 0
	if json.Unmarshal(raw, &c.ShortestEdge) == nil {
		return nil
	}
	var o struct {
		ShortestEdge *int `json:"shortest_edge"`
		LongestEdge  *int `json:"longest_edge"`
		Height       *int `json:"height"`
		Width        *int `json:"width"`
	}
	err := json.Unmarshal(raw, &o)
	switch {
	case err != nil || o.LongestEdge != nil:
	case o.ShortestEdge != nil:
		c.ShortestEdge = *o.ShortestEdge
		return nil
	case o.Height != nil && o.Width != nil:
		c.ResizeHeight, c.ResizeWidth = *o.Height, *o.Width
		return nil
	}
	return fmt.Errorf("vision: preprocessor config: size: want a number, {shortest_edge} or {height, width}, have %s", clip(raw))
}

func (c *Config) setCrop(raw json.RawMessage) error {
	if absent(raw) {
		return nil
	}
	var edge int
	if json.Unmarshal(raw, &edge) == nil {
		c.CropHeight, c.CropWidth = edge, edge
		return nil
	}
	var o struct {
		Height *int `json:"height"`
		Width  *int `json:"width"`
	}
	if json.Unmarshal(raw, &o) != nil || o.Height == nil || o.Width == nil {
		return fmt.Errorf("vision: preprocessor config: crop_size: want a number or {height, width}, have %s", clip(raw))
	}
	c.CropHeight, c.CropWidth = *o.Height, *o.Width
	return nil
}

func setChannels(dst *[3]float64, key string, raw json.RawMessage) error {
	if absent(raw) {
		return nil
	}
	var one float64
	if json.Unmarshal(raw, &one) == nil {
		*dst = [3]float64{one, one, one}
		return nil
	}
	var list []float64
	if json.Unmarshal(raw, &list) != nil || len(list) != 3 {
		return fmt.Errorf("vision: preprocessor config: %s: want a number or 3 of them, have %s", key, clip(raw))
	}
	copy(dst[:], list)
	return nil
}

// clip shortens foreign JSON for an error.
func clip(raw json.RawMessage) string {
	const most = 80
	if len(raw) > most {
		return fmt.Sprintf("%s… (%d bytes)", raw[:most], len(raw))
	}
	return string(raw)
}

// MaxEdge is the longest edge in pixels that a [Config] may ask for.
const MaxEdge = 2048

// Validate says what in c cannot be computed: an edge outside 1..[MaxEdge], a filter that is not among the constants,
// a standard deviation of 0, a number that float32 cannot hold, or steps that leave the output's shape to the picture.
func (c *Config) Validate() error {
	edges := []struct {
		key   string
		used  bool
		value int
	}{
		{"size.shortest_edge", c.DoResize && c.ShortestEdge != 0, c.ShortestEdge},
		{"size.height", c.DoResize && c.ShortestEdge == 0, c.ResizeHeight},
		{"size.width", c.DoResize && c.ShortestEdge == 0, c.ResizeWidth},
		{"crop_size.height", c.DoCenterCrop, c.CropHeight},
		{"crop_size.width", c.DoCenterCrop, c.CropWidth},
	}
	for _, e := range edges {
		if e.used && (e.value < 1 || e.value > MaxEdge) {
			return fmt.Errorf("vision: preprocessor config: %s: want 1 to %d pixels, have %d", e.key, MaxEdge, e.value)
		}
	}
	if c.DoResize && (c.Resample < Nearest || c.Resample > Bicubic) {
		return fmt.Errorf("vision: preprocessor config: resample: want 0 (nearest), 1 (lanczos), 2 (bilinear) or 3 (bicubic), have %d", c.Resample)
	}
	if !c.DoCenterCrop && (!c.DoResize || c.ShortestEdge != 0) {
		return errors.New("vision: preprocessor config: want do_center_crop or a size of {height, width}, have neither, so no fixed output shape")
	}
	numbers := []float64{c.RescaleFactor}
	for i, std := range c.Std {
		if c.DoNormalize && float32(std) == 0 {
			return fmt.Errorf("vision: preprocessor config: image_std[%d]: want a number other than 0, have %g", i, std)
		}
		numbers = append(numbers, std, c.Mean[i])
	}
	for _, v := range numbers {
		if math.IsNaN(v) || math.Abs(v) > math.MaxFloat32 {
			return fmt.Errorf("vision: preprocessor config: rescale_factor, image_mean, image_std: want float32 numbers, have %g", v)
		}
	}
	return nil
}

// Shape is the height and width in pixels of what c makes of any picture.
func (c *Config) Shape() (height, width int) {
	if c.DoCenterCrop {
		return c.CropHeight, c.CropWidth
	}
	return c.ResizeHeight, c.ResizeWidth
}

// resized is the size that c's first step gives a picture of w×h pixels (get_resize_output_image_size).
func (c *Config) resized(w, h int) (width, height int) {
	switch {
	case !c.DoResize:
		return w, h
	case c.ShortestEdge == 0:
		return c.ResizeWidth, c.ResizeHeight
	case w <= h:
		return c.ShortestEdge, c.ShortestEdge * h / w
	}
	return c.ShortestEdge * w / h, c.ShortestEdge
}
