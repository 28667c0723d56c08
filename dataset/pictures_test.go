// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tarOf is an archive of files, in order: name, contents.
func tarOf(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h := &tar.Header{Name: files[i], Size: int64(len(files[i+1])), Mode: 0o644}
		if strings.HasSuffix(files[i], "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestPictures reads the same files from a folder, an archive and a compressed one, and nothing from outside of them.
func TestPictures(t *testing.T) {
	long := strings.Repeat("0123456789", 9999)
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	write(t, secret, []byte("secret"))
	write(t, filepath.Join(dir, "folder/a.png"), []byte("one"))
	write(t, filepath.Join(dir, "folder/b/c.png"), []byte(long))
	if err := os.Symlink(secret, filepath.Join(dir, "folder/link")); err != nil {
		t.Fatal(err)
	}
	archive := tarOf(t, "./a.png", "old", "b/", "", "b/c.png", long, strings.Repeat("n", 300), "x", "./a.png", "one", "../secret", "no")
	write(t, filepath.Join(dir, "a.tar"), archive)
	write(t, filepath.Join(dir, "a.tgz"), zipped(t, archive))
	for _, name := range []string{"folder", "a.tar", "a.tgz"} {
		p, err := OpenPictures(context.Background(), filepath.Join(dir, name), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		seen := map[string]bool{}
		for path, want := range map[string]string{"a.png": "one", "./a.png": "one", "b//c.png": long} {
			if got, err := p.Read(path); err != nil || string(got) != want {
				t.Errorf("%s: Read(%s) = %.20q, %v, want %.20q", name, path, got, err, want)
			}
			id, ok := p.identity(path)
			if !ok {
				t.Errorf("%s: identity(%s): there is none", name, path)
			}
			seen[id] = true
		}
		if len(seen) != 2 {
			t.Errorf("%s: two files have %d identities", name, len(seen))
		}
		var bad *PictureError
		for _, path := range []string{"none.png", "", "b", "/etc/passwd", "../secret/", "b/../../secret", "link", secret} {
			got, err := p.Read(path)
			if !errors.As(err, &bad) || bad.Name != path {
				t.Errorf("%s: Read(%s) = %.20q, %v, want a PictureError", name, path, got, err)
			}
		}
		stems, err := p.Stems()
		if err != nil || stems["a"] != "a.png" || stems["c"] != "b/c.png" || stems["b"] != "" {
			t.Errorf("%s: Stems = %v, %v", name, stems, err)
		}
		if _, err := p.Read("none.png"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: Read(none.png): %v, want fs.ErrNotExist", name, err)
		}
	}
}

func TestOpenPicturesErrors(t *testing.T) {
	dir := t.TempDir()
	archive := tarOf(t, "a", strings.Repeat("x", 5000), "b", "y")
	for name, data := range map[string][]byte{
		"empty": nil, "text": []byte(strings.Repeat("not a tar\n", 100)), "cut.tar": archive[:3000], "none.tar": tarOf(t),
		"cut.tar.gz": zipped(t, archive)[:60], "text.gz": zipped(t, []byte("text")), "cut2.tar.gz": zipped(t, archive[:3000]),
	} {
		path := filepath.Join(dir, name)
		write(t, path, data)
		if p, err := OpenPictures(context.Background(), path, nil); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("OpenPictures(%s) = %v, %v, want an error that names it", name, p, err)
		}
	}
	if _, err := OpenPictures(context.Background(), filepath.Join(dir, "nowhere"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenPictures(nowhere): %v, want fs.ErrNotExist", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	write(t, filepath.Join(dir, "a.tar.gz"), zipped(t, archive))
	if _, err := OpenPictures(ctx, filepath.Join(dir, "a.tar.gz"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("OpenPictures cancelled: %v, want context.Canceled", err)
	}
}
