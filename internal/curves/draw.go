// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/csv"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

type point struct {
	series string
	x      int
	ms     float64
}

// drawing is a curve that was measured.
type drawing struct {
	curve
	adapter string
	points  []point
}

// write writes path.csv and path.svg.
func (d *drawing) write(path string) error {
	if err := d.writeCSV(path + ".csv"); err != nil {
		return err
	}
	return d.writeSVG(path + ".svg")
}

func (d *drawing) writeCSV(path string) error {
	rows := [][]string{{"series", d.x, "ms", "adapter"}}
	for _, p := range d.points {
		rows = append(rows, []string{p.series, strconv.Itoa(p.x), strconv.FormatFloat(p.ms, 'g', 5, 64), d.adapter})
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := csv.NewWriter(f).WriteAll(rows); err != nil {
		return err
	}
	return f.Close()
}

// writeSVG draws with logarithms on both axes, where a time that grows with a size is a line at 45 degrees.
func (d *drawing) writeSVG(path string) error {
	p := plot.New()
	p.Title.Text = d.title
	p.X.Label.Text, p.Y.Label.Text = d.x, "ms, on "+d.adapter
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.ConstantTicks(d.ticks()), plot.LogTicks{Prec: -1}
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	var names []string
	for _, q := range d.points {
		if !slices.Contains(names, q.series) {
			names = append(names, q.series)
		}
	}
	for i, name := range names {
		var xy plotter.XYs
		for _, q := range d.points {
			if q.series == name {
				xy = append(xy, plotter.XY{X: float64(q.x), Y: max(q.ms, 1e-6)})
			}
		}
		line, dots, err := plotter.NewLinePoints(xy)
		if err != nil {
			return fmt.Errorf("draw %s: %w", d.name, err)
		}
		line.Color, dots.Color, dots.Shape = plotutil.Color(i), plotutil.Color(i), draw.CircleGlyph{}
		p.Add(line, dots)
		p.Legend.Add(name, line, dots)
	}
	// From one power of ten to another, so that there are numbers at the axis.
	p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(p.Y.Min))), math.Pow(10, math.Ceil(math.Log10(p.Y.Max)))
	canvas := vgsvg.New(6*vg.Inch, 4*vg.Inch)
	p.Draw(draw.Crop(draw.New(canvas), 0, -0.3*vg.Inch, 0, 0)) // half of the last number stands beyond the axis
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := canvas.WriteTo(f); err != nil {
		return err
	}
	return f.Close()
}

// ticks are the sizes that were measured, at most ten of them.
func (d *drawing) ticks() []plot.Tick {
	var sizes []int
	for _, p := range d.points {
		sizes = append(sizes, p.x)
	}
	slices.Sort(sizes)
	sizes = slices.Compact(sizes)
	every := (len(sizes) + 9) / 10
	var all []plot.Tick
	for i, n := range sizes {
		if i%every == 0 {
			all = append(all, plot.Tick{Value: float64(n), Label: strconv.Itoa(n)})
		}
	}
	return all
}
