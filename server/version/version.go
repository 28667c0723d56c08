// SPDX-License-Identifier: Apache-2.0

// Package version is what the sync server serves, as data: versions of models, heads and galleries, all of it named by SHA-256.
//
// What enters is documents and pieces from a network or a store, trusted in nothing; what leaves is checked values, deltas between pages of rows, and the
// index that rows make. The package refuses to know where pieces are kept and how they travel: server, page and Go client share it.
//
// A version is a Manifest: a JSON document named by its hash, with a number that only grows. It lists pieces, runs of bytes named by their hash: files (a
// bundle, heads) cut in pieces, and pages of a gallery's rows. Equal pieces are one, so a version costs what is new in it.
package version

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"fromage/index"
	"fromage/server/wire"
)

const format = 1

// Bounds of what a manifest may list.
const (
	maxModels = 64
	maxPieces = 1 << 16
	maxText   = 1 << 10
	maxName   = 128
)

// MaxPiece is the most bytes of one piece of a file.
const MaxPiece = 8 << 20

// Manifest is a version.
type Manifest struct {
	Format int       `json:"format"` // 1
	Seq    uint64    `json:"seq"`    // its number; a later version has a greater one
	Parent wire.Hash `json:"parent"` // the version it was made from; zero for the first
	Time   time.Time `json:"time"`
	By     string    `json:"by"`   // who published it: a token's name
	Note   string    `json:"note"` // what is new, for people
	Models []Model   `json:"models"`
}

// Model is a bundle with the heads and pictures that go with it.
type Model struct {
	Name     string    `json:"name"` // letters, digits, points, dashes, underscores
	Title    string    `json:"title"`
	DType    string    `json:"dtype"`
	Identity wire.Hash `json:"identity"`        // heads_hash of the bundle with these heads: whose embeddings the gallery has
	Bundle   File      `json:"bundle"`          // as fromage compile makes it
	Heads    *File     `json:"heads,omitempty"` // safetensors in place of the bundle's own heads
	Gallery  Gallery   `json:"gallery"`
}

// File is a file in pieces.
type File struct {
	Size   int64     `json:"size"`
	SHA256 wire.Hash `json:"sha256"` // of a bundle: of its manifest, which has the hashes of all else; of other files: of the whole
	Pieces []Piece   `json:"pieces"`
}

// Piece is a run of bytes.
type Piece struct {
	Hash wire.Hash `json:"hash"`
	Size int64     `json:"size"`
}

// Gallery is rows in pages: page n holds those with ids from n·PageRows on, up to the next page's.
type Gallery struct {
	Dim      int    `json:"dim"`             // values of an embedding
	DType    string `json:"dtype,omitempty"` // how they are stored, as package index names it: f16, which is the empty string, or q8
	Rows     int    `json:"rows"`            // in all pages
	Next     uint64 `json:"next"`            // the id of the next row; ids are never given twice
	Pages    []Page `json:"pages"`
	Features *Piece `json:"features,omitempty"` // where the pictures' CLIP features are: a JSON list of Page, of which clients need none
}

// ParseEmbeddings returns how embeddings may be stored by its name: f16 or q8.
func ParseEmbeddings(name string) (index.DType, error) {
	t, err := index.ParseDType(name)
	if err != nil || t == index.F32 {
		return 0, fmt.Errorf("version: embeddings: want f16 or q8, have %q", name)
	}
	return t, nil
}

// Embeddings is how embeddings are stored.
func (g *Gallery) Embeddings() index.DType {
	if g.DType == index.Q8.String() {
		return index.Q8
	}
	return index.F16 // check allows no other
}

// RowBytes is how many bytes of values a row has.
func (g *Gallery) RowBytes() int { return g.Dim * g.Embeddings().Size() }

// SetEmbeddings has embeddings stored as f16 or q8.
func (g *Gallery) SetEmbeddings(t index.DType) {
	g.DType = ""
	if t != index.F16 {
		g.DType = t.String()
	}
}

// Page is a page that has rows.
type Page struct {
	Number uint64    `json:"n"`
	Hash   wire.Hash `json:"hash"`
	Size   int64     `json:"size"`
	Rows   int       `json:"rows"`
}

// ID is the SHA-256 of a document or piece.
func ID(data []byte) wire.Hash { return sha256.Sum256(data) }

// Encode checks a manifest and returns its document and the version's name.
func (m *Manifest) Encode() ([]byte, wire.Hash, error) {
	m.Format = format
	data, err := json.Marshal(m)
	if err != nil {
		return nil, wire.Hash{}, fmt.Errorf("version: manifest: %w", err)
	}
	if len(data) > wire.MaxDocument {
		return nil, wire.Hash{}, fmt.Errorf("version: manifest: want at most %d bytes, have %d", wire.MaxDocument, len(data))
	}
	if _, err := Decode(data); err != nil {
		return nil, wire.Hash{}, err
	}
	return data, ID(data), nil
}

// Decode reads a manifest and checks all that can be seen in it.
func Decode(data []byte) (*Manifest, error) {
	m := new(Manifest)
	if err := decodeJSON(data, m); err != nil {
		return nil, fmt.Errorf("version: manifest: %w", err)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("version: manifest %d: %w", m.Seq, err)
	}
	return m, nil
}

func decodeJSON(data []byte, v any) error {
	if len(data) > wire.MaxDocument {
		return fmt.Errorf("want at most %d bytes, have %d", wire.MaxDocument, len(data))
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("want one document, have more after byte %d", d.InputOffset())
	}
	return nil
}

func (m *Manifest) check() error {
	if m.Format != format {
		return fmt.Errorf("format: want %d, have %d", format, m.Format)
	}
	if len(m.Models) > maxModels || len(m.By) > maxText || len(m.Note) > maxText {
		return fmt.Errorf("want at most %d models and %d bytes of by and note, have %d, %d and %d", maxModels, maxText, len(m.Models), len(m.By), len(m.Note))
	}
	seen := map[string]bool{}
	for i := range m.Models {
		x := &m.Models[i]
		if !ValidName(x.Name) || seen[x.Name] {
			return fmt.Errorf("model %d: want names that differ, of 1 to %d letters, digits, points, dashes and underscores, have %q", i, maxName, x.Name)
		}
		seen[x.Name] = true
		if err := x.check(); err != nil {
			return fmt.Errorf("model %s: %w", x.Name, err)
		}
	}
	return nil
}

// ValidName says whether a model may be called so; such a name is safe in addresses and in paths.
func ValidName(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	return name != "" && len(name) <= maxName && name[0] != '.' && strings.Trim(name, letters) == ""
}

func (x *Model) check() error {
	if len(x.Title) > maxText || len(x.DType) > maxName {
		return fmt.Errorf("title, dtype: want at most %d and %d bytes, have %d and %d", maxText, maxName, len(x.Title), len(x.DType))
	}
	if err := x.Bundle.check(); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	if x.Heads != nil {
		if err := x.Heads.check(); err != nil {
			return fmt.Errorf("heads: %w", err)
		}
	}
	if err := x.Gallery.check(); err != nil {
		return fmt.Errorf("gallery: %w", err)
	}
	return nil
}

func (f *File) check() error {
	if len(f.Pieces) > maxPieces {
		return fmt.Errorf("want at most %d pieces, have %d", maxPieces, len(f.Pieces))
	}
	sum := int64(0)
	for i, p := range f.Pieces {
		if p.Size < 1 || p.Size > MaxPiece {
			return fmt.Errorf("piece %d: want 1 to %d bytes, have %d", i, MaxPiece, p.Size)
		}
		sum += p.Size
	}
	if f.Size < 1 || sum != f.Size {
		return fmt.Errorf("want pieces of %d bytes in all, have %d", f.Size, sum)
	}
	return nil
}

func (g *Gallery) check() error {
	if g.Dim < 0 || g.Dim > index.MaxD || g.Rows < 0 || len(g.Pages) > maxPieces {
		return fmt.Errorf("want embeddings of 0 to %d values and at most %d pages, have %d values, %d rows, %d pages", index.MaxD, maxPieces, g.Dim, g.Rows, len(g.Pages))
	}
	if g.DType != "" && g.DType != index.Q8.String() {
		return fmt.Errorf("embeddings: want f16, as nothing, or q8, have %q", g.DType)
	}
	if err := checkPages(g.Pages, g.Next, g.Rows); err != nil {
		return err
	}
	if f := g.Features; f != nil && (f.Size < 1 || f.Size > MaxPiece) {
		return fmt.Errorf("features: want 1 to %d bytes, have %d", MaxPiece, f.Size)
	}
	return nil
}

func checkPages(pages []Page, next uint64, rows int) error {
	sum := 0
	for i, p := range pages {
		if i > 0 && p.Number <= pages[i-1].Number || p.Number > next/PageRows {
			return fmt.Errorf("page %d: want ascending numbers up to %d, have %d", i, next/PageRows, p.Number)
		}
		if p.Rows < 1 || p.Rows > PageRows || p.Size < 1 || p.Size > wire.MaxWhole {
			return fmt.Errorf("page %d: want 1 to %d rows and 1 to %d bytes, have %d and %d", i, PageRows, wire.MaxWhole, p.Rows, p.Size)
		}
		sum += p.Rows
	}
	if sum != rows {
		return fmt.Errorf("want %d rows in pages, have %d", rows, sum)
	}
	return nil
}

// Model returns a model by its name, nil where there is none.
func (m *Manifest) Model(name string) *Model {
	for i := range m.Models {
		if m.Models[i].Name == name {
			return &m.Models[i]
		}
	}
	return nil
}

// DecodePages reads the list that Gallery.Features names.
func DecodePages(data []byte, next uint64, rows int) (pages []Page, err error) {
	if err := decodeJSON(data, &pages); err != nil {
		return nil, fmt.Errorf("version: features: %w", err)
	}
	if len(pages) > maxPieces {
		return nil, fmt.Errorf("version: features: want at most %d pages, have %d", maxPieces, len(pages))
	}
	if err := checkPages(pages, next, rows); err != nil {
		return nil, fmt.Errorf("version: features: %w", err)
	}
	return pages, nil
}

// Change is what a publisher asks for: one kind of change to one model, or a rollback.
type Change struct {
	Model      string     `json:"model,omitempty"`
	Note       string     `json:"note,omitempty"`
	Parent     *wire.Hash `json:"parent,omitempty"`     // refuse unless this is the current version
	Bundle     *File      `json:"bundle,omitempty"`     // put this bundle under the name; SHA256 is computed by the server
	Title      string     `json:"title,omitempty"`      // of the bundle
	Heads      *File      `json:"heads,omitempty"`      // safetensors
	Add        []Piece    `json:"add,omitempty"`        // pieces of Additions: rows to add, or to put in place of those with the same paths
	Remove     []string   `json:"remove,omitempty"`     // paths
	Embeddings string     `json:"embeddings,omitempty"` // how the gallery's are stored from now on: f16 or q8
	Rollback   uint64     `json:"rollback,omitempty"`   // become what this version was
}

// Kinds of changes, which tokens are given the right to.
const (
	ScopeHeads   = "heads"
	ScopeGallery = "gallery"
	ScopeBundle  = "bundle"
	ScopeAdmin   = "admin" // rollback
)

// DecodeChange reads a change and checks that it asks for one thing.
func DecodeChange(data []byte) (*Change, error) {
	c := new(Change)
	if err := decodeJSON(data, c); err != nil {
		return nil, fmt.Errorf("version: change: %w", err)
	}
	if _, err := c.Scope(); err != nil {
		return nil, err
	}
	for what, f := range map[string]*File{"bundle": c.Bundle, "heads": c.Heads} {
		if f == nil {
			continue
		}
		if err := f.check(); err != nil {
			return nil, fmt.Errorf("version: change: %s: %w", what, err)
		}
	}
	for i, p := range c.Add {
		if p.Size < 1 || p.Size > MaxPiece {
			return nil, fmt.Errorf("version: change: add: piece %d: want 1 to %d bytes, have %d", i, MaxPiece, p.Size)
		}
	}
	if c.Embeddings != "" {
		if _, err := ParseEmbeddings(c.Embeddings); err != nil {
			return nil, err
		}
	}
	if len(c.Note) > maxText || len(c.Title) > maxText {
		return nil, fmt.Errorf("version: change: want at most %d bytes of note and title, have %d and %d", maxText, len(c.Note), len(c.Title))
	}
	return c, nil
}

// Scope is the right that a change needs.
func (c *Change) Scope() (string, error) {
	var scopes []string
	for _, s := range []struct {
		asked bool
		scope string
	}{{c.Bundle != nil, ScopeBundle}, {c.Heads != nil, ScopeHeads}, {c.Add != nil || c.Remove != nil || c.Embeddings != "", ScopeGallery}, {c.Rollback != 0, ScopeAdmin}} {
		if s.asked {
			scopes = append(scopes, s.scope)
		}
	}
	if len(scopes) != 1 {
		return "", fmt.Errorf("version: change: want one of bundle, heads, gallery and rollback, have %d", len(scopes))
	}
	if (scopes[0] == ScopeAdmin) != (c.Model == "") || c.Model != "" && !ValidName(c.Model) {
		return "", fmt.Errorf("version: change: want a model's name, and none for a rollback, have %q", c.Model)
	}
	return scopes[0], nil
}
