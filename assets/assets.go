// SPDX-License-Identifier: Apache-2.0

// Package assets is the model and the gallery that are part of the program: a small FROMAGe, pictures, and the index of their embeddings.
//
// What leaves is an open bundle, an open index and picture files. The files are made by internal/makegallery; README.md names the pictures' authors and
// licences. The package refuses to know what a bundle or an index is for.
package assets

import (
	"archive/zip"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"fromage/bundle"
	"fromage/index"
)

//go:embed default.bundle gallery.index gallery.zip
var files embed.FS

// Names of the files.
const (
	BundleFile  = "default.bundle" // opt-mini and clip-mini's vision tower in q8, with FROMAGe's heads
	IndexFile   = "gallery.index"  // one f16 row for each picture: path, caption, licence, SHA-256
	PictureFile = "gallery.zip"    // the pictures, 128×128 WebP, and CreditsFile
	CreditsFile = "credits.tsv"    // within PictureFile: what index.ReadCredits reads
)

// Bundle opens the embedded model. Its bytes are read in place, and are not copied.
func Bundle() (*bundle.Bundle, error) {
	r, size, err := Open(BundleFile)
	if err != nil {
		return nil, err
	}
	b, err := bundle.Read(r, size)
	if err != nil {
		return nil, fmt.Errorf("assets: %s: %w", BundleFile, err)
	}
	return b, nil
}

// Gallery opens the embedded index, whose embeddings are the embedded model's.
func Gallery() (*index.Index, error) {
	r, size, err := Open(IndexFile)
	if err != nil {
		return nil, err
	}
	return index.Read(IndexFile, r, size)
}

// Picture returns the file of a picture of the gallery, by its path in the index ("twemoji/00977.webp").
func Picture(path string) ([]byte, error) {
	z, err := pictures()
	if err != nil {
		return nil, err
	}
	data, err := fs.ReadFile(z, path)
	if err != nil {
		return nil, fmt.Errorf("assets: picture %s: %w", path, err)
	}
	return data, nil
}

// Files are the bundle, the index and the pictures, these by their paths in the index.
func Files() fs.FS { return all{} }

type all struct{}

// Open implements fs.FS.
func (all) Open(name string) (fs.File, error) {
	if name == "." || name == BundleFile || name == IndexFile {
		return files.Open(name)
	}
	z, err := pictures()
	if err != nil {
		return nil, err
	}
	return z.Open(name)
}

// Credits returns every picture's concept and licence, in the format of index.ReadCredits. README.md says whose the pictures of each folder are.
func Credits() ([]byte, error) { return Picture(CreditsFile) }

// Open opens one of the files for reading in place.
func Open(name string) (io.ReaderAt, int64, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, 0, fmt.Errorf("assets: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("assets: %w", err)
	}
	// Files of an embed.FS implement io.ReaderAt, as its documentation says.
	return f.(io.ReaderAt), info.Size(), nil
}

var pictures = sync.OnceValues(func() (*zip.Reader, error) {
	r, size, err := Open(PictureFile)
	if err != nil {
		return nil, err
	}
	return zip.NewReader(r, size)
})
