// SPDX-License-Identifier: Apache-2.0

package vision

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/jpeg"
	"image/png"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// pillow is a picture that Pillow wrote to a PNG in testdata.
func pillow(t testing.TB, elem ...string) *Picture {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(readFile(t, elem...)))
	if err != nil {
		t.Fatal(err)
	}
	var pic Picture
	if err := pic.set(img, "PNG"); err != nil {
		t.Fatal(err)
	}
	return &pic
}

// compare counts the bytes of got that differ from want's and finds the largest difference.
func compare(t *testing.T, name string, got, want *Picture) (differ, worst int) {
	t.Helper()
	if got.Width != want.Width || got.Height != want.Height {
		t.Fatalf("%s = %d×%d pixels, want %d×%d", name, got.Width, got.Height, want.Width, want.Height)
	}
	for i, g := range got.Pix {
		d := int(g) - int(want.Pix[i])
		if d != 0 {
			differ++
			worst = max(worst, d, -d)
		}
	}
	return differ, worst
}

// TestDecodePillow holds every picture in testdata against Pillow's: equal, except for JPEG. There the inverse DCT is off
// by one in some samples, which the colour conversion multiplies by up to 1.8; and YCCK leaves its colour conversion to Go.
func TestDecodePillow(t *testing.T) {
	paths, err := filepath.Glob("testdata/pictures/*")
	if err != nil || len(paths) != 50 {
		t.Fatalf("pictures = %d, %v, want 50", len(paths), err)
	}
	formats := map[string]string{".png": "PNG", ".jpg": "JPEG", ".webp": "WebP", ".gif": "GIF", ".bmp": "BMP"}
	for _, path := range paths {
		name := filepath.Base(path)
		got, format, err := Decode(readFile(t, path), Limits{})
		if err != nil {
			t.Errorf("Decode(%s): %v", name, err)
			continue
		}
		if want := formats[filepath.Ext(name)]; format != want {
			t.Errorf("Decode(%s) = format %s, want %s", name, format, want)
		}
		differ, worst := compare(t, name, got, pillow(t, "testdata/upright", name+".png"))
		most, share := 0, 0
		if format == "JPEG" {
			most, share = 3, 4
			if name == "ycck.jpg" {
				share = 16
			}
			t.Logf("%s: %d of %d bytes differ, by at most %d", name, differ, len(got.Pix), worst)
		}
		if worst > most || 100*differ > share*len(got.Pix) {
			t.Errorf("Decode(%s): %d of %d bytes differ, by at most %d, want %d %% and %d", name, differ, len(got.Pix), worst, share, most)
		}
	}
}

// pngHeader is a PNG of w×h grey pixels that ends after its header.
func pngHeader(w, h uint32) []byte {
	head := binary.BigEndian.AppendUint32([]byte("IHDR"), w)
	head = binary.BigEndian.AppendUint32(head, h)
	head = append(head, 8, 0, 0, 0, 0)
	data := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), head...)
	return binary.BigEndian.AppendUint32(data, crc32.ChecksumIEEE(head))
}

// sized is the test picture with w and h written little endian, 16 bits each, at offset at.
func sized(t *testing.T, name string, at int, w, h uint16) []byte {
	data := readFile(t, "testdata/pictures", name)
	binary.LittleEndian.PutUint16(data[at:], w)
	binary.LittleEndian.PutUint16(data[at+2:], h)
	return data
}

func TestDecodeRefuses(t *testing.T) {
	jpg := readFile(t, "testdata/pictures/progressive.jpg")
	sof := bytes.Index(jpg, []byte("\xff\xc2")) + 5
	wide := bytes.Clone(jpg)
	copy(wide[sof:], "\x20\x00\x20\x00") // 8192×8192
	bmp := readFile(t, "testdata/pictures/rgb.bmp")
	binary.LittleEndian.PutUint32(bmp[18:], 8000)
	tests := []struct {
		name   string
		data   []byte
		limits Limits
		want   string
	}{
		{"nothing", nil, Limits{}, "want PNG, JPEG, WebP, GIF or BMP, have 0 bytes"},
		{"text", []byte("hello, world, this is no picture"), Limits{}, "have 32 bytes starting 68 65 6c 6c"},
		{"file over limit", jpg, Limits{Bytes: 100}, "want at most 100 bytes"},
		{"pixels over limit", jpg, Limits{Pixels: 1000}, "want at most 1000 pixels, have 77×59"},
		{"PNG bomb", pngHeader(50000, 50000), Limits{}, "want at most 67108864 pixels, have 50000×50000"},
		{"PNG larger than its bytes allow", pngHeader(8000, 8000), Limits{}, "want at least 7751 bytes for 8000×8000 pixels, have 33"},
		{"PNG larger than any int", pngHeader(1<<31-1, 1<<31-1), Limits{}, "PNG header"},
		{"PNG without width", pngHeader(0, 5), Limits{}, "PNG header"},
		{"JPEG larger than its bytes allow", wide, Limits{}, "want at least 8192 bytes for 8192×8192 pixels"},
		{"GIF larger than its bytes allow", sized(t, "palette.gif", 6, 8000, 8000), Limits{}, "for 8000×8000 pixels"},
		{"WebP bomb", sized(t, "lossy.webp", 26, 0x3fff, 0x3fff), Limits{}, "want at most 67108864 pixels, have 16383×16383"},
		{"BMP larger than its bytes allow", bmp, Limits{}, "for 8000×37 pixels"},
		{"magic only", []byte("GIF89a"), Limits{}, "GIF header of 6 bytes"},
	}
	for _, test := range tests {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := Decode(test.data, test.limits)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Decode(%s) = %v, want %q", test.name, err, test.want)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("Decode(%s) allocated %d bytes, want less than 1 MiB", test.name, n)
		}
	}
}

// TestDecodeTruncated cuts every picture short: an error or a picture, and an error wherever half the file is gone.
func TestDecodeTruncated(t *testing.T) {
	paths, err := filepath.Glob("testdata/pictures/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		data := readFile(t, path)
		for n := 0; n < len(data); n += 1 + len(data)/50 {
			_, _, err := Decode(data[:n], Limits{})
			if err == nil && n < len(data)/2 && filepath.Ext(path) != ".webp" {
				t.Errorf("Decode(%d of %d bytes of %s) = nil error", n, len(data), path)
			}
		}
	}
}

func TestOrientation(t *testing.T) {
	entry := "\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
	tests := []struct {
		name, tiff string
		want       int
	}{
		{"big endian", "MM\x00*\x00\x00\x00\x08\x00\x01" + entry, 6},
		{"little endian", "II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x03\x00\x00\x00", 3},
		{"second entry", "MM\x00*\x00\x00\x00\x08\x00\x02\x01\x0f\x00\x02\x00\x00\x00\x01\x00\x00\x00\x00" + entry, 6},
		{"nothing", "", 1},
		{"other bytes", "PM\x00*\x00\x00\x00\x08\x00\x01" + entry, 1},
		{"directory past the end", "MM\x00*\xff\xff\xff\xff\x00\x01" + entry, 1},
		{"fewer entries than said", "MM\x00*\x00\x00\x00\x08\xff\xff", 1},
		{"out of range", "MM\x00*\x00\x00\x00\x08\x00\x01" + strings.Replace(entry, "\x06", "\x09", 1), 1},
	}
	for _, test := range tests {
		if got := orientation([]byte(test.tiff)); got != test.want {
			t.Errorf("orientation(%s) = %d, want %d", test.name, got, test.want)
		}
	}
}

// TestDecodeReuse decodes a small picture into the memory of a larger one.
func TestDecodeReuse(t *testing.T) {
	var pic Picture
	for _, name := range []string{"sampling420.jpg", "offset_transparent.gif", "rgba16.png", "orientation6.png", "sampling420.jpg"} {
		if _, err := decodeInto(&pic, readFile(t, "testdata/pictures", name), Limits{}); err != nil {
			t.Fatal(err)
		}
		want, _, err := Decode(readFile(t, "testdata/pictures", name), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if differ, _ := compare(t, name, &pic, want); differ != 0 {
			t.Errorf("%s: %d bytes differ when memory is reused", name, differ)
		}
	}
}

func TestSetUnknown(t *testing.T) {
	var pic Picture
	if err := pic.set(image.NewAlpha(image.Rect(0, 0, 1, 1)), "PNG"); err == nil {
		t.Error("set(*image.Alpha) = nil error, want one")
	}
}

// FuzzDecode checks that any bytes give an error or a whole picture within the limits.
func FuzzDecode(f *testing.F) {
	for _, pattern := range []string{"testdata/pictures/*", golden + "/images/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			f.Add(readFile(f, path))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		limits := Limits{Pixels: 1 << 20}
		pic, format, err := Decode(data, limits)
		if err != nil {
			return
		}
		if format == "" || pic.Width < 1 || pic.Height < 1 || pic.Width*pic.Height > limits.Pixels || len(pic.Pix) != 3*pic.Width*pic.Height {
			t.Errorf("Decode = %s, %d×%d, %d bytes", format, pic.Width, pic.Height, len(pic.Pix))
		}
	})
}

// largeJPEG is a 12-megapixel JPEG with 4:2:0 chroma, made of waves and some noise.
func largeJPEG(b *testing.B) []byte {
	img := image.NewRGBA(image.Rect(0, 0, 4000, 3000))
	seed := uint32(1)
	for i := range img.Pix {
		seed = seed*1664525 + 1013904223
		x, y := i/4%4000, i/16000
		img.Pix[i] = uint8(128+100*math.Sin(float64(x*(i%4+1)+3*y)/300)) + uint8(seed>>28)
	}
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, img, &jpeg.Options{Quality: 85}); err != nil {
		b.Fatal(err)
	}
	return buf.Bytes()
}

func BenchmarkDecode(b *testing.B) {
	data := largeJPEG(b)
	b.Run("jpeg_4000x3000", func(b *testing.B) {
		var pic Picture
		for b.Loop() {
			if _, err := decodeInto(&pic, data, Limits{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("jpeg_4000x3000_planes", func(b *testing.B) {
		for b.Loop() {
			if _, err := jpeg.Decode(bytes.NewReader(data)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
