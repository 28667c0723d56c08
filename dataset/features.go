// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"

	"fromage/bundle"
	"fromage/internal/ahead"
	"fromage/machine"
	"fromage/runner"
	"fromage/vision"
)

// Features are the pooled states v (Dv) of distinct pictures, kept in a file and read from there when they are asked for.
type Features struct {
	Dim     int
	Skipped []*PictureError // pictures that are missing or cannot be read, in the order in which they were named
	Damaged int             // records of the cache that were found damaged and passed over

	file *recordFile
	keys map[string][32]byte // picture → key of its record
}

// FeatureOptions say how pictures become features.
type FeatureOptions struct {
	// Cache is the folder of what was computed before; "" is DefaultCache. It may be shared by any number of runs and models, also at one time.
	Cache string
	// Squash resizes pictures to 224×224, whatever their aspect ratio, before CLIP's own preprocessing, as the reference's scripts for VIST and VisDial do.
	Squash bool
	// Progress, if any, counts pictures that were not found in the cache. What names what is being done.
	Progress func(runner.Progress)
}

// DefaultCache is the folder fromage/features in the user's cache folder.
func DefaultCache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("dataset: cache of features: %w", err)
	}
	return filepath.Join(dir, "fromage", "features"), nil
}

// squashed is the side in pixels that Squash gives pictures.
const squashed = 224

// towerKey is equal for models that make the same features: SHA-256 of the program and weights of the vision tower as they are stored, and of what is
// done to pictures before.
func towerKey(m *bundle.Manifest, squash bool) (key [32]byte, err error) {
	vision, err := m.Model.Program("vision")
	if err != nil {
		return key, err
	}
	type stored struct {
		Name, Format string
		Blobs        []string
	}
	what := struct {
		Program      any
		Weights      []stored
		Preprocessor string
		Squash       bool
	}{Program: vision, Preprocessor: m.Files[bundle.FilePreprocessor].SHA256, Squash: squash}
	for _, t := range m.Tensors {
		if vision.Find(t.Name) == 0 {
			continue
		}
		s := stored{Name: t.Name, Format: fmt.Sprint(t.Format)}
		for _, shard := range t.Shards {
			s.Blobs = append(s.Blobs, shard.Values.SHA256)
			if shard.Scales != nil {
				s.Blobs = append(s.Blobs, shard.Scales.SHA256)
			}
		}
		what.Weights = append(what.Weights, s)
	}
	data, err := json.Marshal(what)
	return sha256.Sum256(data), err
}

// Embed returns the features of the pictures that names name, each computed once: what the cache holds is taken from there, known by the picture's
// bytes, and by path, size and time where those have been seen before, so that a second run reads no pictures. What was computed before Ctrl-C or a kill
// is kept. Close the features when done.
func Embed(ctx context.Context, r *runner.Runner, names []string, from *Pictures, opt FeatureOptions) (*Features, error) {
	if r.Vision() == nil {
		return nil, errors.New("dataset: the model cannot read pictures")
	}
	e, err := newEmbedding(r, from, opt)
	if err != nil {
		return nil, err
	}
	defer e.names.f.Close()
	if err := e.embed(ctx, names); err != nil {
		e.Close()
		return nil, err
	}
	return e.Features, nil
}

// embedding is Features in the making.
type embedding struct {
	*Features
	r     *runner.Runner
	from  *Pictures
	opt   FeatureOptions
	tower [32]byte
	names *recordFile // hash of a file's identity → SHA-256 of its bytes
}

// namesOf is what the file of names is of.
var namesOf = sha256.Sum256([]byte("pictures by path, size and time"))

func newEmbedding(r *runner.Runner, from *Pictures, opt FeatureOptions) (*embedding, error) {
	if opt.Cache == "" {
		dir, err := DefaultCache()
		if err != nil {
			return nil, err
		}
		opt.Cache = dir
	}
	if err := os.MkdirAll(opt.Cache, 0o777); err != nil {
		return nil, fmt.Errorf("dataset: cache of features: %w", err)
	}
	tower, err := towerKey(r.Manifest(), opt.Squash)
	if err != nil {
		return nil, fmt.Errorf("dataset: %w", err)
	}
	dim := r.Settings().VisionDim
	file, err := openRecords(filepath.Join(opt.Cache, hex.EncodeToString(tower[:8])+".features"), 4*dim, tower)
	if err != nil {
		return nil, err
	}
	names, err := openRecords(filepath.Join(opt.Cache, "pictures.names"), 32, namesOf)
	if err != nil {
		file.f.Close()
		return nil, err
	}
	return &embedding{&Features{Dim: dim, Damaged: file.damaged, file: file, keys: map[string][32]byte{}}, r, from, opt, tower, names}, nil
}

// found is a picture on its way.
type found struct {
	name     string
	identity [32]byte // hash of it
	content  [32]byte // SHA-256 of the bytes
	pixels   []float32
	err      error
}

func (e *embedding) embed(ctx context.Context, names []string) error {
	todo := e.known(distinct(names))
	if len(todo) == 0 {
		return nil
	}
	waits := func() { e.report("waiting for another run that embeds pictures", 0, len(todo)) }
	if err := e.file.lock(ctx, e.tower, waits); err != nil {
		return err
	}
	defer e.file.unlock()
	var batch []found
	done := 0
	for p := range ahead.Map(ctx, todo, runtime.GOMAXPROCS(0), encodeBatch, e.prepare) {
		done++
		if p.err != nil {
			e.Skipped = append(e.Skipped, &PictureError{p.name, p.err})
			continue
		}
		if batch = append(batch, p); len(batch) == encodeBatch {
			if err := e.encode(ctx, batch); err != nil {
				return err
			}
			batch = batch[:0]
			e.report("embedding pictures", done, len(todo))
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := e.encode(ctx, batch)
	e.report("embedding pictures", done, len(todo))
	return err
}

// encodeBatch is how many pictures are given to the device, and then to the cache, at once.
const encodeBatch = 16

func (e *embedding) report(what string, done, total int) {
	if e.opt.Progress != nil {
		e.opt.Progress(runner.Progress{Done: int64(done), Total: int64(total), What: what})
	}
}

// distinct returns each of the names once.
func distinct(names []string) []string {
	seen := make(map[string]bool, len(names))
	var out []string
	for _, n := range names {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}

// known enters the pictures that the cache has, by their identities, and returns the others.
func (e *embedding) known(names []string) []string {
	var todo []string
	for _, name := range names {
		content, ok := e.contentOf(name)
		if ok && e.file.has(content) {
			e.keys[name] = content
		} else {
			todo = append(todo, name)
		}
	}
	return todo
}

// contentOf returns the SHA-256 of a picture's bytes where that is known without reading it.
func (e *embedding) contentOf(name string) (content [32]byte, ok bool) {
	if e.from.hash != nil {
		return e.from.hash(name)
	}
	identity, ok := e.from.identity(name)
	if ok {
		ok = e.names.read(sha256.Sum256([]byte(identity)), content[:]) == nil
	}
	return content, ok
}

// prepare reads a picture and, where the cache has no features of these bytes, decodes it. It runs on many goroutines.
func (e *embedding) prepare(name string) found {
	p := found{name: name}
	data, err := e.from.read(name)
	if err != nil {
		p.err = err
		return p
	}
	if identity, ok := e.from.identity(name); ok {
		p.identity = sha256.Sum256([]byte(identity))
	}
	p.content = sha256.Sum256(data)
	if e.file.has(p.content) {
		return p
	}
	h, w := e.r.Vision().Shape()
	p.pixels = make([]float32, 3*h*w)
	if !e.opt.Squash {
		p.err = e.r.Vision().Process(data, p.pixels)
		return p
	}
	picture, _, err := vision.Decode(data, vision.Limits{})
	if err != nil {
		p.err = err
		return p
	}
	p.err = e.r.Vision().Preprocess(picture.Resized(squashed, squashed), p.pixels)
	return p
}

// encode enters a batch, and puts what is new into the cache.
func (e *embedding) encode(ctx context.Context, batch []found) error {
	var fresh []found
	taken := map[[32]byte]bool{}
	for _, p := range batch {
		if p.pixels != nil && !taken[p.content] && !e.file.has(p.content) {
			taken[p.content] = true
			fresh = append(fresh, p)
		}
	}
	var pixels [][]float32
	for _, p := range fresh {
		pixels = append(pixels, p.pixels)
	}
	pooled, err := e.r.Encode(ctx, pixels)
	if err != nil {
		return err
	}
	var keys [][32]byte
	var payloads [][]byte
	for i, v := range pooled {
		if !finite(v) {
			return fmt.Errorf("dataset: picture %s: the vision tower's state is not finite: does this device compute rightly (fromage doctor)?", fresh[i].name)
		}
		keys, payloads = append(keys, fresh[i].content), append(payloads, machine.Bytes(v))
	}
	if err := e.file.append(keys, payloads); err != nil {
		return err
	}
	for _, p := range batch {
		e.keys[p.name] = p.content
	}
	return e.remember(ctx, batch)
}

func finite(v []float32) bool {
	for _, x := range v {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return false
		}
	}
	return true
}

// remember puts the pictures' identities into the file of names, which runs of all models share.
func (e *embedding) remember(ctx context.Context, batch []found) error {
	if err := e.names.lock(ctx, namesOf, nil); err != nil {
		return err
	}
	defer e.names.unlock()
	var keys [][32]byte
	var payloads [][]byte
	for _, p := range batch {
		if p.identity != [32]byte{} {
			keys, payloads = append(keys, p.identity), append(payloads, p.content[:])
		}
	}
	return e.names.append(keys, payloads)
}

// Has says whether the picture has features: it was named, and not skipped.
func (f *Features) Has(name string) bool {
	_, ok := f.keys[name]
	return ok
}

// Usable returns the examples whose pictures have features.
func (f *Features) Usable(examples []Example) []Example {
	var out []Example
	for _, e := range examples {
		if f.Has(e.Image) {
			out = append(out, e)
		}
	}
	return out
}

// Rows returns v (Dv) of each of the pictures.
func (f *Features) Rows(names ...string) ([][]float32, error) {
	flat := make([]float32, len(names)*f.Dim)
	rows := make([][]float32, len(names))
	for i, name := range names {
		key, ok := f.keys[name]
		if !ok {
			return nil, fmt.Errorf("dataset: features: picture %s was not embedded", name)
		}
		rows[i] = flat[i*f.Dim : (i+1)*f.Dim]
		if err := f.file.read(key, machine.Bytes(rows[i])); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// Close closes the cache.
func (f *Features) Close() { f.file.f.Close() }
