// SPDX-License-Identifier: Apache-2.0

package vision

import "math"

// precision is the number of fractional bits of the weights of a resampling (PRECISION_BITS in Pillow's Resample.c):
// 8 bits are the sample's and 2 keep sums with negative weights from overflowing.
const precision = 32 - 8 - 2

// span says which samples of a line make one output sample: weights[at:at+n] times samples first to first+n-1.
type span struct{ first, n, at int }

// axis is one direction of a resampling: the outputs that the centre crop keeps and that lie in the resized picture.
type axis struct {
	pad     int // outputs before spans that lie outside the picture
	spans   []span
	weights []int32 // fixed point, see precision
}

// first and end bound the samples that a's outputs need.
func (a *axis) first() int { return a.spans[0].first }
func (a *axis) end() int {
	s := a.spans[len(a.spans)-1]
	return s.first + s.n
}

// plan fills a for resizing in samples to out and keeping crop of them from the middle.
func (a *axis) plan(in, out, crop int, filter Filter) {
	a.spans, a.weights = a.spans[:0], a.weights[:0]
	start := (out - crop) >> 1 // rounded down, as Python's //
	lo, hi := max(start, 0), min(start+crop, out)
	a.pad = lo - start
	if filter == Nearest || in == out {
		a.nearest(in, out, lo, hi)
		return
	}
	for x := lo; x < hi; x++ {
		a.add(in, out, x, filter)
	}
}

// nearest adds outputs lo to hi-1 by nearest neighbour. The position is summed up step by step because that is what Pillow
// does (ImagingScaleAffine in Geometry.c), rounding included.
func (a *axis) nearest(in, out, lo, hi int) {
	step := float64(in) / float64(out)
	at := step * 0.5
	a.weights = append(a.weights, 1<<precision)
	for x := range hi {
		if x >= lo {
			a.spans = append(a.spans, span{first: min(int(at), in-1), n: 1})
		}
		at += step
	}
}

// add appends the span and weights of output x (precompute_coeffs and normalize_coeffs_8bpc in Resample.c).
func (a *axis) add(in, out, x int, filter Filter) {
	scale := float64(in) / float64(out)
	stretch := max(scale, 1) // reducing widens the filter, so that every sample counts
	reach := filter.reach() * stretch
	centre := (float64(x) + 0.5) * scale
	first := max(int(centre-reach+0.5), 0)
	end := min(int(centre+reach+0.5), in)

	sum := 0.0
	for i := first; i < end; i++ {
		sum += filter.at((float64(i) - centre + 0.5) * (1 / stretch))
	}
	a.spans = append(a.spans, span{first, end - first, len(a.weights)})
	for i := first; i < end; i++ {
		w := filter.at((float64(i) - centre + 0.5) * (1 / stretch))
		if sum != 0 {
			w /= sum
		}
		a.weights = append(a.weights, int32(math.Round(w*(1<<precision))))
	}
}

// reach is how far from its centre f is not zero.
func (f Filter) reach() float64 {
	switch f {
	case Bilinear:
		return 1
	case Bicubic:
		return 2
	}
	return 3
}

// at is the value of f at distance x from its centre.
func (f Filter) at(x float64) float64 {
	x = math.Abs(x)
	switch f {
	case Bilinear:
		return max(1-x, 0)
	case Bicubic:
		const a = -0.5
		if x < 1 {
			return ((a+2)*x-(a+3))*x*x + 1
		}
		if x < 2 {
			return (((x-5)*x+8)*x - 4) * a
		}
		return 0
	}
	if x < 3 {
		return sinc(x) * sinc(x/3)
	}
	return 0
}

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	return math.Sin(x*math.Pi) / (x * math.Pi)
}

// across resamples the rows of pic that vertical needs into dst, len(horizontal.spans) RGB pixels a row.
func across(dst []uint8, pic *Picture, horizontal, vertical *axis) {
	width := 3 * len(horizontal.spans)
	for y := vertical.first(); y < vertical.end(); y++ {
		horizontal.row(dst[:width], pic.row(y))
		dst = dst[width:]
	}
}

// row resamples one row of RGB pixels.
func (a *axis) row(dst, src []uint8) {
	for i, s := range a.spans {
		const half = 1 << (precision - 1)
		r, g, b := int32(half), int32(half), int32(half)
		p := src[3*s.first : 3*(s.first+s.n)]
		for _, w := range a.weights[s.at : s.at+s.n] {
			if len(p) < 3 {
				break // never: spares a bounds check a sample
			}
			r += w * int32(p[0])
			g += w * int32(p[1])
			b += w * int32(p[2])
			p = p[3:]
		}
		d := dst[3*i : 3*i+3]
		d[0], d[1], d[2] = clampByte(r>>precision), clampByte(g>>precision), clampByte(b>>precision)
	}
}

// column resamples to sums the rows of src, of len(sums) samples each and the first being sample a.first(), for output i.
// The sums are fixed point and rounded: shift them right by precision and clamp.
func (a *axis) column(sums []int32, src []uint8, i int) {
	for x := range sums {
		sums[x] = 1 << (precision - 1)
	}
	s := a.spans[i]
	src = src[(s.first-a.first())*len(sums):]
	for _, w := range a.weights[s.at : s.at+s.n] {
		for x, v := range src[:len(sums)] {
			sums[x] += w * int32(v)
		}
		src = src[len(sums):]
	}
}
