// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fromage/index"
)

func TestIndex(t *testing.T) {
	model, dir := tiny(t), pictures(t)
	gallery := filepath.Join(t.TempDir(), "g.index")
	write(t, filepath.Join(dir, "text.png"), []byte("no picture"))
	captions := write(t, filepath.Join(dir, "captions.tsv"), []byte("caption\timage\na tiny one\ttiny_5x3.png\n"))
	credits := write(t, filepath.Join(dir, "credits.tsv"), []byte("image\tconcept\tkeywords\tlicence\ntiny_5x3.png\tt\t\tCC0\n"))

	code, out, errs := run(t, "", "index", "build", "--json", "-m", model, "-o", gallery, "--root", dir, "--captions", captions, "--credits", credits, dir)
	var result struct {
		Added, ThereBefore, Rows int
		Unreadable               []string
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || code != exitOK {
		t.Fatalf("index build = %d, %q, %q, %v", code, out, errs, err)
	}
	if result.Added != 13 || len(result.Unreadable) != 1 || !strings.Contains(errs, "text.png") {
		t.Errorf("index build = %+v, %q, want 13 added and text.png named", result, errs)
	}
	x, err := index.Open(gallery)
	if err != nil {
		t.Fatal(err)
	}
	row, found, err := x.Find("tiny_5x3.png")
	if err != nil || !found {
		t.Fatalf("Find(tiny_5x3.png) = %v, %v, want it", found, err)
	}
	if m, err := x.Row(row); err != nil || m.Caption != "a tiny one" || m.Licence != "CC0" || m.Hash == [32]byte{} {
		t.Errorf("Row = %+v, %v, want its caption, licence and hash", m, err)
	}
	x.Close()

	if out := ok(t, "index", "remove", "-i", gallery, "tiny_5x3.png", "one_1x1.png"); !strings.HasPrefix(out, "2 removed, 11 left") {
		t.Errorf("index remove = %q, want 2 removed, 11 left", out)
	}
	if out := ok(t, "index", "add", "-m", model, "-i", gallery, captions); !strings.Contains(out, "1 added, 0 there before") {
		t.Errorf("index add of a list = %q, want 1 added", out)
	}
	if out := ok(t, "index", "add", "-m", model, "-i", gallery, "--root", dir, dir); !strings.Contains(out, "1 added, 12 there before, 1 unreadable; 13 rows") {
		t.Errorf("index add = %q, want 1 added, 12 there before, 1 unreadable; 13 rows", out)
	}
	if out := ok(t, "index", "compact", gallery); !strings.Contains(out, "13") || !strings.Contains(ok(t, "index", "info", gallery), "removed    0") {
		t.Errorf("index compact = %q, want 13 rows, 0 removed", out)
	}
}

// TestIndexStops cancels an index being built: what was embedded before stays in the file.
func TestIndexStops(t *testing.T) {
	dir := pictures(t)
	a := &app{stdout: os.Stderr, stderr: os.Stderr, device: "cpu", model: tiny(t), log: discard}
	defer a.close()
	r, err := a.load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	l := listing{}
	work, err := l.list([]string{dir, dir})
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity(r.Settings())
	if err != nil {
		t.Fatal(err)
	}
	x, err := index.New(index.Header{D: r.Settings().SharedDim, DType: index.F32, Model: id})
	if err != nil {
		t.Fatal(err)
	}
	f := &filling{a: a, r: r, x: x}
	for _, s := range work[:5] {
		f.batch = append(f.batch, decodeOne(r, s))
	}
	if err := f.embed(context.Background()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.run(ctx, work[5:]); err != context.Canceled {
		t.Errorf("run of a cancelled context = %v, want %v", err, context.Canceled)
	}
	if err := f.flush(); err != nil || x.Len() != 5 {
		t.Errorf("after flush: %d rows, %v, want 5", x.Len(), err)
	}
}

func TestImport(t *testing.T) {
	model, gallery := tiny(t), filepath.Join(t.TempDir(), "cc3m.index")
	if out := ok(t, "index", "import", "-m", model, "-o", gallery, golden+"/cc3m_embeddings.pkl"); !strings.Contains(out, "17 rows") {
		t.Errorf("index import = %q, want 17 rows", out)
	}
	var e exchange
	out := ok(t, "retrieve", "--json", "-m", model, "-i", gallery, "-k", "3", "a cat")
	if err := json.Unmarshal([]byte(out), &e); err != nil || len(e.Answer) != 1 || len(e.Answer[0].Pictures) != 3 {
		t.Errorf("retrieve = %s, %v, want 3 pictures", out, err)
	}
}
