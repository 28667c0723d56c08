// SPDX-License-Identifier: Apache-2.0

package vision

import (
	"fmt"
	"image"
	"image/color"
)

// resize gives pic w×h pixels of unspecified content, reusing its memory.
func (pic *Picture) resize(w, h int) {
	pic.Width, pic.Height = w, h
	if n := 3 * w * h; cap(pic.Pix) < n {
		pic.Pix = make([]uint8, n)
	} else {
		pic.Pix = pic.Pix[:n]
	}
}

// row is row y of pic, 3*Width bytes.
func (pic *Picture) row(y int) []uint8 {
	return pic.Pix[3*y*pic.Width : 3*(y+1)*pic.Width]
}

// set makes pic the RGB picture that Pillow's convert("RGB") makes of img, which a decoder of the named format returned.
// Alpha is dropped: img must hold colours that are not multiplied by it.
func (pic *Picture) set(img image.Image, format string) error {
	b := img.Bounds()
	pic.resize(b.Dx(), b.Dy())
	switch m := img.(type) {
	case *image.Gray:
		pic.setGrey(m)
	case *image.RGBA: // opaque in every decoder used here
		pic.pick(m.Pix, m.Stride, 4, 1)
	case *image.NRGBA:
		pic.pick(m.Pix, m.Stride, 4, 1)
	case *image.RGBA64: // big endian: every second byte is a high one
		pic.pick(m.Pix, m.Stride, 8, 2)
	case *image.NRGBA64:
		pic.pick(m.Pix, m.Stride, 8, 2)
	case *image.Paletted:
		pic.setPaletted(m)
	case *image.CMYK:
		pic.setCMYK(m)
	case *image.NYCbCrA:
		pic.setWebP(&m.YCbCr)
	case *image.YCbCr:
		if format == "WebP" {
			pic.setWebP(m)
		} else {
			pic.setJPEG(m)
		}
	default:
		return fmt.Errorf("vision: decode %s: want a known pixel layout, have %T", format, img)
	}
	return nil
}

// setPNG is set for a PNG, whose 16-bit grey Pillow clips to 8 bits, where it takes the high byte of every other 16-bit sample.
func (pic *Picture) setPNG(img image.Image, data []byte) error {
	switch m := img.(type) {
	case *image.Gray16:
		pic.resize(m.Rect.Dx(), m.Rect.Dy())
		pic.clip16(m.Pix, m.Stride, 2)
		return nil
	case *image.NRGBA64:
		// Grey with a transparent value is widened to four channels; only the header still says that it was grey.
		const colourType, grey = 25, 0
		if data[colourType] == grey {
			pic.resize(m.Rect.Dx(), m.Rect.Dy())
			pic.clip16(m.Pix, m.Stride, 8)
			return nil
		}
	}
	return pic.set(img, "PNG")
}

// clip16 fills pic with the big-endian 16-bit grey at the start of every size bytes of src, clipped to 255.
func (pic *Picture) clip16(src []uint8, stride, size int) {
	for y := range pic.Height {
		s, d := src[y*stride:], pic.row(y)
		for x := range pic.Width {
			v := s[size*x+1]
			if s[size*x] != 0 {
				v = 255
			}
			d[3*x], d[3*x+1], d[3*x+2] = v, v, v
		}
	}
}

// pick copies to every pixel of pic three bytes of src, step apart, from pixels of size bytes.
func (pic *Picture) pick(src []uint8, stride, size, step int) {
	for y := range pic.Height {
		s, d := src[y*stride:], pic.row(y)
		for len(d) >= 3 {
			d[0], d[1], d[2] = s[0], s[step], s[2*step]
			s, d = s[min(size, len(s)):], d[3:]
		}
	}
}

func (pic *Picture) setGrey(m *image.Gray) {
	for y := range pic.Height {
		s, d := m.Pix[y*m.Stride:], pic.row(y)
		for x := range pic.Width {
			d[3*x], d[3*x+1], d[3*x+2] = s[x], s[x], s[x]
		}
	}
}

// setPaletted reads m by its palette; an index past the palette's end is black.
func (pic *Picture) setPaletted(m *image.Paletted) {
	var table [256][3]uint8
	for i, c := range m.Palette[:min(256, len(m.Palette))] {
		n := color.NRGBAModel.Convert(c).(color.NRGBA)
		table[i] = [3]uint8{n.R, n.G, n.B}
	}
	for y := range pic.Height {
		s, d := m.Pix[y*m.Stride:], pic.row(y)
		for x := range pic.Width {
			copy(d[3*x:3*x+3], table[s[x]][:])
		}
	}
}

// setCMYK is cmyk2rgb of Pillow's Convert.c: no colour profile, each ink darkens what black leaves.
func (pic *Picture) setCMYK(m *image.CMYK) {
	for y := range pic.Height {
		s, d := m.Pix[y*m.Stride:], pic.row(y)
		for x := range pic.Width {
			white := 255 - int(s[4*x+3])
			for c := range 3 {
				t := int(s[4*x+c])*white + 128
				d[3*x+c] = uint8(white - (t>>8+t)>>8)
			}
		}
	}
}
