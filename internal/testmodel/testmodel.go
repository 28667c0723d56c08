// SPDX-License-Identifier: Apache-2.0

// Package testmodel loads small models for tests.
//
// What enters is the folder of a golden FROMAGe; what leaves is a runner on the Go twins that lives as long as the test.
package testmodel

import (
	"context"
	"path/filepath"
	"testing"

	"fromage/bundle"
	"fromage/compiler"
	"fromage/gpu/cpu"
	"fromage/runner"
	"fromage/shaders"
)

// Load compiles and loads the FROMAGe in a folder of testdata/golden/fromage.
func Load(t testing.TB, dir string, dtype shaders.Format) *runner.Runner {
	t.Helper()
	return Compiled(t, compiler.Options{
		OPT: filepath.Join(dir, "facebook/opt-tiny"), CLIP: filepath.Join(dir, "openai/clip-tiny"), Heads: filepath.Join(dir, "fromage_model_pretrained_ckpt.pth.tar"),
		DType: dtype,
	})
}

// Compiled compiles and loads checkpoints.
func Compiled(t testing.TB, o compiler.Options) *runner.Runner {
	t.Helper()
	_, r := Bundle(t, o)
	return r
}

// Bundle is Compiled, with the bundle itself.
func Bundle(t testing.TB, o compiler.Options) (*bundle.Bundle, *runner.Runner) {
	t.Helper()
	o.Out = filepath.Join(t.TempDir(), "model.bundle")
	if err := compiler.Compile(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	r, err := runner.Load(context.Background(), cpu.Twins(), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return b, r
}
