// SPDX-License-Identifier: Apache-2.0

package vision

import "image"

// clampByte is v limited to 0..255.
func clampByte(v int32) uint8 {
	if uint32(v) > 255 {
		return uint8(^v >> 31) // 0 below, 255 above
	}
	return uint8(v)
}

// jpegTables are the chroma terms of JFIF's YCbCr→RGB with 16 fractional bits, as in libjpeg's jdcolor.c: red and blue are
// rounded, the two terms of green are added first and then rounded.
var jpegTables = func() (t struct{ crR, cbB, crG, cbG [256]int32 }) {
	const half = 1 << 15
	for i := range 256 {
		x := int32(i) - 128
		t.crR[i] = (91881*x + half) >> 16  // 1.402
		t.cbB[i] = (116130*x + half) >> 16 // 1.772
		t.crG[i] = -46802 * x              // 0.714136
		t.cbG[i] = -22554*x + half         // 0.344136
	}
	return t
}()

// setJPEG converts the planes of a JPEG as libjpeg-turbo does by default: triangle-filtered ("fancy") chroma upsampling for
// factors of two, replication for others, then the integer colour conversion.
func (pic *Picture) setJPEG(m *image.YCbCr) {
	cw, ch := chromaSize(m)
	up := make([]uint8, 2*(4*cw+4))
	cb, cr := up[:len(up)/2], up[len(up)/2:]
	for y := range pic.Height {
		n, f := chromaRows(m.SubsampleRatio, y, ch)
		near, far := n*m.CStride, f*m.CStride
		jpegUpsample(cb, m.Cb[near:near+cw], m.Cb[far:far+cw], m.SubsampleRatio, y)
		jpegUpsample(cr, m.Cr[near:near+cw], m.Cr[far:far+cw], m.SubsampleRatio, y)
		jpegRow(pic.row(y), m.Y[y*m.YStride:], cb, cr)
	}
}

// chromaSize is the width and height of the chroma planes of m that its pixels use.
func chromaSize(m *image.YCbCr) (w, h int) {
	w, h = m.Rect.Dx(), m.Rect.Dy()
	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio422:
		return (w + 1) / 2, h
	case image.YCbCrSubsampleRatio420:
		return (w + 1) / 2, (h + 1) / 2
	case image.YCbCrSubsampleRatio440:
		return w, (h + 1) / 2
	case image.YCbCrSubsampleRatio411:
		return (w + 3) / 4, h
	case image.YCbCrSubsampleRatio410:
		return (w + 3) / 4, (h + 1) / 2
	}
	return w, h
}

// chromaRows are the chroma row that luma row y lies in and the one on its other side, of h rows.
func chromaRows(ratio image.YCbCrSubsampleRatio, y, h int) (near, far int) {
	switch ratio {
	case image.YCbCrSubsampleRatio420, image.YCbCrSubsampleRatio440, image.YCbCrSubsampleRatio410:
		near = y / 2
		return near, min(max(near-1+y%2*2, 0), h-1)
	}
	return y, y
}

// jpegUpsample writes one full-width chroma row to dst from the two nearest rows of the subsampled plane (jdsample.c).
func jpegUpsample(dst, near, far []uint8, ratio image.YCbCrSubsampleRatio, y int) {
	switch ratio {
	case image.YCbCrSubsampleRatio420:
		if len(near) > 2 {
			upsampleH2V2(dst, near, far)
			return
		}
		replicate(dst, near, 2)
	case image.YCbCrSubsampleRatio422:
		if len(near) > 2 {
			upsampleH2V1(dst, near)
			return
		}
		replicate(dst, near, 2)
	case image.YCbCrSubsampleRatio440:
		bias := uint32(1 + y%2)
		for i, v := range near {
			dst[i] = uint8((3*uint32(v) + uint32(far[i]) + bias) >> 2)
		}
	case image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410:
		replicate(dst, near, 4)
	default:
		copy(dst, near)
	}
}

func replicate(dst, src []uint8, times int) {
	for i, v := range src {
		for j := range times {
			dst[times*i+j] = v
		}
	}
}

// upsampleH2V1 doubles a row: each output is 3/4 the sample it lies in and 1/4 the neighbour, halves rounded down and up in turn.
func upsampleH2V1(dst, src []uint8) {
	last := len(src) - 1
	dst = dst[:2*len(src)]
	before := uint32(src[0])
	v := before
	for i := range src {
		after := uint32(src[min(i+1, last)])
		dst[2*i] = uint8((3*v + before + 1) >> 2)
		dst[2*i+1] = uint8((3*v + after + 2) >> 2)
		before, v = v, after
	}
}

// upsampleH2V2 is upsampleH2V1 in both directions at once: weights 9, 3, 3 and 1 sixteenths.
func upsampleH2V2(dst, near, far []uint8) {
	far = far[:len(near)]
	last := len(near) - 1
	dst = dst[:2*len(near)]
	v := 3*uint32(near[0]) + uint32(far[0])
	before := v
	for i := range last {
		after := 3*uint32(near[i+1]) + uint32(far[i+1])
		d := dst[2*i : 2*i+2]
		d[0] = uint8((3*v + before + 8) >> 4)
		d[1] = uint8((3*v + after + 7) >> 4)
		before, v = v, after
	}
	dst[2*last] = uint8((3*v + before + 8) >> 4)
	dst[2*last+1] = uint8((4*v + 7) >> 4)
}

// jpegRow converts one row of YCbCr to RGB.
func jpegRow(dst, luma, cb, cr []uint8) {
	w := len(dst) / 3
	luma, cb, cr = luma[:w], cb[:w], cr[:w]
	t := &jpegTables
	for x, l := range luma {
		y, b, r := int32(l), cb[x], cr[x]
		d := dst[3*x : 3*x+3 : 3*x+3]
		d[0] = clampByte(y + t.crR[r])
		d[1] = clampByte(y + (t.cbG[b]+t.crG[r])>>16)
		d[2] = clampByte(y + t.cbB[b])
	}
}

// setWebP converts the 4:2:0 planes of a lossy WebP as libwebp does: upsampling with weights 9, 3, 3 and 1 sixteenths
// rounded in two steps (dsp/upsampling.c), then studio-range YUV→RGB (dsp/yuv.h).
func (pic *Picture) setWebP(m *image.YCbCr) {
	cw, ch := chromaSize(m)
	up := make([]uint8, 4*cw)
	u, v := up[:2*cw], up[2*cw:]
	for y := range pic.Height {
		// libwebp upsamples rows in pairs about a chroma boundary; the chroma row outside the picture repeats its edge.
		n, f := chromaRows(m.SubsampleRatio, y, ch)
		near, far := n*m.CStride, f*m.CStride
		webpUpsample(u, m.Cb[near:near+cw], m.Cb[far:far+cw])
		webpUpsample(v, m.Cr[near:near+cw], m.Cr[far:far+cw])
		webpRow(pic.row(y), m.Y[y*m.YStride:], u, v)
	}
}

func webpUpsample(dst, near, far []uint8) {
	far = far[:len(near)]
	dst = dst[:2*len(near)]
	n, f := uint32(near[0]), uint32(far[0])
	dst[0] = uint8((3*n + f + 2) >> 2)
	for i := 1; i < len(near); i++ {
		n1, f1 := uint32(near[i]), uint32(far[i])
		sum := n + n1 + f + f1 + 8
		rising := (sum + 2*(n1+f)) >> 3
		falling := (sum + 2*(n+f1)) >> 3
		dst[2*i-1] = uint8((rising + n) >> 1)
		dst[2*i] = uint8((falling + n1) >> 1)
		n, f = n1, f1
	}
	dst[len(dst)-1] = uint8((3*n + f + 2) >> 2)
}

// webpRow converts one row of YUV to RGB with 14 fractional bits, of which libwebp keeps 6 until the end.
func webpRow(dst, luma, u, v []uint8) {
	w := len(dst) / 3
	luma, u, v = luma[:w], u[:w], v[:w]
	for x := range w {
		y, b, r := int32(luma[x])*19077>>8, int32(u[x]), int32(v[x])
		d := dst[3*x : 3*x+3 : 3*x+3]
		d[0] = clampByte((y + r*26149>>8 - 14234) >> 6)
		d[1] = clampByte((y - b*6419>>8 - r*13320>>8 + 8708) >> 6)
		d[2] = clampByte((y + b*33050>>8 - 17685) >> 6)
	}
}
