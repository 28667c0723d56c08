// SPDX-License-Identifier: Apache-2.0

// Command makegallery makes the files that package assets embeds: a q8 bundle of the small models, a choice of pictures, and the index of their
// embeddings.
//
// What enters is the checkpoints' folders (opt-mini, clip-mini, fromage-mini) and a folder of pictures (pictures.tar.gz, train.tsv, val.tsv,
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

	"fromage/compiler"
	"fromage/shaders"
)

func main() {
	models := flag.String("models", "", "folder with opt-mini, clip-mini and fromage-mini")
	pictures := flag.String("pictures", "", "folder with pictures.tar.gz, train.tsv, val.tsv and credits.tsv")
	out := flag.String("o", "assets", "folder to write to")
	size := flag.Int64("bytes", 2_900_000, "most bytes of gallery.zip")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *models, *pictures, *out, *size); err != nil {
		fmt.Fprintln(os.Stderr, "makegallery:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, models, pictures, out string, size int64) error {
	bundlePath := filepath.Join(out, "default.bundle")
	err := compiler.Compile(ctx, compiler.Options{
		OPT: filepath.Join(models, "opt-mini"), CLIP: filepath.Join(models, "clip-mini"), Heads: filepath.Join(models, "fromage-mini"),
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
