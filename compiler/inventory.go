// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fromage/bundle"
	"fromage/compiler/checkpoint"
	"fromage/model"
	"fromage/plan"
	"fromage/tokenizer"
	"fromage/tokenizer/clip"
	"fromage/vision"
)

// The tokens that FROMAGe adds to OPT's, in this order, as the reference does: the first special, the second not.
const (
	imageToken = "<|image|>"
	retToken   = "[RET]"
)

const (
	embedTokens = "model.decoder.embed_tokens.weight"
	lmHead      = "lm_head.weight"
)

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 16 << 20

// inventory is everything that the checkpoints hold, opened but not read: configurations, and tensors under the names that package model uses.
type inventory struct {
	name    string
	config  model.Config
	model   *plan.Model
	tensors map[string]tensor
	pool    int               // for bundle.TextSettings.Pool
	files   map[string][]byte // for bundle.Manifest.Files
	sources map[string]string // for bundle.Manifest.Sources
	closers []io.Closer
}

// tensor is one tensor of a checkpoint.
type tensor struct {
	name  string // as the checkpoint has it
	file  string
	shape []int
	// read decodes rows [first, first+n) into dst. A row is one index of the first dimension; a tensor of fewer than two dimensions is one row.
	read func(first, n int, dst []float32) error
}

// rows returns the tensor's rows and the values of each.
func (t tensor) rows() (rows, width int) {
	c := checkpoint.Tensor{Shape: t.shape}
	return c.Rows(), c.RowLen()
}

func open(o Options) (*inventory, error) {
	in := &inventory{tensors: map[string]tensor{}, files: map[string][]byte{}, sources: map[string]string{}}
	if err := in.open(o); err != nil {
		in.close()
		return nil, fmt.Errorf("compiler: %w", err)
	}
	return in, nil
}

func (in *inventory) open(o Options) error {
	if o.Text && o.CLIP == "" {
		return errors.New("want a CLIP checkpoint for its text tower")
	}
	if heads := o.Heads != "" || o.NewHeads != nil; o.OPT == "" && o.CLIP == "" || heads && (o.OPT == "" || o.CLIP == "") {
		return errors.New("want an OPT or a CLIP checkpoint, and both where there are heads")
	}
	steps := []struct {
		path string
		open func(string) error
	}{{o.OPT, in.openOPT}, {o.CLIP, func(dir string) error { return in.openCLIP(dir, o.Text) }}, {o.Heads, in.openHeads}}
	var names []string
	for _, s := range steps {
		if s.path == "" {
			continue
		}
		if err := s.open(s.path); err != nil {
			return err
		}
		if abs, err := filepath.Abs(s.path); err == nil {
			names = append(names, filepath.Base(abs))
		}
	}
	if o.NewHeads != nil {
		in.newHeads(o.NewHeads)
	}
	in.name = strings.Join(names, " + ")
	if err := in.openTokenizer(o.OPT, o.NewHeads != nil); err != nil {
		return err
	}
	if o.Text {
		if err := in.openTextTokenizer(cmp.Or(o.TextTokenizer, o.CLIP), o.OPT); err != nil {
			return err
		}
	}
	var err error
	if in.model, err = model.Build(in.config); err != nil {
		return fmt.Errorf("%s: %w", in.name, err)
	}
	return nil
}

func (in *inventory) close() {
	for _, c := range in.closers {
		c.Close()
	}
}

// readConfig reads a small file and remembers its hash.
func (in *inventory) readConfig(part, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfig {
		return nil, fmt.Errorf("%s: want a configuration of at most %d bytes", path, maxConfig)
	}
	sum := sha256.Sum256(data)
	in.sources[part+"/"+filepath.Base(path)] = hex.EncodeToString(sum[:])
	return data, nil
}

// openWeights takes the tensors that rename has a name for; it gives "" to those that are nobody's.
func (in *inventory) openWeights(path string, rename func(string) string) error {
	c, err := checkpoint.Open(path)
	if err != nil {
		return err
	}
	in.closers = append(in.closers, c)
	for _, name := range c.Names() {
		canonical := rename(name)
		if canonical == "" {
			continue
		}
		t, _ := c.Tensor(name)
		if old, ok := in.tensors[canonical]; ok {
			return fmt.Errorf("%s: tensors %s and %s are both %s", t.File(), old.name, name, canonical)
		}
		in.tensors[canonical] = tensor{name, t.File(), t.Shape, t.ReadRows}
	}
	return nil
}

func (in *inventory) openOPT(dir string) error {
	path := filepath.Join(dir, "config.json")
	data, err := in.readConfig("opt", path)
	if err != nil {
		return err
	}
	if in.config.OPT, err = model.ParseOPT(data); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := in.openWeights(dir, optName); err != nil {
		return err
	}
	// A file of tied weights may keep either of the two.
	if head, ok := in.tensors[lmHead]; ok {
		if _, ok := in.tensors[embedTokens]; !ok {
			in.tensors[embedTokens] = head
			delete(in.tensors, lmHead)
		}
	}
	return in.checkLayers("model.decoder.layers.", in.config.OPT.Layers, path)
}

func optName(name string) string {
	if strings.HasPrefix(name, "decoder.") {
		return "model." + name
	}
	if name == lmHead || strings.HasPrefix(name, "model.decoder.") {
		return name
	}
	return ""
}

func (in *inventory) openCLIP(dir string, text bool) error {
	path := filepath.Join(dir, "config.json")
	data, err := in.readConfig("clip", path)
	if err != nil {
		return err
	}
	var kind struct {
		ModelType string `json:"model_type"`
	}
	if err := json.Unmarshal(data, &kind); err == nil && !slices.Contains([]string{"", "clip", "clip_vision_model"}, kind.ModelType) {
		return fmt.Errorf("%s: want model_type clip or clip_vision_model, have %q", path, kind.ModelType)
	}
	if in.config.CLIP, err = model.ParseCLIP(data); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	rename := clipName
	if text {
		rename = clipNameWithText
		if in.config.Text, err = model.ParseCLIPText(data); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if err := in.openWeights(dir, rename); err != nil {
		return err
	}
	if err := in.checkLayers("vision_model.encoder.layers.", in.config.CLIP.Layers, path); err != nil {
		return err
	}
	if text {
		if err := in.checkLayers("text_model.encoder.layers.", in.config.Text.Layers, path); err != nil {
			return err
		}
	}
	return in.openPreprocessor(filepath.Join(dir, bundle.FilePreprocessor))
}

// openPreprocessor takes the file that says how pictures become the tower's pixels, if it is there and fits the tower.
func (in *inventory) openPreprocessor(path string) error {
	data, err := in.readConfig("clip", path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	config, err := vision.LoadConfig(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if h, w := config.Shape(); h != in.config.CLIP.ImageSize || w != h {
		return fmt.Errorf("%s: want pictures of %d pixels a side, as config.json says, have %d × %d", path, in.config.CLIP.ImageSize, h, w)
	}
	in.files[bundle.FilePreprocessor] = data
	return nil
}

// clipName keeps the vision tower of a whole CLIPModel or of a CLIPVisionModel, which may leave its prefix out.
func clipName(name string) string {
	if strings.HasSuffix(name, ".position_ids") {
		return ""
	}
	for _, prefix := range []string{"embeddings.", "pre_layrnorm.", "encoder.", "post_layernorm."} {
		if strings.HasPrefix(name, prefix) {
			return "vision_model." + name
		}
	}
	if strings.HasPrefix(name, "vision_model.") {
		return name
	}
	return ""
}

// clipNameWithText keeps both towers of a whole CLIPModel, and its projections.
func clipNameWithText(name string) string {
	if strings.HasPrefix(name, "text_model.") && !strings.HasSuffix(name, ".position_ids") || name == "text_projection.weight" || name == "visual_projection.weight" {
		return name
	}
	return clipName(name)
}

// checkLayers refuses a checkpoint with a layer that its configuration does not count: half a model would compute nonsense without an error. It also
// refuses layers that no tensors are there for, before a model of them is built.
func (in *inventory) checkLayers(prefix string, layers int, config string) error {
	if layers > len(in.tensors) {
		return fmt.Errorf("%s: num_hidden_layers: want at most the %d tensors of the checkpoint, have %d", config, len(in.tensors), layers)
	}
	first := fmt.Sprintf("%s%d.", prefix, layers)
	for name, t := range in.tensors {
		if strings.HasPrefix(name, first) {
			return fmt.Errorf("%s: tensor %s: want the %d layers of %s, have more", t.file, t.name, layers, config)
		}
	}
	return nil
}

// openTokenizer reads OPT's tokenizer, adds FROMAGe's tokens where there are heads, and takes the vocabulary from it. Fresh heads have no row for [RET].
func (in *inventory) openTokenizer(dir string, fresh bool) error {
	if in.config.OPT == nil || !hasTokenizer(dir) {
		if in.config.Heads != nil {
			return fmt.Errorf("%s: want tokenizer.json, or vocab.json and merges.txt, where there are heads", dir)
		}
		return nil
	}
	t, err := tokenizer.LoadDir(os.DirFS(dir))
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if n := t.Len(); n > in.config.OPT.VocabSize {
		return fmt.Errorf("%s: want a tokenizer of at most vocab_size = %d tokens, have %d", dir, in.config.OPT.VocabSize, n)
	}
	if in.config.Heads != nil {
		image, ret := t.AddSpecialTokens(imageToken)[0], t.AddTokens(retToken)[0]
		in.config.Vocabulary = t.Len()
		if int(image) != t.Len()-2 || int(ret) != t.Len()-1 {
			return fmt.Errorf("%s: want %s and %s as the last of %d tokens, have them at %d and %d", dir, imageToken, retToken, t.Len(), image, ret)
		}
		in.addedRow(model.ImageTokenRow, int(image))
		if fresh {
			in.addedRow(model.RETRow, int(ret))
		}
	}
	in.files[bundle.FileTokenizer], err = t.MarshalBinary()
	return err
}

// openTextTokenizer takes the tokenizer of CLIP's text tower: of its own kind, or a byte-level one like OPT's, which is also taken where the folder has
// none. An eos_token_id of 2 means, as in transformers, that texts are pooled at their highest number: so it was before configurations said it rightly.
func (in *inventory) openTextTokenizer(dir, opt string) error {
	if !hasTokenizer(dir) {
		if opt == "" || !hasTokenizer(opt) {
			return fmt.Errorf("%s: want tokenizer.json, or vocab.json and merges.txt, for the text tower", dir)
		}
		dir = opt
	}
	t := in.config.Text
	if in.pool = t.EOS; t.EOS == 2 {
		in.pool = bundle.PoolHighest
	}
	own, err := clip.LoadDir(os.DirFS(dir))
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	n := 0
	if own != nil {
		t.BOS, t.EOS, n = int(own.BOS()), int(own.EOS()), own.Len()
		in.files[bundle.FileTextTokenizer] = own.JSON()
	} else {
		bpe, err := tokenizer.LoadDir(os.DirFS(dir))
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		n = bpe.Len()
		if in.files[bundle.FileTextTokenizerBPE], err = bpe.MarshalBinary(); err != nil {
			return err
		}
	}
	if n > t.VocabSize || in.pool != bundle.PoolHighest && in.pool != t.EOS {
		return fmt.Errorf("%s: want a tokenizer of at most vocab_size = %d tokens whose texts end with %d, have %d and %d", dir, t.VocabSize, in.pool, n, t.EOS)
	}
	return nil
}

func hasTokenizer(dir string) bool {
	return exists(filepath.Join(dir, "tokenizer.json")) || exists(filepath.Join(dir, "vocab.json"))
}

// addedRow gives the row of an added token a source where the heads have none: the row that OPT's table has at that number, which the reference keeps when
// it resizes the table, else the mean of all rows, from which a new row would be drawn.
func (in *inventory) addedRow(name string, at int) {
	table, ok := in.tensors[embedTokens]
	if _, own := in.tensors[name]; own || !ok {
		return
	}
	rows, width := table.rows()
	row := tensor{name: table.name, file: table.file, shape: []int{1, width}}
	if at < rows {
		row.read = func(_, n int, dst []float32) error { return table.read(at, n, dst) }
	} else {
		row.read = func(_, _ int, dst []float32) error { return table.mean(dst) }
	}
	in.tensors[name] = row
}

// mean writes the mean of all rows to dst.
func (t tensor) mean(dst []float32) error {
	rows, width := t.rows()
	sum := make([]float64, width)
	step := max(1, pieceValues/max(1, width))
	buffer := make([]float32, min(step, rows)*width)
	for first := 0; first < rows; first += step {
		n := min(step, rows-first)
		if err := t.read(first, n, buffer[:n*width]); err != nil {
			return err
		}
		for i, v := range buffer[:n*width] {
			sum[i%width] += float64(v)
		}
	}
	for i := range dst {
		dst[i] = float32(sum[i] / float64(rows))
	}
	return nil
}
