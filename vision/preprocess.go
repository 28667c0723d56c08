// SPDX-License-Identifier: Apache-2.0

package vision

import (
	"fmt"
	"sync"
)

// Processor makes pixel values of pictures by one [Config]. It keeps its working memory from one picture to the next,
// and any number of goroutines may use it at once.
type Processor struct {
	config  Config
	limits  Limits
	values  [3][256]float32 // by channel and 8-bit sample
	scratch sync.Pool       // of *scratch
}

// scratch is the memory that one picture needs on its way.
type scratch struct {
	pic                  Picture
	horizontal, vertical axis
	rows                 []uint8 // after the horizontal pass
	sums                 []int32
}

// NewProcessor returns a Processor for config, whose Process decodes within limits. It refuses what [Config.Validate] refuses.
func NewProcessor(config Config, limits Limits) (*Processor, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	p := &Processor{config: config, limits: limits}
	p.scratch.New = func() any { return new(scratch) }
	for c := range p.values {
		for v := range p.values[c] {
			p.values[c][v] = config.value(c, uint8(v))
		}
	}
	return p, nil
}

// value rescales and normalises sample v of channel c, rounding where NumPy does: the rescaled value is float64
// until it is stored as float32; mean and standard deviation are float32.
func (c *Config) value(channel int, v uint8) float32 {
	x := float32(v)
	if c.DoRescale {
		x = float32(float64(v) * c.RescaleFactor)
	}
	if c.DoNormalize {
		x = (x - float32(c.Mean[channel])) / float32(c.Std[channel])
	}
	return x
}

// Shape is the height H and width W in pixels of the pixel values.
func (p *Processor) Shape() (height, width int) { return p.config.Shape() }

// Process decodes the picture in data ([Decode]) and writes its pixel values to dst, shape (3,H,W): red, green and blue planes,
// H and W from [Processor.Shape].
func (p *Processor) Process(data []byte, dst []float32) error {
	s := p.scratch.Get().(*scratch)
	defer p.scratch.Put(s)
	if _, err := decodeInto(&s.pic, data, p.limits); err != nil {
		return err
	}
	return p.preprocess(&s.pic, dst, s)
}

// Preprocess is [Processor.Process] for a picture that is decoded already.
func (p *Processor) Preprocess(pic *Picture, dst []float32) error {
	s := p.scratch.Get().(*scratch)
	defer p.scratch.Put(s)
	return p.preprocess(pic, dst, s)
}

// maxResized is the longest edge of a resized picture. Only the crop of it is computed, but a picture so much longer than
// wide is no picture.
const maxResized = 1 << 24

func (p *Processor) preprocess(pic *Picture, dst []float32, s *scratch) error {
	if pic.Width < 1 || pic.Height < 1 || len(pic.Pix) != 3*pic.Width*pic.Height {
		return fmt.Errorf("vision: preprocess picture: want at least 1×1 RGB pixels, have %d×%d in %d bytes", pic.Width, pic.Height, len(pic.Pix))
	}
	h, w := p.config.Shape()
	if len(dst) != 3*h*w {
		return fmt.Errorf("vision: preprocess picture: want pixel values 3×%d×%d = %d, have room for %d", h, w, 3*h*w, len(dst))
	}
	rw, rh := p.config.resized(pic.Width, pic.Height)
	if max(rw, rh) > maxResized {
		return fmt.Errorf("vision: preprocess picture: want edges of at most %d pixels after resizing, have %d×%d from %d×%d",
			maxResized, rw, rh, pic.Width, pic.Height)
	}
	s.horizontal.plan(pic.Width, rw, w, p.config.Resample)
	s.vertical.plan(pic.Height, rh, h, p.config.Resample)
	s.resample(pic)
	p.emit(dst, s)
	return nil
}

// resample runs the horizontal pass over the rows that the vertical pass will need, into s.rows.
func (s *scratch) resample(pic *Picture) {
	n := 3 * len(s.horizontal.spans) * (s.vertical.end() - s.vertical.first())
	if cap(s.rows) < n {
		s.rows = make([]uint8, n)
	}
	s.rows = s.rows[:n]
	across(s.rows, pic, &s.horizontal, &s.vertical)
}

// emit runs the vertical pass and writes its values to dst (3,H,W), black where the crop reaches beyond the picture.
func (p *Processor) emit(dst []float32, s *scratch) {
	h, w := p.config.Shape()
	width := 3 * len(s.horizontal.spans)
	if cap(s.sums) < width {
		s.sums = make([]int32, width)
	}
	s.sums = s.sums[:width]
	for c := range 3 {
		plane := dst[c*h*w : (c+1)*h*w]
		if len(s.horizontal.spans) < w || len(s.vertical.spans) < h {
			for i := range plane {
				plane[i] = p.values[c][0]
			}
		}
	}
	for y := range s.vertical.spans {
		s.vertical.column(s.sums, s.rows, y)
		at := (s.vertical.pad+y)*w + s.horizontal.pad
		for c := range 3 {
			line, values, sums := dst[c*h*w+at:][:len(s.horizontal.spans)], &p.values[c], s.sums[c:]
			for x := range line {
				line[x] = values[clampByte(sums[3*x]>>precision)]
			}
		}
	}
}

// Resized is the picture at width × height, whatever its own aspect ratio, as Pillow's Image.resize makes it of an RGB picture by default: bicubic.
func (pic *Picture) Resized(width, height int) *Picture {
	var s scratch
	s.horizontal.plan(pic.Width, width, width, Bicubic)
	s.vertical.plan(pic.Height, height, height, Bicubic)
	s.resample(pic)
	out := &Picture{Width: width, Height: height, Pix: make([]uint8, 3*width*height)}
	s.sums = make([]int32, 3*width)
	for y := range height {
		s.vertical.column(s.sums, s.rows, y)
		for x, sum := range s.sums {
			out.Pix[3*width*y+x] = clampByte(sum >> precision)
		}
	}
	return out
}
