// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/base64"
	"html/template"
	"image"
	"image/jpeg"
	"net/http"
	"slices"

	"fromage/vision"
)

const (
	// small is up to how many bytes a picture goes into the page as it is.
	small = 48 << 10
	// thumbnail is the longer side, in pixels, of what larger ones become.
	thumbnail = 256
)

// Source is a picture as an address that holds it; "" where it cannot be shown.
func Source(p Picture) template.URL {
	data := p.Data
	if len(data) > small {
		if data = shrunk(data); data == nil {
			return ""
		}
	}
	kind := http.DetectContentType(data)
	if !slices.Contains([]string{"image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"}, kind) {
		return ""
	}
	return template.URL("data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(data))
}

// shrunk makes a thumbnail; nil where the picture cannot be read.
func shrunk(data []byte) []byte {
	pic, _, err := vision.Decode(data, vision.Limits{})
	if err != nil {
		return nil
	}
	if longer := max(pic.Width, pic.Height); longer > thumbnail {
		pic = pic.Resized(max(1, pic.Width*thumbnail/longer), max(1, pic.Height*thumbnail/longer))
	}
	rgba := image.NewRGBA(image.Rect(0, 0, pic.Width, pic.Height))
	for i := range pic.Width * pic.Height {
		copy(rgba.Pix[4*i:], pic.Pix[3*i:3*i+3])
		rgba.Pix[4*i+3] = 255
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, rgba, &jpeg.Options{Quality: 85}); err != nil {
		return nil
	}
	return b.Bytes()
}
