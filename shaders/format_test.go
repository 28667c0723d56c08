// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/x448/float16"

	"fromage/shaders"
)

var formats = []shaders.Format{shaders.F32, shaders.F16, shaders.Q8, shaders.Q4}

// roundTrip encodes and decodes a row.
func roundTrip(f shaders.Format, row []float32) []float32 {
	values, scales := make([]byte, f.RowBytes(len(row))), make([]byte, f.ScaleBytes(len(row)))
	f.EncodeRow(row, values, scales)
	got := make([]float32, len(row))
	f.DecodeRow(values, scales, got)
	return got
}

// bound is the most by which value k of row may differ after a round trip.
func bound(f shaders.Format, row []float32, k int) float64 {
	lo, hi := float64(row[k/32*32]), float64(row[k/32*32])
	if f == shaders.Q8 || f == shaders.Q4 {
		for _, v := range row[k/32*32:][:32] {
			lo, hi = min(lo, float64(v)), max(hi, float64(v))
		}
	}
	most := max(math.Abs(lo), math.Abs(hi))
	switch f {
	case shaders.F16:
		return max(math.Abs(float64(row[k]))*0x1p-11, 0x1p-25)
	case shaders.Q8:
		// Half a step, of a scale that was rounded up to f16.
		return max(most/127*(1+0x1p-10), most/127+0x1p-24) / 2 * (1 + 1e-6)
	case shaders.Q4:
		// A step, as the fit may leave the ends of the range out, and the f16 rounding of the minimum and of 15 scales.
		return (hi-lo)/15 + most*0x1p-10 + 16*0x1p-25
	}
	return 0
}

func checkRoundTrip(t *testing.T, f shaders.Format, row []float32) {
	t.Helper()
	for k, got := range roundTrip(f, row) {
		if d := math.Abs(float64(got) - float64(row[k])); !(d <= bound(f, row, k)) {
			t.Errorf("%v round trip [%d] = %g, want %g within %g", f, k, got, row[k], bound(f, row, k))
			return
		}
	}
}

func TestRoundTrip(t *testing.T) {
	const K = 128
	rows := map[string]func(k int) float32{
		"zero":        func(int) float32 { return 0 },
		"constant":    func(int) float32 { return -0.3 },
		"denormal":    func(k int) float32 { return math.Float32frombits(uint32(k)) },
		"tiny":        func(k int) float32 { return float32(k-64) * 1e-7 },
		"two values":  func(k int) float32 { return float32(k%2) - 0.25 },
		"one outlier": func(k int) float32 { return float32(k/77%2*k) * 11 },
		"ramp":        func(k int) float32 { return float32(k) - 63.5 },
		"far":         func(k int) float32 { return 1000 + float32(k)/100 },
		"large":       func(k int) float32 { return 65504 * float32(1-2*(k%2)) },
	}
	for name, at := range rows {
		row := make([]float32, K)
		for k := range row {
			row[k] = at(k)
		}
		for _, f := range formats {
			t.Run(fmt.Sprintf("%s/%v", name, f), func(t *testing.T) {
				if err := f.Check(row); err != nil {
					t.Fatal(err)
				}
				checkRoundTrip(t, f, row)
			})
		}
	}
}

// TestGrid stores blocks code by code: as EncodeRow does, with the numbers that DecodeRow returns, and nearest to the values.
func TestGrid(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 0))
	for i := range 200 {
		var row [2 * shaders.Block]float32
		for k := range row {
			row[k] = float32(math.Pow(10, float64(i%9-6))*r.NormFloat64()) * float32(i%50)
		}
		for _, f := range []shaders.Format{shaders.Q8, shaders.Q4} {
			want, wantScales := make([]byte, f.RowBytes(len(row))), make([]byte, f.ScaleBytes(len(row)))
			f.EncodeRow(row[:], want, wantScales)
			decoded := make([]float32, len(row))
			f.DecodeRow(want, wantScales, decoded)
			got, gotScales := make([]byte, len(want)), make([]byte, len(wantScales))
			for first := 0; first < len(row); first += shaders.Block {
				x := (*[shaders.Block]float32)(row[first:])
				grid := f.Fit(x)
				var codes [shaders.Block]int32
				for k, v := range x {
					var value float32
					if codes[k], value = grid.Nearest(v); value != decoded[first+k] {
						t.Fatalf("%v.Fit.Nearest(%g) = %g, want %g", f, v, value, decoded[first+k])
					}
				}
				grid.Store(&codes, got[f.RowBytes(first):], gotScales[f.ScaleBytes(first):])
			}
			if !bytes.Equal(got, want) || !bytes.Equal(gotScales, wantScales) {
				t.Fatalf("%v: blocks stored code by code differ from EncodeRow's", f)
			}
		}
	}
}

// TestError holds the formats to the error, relative to the values, that normally distributed weights should have.
func TestError(t *testing.T) {
	for f, want := range map[shaders.Format]float64{shaders.F32: 0, shaders.F16: 2.1e-4, shaders.Q8: 0.0055, shaders.Q4: 0.0705} {
		r := rand.New(rand.NewPCG(1, 0))
		row := make([]float32, 1<<17)
		for k := range row {
			row[k] = float32(0.02 * r.NormFloat64())
		}
		var errors, squares float64
		for k, got := range roundTrip(f, row) {
			errors += math.Pow(float64(got-row[k]), 2)
			squares += math.Pow(float64(row[k]), 2)
		}
		if got := math.Sqrt(errors / squares); got > want {
			t.Errorf("relative error of %v = %.5f, want at most %.5f", f, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		f    shaders.Format
		v    float32
		fits bool
	}{
		{shaders.F32, math.MaxFloat32, true}, {shaders.F32, nan, false}, {shaders.F32, -inf, false},
		{shaders.F16, -65504, true}, {shaders.F16, 65505, false}, {shaders.F16, nan, false},
		{shaders.Q8, 127 * 65504, true}, {shaders.Q8, -127*65504 - 1, false}, {shaders.Q8, inf, false},
		{shaders.Q4, -65504, true}, {shaders.Q4, 65505, false}, {shaders.Q4, nan, false},
	} {
		row := make([]float32, 64)
		row[63] = c.v
		if err := c.f.Check(row); (err == nil) != c.fits {
			t.Errorf("%v.Check(… %g) = %v, want fits %v", c.f, c.v, err, c.fits)
		}
	}
}

func TestFits(t *testing.T) {
	for _, c := range []struct {
		f        shaders.Format
		fits     []int
		fitsNot  []int
		K, bytes int
		scales   int
	}{
		{shaders.F32, []int{1, 7, 768}, []int{0, -4}, 7, 28, 0},
		{shaders.F16, []int{8, 24, 768}, []int{0, 4, 7, 12, 769}, 24, 48, 0},
		{shaders.Q8, []int{64, 768}, []int{0, 32, 96, 65}, 128, 128, 8},
		{shaders.Q4, []int{32, 96, 768}, []int{0, 16, 33}, 96, 48, 12},
	} {
		for _, K := range c.fits {
			if !c.f.Fits(K) {
				t.Errorf("%v.Fits(%d) = false, want true", c.f, K)
			}
		}
		for _, K := range c.fitsNot {
			if c.f.Fits(K) {
				t.Errorf("%v.Fits(%d) = true, want false", c.f, K)
			}
		}
		if got := c.f.RowBytes(c.K); got != c.bytes {
			t.Errorf("%v.RowBytes(%d) = %d, want %d", c.f, c.K, got, c.bytes)
		}
		if got := c.f.ScaleBytes(c.K); got != c.scales {
			t.Errorf("%v.ScaleBytes(%d) = %d, want %d", c.f, c.K, got, c.scales)
		}
		if got, err := shaders.ParseFormat(c.f.String()); got != c.f || err != nil {
			t.Errorf("ParseFormat(%q) = %v, %v", c.f.String(), got, err)
		}
	}
	if _, err := shaders.ParseFormat("q5"); err == nil {
		t.Error("ParseFormat(q5) gave no error")
	}
}

// TestHalf decodes every f16 there is.
func TestHalf(t *testing.T) {
	values, got := make([]byte, 1<<17), make([]float32, 1<<16)
	for h := range got {
		binary.LittleEndian.PutUint16(values[2*h:], uint16(h))
	}
	shaders.F16.DecodeRow(values, nil, got)
	for h, v := range got {
		want := float16.Frombits(uint16(h)).Float32()
		if math.Float32bits(v) != math.Float32bits(want) && !(v != v && want != want) {
			t.Fatalf("f16 %#04x = %g, want %g", h, v, want)
		}
	}
}

// FuzzRoundTrip encodes any 64 floats: none may panic, and those that Check passes must come back within the format's error.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0x80, 0x7f, 0, 0, 0xc0, 0x7f, 1, 0, 0, 0})
	f.Add([]byte{0, 0xe0, 0x7f, 0x47, 0, 0xe0, 0x7f, 0xc7})
	f.Fuzz(func(t *testing.T, data []byte) {
		row := make([]float32, 64)
		for k := range row {
			if len(data) >= 4*k+4 {
				row[k] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*k:]))
			}
		}
		for _, format := range formats {
			if format.Check(row) == nil {
				checkRoundTrip(t, format, row)
			} else {
				roundTrip(format, row)
			}
		}
	})
}

func BenchmarkFormat(b *testing.B) {
	const K = 4096
	row := make([]float32, K)
	for k := range row {
		row[k] = float32(rand.NormFloat64())
	}
	for _, f := range formats {
		values, scales, got := make([]byte, f.RowBytes(K)), make([]byte, f.ScaleBytes(K)), make([]float32, K)
		b.Run("encode/"+f.String(), func(b *testing.B) {
			for b.Loop() {
				f.EncodeRow(row, values, scales)
			}
			b.ReportMetric(K*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mvalues/s")
		})
		b.Run("decode/"+f.String(), func(b *testing.B) {
			for b.Loop() {
				f.DecodeRow(values, scales, got)
			}
			b.ReportMetric(K*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mvalues/s")
		})
	}
}
