// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"fromage/dataset"
	"fromage/index"
)

// picture is one file with what is known about it.
type picture struct {
	path, caption, licence string
	concept                string // the caption without its style
	data                   []byte
}

// style is the picture's folder.
func (p *picture) style() string { return path.Dir(p.path) }

// readAll reads the listings, the credits and the archive.
func readAll(folder string) ([]*picture, error) {
	byPath := map[string]*picture{}
	for _, name := range []string{"train.tsv", "val.tsv"} {
		examples, err := dataset.Read(filepath.Join(folder, name))
		if err != nil {
			return nil, err
		}
		for _, e := range examples {
			byPath[e.Image] = &picture{path: e.Image, caption: e.Caption, concept: conceptOf(e.Caption)}
		}
	}
	if err := readCredits(filepath.Join(folder, "credits.tsv"), byPath); err != nil {
		return nil, err
	}
	if err := readArchive(filepath.Join(folder, "pictures.tar.gz"), byPath); err != nil {
		return nil, err
	}
	var all []*picture
	for _, p := range byPath {
		if p.licence == "" || p.data == nil {
			return nil, fmt.Errorf("%s: want its licence and its file, have %q and %d bytes", p.path, p.licence, len(p.data))
		}
		all = append(all, p)
	}
	return all, nil
}

func readCredits(name string, byPath map[string]*picture) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	credits, err := index.ReadCredits(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, p := range byPath {
		p.licence = credits[p.path].Licence
	}
	return nil
}

func readArchive(name string, byPath map[string]*picture) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	t := tar.NewReader(z)
	for {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		}
		p := byPath[path.Clean(h.Name)]
		if p == nil {
			continue
		}
		if p.data, err = io.ReadAll(t); err != nil {
			return fmt.Errorf("%s: %s: %w", name, h.Name, err)
		}
	}
}

// conceptOf is a caption without the style that it begins with: "a black icon of lemon" → "lemon". "flag of Chad" is a concept itself.
func conceptOf(caption string) string {
	if strings.HasPrefix(caption, "a ") || strings.HasPrefix(caption, "an ") {
		_, concept, _ := strings.Cut(caption, " of ")
		return concept
	}
	return caption
}

// choose picks pictures for a zip file of at most size bytes. Every style gets a share that goes with the square root of its number, so that small ones
// are not lost, and gives the concepts whose hashes come first: so the styles share concepts, and each has one picture of a concept. The pictures are
// split into training and validation by another hash, so both come in proportion.
func choose(all []*picture, size int64) []*picture {
	slices.SortFunc(all, func(a, b *picture) int {
		ha, hb := sha256.Sum256([]byte(a.concept)), sha256.Sum256([]byte(b.concept))
		return cmp.Or(bytes.Compare(ha[:], hb[:]), strings.Compare(a.path, b.path))
	})
	styles := map[string][]*picture{}
	for _, p := range all {
		some := styles[p.style()]
		if n := len(some); n == 0 || some[n-1].concept != p.concept {
			styles[p.style()] = append(some, p)
		}
	}
	total := 0.0
	for _, some := range styles {
		total += math.Sqrt(float64(len(some)))
	}
	var chosen []*picture
	for _, some := range styles {
		share := float64(size) * math.Sqrt(float64(len(some))) / total
		for _, p := range some {
			if share -= float64(stored(p)); share < 0 {
				break
			}
			chosen = append(chosen, p)
		}
	}
	slices.SortFunc(chosen, func(a, b *picture) int { return strings.Compare(a.path, b.path) })
	return chosen
}

// stored is about what a picture takes of the zip file: itself, its two headers and its line of credits, compressed.
func stored(p *picture) int { return len(p.data) + 30 + 46 + 16 + 2*len(p.path) + len(creditLine(p))/2 }

// creditLine is the picture's line of credits.tsv; it has no keywords, and its caption is in the index.
func creditLine(p *picture) string {
	return p.path + "\t" + p.concept + "\t\t" + p.licence + "\n"
}

// writeZip writes the pictures as they are, for WebP does not compress, and credits.tsv.
func writeZip(name string, chosen []*picture) error {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	var credits bytes.Buffer
	credits.WriteString("image\tconcept\tkeywords\tlicence\n")
	for _, p := range chosen {
		credits.WriteString(creditLine(p))
		if err := addFile(z, p.path, zip.Store, p.data); err != nil {
			return err
		}
	}
	if err := addFile(z, "credits.tsv", zip.Deflate, credits.Bytes()); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o644)
}

// addFile adds a file without a time, so that equal contents make equal archives.
func addFile(z *zip.Writer, name string, method uint16, data []byte) error {
	w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: method})
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}
