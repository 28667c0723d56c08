// SPDX-License-Identifier: Apache-2.0

// Command makegallery makes the files that package assets embeds: a q8 bundle of the small models, a choice of pictures, and the index of their
// embeddings.
//
// What enters is the checkpoints' folders (opt-mini, clip-mini), heads, and a folder of pictures (pictures.tar.gz, train.tsv, val.tsv,
// credits.tsv). What leaves is default.bundle, gallery.zip and gallery.index, the same bytes each time: the choice is by hash, and the Go twins compute
// the embeddings. It refuses to know package assets, which does not compile before these files are there.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"fromage/bundle"
	"fromage/compiler"
	"fromage/gpu/cpu"
	"fromage/runner"
	"fromage/shaders"
	"fromage/trainer"
)

func main() {
	models := flag.String("models", "", "folder with opt-mini and clip-mini")
	heads := flag.String("heads", "", "file of the heads, as fromage export writes it (default: those of the bundle that is there)")
	pictures := flag.String("pictures", "", "folder with pictures.tar.gz, train.tsv, val.tsv and credits.tsv")
	out := flag.String("o", "assets", "folder to write to")
	size := flag.Int64("bytes", 1_700_000, "most bytes of gallery.zip")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *models, *heads, *pictures, *out, *size); err != nil {
		fmt.Fprintln(os.Stderr, "makegallery:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, models, heads, pictures, out string, size int64) error {
	bundlePath := filepath.Join(out, "default.bundle")
	if heads == "" {
		dir, err := os.MkdirTemp("", "makegallery")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		heads = filepath.Join(dir, "fromage-mini.safetensors") // which the bundle's name will have
		if err := headsOf(ctx, bundlePath, heads); err != nil {
			return err
		}
	}
	err := compiler.Compile(ctx, compiler.Options{
		OPT: filepath.Join(models, "opt-mini"), CLIP: filepath.Join(models, "clip-mini"), Heads: heads,
		DType: shaders.Q8, Out: bundlePath,
		Notes: map[string]string{
			"licence": "Apache-2.0",
			"credits": "trained on public-domain and permissively licensed English and on the pictures that assets/README.md credits",
		},
	})
	if err != nil {
		return err
	}
	all, err := readAll(pictures)
	if err != nil {
		return err
	}
	chosen := choose(all, size)
	if err := writeZip(filepath.Join(out, "gallery.zip"), chosen); err != nil {
		return err
	}
	fmt.Printf("%d pictures\n", len(chosen))
	return writeIndex(ctx, bundlePath, filepath.Join(out, "gallery.index"), chosen)
}

// headsOf writes the heads of a bundle to a file, as the compiler reads them.
func headsOf(ctx context.Context, bundlePath, path string) error {
	b, err := bundle.Open(bundlePath)
	if err != nil {
		return err
	}
	defer b.Close()
	r, err := runner.Load(ctx, cpu.New(), b, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	heads, err := r.Heads()
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := trainer.WriteHeads(f, b.Manifest(), heads); err != nil {
		return err
	}
	return f.Close()
}
