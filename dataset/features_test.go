// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"fromage/bundle"
	"fromage/internal/testmodel"
	"fromage/runner"
	"fromage/shaders"
	"fromage/vision"
)

const golden = "../testdata/golden/"

func tinyRunner(t *testing.T, dtype shaders.Format) *runner.Runner {
	t.Helper()
	return testmodel.Load(t, golden+"fromage/one-token", dtype)
}

// images are the names of pictures in a folder.
func images(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// embed is Embed, and how many pictures it did not find by their paths in the cache.
func embed(t *testing.T, r *runner.Runner, names []string, from *Pictures, opt FeatureOptions) (todo int, f *Features) {
	t.Helper()
	opt.Progress = func(p runner.Progress) { todo = int(p.Total) }
	f, err := Embed(context.Background(), r, names, from, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return todo, f
}

func openFolder(t *testing.T, dir string) *Pictures {
	t.Helper()
	p, err := OpenPictures(context.Background(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// TestFeatures: features are those of pictures run one by one; bad ones are listed; a second run computes nothing, though files have moved.
func TestFeatures(t *testing.T) {
	r := tinyRunner(t, shaders.F32)
	dir := filepath.Join(t.TempDir(), "pictures")
	if err := os.CopyFS(dir, os.DirFS(golden+"clip/vision/images")); err != nil {
		t.Fatal(err)
	}
	good := images(t, dir)
	write(t, filepath.Join(dir, "bad.png"), []byte("not a picture"))
	names := append(slices.Clone(good), "none.png", good[3], "bad.png", "../features.go", good[0])
	for i := range 2 * encodeBatch {
		name := string(rune('A'+i)) + ".png"
		data, _ := os.ReadFile(filepath.Join(dir, good[i%len(good)]))
		write(t, filepath.Join(dir, name), data)
		names = append(names, name)
	}
	for _, squash := range []bool{false, true} {
		opt := FeatureOptions{Cache: filepath.Join(t.TempDir(), "a", "cache"), Squash: squash}
		todo, f := embed(t, r, names, openFolder(t, dir), opt)
		if todo != len(distinct(names)) {
			t.Errorf("first run: %d pictures to do, want %d", todo, len(distinct(names)))
		}
		check := func(what string, f *Features) {
			t.Helper()
			var skipped []string
			for _, e := range f.Skipped {
				skipped = append(skipped, e.Name)
			}
			if want := []string{"none.png", "bad.png", "../features.go"}; !slices.Equal(skipped, want) {
				t.Errorf("%s: skipped %v, want %v", what, skipped, want)
			}
			for _, name := range names {
				if f.Has(name) == slices.Contains(skipped, name) {
					t.Errorf("%s: Has(%s) = %t", what, name, f.Has(name))
				}
			}
			rows, err := f.Rows(good...)
			if err != nil {
				t.Fatal(err)
			}
			for i, name := range good {
				if want := alone(t, r, filepath.Join(dir, name), squash); !near(rows[i], want) {
					t.Errorf("%s: %s: features differ from the picture's run alone", what, name)
				}
			}
		}
		check("first run", f)
		todo, f = embed(t, r, names, openFolder(t, dir), opt)
		if todo != 3 {
			t.Errorf("second run: %d pictures to do, want the bad ones alone", todo)
		}
		check("second run", f)
		moved := filepath.Join(t.TempDir(), "moved")
		if err := os.CopyFS(moved, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadDir(opt.Cache)
		if err != nil || len(before) != 2 {
			t.Fatalf("the cache holds %d files, want 2; %v", len(before), err)
		}
		sizes := func() (sum int64) {
			files, _ := filepath.Glob(filepath.Join(opt.Cache, "*.features"))
			for _, name := range files {
				info, _ := os.Stat(name)
				sum += info.Size()
			}
			return sum
		}
		size := sizes()
		_, f = embed(t, r, names, openFolder(t, moved), opt)
		check("moved", f)
		if sizes() != size || size == 0 {
			t.Errorf("moved pictures: the cache grew from %d to %d bytes", size, sizes())
		}
	}
	f := &Features{keys: map[string][32]byte{"a": {}}}
	if got := f.Usable([]Example{{"x", "a"}, {"y", "b"}, {"z", "a"}}); !slices.Equal(got, []Example{{"x", "a"}, {"z", "a"}}) {
		t.Errorf("Usable = %v", got)
	}
}

// alone is what the vision tower makes of one picture.
func alone(t *testing.T, r *runner.Runner, path string, squash bool) []float32 {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	picture, _, err := vision.Decode(data, vision.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if squash {
		picture = picture.Resized(224, 224)
	}
	h, w := r.Vision().Shape()
	pixels := make([]float32, 3*h*w)
	if err := r.Vision().Preprocess(picture, pixels); err != nil {
		t.Fatal(err)
	}
	v, _, err := r.Pooled([][]float32{pixels})
	if err != nil {
		t.Fatal(err)
	}
	return v[0]
}

func near(a, b []float32) bool {
	for i := range a {
		if d := a[i] - b[i]; !(d < 1e-5 && d > -1e-5) {
			return false
		}
	}
	return len(a) == len(b)
}

// TestFeaturesFrom: pictures from elsewhere are read once, and not at all where their hashes are known and in the cache.
func TestFeaturesFrom(t *testing.T) {
	r := tinyRunner(t, shaders.F32)
	names := images(t, golden+"clip/vision/images")
	hashes := map[string][32]byte{}
	var reads atomic.Int64
	from := PicturesFrom(func(name string) ([]byte, error) {
		reads.Add(1)
		return os.ReadFile(golden + "clip/vision/images/" + name)
	}, func(name string) ([32]byte, bool) {
		h, ok := hashes[name]
		return h, ok
	})
	cache := t.TempDir()
	run := func(want int) {
		t.Helper()
		reads.Store(0)
		_, f := embed(t, r, names, from, FeatureOptions{Cache: cache})
		rows, err := f.Rows(names...)
		if err != nil || int(reads.Load()) != want || !near(rows[2], alone(t, r, golden+"clip/vision/images/"+names[2], false)) {
			t.Errorf("%d pictures read, want %d; %v", reads.Load(), want, err)
		}
	}
	run(len(names))
	run(len(names))
	for _, name := range names[1:] {
		data, err := os.ReadFile(golden + "clip/vision/images/" + name)
		if err != nil {
			t.Fatal(err)
		}
		hashes[name] = sha256.Sum256(data)
	}
	run(1)
}

// TestFeaturesInterrupted: what was done before an interruption is not done again.
func TestFeaturesInterrupted(t *testing.T) {
	r := tinyRunner(t, shaders.F32)
	dir := t.TempDir()
	good := images(t, golden+"clip/vision/images")
	var names []string
	for i := range 5 * encodeBatch {
		data, err := os.ReadFile(golden + "clip/vision/images/" + good[i%len(good)])
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, string(rune('A'+i))+".png")
		write(t, filepath.Join(dir, names[i]), append(data, byte(i)))
	}
	cache := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Embed(ctx, r, names, openFolder(t, dir), FeatureOptions{Cache: cache, Progress: func(p runner.Progress) {
		if p.Done == 2*encodeBatch {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v, want context.Canceled", err)
	}
	todo, f := embed(t, r, names, openFolder(t, dir), FeatureOptions{Cache: cache})
	if todo != 3*encodeBatch || len(f.Skipped) != 0 || len(f.keys) != len(names) {
		t.Errorf("after the interruption: %d to do, want %d; %d features, want %d", todo, 3*encodeBatch, len(f.keys), len(names))
	}
}

// TestTowerKey: other weights, another format, another preparation are other features; other heads are not.
func TestTowerKey(t *testing.T) {
	m := tinyRunner(t, shaders.F32).Manifest()
	key := func(m *bundle.Manifest, squash bool) [32]byte {
		k, err := towerKey(m, squash)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	keys := map[[32]byte]string{key(m, false): "model"}
	change := func(what string, squash bool, f func(*bundle.Manifest)) {
		c := *m
		c.Tensors, c.Files = slices.Clone(m.Tensors), map[string]bundle.Blob{}
		for k, v := range m.Files {
			c.Files[k] = v
		}
		f(&c)
		if k := key(&c, squash); keys[k] != "" {
			t.Errorf("%s has the key of the %s", what, keys[k])
		} else {
			keys[k] = what
		}
	}
	change("squash", true, func(*bundle.Manifest) {})
	change("other preprocessor", false, func(m *bundle.Manifest) { m.Files[bundle.FilePreprocessor] = bundle.Blob{SHA256: "other"} })
	change("other weight", false, func(m *bundle.Manifest) {
		for i, w := range m.Tensors {
			if w.Name == "vision_model.post_layernorm.weight" {
				m.Tensors[i].Shards = []bundle.Shard{{Rows: 1}}
			}
		}
	})
	change("other format", false, func(m *bundle.Manifest) { *m = *tinyRunner(t, shaders.F16).Manifest() })
	heads := *m
	heads.Tensors = slices.Clone(m.Tensors)
	for i, w := range heads.Tensors {
		if w.Name == "visual_fc.weight" || w.Name == "model.decoder.embed_tokens.weight" {
			heads.Tensors[i].Shards = nil
		}
	}
	if key(&heads, false) != key(m, false) {
		t.Error("other heads make other features")
	}
}
