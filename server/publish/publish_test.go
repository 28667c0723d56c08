// SPDX-License-Identifier: Apache-2.0

package publish_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"testing"

	"gocloud.dev/blob/memblob"

	"fromage/bundle"
	"fromage/gpu/cpu"
	"fromage/index"
	"fromage/runner"
	"fromage/server/client"
	"fromage/server/internal/fixture"
	"fromage/server/publish"
	"fromage/server/store"
	"fromage/server/version"
)

var ctx = context.Background()

// TestEmbeddingsAreTheModels: what is published of a picture is what the model itself says of it, with the bundle's heads and with others.
func TestEmbeddingsAreTheModels(t *testing.T) {
	data := fixture.Bundle(t)
	b, err := bundle.Read(&bundle.Memory{Bytes: data}, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := runner.Load(ctx, cpu.New(), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	size := r.Settings().ImageSize
	pixels := make([][]float32, 3)
	pictures := fixture.Pictures(0, len(pixels), 1)
	for i := range pixels {
		pixels[i] = make([]float32, 3*size*size)
		for j := range pixels[i] {
			pixels[i][j] = float32(math.Sin(float64(i + 1 + j*j%97)))
		}
	}
	features, _, err := r.Pooled(pixels)
	if err != nil {
		t.Fatal(err)
	}
	for i := range pictures {
		pictures[i].Features = features[i]
	}
	s := store.New(memblob.OpenBucket(nil), "memory")
	defer s.Close()
	p := client.To(s, "test")
	if _, err := p.Bundle(ctx, "tiny", "", "", bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Add(ctx, "tiny", "", pictures); err != nil {
		t.Fatal(err)
	}
	heads := fixture.Heads(t, data, 3)
	for _, change := range []func() error{
		func() error { return nil },
		func() error {
			if _, err := p.Heads(ctx, "tiny", "", heads); err != nil {
				return err
			}
			return r.SetHeads(heads)
		},
		func() error { // some heads alone
			some := map[string][]float32{"visual_fc.bias": fixture.Heads(t, data, 4)["visual_fc.bias"]}
			if _, err := p.Heads(ctx, "tiny", "", some); err != nil {
				return err
			}
			return r.SetHeads(some)
		},
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		images, err := r.Embed(ctx, pixels, nil)
		if err != nil {
			t.Fatal(err)
		}
		compare(t, s, images)
	}
	v, _, _ := s.Current(ctx)
	if v.Models[0].Heads == nil || v.Seq != 4 {
		t.Errorf("the version is %d, want 4 with heads", v.Seq)
	}
}

// compare holds the current version's index to embeddings.
func compare(t *testing.T, s *store.Store, images []runner.Image) {
	t.Helper()
	v, _, err := s.Current(ctx)
	if err != nil {
		t.Fatal(err)
	}
	x := v.Models[0]
	rows, err := x.Gallery.ReadRows(func(p version.Page) ([]byte, error) { return s.Get(ctx, p.Hash) })
	if err != nil {
		t.Fatal(err)
	}
	have, err := x.Index(rows)
	if err != nil {
		t.Fatal(err)
	}
	want, err := index.New(have.Header())
	if err != nil {
		t.Fatal(err)
	}
	for i, image := range images {
		m, err := have.Row(i)
		if err != nil {
			t.Fatal(err)
		}
		if err := want.Append([]index.Row{{Meta: m, Embedding: image.Retrieval}}); err != nil {
			t.Fatal(err)
		}
	}
	d := have.Header().D
	a, b := make([]float32, len(images)*d), make([]float32, len(images)*d)
	if err := errors.Join(have.Vectors(0, len(images), a), want.Vectors(0, len(images), b)); err != nil {
		t.Fatal(err)
	}
	for i := range a {
		if math.Abs(float64(a[i]-b[i])) > 1e-3 { // a step of f16 near 1
			t.Fatalf("version %d: value %d of the embeddings: want %g as the model makes it, have %g", v.Seq, i, b[i], a[i])
		}
	}
}

func TestValidPicture(t *testing.T) {
	for path, want := range map[string]bool{
		"a.png": true, "b/c d.JPEG": true, "b/ö.webp": true, "": false, "a": false, "a.svg": false, "a.html": false, "/a.png": false, "../a.png": false,
		"a/../b.png": false, ".a.png": false, "a/.b/c.png": false, `a\b.png`: false, "a//b.png": false, "a.png/": false,
	} {
		if have := publish.ValidPicture(path); have != want {
			t.Errorf("ValidPicture(%q) = %t, want %t", path, have, want)
		}
	}
}

// TestBundleAnew: a bundle in place of another keeps the gallery where the vision tower is the same.
func TestBundleAnew(t *testing.T) {
	data := fixture.Bundle(t)
	b, err := bundle.Read(&bundle.Memory{Bytes: data}, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	s := store.New(memblob.OpenBucket(nil), "memory")
	defer s.Close()
	p := client.To(s, "test")
	push := func(name string, data []byte) error {
		_, err := p.Bundle(ctx, name, "", "", bytes.NewReader(data), int64(len(data)))
		return err
	}
	if err := push("tiny", data); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Add(ctx, "tiny", "", fixture.Pictures(0, 3, b.Manifest().Settings.VisionDim)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Heads(ctx, "tiny", "", fixture.Heads(t, data, 1)); err != nil {
		t.Fatal(err)
	}
	if err := push("tiny", data); err != nil {
		t.Fatal(err)
	}
	v, _, err := s.Current(ctx)
	if err != nil || v.Models[0].Gallery.Rows != 3 || v.Models[0].Heads != nil || v.Models[0].Identity.String() != b.Manifest().Settings.HeadsHash {
		t.Errorf("after the bundle came again: %d rows, heads %v, %v", v.Models[0].Gallery.Rows, v.Models[0].Heads, err)
	}
	for _, bad := range [][]byte{data[:len(data)-1], append(bytes.Clone(data[:100]), data[101:]...), []byte("no bundle")} {
		if err := push("tiny", bad); err == nil || !errors.As(err, new(publish.Refused)) {
			t.Errorf("a damaged bundle of %d bytes: %v, want it refused", len(bad), err)
		}
	}
	for _, name := range []string{"", "../up", ".hidden", "a b"} {
		if err := push(name, data); err == nil {
			t.Errorf("a bundle under the name %q was taken", name)
		}
	}
}
