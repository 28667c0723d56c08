// SPDX-License-Identifier: Apache-2.0

package assets

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"fromage/index"
)

func TestBundle(t *testing.T) {
	b, err := Bundle()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Verify(context.Background(), nil); err != nil {
		t.Error(err)
	}
}

// TestGallery checks that the index is of the bundle's model and that every row's picture is there, with the row's hash and licence.
func TestGallery(t *testing.T) {
	b, err := Bundle()
	if err != nil {
		t.Fatal(err)
	}
	x, err := Gallery()
	if err != nil {
		t.Fatal(err)
	}
	s := b.Manifest().Settings
	id, err := hex.DecodeString(s.HeadsHash)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.CheckModel(s.SharedDim, [32]byte(id)); err != nil {
		t.Errorf("the index is of another model than the bundle: %v", err)
	}
	credits, err := Credits()
	if err != nil {
		t.Fatal(err)
	}
	byImage, err := index.ReadCredits(bytes.NewReader(credits))
	if err != nil {
		t.Fatal(err)
	}
	if x.Len() != len(byImage) || x.Len() < 900 {
		t.Errorf("%d rows, %d credits, want as many of both, 900 or more", x.Len(), len(byImage))
	}
	styles := map[string]int{}
	for i := range x.Rows() {
		m, err := x.Row(i)
		if err != nil {
			t.Fatal(err)
		}
		data, err := Picture(m.Path)
		if err != nil {
			t.Fatal(err)
		}
		if sha256.Sum256(data) != m.Hash {
			t.Errorf("row %d: %s is not the picture that was embedded", i, m.Path)
		}
		if c := byImage[m.Path]; m.Licence == "" || c.Licence != m.Licence {
			t.Errorf("row %d: %s has licence %q, its credit %q", i, m.Path, m.Licence, c.Licence)
		}
		style, _, _ := strings.Cut(m.Path, "/")
		styles[style]++
	}
	if len(styles) != 12 {
		t.Errorf("styles = %v, want 12", styles)
	}
}

func TestPictureMissing(t *testing.T) {
	for _, path := range []string{"", "none.webp", "../assets.go", "noto"} {
		if _, err := Picture(path); err == nil || !strings.Contains(err.Error(), "assets") {
			t.Errorf("Picture(%q) = %v, want an error of assets", path, err)
		}
	}
}

// TestCredits checks that every folder's licence is named in README.md.
func TestCredits(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	x, err := Gallery()
	if err != nil {
		t.Fatal(err)
	}
	for i := range x.Rows() {
		m, err := x.Row(i)
		if err != nil {
			t.Fatal(err)
		}
		style, _, _ := strings.Cut(m.Path, "/")
		if !strings.Contains(string(readme), "| "+style+" | ") {
			t.Fatalf("README.md does not credit %s", style)
		}
	}
}
