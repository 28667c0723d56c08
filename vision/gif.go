// SPDX-License-Identifier: Apache-2.0

package vision

import (
	"fmt"
	"image"
)

// setGIF makes pic the first frame of the GIF in data, decoded as img, on its canvas. Where the frame does not cover the
// canvas, and where it is transparent, the colour is the palette's at the transparent index, or at index 0 if there is none.
// Go's decoder replaces the transparent colour by black, so the palette is read from data again.
func (pic *Picture) setGIF(img image.Image, data []byte) error {
	m, ok := img.(*image.Paletted)
	if !ok {
		return fmt.Errorf("vision: decode GIF: want a palette, have %T", img)
	}
	palette, background, err := gifPalette(data)
	if err != nil {
		return err
	}
	var table [256][3]uint8
	for i := range len(palette) / 3 {
		copy(table[i][:], palette[3*i:])
	}
	pic.resize(int(data[6])|int(data[7])<<8, int(data[8])|int(data[9])<<8)
	for i := 0; i < len(pic.Pix); i += 3 {
		copy(pic.Pix[i:i+3], table[background][:])
	}
	for y := range m.Rect.Dy() {
		s, d := m.Pix[y*m.Stride:], pic.row(m.Rect.Min.Y + y)[3*m.Rect.Min.X:]
		for x := range m.Rect.Dx() {
			copy(d[3*x:3*x+3], table[s[x]][:])
		}
	}
	return nil
}

// gifPalette is the palette of the first frame, 3 bytes a colour, and its transparent index, or 0 (GIF89a, sections 18 to 23).
func gifPalette(data []byte) (palette []byte, transparent uint8, err error) {
	const header, descriptor = 13, 10
	short := func(at int) error {
		return fmt.Errorf("vision: decode GIF: byte %d: want the first frame's palette, have the end of %d bytes", at, len(data))
	}
	if len(data) < header {
		return nil, 0, short(len(data))
	}
	at := header
	table := func(flags uint8) []byte { // the colour table that flags announce at offset at
		if flags&0x80 == 0 {
			return nil
		}
		n := 3 << (flags&7 + 1)
		start := min(at, len(data))
		at += n
		return data[start:min(at, len(data))]
	}
	palette = table(data[10])
	for at < len(data) && data[at] != ',' {
		if data[at] == '!' && at+6 < len(data) && data[at+1] == 0xf9 && data[at+3]&1 != 0 {
			transparent = data[at+6]
		}
		for at += 2; at < len(data) && data[at] != 0; { // sub-blocks, each with its length first
			at += 1 + int(data[at])
		}
		at++
	}
	if at+descriptor > len(data) {
		return nil, 0, short(at)
	}
	flags := data[at+9]
	at += descriptor
	if local := table(flags); local != nil {
		palette = local
	}
	return palette, transparent, nil
}
