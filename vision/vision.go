// SPDX-License-Identifier: Apache-2.0

// Package vision turns the bytes of a picture into the pixel values that a CLIP vision tower reads.
//
// What enters: the bytes of a PNG, JPEG, WebP, GIF or BMP file, and a preprocessor_config.json.
// What leaves: [Picture], 8-bit RGB as Pillow's Image.open, ImageOps.exif_transpose and convert("RGB") give it,
// and float32 pixel values (3,H,W) as Hugging Face's CLIPImageProcessor computes them with Pillow.
// It knows nothing of files, networks, models or devices, and keeps no picture.
//
// Following Pillow where it surprises: alpha is dropped, not blended, so a transparent pixel shows the colour stored under it;
// 16-bit grey is clipped, so every value above 255 is white (16-bit colour and grey with alpha keep their high byte);
// CMYK is converted without a colour profile. Chroma is upsampled as libjpeg-turbo and libwebp do, which Go's own colour
// conversion does not; PNG, GIF, BMP and WebP come out bit for bit, JPEG within the rounding of Go's inverse DCT.
//
// Not read: animated WebP; compressed or bit-masked BMP; JPEG that is arithmetic-coded, lossless, of 12 bits, of 4 colours without an
// Adobe marker, or both progressive and subsampled with restart markers. Each gives an error. Orientation is read from EXIF only, not from XMP.
package vision

import (
	"bytes"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/bmp"
	"golang.org/x/image/webp"
)

// Limits bounds what [Decode] takes on before it decodes any pixel. A field that is zero or less means its default.
//
// Decoding needs up to about 11 bytes of memory a pixel, and a progressive JPEG up to 27. A file too small for the size it
// declares is refused as well, except for WebP, whose files of a few bytes can hold as many pixels as its format allows.
type Limits struct {
	Bytes  int // size of the file; default [DefaultBytes]
	Pixels int // width times height; default [DefaultPixels]
}

// Defaults of [Limits].
const (
	DefaultBytes  = 64 << 20
	DefaultPixels = 64 << 20
)

// Picture is an 8-bit RGB picture: pixel (x,y) is Pix[3*(y*Width+x):][:3], rows from the top, no padding.
type Picture struct {
	Width, Height int
	Pix           []uint8
}

// codec is one format that is read.
type codec struct {
	name   string
	magic  string // '?' matches any byte
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
	// pixelsPerByte is more pixels than one byte of such a file can hold, so that a small file cannot ask for a large
	// allocation; 0 where the format has no such bound.
	pixelsPerByte int
	// exif finds the TIFF block of the EXIF data, nil where the format has none.
	exif func(data []byte) []byte
}

// codecs lists the formats read. Their pixelsPerByte: deflate expands at most 1032 times, at 8 pixels a byte; a JPEG block of 64
// coefficients takes at least one bit, and covers at most 4×4 times its own 8×8 pixels; a GIF code has at least 3 bits and
// stands for at most 4096 pixels (which also bounds the canvas about a small frame); BMP is read uncompressed.
var codecs = []codec{
	{"PNG", "\x89PNG\r\n\x1a\n", png.DecodeConfig, png.Decode, 1032 * 8, pngExif},
	{"JPEG", "\xff\xd8", jpeg.DecodeConfig, jpeg.Decode, 8 * 64 * 16, jpegExif},
	{"WebP", "RIFF????WEBP", webp.DecodeConfig, webp.Decode, 0, webpExif},
	{"GIF", "GIF8?a", gif.DecodeConfig, gif.Decode, 4096 * 8 / 3, nil},
	{"BMP", "BM", bmp.DecodeConfig, bmp.Decode, 8, nil},
}

// Decode reads the picture in data, turned upright by its EXIF orientation, and returns it with the name of its format
// ("PNG", "JPEG", "WebP", "GIF" or "BMP"). Of a GIF it reads the first frame, on its canvas.
// It refuses an unknown format, a picture beyond limits, and truncated or damaged data.
func Decode(data []byte, limits Limits) (*Picture, string, error) {
	var pic Picture
	format, err := decodeInto(&pic, data, limits)
	if err != nil {
		return nil, "", err
	}
	return &pic, format, nil
}

// decodeInto is [Decode] into pic, reusing the memory of pic.Pix.
func decodeInto(pic *Picture, data []byte, limits Limits) (format string, err error) {
	if most := orDefault(limits.Bytes, DefaultBytes); len(data) > most {
		return "", fmt.Errorf("vision: decode picture: want at most %d bytes, have %d", most, len(data))
	}
	c, err := sniff(data)
	if err != nil {
		return "", err
	}
	if err := c.check(data, limits); err != nil {
		return "", err
	}
	img, err := c.decode(bytes.NewReader(data))
	if err != nil {
		return "", fmt.Errorf("vision: decode %s of %d bytes: %w", c.name, len(data), err)
	}
	switch c.name {
	case "GIF":
		err = pic.setGIF(img, data)
	case "PNG":
		err = pic.setPNG(img, data)
	default:
		err = pic.set(img, c.name)
	}
	if err != nil {
		return "", err
	}
	if c.exif != nil {
		pic.turn(orientation(c.exif(data)))
	}
	return c.name, nil
}

// check reads the declared size of the picture in data and holds it against limits and against the size of data.
func (c *codec) check(data []byte, limits Limits) error {
	cfg, err := c.config(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("vision: decode %s header of %d bytes: %w", c.name, len(data), err)
	}
	w, h := cfg.Width, cfg.Height
	if w <= 0 || h <= 0 {
		return fmt.Errorf("vision: decode %s header: want at least 1×1 pixels, have %d×%d", c.name, w, h)
	}
	if most := orDefault(limits.Pixels, DefaultPixels); w > most/h {
		return fmt.Errorf("vision: decode %s header: want at most %d pixels, have %d×%d", c.name, most, w, h)
	}
	if c.pixelsPerByte > 0 && w*h/c.pixelsPerByte > len(data) {
		return fmt.Errorf("vision: decode %s header: want at least %d bytes for %d×%d pixels, have %d",
			c.name, w*h/c.pixelsPerByte, w, h, len(data))
	}
	return nil
}

// sniff finds the codec of data by its first bytes.
func sniff(data []byte) (*codec, error) {
	for i := range codecs {
		if matches(data, codecs[i].magic) {
			return &codecs[i], nil
		}
	}
	head := data[:min(len(data), 12)]
	return nil, fmt.Errorf("vision: decode picture: want PNG, JPEG, WebP, GIF or BMP, have %d bytes starting % x", len(data), head)
}

func matches(data []byte, magic string) bool {
	if len(data) < len(magic) {
		return false
	}
	for i := range len(magic) {
		if magic[i] != '?' && magic[i] != data[i] {
			return false
		}
	}
	return true
}

func orDefault(v, def int) int {
	if v <= 0 {
		return def
	}
	return v
}
