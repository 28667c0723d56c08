// SPDX-License-Identifier: Apache-2.0

package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/x448/float16"
)

// each runs f with every set of instructions that this machine has, plain Go first.
func each(t testing.TB, f func(name string)) {
	found := name
	all := levels()
	defer all[len(all)-1]()
	for _, use := range all {
		use()
		f(name)
	}
	if name != found {
		t.Errorf("the last set of instructions is %s, want %s, which is used", name, found)
	}
}

func random(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func TestTile(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 0))
	each(t, func(name string) {
		for _, depth := range []int{0, 1, 3, 4, 5, 8, 31, 256} {
			for _, along := range []bool{true, false} {
				rows, ldc := TileRows(), Columns+3
				rowStride, depthStride := depth+1, 1
				if !along {
					rowStride, depthStride = 1, rows+5
				}
				a, b := random(r, 1+(rows-1)*rowStride+max(0, depth-1)*depthStride), random(r, Columns*depth)
				c := random(r, (rows-1)*ldc+Columns)
				was := append([]float32(nil), c...)
				Tile(c, ldc, a, rowStride, depthStride, b, depth)
				for i := range c {
					want := float64(was[i])
					if i%ldc < Columns {
						for k := range depth {
							want += float64(a[i/ldc*rowStride+k*depthStride]) * float64(b[Columns*k+i%ldc])
						}
					}
					if got := float64(c[i]); math.Abs(got-want) > 1e-4 {
						t.Fatalf("%s: Tile(depth %d, along %v): c[%d] = %v, want %v", name, depth, along, i, got, want)
					}
				}
			}
		}
	})
}

func TestTurn(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 0))
	each(t, func(name string) {
		for _, depth := range []int{0, 1, 7, 8, 9, 24, 67} {
			stride := depth + 2
			src, dst := random(r, Columns*stride), make([]float32, Columns*depth)
			Turn(dst, src, stride, depth)
			for i, got := range dst {
				if want := src[i%Columns*stride+i/Columns]; got != want {
					t.Fatalf("%s: Turn(depth %d): dst[%d] = %v, want %v", name, depth, i, got, want)
				}
			}
		}
	})
}

func TestDotsAndMix(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 0))
	each(t, func(name string) {
		for n := range 140 {
			for _, count := range []int{0, 1, 2, 5} {
				stride := n + 3
				x, rows, dst := random(r, n), random(r, max(0, count-1)*stride+n), random(r, count)
				Dots(dst, x, rows, stride)
				y := append([]float32(nil), x...)
				Mix(y, dst, rows, stride)
				for k, got := range dst {
					want := 0.0
					for i := range x {
						want += float64(x[i]) * float64(rows[k*stride+i])
					}
					if math.Abs(float64(got)-want) > 1e-4 {
						t.Fatalf("%s: Dots(%d values)[%d] = %v, want %v", name, n, k, got, want)
					}
				}
				for i, got := range y {
					want := float64(x[i])
					for k, w := range dst {
						want += float64(w) * float64(rows[k*stride+i])
					}
					if math.Abs(float64(got)-want) > 1e-4 {
						t.Fatalf("%s: Mix(%d values, %d rows)[%d] = %v, want %v", name, n, count, i, got, want)
					}
				}
			}
		}
	})
}

func TestExp(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	x := []float32{0, 1, -1, 88, 89, 1e30, inf, -87, -88, -1e30, -inf, nan, 0.34, -0.35, 44.1, -86.99, 1e-8, -3}
	for i := range 4000 {
		x = append(x, -87.5+float32(i)*0.044)
	}
	each(t, func(name string) {
		for _, c := range []struct{ factor, shift float32 }{{1, 0}, {-0.5, 2}, {0.25, -1}} {
			for _, n := range []int{0, 1, 7, 8, 11, len(x)} {
				got, sum := make([]float32, n), 0.0
				total := Exp(got, x[:n], c.factor, c.shift)
				for i, v := range x[:n] {
					e := float64(c.factor)*float64(v) - float64(c.shift)
					want := math.Exp(min(e, 88))
					if e < -87 {
						want = 0
					}
					sum += want
					// The exponent is rounded to float32, so that the result is off by as much.
					g := float64(got[i])
					if g != want && !(math.Abs(g-want) <= want*(1e-7*math.Abs(e)+3e-7)) && !(g != g && v != v) {
						t.Errorf("%s: Exp(%v·%v − %v) = %v, want %v", name, c.factor, v, c.shift, g, want)
					}
				}
				if sum < 1e38 && !(math.Abs(float64(total)-sum) <= 1e-5*sum) || sum != sum && total == total {
					t.Errorf("%s: Exp of %d values has the sum %v, want %v", name, n, total, sum)
				}
			}
		}
	})
}

// TestEncode rounds every half, what lies next to it and between it and the next, and what no half holds.
func TestEncode(t *testing.T) {
	var src []float32
	for h := range uint16(0x7c00) {
		v, next := float16.Frombits(h).Float32(), float16.Frombits(h+1).Float32()
		if h == 0x7bff {
			next = 65536
		}
		middle := (v + next) / 2
		for _, x := range []float32{v, math.Nextafter32(v, next), math.Nextafter32(middle, v), middle, math.Nextafter32(middle, next)} {
			src = append(src, x, -x)
		}
	}
	inf := float32(math.Inf(1))
	src = append(src, 65519, 65520, 65536, 1e9, math.MaxFloat32, inf, -inf, -7e4)
	each(t, func(name string) {
		dst := make([]byte, 2*len(src))
		n := EncodeF16(dst, src)
		if name != "plain Go" && n != len(src)&^7 {
			t.Errorf("%s: %d of %d values are done", name, n, len(src))
		}
		for i, x := range src[:n] {
			want := float16.Fromfloat32(max(-65504, min(65504, x))).Bits()
			if got := uint16(dst[2*i]) | uint16(dst[2*i+1])<<8; got != want {
				t.Fatalf("%s: EncodeF16(%g) = %04x, want %04x", name, x, got, want)
			}
		}
		nan := make([]float32, 8)
		nan[3] = float32(math.NaN())
		if n := EncodeF16(dst, nan); n > 0 && !float16.Frombits(uint16(dst[6])|uint16(dst[7])<<8).IsNaN() {
			t.Errorf("%s: EncodeF16(NaN) is %02x%02x", name, dst[7], dst[6])
		}
	})
}

// TestDecode decodes every half, every byte and every code, each with scales of all kinds, and compares bits.
func TestDecode(t *testing.T) {
	each(t, func(name string) {
		dst, src := make([]float32, 1<<16+3), make([]byte, 2<<16+6)
		for i := range dst {
			src[2*i], src[2*i+1] = byte(i), byte(i>>8)
		}
		n := DecodeF16(dst, src)
		check(t, name+": DecodeF16", dst[:n], func(i int) float32 { return float16.Frombits(uint16(i)).Float32() })

		const blocks = 1 << 11 // scales that are finite: 0 to 7bff
		values, scales := make([]byte, 32*blocks), make([]byte, 4*blocks)
		for i := range values {
			values[i] = byte(i * 37)
		}
		scale := func(i int) float32 { return float16.Frombits(uint16(scales[2*i]) | uint16(scales[2*i+1])<<8).Float32() }
		for i := range 2 * blocks {
			scales[2*i], scales[2*i+1] = byte(i*7), byte(i*11%0x7c)|byte(i&1<<7)
		}
		dst = make([]float32, 32*blocks)
		n = DecodeQ8(dst, values, scales[:2*blocks])
		check(t, name+": DecodeQ8", dst[:n], func(i int) float32 { return scale(i/32) * float32(int8(values[i])) })
		n = DecodeQ4(dst, values[:16*blocks], scales)
		check(t, name+": DecodeQ4", dst[:n], func(i int) float32 {
			code := values[i/2] >> (i % 2 * 4) & 15
			product := scale(i/32*2) * float32(code)
			return product + scale(i/32*2+1)
		})
	})
}

func check(t *testing.T, what string, got []float32, want func(int) float32) {
	t.Helper()
	if name != "plain Go" && len(got) == 0 {
		t.Fatalf("%s has done nothing", what)
	}
	for i, g := range got {
		if w := want(i); math.Float32bits(g) != math.Float32bits(w) && !(g != g && w != w) {
			t.Fatalf("%s: value %d = %v, want %v", what, i, g, w)
		}
	}
}

func BenchmarkTile(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 0))
	each(b, func(name string) {
		const depth = 256
		rows := TileRows()
		a, panel, c := random(r, rows*depth), random(r, Columns*depth), make([]float32, rows*Columns)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				Tile(c, Columns, a, depth, 1, panel, depth)
			}
			b.ReportMetric(2*float64(rows*Columns*depth)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	})
}

func BenchmarkLoops(b *testing.B) {
	const n = 4096
	dst, out, values, scales := make([]float32, n), make([]float32, n), make([]byte, 2*n), make([]byte, n)
	for what, run := range map[string]func(){
		"f16":  func() { DecodeF16(dst, values) },
		"half": func() { EncodeF16(values, dst) },
		"q8":   func() { DecodeQ8(dst, values, scales) },
		"q4":   func() { DecodeQ4(dst, values, scales) },
		"turn": func() { Turn(out, dst, n/Columns, n/Columns) },
		"dots": func() { Dots(out[:n/64], dst[:64], dst, 64) },
		"mix":  func() { Mix(out[:64], dst[:n/64], dst, 64) },
		"exp":  func() { Exp(out, dst, -1, 0) },
	} {
		b.Run(fmt.Sprintf("%s/%s", what, name), func(b *testing.B) {
			for b.Loop() {
				run()
			}
			b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gvalues/s")
		})
	}
}
