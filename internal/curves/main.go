// SPDX-License-Identifier: Apache-2.0

// Command curves measures how long things take against their size, and draws it: NAME.csv and NAME.svg for each curve.
//
// In come a device and a folder; out go files. It judges nothing.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/gpu/native"
)

// options say what is measured and how long.
type options struct {
	quick  bool          // few small sizes
	memory int64         // bytes that a curve may take
	budget time.Duration // of a point
	only   []string
}

func main() {
	var o options
	device := flag.String("device", "auto", "what computes: auto (a GPU, else cpu), gpu (the best WebGPU adapter, be it software) or cpu")
	out := flag.String("o", "out/curves", "the folder to write to")
	flag.BoolVar(&o.quick, "quick", false, "few small sizes, in a minute or two")
	memory := flag.Float64("memory", 4, "GB that a curve may take; larger sizes are left out")
	seconds := flag.Float64("seconds", 0.5, "how long to measure a point")
	only := flag.String("only", "", "names of curves, separated by commas (default: all)")
	flag.Parse()
	o.memory, o.budget = int64(*memory*1e9), time.Duration(*seconds*float64(time.Second))
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *device, *out, o); err != nil {
		fmt.Fprintln(os.Stderr, "curves:", err)
		os.Exit(2)
	}
}

func run(ctx context.Context, device, out string, o options) error {
	for _, name := range o.only {
		if !slices.ContainsFunc(curves, func(c curve) bool { return c.name == name }) {
			return fmt.Errorf("-only: there is no curve %q", name)
		}
	}
	if o.memory < 1<<20 || o.budget < 0 {
		return fmt.Errorf("want -memory of 0.01 or more and -seconds of 0 or more, have %d bytes and %v", o.memory, o.budget)
	}
	dev, err := open(device)
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := os.MkdirAll(out, 0o777); err != nil {
		return err
	}
	fmt.Printf("%s\n", dev.Info().Adapter)
	for _, c := range curves {
		if len(o.only) > 0 && !slices.Contains(o.only, c.name) {
			continue
		}
		d := &drawing{curve: c, adapter: dev.Info().Adapter}
		began := time.Now()
		// What was measured until an error or Ctrl-C is kept.
		err := c.measure(ctx, dev, o, func(series string, x int, took time.Duration) {
			d.points = append(d.points, point{series, x, took.Seconds() * 1e3})
			fmt.Printf("%s: %s, %s %d: %.4g ms (%v passed)\n", c.name, series, c.x, x, took.Seconds()*1e3, time.Since(began).Round(time.Second))
		})
		if len(d.points) > 0 {
			if err := d.write(filepath.Join(out, c.name)); err != nil {
				return err
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func open(device string) (gpu.Device, error) {
	switch device {
	case "cpu":
		return cpu.New(), nil
	case "gpu":
		return native.Open(native.Options{Label: "curves"})
	case "auto":
		if dev, err := native.Open(native.Options{Label: "curves", Prefer: native.Hardware}); err == nil {
			return dev, nil
		}
		return cpu.New(), nil
	}
	return nil, fmt.Errorf("-device: want auto, gpu or cpu, have %q", device)
}
