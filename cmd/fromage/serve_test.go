// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"fromage/assets"
	"fromage/index"
	"fromage/server"
	"fromage/site"
)

// built is what make site makes, as far as a server looks at it.
var built = fstest.MapFS{"fromage.wasm.br": {Data: []byte("br")}, "fromage.wasm.gz": {Data: []byte("gz")}, "wasm_exec.js": {Data: []byte("js")}}

// servedBy is the handler that fromage serve makes of these arguments.
func servedBy(t *testing.T, s serving) http.Handler {
	t.Helper()
	a := &app{stdout: io.Discard, stderr: io.Discard, log: discard}
	t.Cleanup(a.close)
	models, pictures, err := a.served(s)
	if err != nil {
		t.Fatal(err)
	}
	h, err := server.Handler(server.Config{Site: site.Files(), Dist: built, Models: models, Pictures: pictures})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func get(h http.Handler, url string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", url, nil))
	return w
}

func TestServeEmbedded(t *testing.T) {
	h := servedBy(t, serving{})
	var doc struct {
		Models []struct {
			URL, DType string
			Bytes      int
			Embedded   bool
			Index      string
			Memory     int
			Buffer     int
		}
		Pictures string
	}
	if err := json.Unmarshal(get(h, "/config.json").Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Models) != 1 || !doc.Models[0].Embedded || doc.Models[0].DType != "q8" || doc.Models[0].Memory <= doc.Models[0].Bytes || doc.Models[0].Buffer <= 0 {
		t.Fatalf("config.json = %+v, want the embedded model", doc)
	}
	if w := get(h, doc.Models[0].URL); w.Code != 200 || w.Body.Len() != doc.Models[0].Bytes {
		t.Errorf("%s = %d, %d bytes, want 200, %d", doc.Models[0].URL, w.Code, w.Body.Len(), doc.Models[0].Bytes)
	}
	x, err := assets.Gallery()
	if err != nil {
		t.Fatal(err)
	}
	m, err := x.Row(0)
	if err != nil {
		t.Fatal(err)
	}
	want, err := assets.Picture(m.Path)
	if err != nil {
		t.Fatal(err)
	}
	if w := get(h, doc.Pictures+m.Path); !bytes.Equal(w.Body.Bytes(), want) || w.Header().Get("Content-Type") != "image/webp" {
		t.Errorf("%s = %d, %s, %d bytes, want the picture", m.Path, w.Code, w.Header().Get("Content-Type"), w.Body.Len())
	}
	if w := get(h, doc.Models[0].Index); w.Code != 200 || w.Body.Len() == 0 {
		t.Errorf("%s = %d, %d bytes", doc.Models[0].Index, w.Code, w.Body.Len())
	}
}

// TestServeFolder serves the pictures of a folder, and nothing that a link leads to outside of it.
func TestServeFolder(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []struct{ asset, name string }{{assets.BundleFile, "my model.bundle"}, {assets.IndexFile, "my.index"}} {
		r, size, err := assets.Open(f.asset)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(io.NewSectionReader(r, 0, size))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	pictures := filepath.Join(dir, "pictures")
	if err := os.MkdirAll(filepath.Join(pictures, "sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"outside.png", "pictures/sub/a.png"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "outside.png"), filepath.Join(pictures, "link.png")); err != nil {
		t.Fatal(err)
	}
	h := servedBy(t, serving{models: []string{filepath.Join(dir, "my model.bundle")}, gallery: []string{filepath.Join(dir, "my.index")}, pictures: pictures})
	for _, c := range []struct {
		path string
		code int
	}{
		{"/models/my-model.bundle", 200}, {"/gallery/my-model.index", 200}, {"/gallery/default.index", 404}, {"/gallery/pictures/sub/a.png", 200}, {"/gallery/pictures/link.png", 404},
		{"/gallery/pictures/sub", 404}, {"/gallery/pictures/sub.png", 404}, {"/gallery/pictures/%2e%2e/outside.png", 404}, {"/models/default.bundle", 404},
	} {
		if w := get(h, c.path); w.Code != c.code {
			t.Errorf("%s = %d, want %d", c.path, w.Code, c.code)
		}
	}
}

func TestServeErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other := filepath.Join(t.TempDir(), "other.index")
	x, err := index.New(index.Header{D: 2, DType: index.F32})
	if err != nil {
		t.Fatal(err)
	}
	var data bytes.Buffer
	if _, err := x.WriteTo(&data); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, data.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	notBundle := filepath.Join(t.TempDir(), "x.bundle")
	if err := os.WriteFile(notBundle, []byte("no"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--listen", l.Addr().String()}, "in use"},
		{[]string{"--listen", "nowhere"}, "nowhere"},
		{[]string{"--models", "none.bundle"}, "none.bundle"},
		{[]string{"--models", notBundle}, notBundle},
		{[]string{"--gallery", "none.index"}, "none.index"},
		{[]string{"--pictures", "."}, "--gallery"},
		{[]string{"--gallery", other}, "another model's"},
	} {
		code, _, errs := run(t, "", append([]string{"serve", "--no-open"}, c.args...)...)
		if code != exitBad || !strings.Contains(errs, c.want) {
			t.Errorf("serve %q = %d, %q, want 2 and %q", c.args, code, errs, c.want)
		}
	}
}

func TestPageURL(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:8080": "http://127.0.0.1:8080/", "[::1]:80": "http://[::1]:80/", "0.0.0.0:81": "http://localhost:81/", "[::]:82": "http://localhost:82/",
	} {
		a, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if got := pageURL(a); got != want {
			t.Errorf("pageURL(%s) = %s, want %s", address, got, want)
		}
	}
}

// TestServeStops serves the page, if it was built, until it is told to end.
func TestServeStops(t *testing.T) {
	if _, err := site.Dist().Open("fromage.wasm.br"); err != nil {
		if os.Getenv("FROMAGE_REQUIRE_BROWSER") != "" {
			t.Fatalf("the page's program was not built (make site): %v", err)
		}
		t.Skipf("SKIPPED, NOTHING TESTED: the page's program was not built (make site)")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := stopping{stop: cancel}
	a := &app{stdout: &out, stderr: io.Discard, log: discard}
	defer a.close()
	if err := a.serve(ctx, serving{listen: "127.0.0.1:0", noOpen: true}); err != nil || !strings.HasPrefix(out.String(), "http://127.0.0.1:") {
		t.Errorf("serve = %v, %q, want an address and no error", err, out.String())
	}
}

// stopping ends the program when it has written something.
type stopping struct {
	bytes.Buffer
	stop func()
}

func (s *stopping) Write(p []byte) (int, error) {
	s.stop()
	return s.Buffer.Write(p)
}
