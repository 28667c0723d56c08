// SPDX-License-Identifier: Apache-2.0

package vision

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

// TestResample holds every filter against Pillow's resize, enlarging and reducing: equal to the last bit.
func TestResample(t *testing.T) {
	src := pillow(t, "testdata/resampled/source.png")
	names := map[Filter]string{Nearest: "nearest", Lanczos: "lanczos", Bilinear: "bilinear", Bicubic: "bicubic"}
	for filter, name := range names {
		for _, size := range [][2]int{{23, 17}, {67, 43}, {61, 7}, {5, 90}} {
			w, h := size[0], size[1]
			file := fmt.Sprintf("%s_%dx%d.png", name, w, h)
			pictures := []*Picture{resize(src, w, h, filter)}
			if filter == Bicubic {
				pictures = append(pictures, src.Resized(w, h))
			}
			for _, got := range pictures {
				if differ, worst := compare(t, file, got, pillow(t, "testdata/resampled", file)); differ != 0 {
					t.Errorf("%s: %d of %d bytes differ, by at most %d, want 0", file, differ, len(got.Pix), worst)
				}
			}
		}
	}
}

// resize resamples src to w×h as a picture, by a Processor that does nothing else.
func resize(src *Picture, w, h int, filter Filter) *Picture {
	p, err := NewProcessor(Config{DoResize: true, ResizeWidth: w, ResizeHeight: h, Resample: filter}, Limits{})
	if err != nil {
		panic(err)
	}
	values := make([]float32, 3*w*h)
	if err := p.Preprocess(src, values); err != nil {
		panic(err)
	}
	dst := &Picture{w, h, make([]uint8, 3*w*h)}
	for i := range w * h {
		for c := range 3 {
			dst.Pix[3*i+c] = uint8(values[c*w*h+i])
		}
	}
	return dst
}

// TestCrop crops without resizing. want is numpy's: image[i+top] with top = (have-crop)//2, zero outside the picture.
func TestCrop(t *testing.T) {
	tests := []struct{ have, crop, top int }{
		{7, 7, 0}, {7, 4, 1}, {7, 3, 2}, {8, 3, 2}, {1, 4, -2}, {3, 8, -3}, {4, 7, -2}, {8, 1, 3},
	}
	for _, v := range tests {
		for _, h := range tests {
			pic := &Picture{h.have, v.have, make([]uint8, 3*h.have*v.have)}
			for i := range pic.Pix {
				pic.Pix[i] = uint8(1 + i)
			}
			p, err := NewProcessor(Config{DoCenterCrop: true, CropHeight: v.crop, CropWidth: h.crop}, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			got := make([]float32, 3*v.crop*h.crop)
			if err := p.Preprocess(pic, got); err != nil {
				t.Fatal(err)
			}
			for i, g := range got {
				c, y, x := i/(v.crop*h.crop), i/h.crop%v.crop+v.top, i%h.crop+h.top
				want := float32(0)
				if y >= 0 && y < v.have && x >= 0 && x < h.have {
					want = float32(pic.Pix[3*(y*h.have+x)+c])
				}
				if g != want {
					t.Fatalf("crop(%d×%d to %d×%d)[%d] = %v, want %v", h.have, v.have, h.crop, v.crop, i, g, want)
				}
			}
		}
	}
}

func TestValue(t *testing.T) {
	// From NumPy: float32(float64(v) * f), then (x - float32(mean)) / float32(std).
	config := DefaultConfig()
	tests := []struct {
		channel int
		v       uint8
		want    float32
	}{
		{0, 0, -1.7922626}, {0, 255, 1.9303361}, {1, 128, 0.16889732}, {2, 77, -0.38527465},
	}
	for _, test := range tests {
		if got := config.value(test.channel, test.v); got != test.want {
			t.Errorf("value(%d, %d) = %v, want %v", test.channel, test.v, got, test.want)
		}
	}
}

func TestPreprocessRefuses(t *testing.T) {
	p, err := NewProcessor(DefaultConfig(), Limits{Pixels: 100})
	if err != nil {
		t.Fatal(err)
	}
	values := make([]float32, 3*224*224)
	tests := []struct {
		name string
		pic  *Picture
		dst  []float32
		want string
	}{
		{"no pixels", &Picture{}, values, "want at least 1×1 RGB pixels, have 0×0"},
		{"missing pixels", &Picture{2, 2, make([]uint8, 11)}, values, "have 2×2 in 11 bytes"},
		{"short dst", &Picture{1, 1, make([]uint8, 3)}, values[1:], "want pixel values 3×224×224 = 150528, have room for 150527"},
		{"thread", &Picture{1, 80000, make([]uint8, 240000)}, values, "want edges of at most 16777216 pixels after resizing, have 224×17920000"},
	}
	for _, test := range tests {
		if err := p.Preprocess(test.pic, test.dst); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Preprocess(%s) = %v, want %q", test.name, err, test.want)
		}
	}
	if err := p.Process(readFile(t, "testdata/pictures/rgb.bmp"), values); err == nil || !strings.Contains(err.Error(), "at most 100 pixels") {
		t.Errorf("Process(rgb.bmp) = %v, want the limit's error", err)
	}
}

// TestProcessConcurrent runs pictures of different sizes through one Processor at once.
func TestProcessConcurrent(t *testing.T) {
	p, err := NewProcessor(DefaultConfig(), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	files := []string{"sampling420.jpg", "icon1.webp", "rgba16.png", "offset.gif", "palette.bmp"}
	var data [][]byte
	var want [][]float32
	for _, name := range files {
		fresh, err := NewProcessor(DefaultConfig(), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		values := make([]float32, 3*224*224)
		data = append(data, readFile(t, "testdata/pictures", name))
		if err := fresh.Process(data[len(data)-1], values); err != nil {
			t.Fatal(err)
		}
		want = append(want, values)
	}
	var wg sync.WaitGroup
	failures := make([]error, 4)
	for g := range failures {
		wg.Go(func() {
			got := make([]float32, 3*224*224)
			for i := range 10 {
				k := (g + i) % len(data)
				if err := p.Process(data[k], got); err != nil {
					failures[g] = err
					return
				}
				for j, v := range got {
					if v != want[k][j] {
						failures[g] = fmt.Errorf("Process(%s)[%d] = %v, want %v", files[k], j, v, want[k][j])
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(failures...); err != nil {
		t.Error(err)
	}
}

func BenchmarkProcess(b *testing.B) {
	b.Run("webp_128_to_112", func(b *testing.B) {
		config := DefaultConfig()
		config.ShortestEdge, config.CropHeight, config.CropWidth = 112, 112, 112
		benchmark(b, config, readFile(b, "testdata/pictures/icon1.webp"))
	})
	b.Run("jpeg_4000x3000_to_224", func(b *testing.B) {
		benchmark(b, DefaultConfig(), largeJPEG(b))
	})
}

func benchmark(b *testing.B, config Config, data []byte) {
	p, err := NewProcessor(config, Limits{})
	if err != nil {
		b.Fatal(err)
	}
	h, w := p.Shape()
	dst := make([]float32, 3*h*w)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Process(data, dst); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "images/s")
}

// BenchmarkPreprocess is the part of a 12-megapixel picture that is ours: resizing, cropping and normalising.
func BenchmarkPreprocess(b *testing.B) {
	pic := &Picture{4000, 3000, make([]uint8, 3*4000*3000)}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range pic.Pix {
		pic.Pix[i] = uint8(r.Uint32())
	}
	p, err := NewProcessor(DefaultConfig(), Limits{})
	if err != nil {
		b.Fatal(err)
	}
	dst := make([]float32, 3*224*224)
	for b.Loop() {
		if err := p.Preprocess(pic, dst); err != nil {
			b.Fatal(err)
		}
	}
}
