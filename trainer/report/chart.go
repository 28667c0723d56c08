// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// chart is drawn in a box of chartWidth × chartHeight, within which the curves have plot.
type chart struct {
	Name           string
	Lines          []line
	XTicks, YTicks []tick
}

// line is one curve. Few points are dots as well, which tell their values.
type line struct {
	Name, Path string
	Number     int // its colour, from 1 on
	Last       string
	Dots       []dot
}

type dot struct{ X, Y, Label string }

type tick struct{ At, Label string }

// The page's drawing of a chart.
const (
	left, right, top, bottom = 46, 352, 8, 176
	maxPoints                = 300 // of a curve; longer ones become means
	maxDots                  = 40
)

type point struct{ x, y float64 }

// charts makes a chart for all numbers whose names are the same after the first slash: losses first, then accuracies, then the rest, and the
// shorter name first, as "loss" is.
func charts(rows []Row) []chart {
	groups := map[string][]string{}
	var order []string
	for _, name := range names(rows) {
		key := name
		if _, after, ok := strings.Cut(name, "/"); ok {
			key = after
		}
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], name)
	}
	slices.SortStableFunc(order, func(a, b string) int {
		return cmp.Or(cmp.Compare(importance(a), importance(b)), cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	var all []chart
	for _, key := range order {
		if c := makeChart(key, groups[key], rows); len(c.Lines) > 0 {
			all = append(all, c)
		}
	}
	return all
}

// importance is where a chart comes, the lowest first.
func importance(name string) int {
	for i, part := range []string{"loss", "ce", "acc", "top", "r@", "bleu"} {
		if strings.Contains(strings.ToLower(name), part) {
			return i
		}
	}
	return math.MaxInt
}

func makeChart(key string, names []string, rows []Row) chart {
	c := chart{Name: key}
	var curves [][]point
	xs, ys := span{0, 0}, span{math.Inf(1), math.Inf(-1)}
	for _, r := range rows {
		xs = xs.with(float64(r.Step))
	}
	for _, name := range names {
		points, last := thin(curve(name, rows))
		before, _, ok := strings.Cut(name, "/")
		if !ok {
			before = ""
		}
		found := false
		for _, p := range points {
			if finite(p.y) {
				ys, found = ys.with(p.y), true
			}
		}
		if found {
			curves = append(curves, points)
			c.Lines = append(c.Lines, line{Name: before, Number: colour(before, len(c.Lines)), Last: number(last)})
		}
	}
	if len(curves) == 0 {
		return c
	}
	xs, ys = xs.widened(0), ys.widened(0.05)
	for i, points := range curves {
		c.Lines[i].draw(points, xs, ys)
	}
	for _, v := range xs.ticks() {
		if v == math.Trunc(v) {
			c.XTicks = append(c.XTicks, tick{coordinate(xs.place(v, left, right)), fmt.Sprintf("%.0f", v)})
		}
	}
	for _, v := range ys.ticks() {
		c.YTicks = append(c.YTicks, tick{coordinate(ys.place(v, bottom, top)), fmt.Sprintf("%.4g", v)})
	}
	return c
}

// colour gives the same name the same colour in every chart.
func colour(name string, lines int) int {
	switch name {
	case "train", "":
		return 1
	case "val":
		return 2
	}
	return 3 + lines%2
}

func curve(name string, rows []Row) []point {
	var points []point
	for _, r := range rows {
		if v, ok := r.Scalars[name]; ok {
			points = append(points, point{float64(r.Step), v})
		}
	}
	return points
}

// thin makes at most maxPoints of points, means over as many neighbours each. last is the last value as it was.
func thin(points []point) (thinned []point, last float64) {
	if len(points) == 0 {
		return nil, math.NaN()
	}
	last = points[len(points)-1].y
	if len(points) <= maxPoints {
		return points, last
	}
	size := (len(points) + maxPoints - 1) / maxPoints
	for group := range slices.Chunk(points, size) {
		var mean point
		for _, p := range group {
			mean.x += p.x / float64(len(group))
			mean.y += p.y / float64(len(group))
		}
		thinned = append(thinned, mean)
	}
	return thinned, last
}

// draw makes the path, broken where a value is not finite.
func (l *line) draw(points []point, xs, ys span) {
	var b strings.Builder
	pen := "M"
	for _, p := range points {
		if !finite(p.y) {
			pen = "M"
			continue
		}
		x, y := coordinate(xs.place(p.x, left, right)), coordinate(ys.place(p.y, bottom, top))
		fmt.Fprintf(&b, "%s%s %s", pen, x, y)
		pen = "L"
		if len(points) <= maxDots {
			l.Dots = append(l.Dots, dot{x, y, fmt.Sprintf("step %.0f: %s", p.x, number(p.y))})
		}
	}
	l.Path = b.String()
}

func coordinate(v float64) string { return fmt.Sprintf("%.1f", v) }

// span is a range of values on an axis.
type span struct{ low, high float64 }

func (s span) with(v float64) span { return span{min(s.low, v), max(s.high, v)} }

// widened has a part more at either end, but not past zero, and some room in any case.
func (s span) widened(part float64) span {
	room := (s.high - s.low) * part
	if s.low == s.high {
		room = max(math.Abs(s.low)*0.1, 0.5)
	}
	low := s.low - room
	if s.low >= 0 {
		low = max(0, low)
	}
	return span{low, s.high + room}
}

// place is where v lies on an axis from one coordinate to another.
func (s span) place(v, from, to float64) float64 {
	return from + (v-s.low)/(s.high-s.low)*(to-from)
}

// ticks are round values within the span, at most maxTicks of them.
func (s span) ticks() []float64 {
	const maxTicks, rounding = 5, 1e-9
	power := math.Pow(10, math.Floor(math.Log10((s.high-s.low)/maxTicks)))
	for _, factor := range []float64{1, 2, 5, 10} {
		step := factor * power
		first, last := math.Ceil(s.low/step-rounding), math.Floor(s.high/step+rounding)
		if last-first >= maxTicks {
			continue
		}
		var all []float64
		for i := range int(last-first) + 1 {
			all = append(all, (first+float64(i))*step)
		}
		return all
	}
	return nil
}
