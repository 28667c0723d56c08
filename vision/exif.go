// SPDX-License-Identifier: Apache-2.0

package vision

import (
	"bytes"
	"encoding/binary"
)

var exifPrefix = []byte("Exif\x00\x00")

// orientation is the EXIF orientation, 1 to 8, in a TIFF block (TIFF 6.0, tag 274); 1, upright, if there is none that can be read.
func orientation(tiff []byte) int {
	if len(tiff) < 8 {
		return 1
	}
	var order binary.ByteOrder
	switch string(tiff[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 1
	}
	at := uint64(order.Uint32(tiff[4:]))
	if at+2 > uint64(len(tiff)) {
		return 1
	}
	entries := tiff[at+2:]
	for range order.Uint16(tiff[at:]) {
		if len(entries) < 12 {
			return 1
		}
		const tag, short = 274, 3
		if order.Uint16(entries) == tag {
			v := order.Uint16(entries[8:])
			if order.Uint16(entries[2:]) != short || v < 1 || v > 8 {
				return 1
			}
			return int(v)
		}
		entries = entries[12:]
	}
	return 1
}

// jpegExif is the TIFF block of the first Exif segment before the scan, or nil.
func jpegExif(data []byte) []byte {
	at := 2
	for at+4 <= len(data) {
		if data[at] != 0xff {
			return nil
		}
		marker := data[at+1]
		if marker == 0xff { // fill byte
			at++
			continue
		}
		const app1, sos = 0xe1, 0xda
		n := int(binary.BigEndian.Uint16(data[at+2:]))
		if marker == sos || n < 2 || at+2+n > len(data) {
			return nil
		}
		body := data[at+4 : at+2+n]
		if marker == app1 && bytes.HasPrefix(body, exifPrefix) {
			return body[len(exifPrefix):]
		}
		at += 2 + n
	}
	return nil
}

// pngExif is the content of the eXIf chunk, or nil.
func pngExif(data []byte) []byte {
	rest := data[8:]
	for len(rest) >= 12 {
		n := uint64(binary.BigEndian.Uint32(rest))
		if n+12 > uint64(len(rest)) {
			return nil
		}
		if string(rest[4:8]) == "eXIf" {
			return rest[8 : 8+n]
		}
		rest = rest[12+n:]
	}
	return nil
}

// webpExif is the content of the EXIF chunk, without the prefix that some writers put before it, or nil.
func webpExif(data []byte) []byte {
	rest := data[12:]
	for len(rest) >= 8 {
		n := uint64(binary.LittleEndian.Uint32(rest[4:]))
		if n+8 > uint64(len(rest)) {
			return nil
		}
		if string(rest[:4]) == "EXIF" {
			return bytes.TrimPrefix(rest[8:8+n], exifPrefix)
		}
		rest = rest[min(8+n+n&1, uint64(len(rest))):]
	}
	return nil
}

// turn makes a picture stored with EXIF orientation o upright.
func (pic *Picture) turn(o int) {
	if o == 1 {
		return
	}
	w, h := pic.Width, pic.Height
	// Upright pixel (x,y) is stored at offset start + x*right + y*down, in bytes.
	const px = 3
	line := px * w
	lastX, lastY := px*(w-1), line*(h-1)
	walk := [9]struct{ start, right, down int }{
		2: {lastX, -px, line},
		3: {lastX + lastY, -px, -line},
		4: {lastY, px, -line},
		5: {0, line, px},
		6: {lastY, -line, px},
		7: {lastX + lastY, -line, -px},
		8: {lastX, line, -px},
	}[o]
	if o >= 5 {
		w, h = h, w
	}
	src := pic.Pix
	dst := make([]uint8, 0, len(src))
	for y := range h {
		at := walk.start + y*walk.down
		for range w {
			dst = append(dst, src[at], src[at+1], src[at+2])
			at += walk.right
		}
	}
	pic.Width, pic.Height, pic.Pix = w, h, dst
}
