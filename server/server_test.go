// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func testConfig() Config {
	model := []byte(strings.Repeat("0123456789", 100))
	index := []byte("the index")
	return Config{
		Site: fstest.MapFS{
			"index.html": {Data: []byte("<!doctype html>")}, "app.js": {Data: []byte("1")}, "sw.js": {Data: []byte("// the worker")}, "secret.txt": {Data: []byte("no")},
		},
		Dist: fstest.MapFS{"fromage.wasm.br": {Data: []byte("brotli")}, "fromage.wasm.gz": {Data: []byte("gzipped")}, "wasm_exec.js": {Data: []byte("2")}},
		GPU:  "3",
		Models: []Model{{File: File{bytes.NewReader(model), int64(len(model)), "abc"}, Name: "default", Title: "A model", DType: "q8", Embedded: true, Memory: 12, Buffer: 3,
			Index: &File{bytes.NewReader(index), int64(len(index)), "def"}}},
		Pictures: picture,
		Version:  "v1",
		Hosts:    []string{"localhost", "127.0.0.1", "::1"},
	}
}

func picture(path string) ([]byte, error) {
	if path == "a folder/ä.webp" || path == "x.svg" || path == ".hidden/x.png" {
		return []byte("a picture"), nil
	}
	return nil, errors.New("there is none")
}

func newHandler(t *testing.T, c Config) http.Handler {
	t.Helper()
	h, err := Handler(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// ask sends a request; headers come as names and values.
func ask(h http.Handler, method, url string, headers ...string) *http.Response {
	r := httptest.NewRequest(method, "http://localhost:8080", nil)
	r.URL.Path, r.URL.RawQuery, _ = strings.Cut(url, "?")
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(r *http.Response) string {
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

func TestHandler(t *testing.T) {
	h := newHandler(t, testConfig())
	long := strings.Repeat("0123456789", 100)
	for _, c := range []struct {
		method, url string
		headers     []string
		status      int
		body        string // the beginning
		want        []string
	}{
		{"GET", "/", nil, 200, "<!doctype html>", []string{"Content-Type", "text/html; charset=utf-8", "Cache-Control", "no-cache"}},
		{"GET", "/index.html", nil, 200, "<!doctype html>", nil},
		{"GET", "/app.js", nil, 200, "1", []string{"Content-Type", "text/javascript; charset=utf-8"}},
		{"GET", "/gpu.js", nil, 200, "3", nil},
		{"GET", "/wasm_exec.js", nil, 200, "2", nil},
		{"GET", "/secret.txt", nil, 404, "", nil},
		{"GET", "/dist/wasm_exec.js", nil, 404, "", nil},
		{"GET", "/fromage.wasm", []string{"Accept-Encoding", "gzip, deflate, br, zstd"}, 200, "brotli", []string{"Content-Encoding", "br", "Content-Type", "application/wasm", "Vary", "Accept-Encoding"}},
		{"GET", "/fromage.wasm", []string{"Accept-Encoding", "gzip;q=0.5, br; q=0"}, 200, "gzipped", []string{"Content-Encoding", "gzip"}},
		{"GET", "/fromage.wasm", []string{"Accept-Encoding", "identity"}, 406, "", nil},
		{"GET", "/fromage.wasm", []string{"Accept-Encoding", "br", "Range", "bytes=0-1"}, 200, "brotli", nil},
		{"GET", "/models/default.bundle", nil, 200, long, []string{"ETag", `"abc"`, "Accept-Ranges", "bytes", "Content-Length", "1000"}},
		{"GET", "/models/default.bundle", []string{"Range", "bytes=5-9"}, 206, "56789", []string{"Content-Range", "bytes 5-9/1000"}},
		{"GET", "/models/default.bundle", []string{"Range", "bytes=-3"}, 206, "789", nil},
		{"GET", "/models/default.bundle", []string{"Range", "bytes=1000-"}, 416, "", []string{"Content-Range", "bytes */1000"}},
		{"GET", "/models/default.bundle", []string{"If-None-Match", `"abc"`}, 304, "", nil},
		{"GET", "/models/default.bundle", []string{"Range", "bytes=5-9", "If-Range", `"old"`}, 200, long, nil},
		{"GET", "/models/default.bundle?v=abc", nil, 200, long, []string{"Cache-Control", "public, max-age=31536000, immutable"}},
		{"GET", "/models/default.bundle?v=old", nil, 200, long, []string{"Cache-Control", "no-cache"}},
		{"HEAD", "/models/default.bundle", nil, 200, "", []string{"Content-Length", "1000"}},
		{"GET", "/models/other.bundle", nil, 404, "", nil},
		{"GET", "/gallery/default.index", []string{"Range", "bytes=4-"}, 206, "index", nil},
		{"GET", "/gallery/pictures/a folder/ä.webp", nil, 200, "a picture", []string{"Content-Type", "image/webp", "Cache-Control", "no-cache"}},
		{"GET", "/gallery/pictures/none.webp", nil, 404, "", nil},
		{"GET", "/gallery/pictures/x.svg", nil, 404, "", nil},
		{"GET", "/gallery/pictures/.hidden/x.png", nil, 404, "", nil},
		{"GET", "/gallery/pictures/..%2f..%2fx.png", nil, 404, "", nil},
		{"POST", "/", nil, 405, "", []string{"Allow", "GET, HEAD"}},
		{"DELETE", "/models/default.bundle", nil, 405, "", nil},
		{"GET", "/", []string{"Host", "evil.example"}, 421, "", nil},
		{"GET", "/", []string{"Host", "127.0.0.1.evil.example:8080"}, 421, "", nil},
		{"GET", "/", []string{"Host", "127.0.0.1"}, 200, "", nil},
		{"GET", "/", []string{"Host", "LOCALHOST:1"}, 200, "", nil},
		{"GET", "/", []string{"Host", "[::1]:8080"}, 200, "", nil},
	} {
		r := ask(h, c.method, c.url, c.headers...)
		got := body(r)
		if r.StatusCode != c.status || !strings.HasPrefix(got, c.body) || c.status < 300 && c.body != "" && len(got) != len(c.body) {
			t.Errorf("%s %s %q = %d %.40q, want %d %.40q", c.method, c.url, c.headers, r.StatusCode, got, c.status, c.body)
		}
		for i := 0; i < len(c.want); i += 2 {
			if have := r.Header.Get(c.want[i]); have != c.want[i+1] {
				t.Errorf("%s %s %q: %s = %q, want %q", c.method, c.url, c.headers, c.want[i], have, c.want[i+1])
			}
		}
		for _, name := range []string{"Content-Security-Policy", "Cross-Origin-Opener-Policy", "Cross-Origin-Embedder-Policy", "X-Content-Type-Options", "Referrer-Policy"} {
			if r.Header.Get(name) == "" {
				t.Errorf("%s %s: no %s", c.method, c.url, name)
			}
		}
	}
	if strings.Contains(policy, "'unsafe-eval'") || strings.Contains(policy, "unsafe-inline") || strings.Contains(policy, "http") {
		t.Errorf("the policy allows too much: %s", policy)
	}
}

// A picture that leads out of the folder is refused before it is looked for.
func TestPictureEscapes(t *testing.T) {
	none := Pictures(func(path string) ([]byte, error) {
		t.Errorf("looked for %q", path)
		return nil, nil
	})
	for _, p := range []string{"../x.png", "a/../../x.png", "/etc/x.png", "a//x.png", "./x.png", "", "a\x00b", "..", "a/.git/x.png", "x.png/"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.SetPathValue("path", p)
		w := httptest.NewRecorder()
		none.serve(w, r)
		if w.Code != 404 {
			t.Errorf("picture(%q) = %d, want 404", p, w.Code)
		}
	}
}

// FuzzPicture holds what is looked for to paths that stay within the folder.
func FuzzPicture(f *testing.F) {
	for _, p := range []string{"a folder/ä.webp", "../x.png", "a/../b.png", "/x.png", ".git/x.png", "a//b.png", "x.svg"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		inside := Pictures(func(path string) ([]byte, error) {
			if !filepath.IsLocal(path) || strings.HasPrefix(path, ".") || strings.Contains(path, "/.") || strings.HasSuffix(path, "/") {
				t.Errorf("looked for %q", path)
			}
			return nil, nil
		})
		r := httptest.NewRequest("GET", "/", nil)
		r.SetPathValue("path", p)
		inside.serve(httptest.NewRecorder(), r)
	})
}

func TestConfig(t *testing.T) {
	var got map[string]any
	h := newHandler(t, testConfig())
	if err := json.Unmarshal([]byte(body(ask(h, "GET", "/config.json"))), &got); err != nil {
		t.Fatal(err)
	}
	want := "map[models:[map[buffer:3 bytes:1000 dtype:q8 embedded:true hash:abc index:/gallery/default.index memory:12 name:default title:A model " +
		"url:/models/default.bundle]] pictures:/gallery/pictures/ version:v1]"
	if fmt.Sprint(got) != want {
		t.Errorf("config.json = %v, want %s", got, want)
	}
	c := testConfig()
	c.Pictures, c.Models[0].Index = nil, nil
	if got := body(ask(newHandler(t, c), "GET", "/config.json")); !strings.Contains(got, `"pictures":""`) || !strings.Contains(got, `"index":""`) {
		t.Errorf("config.json = %s, want no gallery", got)
	}
}

// The service worker's text changes with any file of the site, and with nothing else.
func TestWorker(t *testing.T) {
	one := body(ask(newHandler(t, testConfig()), "GET", "/sw.js"))
	if !strings.HasPrefix(one, `const FILES = ["/app.js","/fromage.wasm","/gpu.js","/index.html","/wasm_exec.js"];`) || !strings.Contains(one, "the worker") || !strings.Contains(one, `INDEX = "/gallery/default.index"`) {
		t.Errorf("sw.js = %s", one)
	}
	c := testConfig()
	c.Version = "v2"
	if again := body(ask(newHandler(t, c), "GET", "/sw.js")); again != one {
		t.Errorf("sw.js changed though no file did: %s", again)
	}
	c.GPU = "4"
	if other := body(ask(newHandler(t, c), "GET", "/sw.js")); other == one {
		t.Error("sw.js did not change with gpu.js")
	}
	c = testConfig()
	c.Models[0].Index.Hash = "other"
	if other := body(ask(newHandler(t, c), "GET", "/sw.js")); other == one {
		t.Error("sw.js did not change with the gallery")
	}
}

func TestHandlerErrors(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"at least one model": func(c *Config) { c.Models = nil },
		"make site":          func(c *Config) { c.Dist = fstest.MapFS{} },
		"index.html":         func(c *Config) { c.Site = fstest.MapFS{} },
		`model "default"`:    func(c *Config) { c.Models = append(c.Models, c.Models[0]) },
		`model "a/b"`:        func(c *Config) { c.Models[0].Name = "a/b" },
	} {
		c := testConfig()
		spoil(&c)
		if _, err := Handler(c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("Handler = %v, want an error with %q", err, name)
		}
	}
}

func TestLog(t *testing.T) {
	var b bytes.Buffer
	c := testConfig()
	c.Log = slog.New(slog.NewTextHandler(&b, nil))
	ask(newHandler(t, c), "GET", "/models/default.bundle", "Range", "bytes=5-9")
	for _, want := range []string{"path=/models/default.bundle", "bytes=5-9", "status=206", "bytes=5 "} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("log = %q, want %q in it", b.String(), want)
		}
	}
}

// Serve lets an answer that is being sent end, and ends by its context without an error.
func TestServe(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), l.Addr().String()); err == nil || !strings.Contains(err.Error(), "in use") || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("Listen on a port in use = %v, want an error that says so", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	begun := make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		time.Sleep(200 * time.Millisecond)
		_, _ = io.WriteString(w, "all of it")
	})
	ended := make(chan error)
	go func() { ended <- Serve(ctx, l, h) }()
	go func() {
		<-begun
		cancel()
	}()
	r, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if got := body(r); got != "all of it" {
		t.Errorf("an answer during the shutdown = %q, want all of it", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
}

func TestLoopbackHosts(t *testing.T) {
	for _, c := range []struct {
		address string
		want    string
	}{
		{"127.0.0.1:80", "[localhost 127.0.0.1 ::1]"}, {"[::1]:80", "[localhost 127.0.0.1 ::1]"}, {"127.0.0.9:80", "[localhost 127.0.0.1 ::1 127.0.0.9]"},
		{"0.0.0.0:80", "[]"}, {"192.168.1.2:80", "[]"},
	} {
		a, err := net.ResolveTCPAddr("tcp", c.address)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(LoopbackHosts(a)); got != c.want {
			t.Errorf("LoopbackHosts(%s) = %s, want %s", c.address, got, c.want)
		}
	}
}
