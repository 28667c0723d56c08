// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/zip"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestConceptOf(t *testing.T) {
	for caption, want := range map[string]string{
		"a black icon of lemon": "lemon", "an emoji of flag of Chad": "flag of Chad", "flag of Chad": "flag of Chad",
		"a clipart drawing of map of the isle of Man": "map of the isle of Man", "a thing": "",
	} {
		if got := conceptOf(caption); got != want {
			t.Errorf("conceptOf(%q) = %q, want %q", caption, got, want)
		}
	}
}

// TestChoose chooses of two styles, one four times as large, with doubles.
func TestChoose(t *testing.T) {
	var all []*picture
	for i := range 500 {
		name := fmt.Sprint("thing ", i/2*2)
		all = append(all, &picture{path: fmt.Sprintf("big/%03d.webp", i), caption: "a black icon of " + name, concept: name, licence: "MIT", data: make([]byte, 1000+i)})
	}
	for i := range 62 {
		name := fmt.Sprint("thing ", 2*i)
		all = append(all, &picture{path: fmt.Sprintf("small/%03d.webp", i), caption: "an emoji of " + name, concept: name, licence: "MIT", data: make([]byte, 1000)})
	}
	const size = 100_000
	chosen := choose(all, size)
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if again := choose(all, size); !reflect.DeepEqual(again, chosen) {
		t.Error("choose depends on the order of the pictures")
	}
	byStyle := map[string]map[string]bool{"big": {}, "small": {}}
	for _, p := range chosen {
		if byStyle[p.style()][p.concept] {
			t.Errorf("%s was chosen twice in %s", p.concept, p.style())
		}
		byStyle[p.style()][p.concept] = true
	}
	shared := 0
	for c := range byStyle["small"] {
		if byStyle["big"][c] {
			shared++
		}
	}
	if len(byStyle["small"]) < 20 || shared < 5 {
		t.Errorf("chosen: %d of the small style, %d of them shared with the large one; want 20 and 5 at least", len(byStyle["small"]), shared)
	}
	name := filepath.Join(t.TempDir(), "g.zip")
	if err := writeZip(name, chosen); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(name)
	if err != nil || info.Size() > size || info.Size() < size*9/10 {
		t.Errorf("the zip file has %d bytes, %v, want up to %d and little less", info.Size(), err, size)
	}
	z, err := zip.OpenReader(name)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if len(z.File) != len(chosen)+1 {
		t.Errorf("the zip file has %d files, want %d and credits.tsv", len(z.File), len(chosen))
	}
}
