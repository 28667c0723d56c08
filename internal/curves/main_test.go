// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestQuick measures and draws every curve in short.
func TestQuick(t *testing.T) {
	out := filepath.Join(t.TempDir(), "curves")
	if err := run(context.Background(), "cpu", out, options{quick: true, memory: 1e9, budget: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	for _, c := range curves {
		f, err := os.Open(filepath.Join(out, c.name+".csv"))
		if err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(f).ReadAll()
		f.Close()
		if err != nil || len(rows) < 3 || !slices.Equal(rows[0], []string{"series", c.x, "ms", "adapter"}) {
			t.Errorf("%s.csv = %q, %v, want a head and two sizes or more", c.name, rows, err)
		}
		svg, err := os.ReadFile(filepath.Join(out, c.name+".svg"))
		if err != nil {
			t.Fatal(err)
		}
		if !wellFormed(svg) || !strings.Contains(string(svg), c.title) || len(svg) > 60_000 {
			t.Errorf("%s.svg: %d bytes, want a small picture with the title %q", c.name, len(svg), c.title)
		}
	}
}

// wellFormed says whether text is a document of XML.
func wellFormed(text []byte) bool {
	d := xml.NewDecoder(strings.NewReader(string(text)))
	for n := 0; ; n++ {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return n > 0
		} else if err != nil {
			return false
		}
	}
}

func TestRefuses(t *testing.T) {
	out := t.TempDir()
	good := options{quick: true, memory: 1e9, budget: time.Millisecond}
	for _, c := range []struct {
		device string
		change func(*options)
		want   string
	}{
		{"tpu", func(*options) {}, "-device"},
		{"cpu", func(o *options) { o.only = []string{"index", "nothing"} }, "nothing"},
		{"cpu", func(o *options) { o.memory = 0 }, "-memory"},
		{"cpu", func(o *options) { o.budget = -1 }, "-seconds"},
	} {
		o := good
		c.change(&o)
		if err := run(context.Background(), c.device, out, o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("run(%s, %+v) = %v, want an error that names %s", c.device, o, err, c.want)
		}
	}
	// What an interrupt leaves is whole.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := run(ctx, "cpu", out, good); !errors.Is(err, context.Canceled) {
		t.Errorf("run after an interrupt = %v, want %v", err, context.Canceled)
	}
}
