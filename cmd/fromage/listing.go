// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"fromage/dataset"
	"fromage/index"
)

// listing is where pictures come from, and what is said of them.
type listing struct {
	captions, credits string // files that --captions and --credits name
	root              string // --root
	dtype             string // --dtype
}

func (l *listing) addFlags(c *cobra.Command) {
	c.Flags().StringVar(&l.captions, "captions", "", "a TSV `FILE` (caption, image) with captions for the pictures of folders, by path in the index or in the folder")
	c.Flags().StringVar(&l.credits, "credits", "", "a TSV `FILE` (image, concept, keywords, licence) with licences")
	c.Flags().StringVar(&l.root, "root", "", "the `FOLDER` that paths in the index start from (default: the current one, and a list's own folder for a list)")
}

// source is a picture to be indexed.
type source struct {
	file string // where to read it
	rel  string // its path from the folder or list that it was found in
	meta index.Meta
}

// list finds the pictures that arguments name.
func (l *listing) list(args []string) ([]source, error) {
	captions, credits, err := l.tables()
	if err != nil {
		return nil, err
	}
	var out []source
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		var some []source
		if info.IsDir() {
			some, err = l.folder(arg)
		} else {
			some, err = l.file(arg)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	for i := range out {
		m := &out[i].meta
		m.Caption = cmp.Or(m.Caption, captions[m.Path], captions[out[i].rel])
		m.Licence = cmp.Or(credits[m.Path].Licence, credits[out[i].rel].Licence)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("there are no pictures in %s", strings.Join(args, " "))
	}
	return out, nil
}

// tables reads --captions and --credits.
func (l *listing) tables() (map[string]string, map[string]index.Credit, error) {
	captions := map[string]string{}
	if l.captions != "" {
		entries, err := dataset.Read(l.captions)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range entries {
			captions[e.Image] = e.Caption
		}
	}
	if l.credits == "" {
		return captions, nil, nil
	}
	f, err := os.Open(l.credits)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	credits, err := index.ReadCredits(f)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", l.credits, err)
	}
	return captions, credits, nil
}

// folder lists the pictures of a folder. In the index they have the path from --root, or as the folder was given.
func (l *listing) folder(name string) ([]source, error) {
	files, err := index.Walk(os.DirFS(name))
	if err != nil {
		return nil, err
	}
	prefix := filepath.ToSlash(filepath.Clean(name))
	if l.root != "" {
		rel, err := filepath.Rel(l.root, name)
		if err != nil {
			return nil, err
		}
		prefix = filepath.ToSlash(rel)
	}
	var out []source
	for _, f := range files {
		out = append(out, source{filepath.Join(name, filepath.FromSlash(f)), f, index.Meta{Path: path.Join(prefix, f)}})
	}
	return out, nil
}

// file lists the pictures of a TSV. In the index they have the path that the list has.
func (l *listing) file(name string) ([]source, error) {
	entries, err := dataset.Read(name)
	if err != nil {
		return nil, err
	}
	root := l.root
	if root == "" {
		root = filepath.Dir(name)
	}
	var out []source
	for _, e := range entries {
		file := filepath.FromSlash(e.Image)
		if !filepath.IsAbs(file) {
			file = filepath.Join(root, file)
		}
		out = append(out, source{file, e.Image, index.Meta{Path: e.Image, Caption: e.Caption}})
	}
	return out, nil
}
