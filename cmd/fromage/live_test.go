// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fromage/assets"
	"fromage/index"
	"fromage/server"
	"fromage/site"
)

// liveBy is the handler that fromage serve --data makes.
func liveBy(t *testing.T, s serving) (http.Handler, *server.Live) {
	t.Helper()
	a := &app{stdout: new(bytes.Buffer), stderr: new(bytes.Buffer), log: discard}
	t.Cleanup(a.close)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	live, err := a.serveLive(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	h, err := server.Handler(server.Config{Site: site.Files(), Dist: built, Live: live})
	if err != nil {
		t.Fatal(err)
	}
	return h, live
}

// TestLive goes through what a user does with versions: serve, push, pull, mirror, look after.
func TestLive(t *testing.T) {
	dir := t.TempDir()
	data, mirror, tokens := filepath.Join(dir, "data"), filepath.Join(dir, "mirror"), filepath.Join(dir, "tokens")
	secret := strings.TrimSpace(ok(t, "admin", "token", "tester", "--scopes", "gallery,heads", "--tokens", tokens))
	t.Setenv(tokenVariable, secret)
	h, live := liveBy(t, serving{live: living{data: data, tokens: tokens, clients: 100, perAddress: 100}})
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)

	var config struct {
		Models []struct {
			URL      string
			Bytes    int
			Embedded bool
		}
		Sync string
	}
	if err := json.Unmarshal(get(h, "/config.json").Body.Bytes(), &config); err != nil || len(config.Models) != 1 || !config.Models[0].Embedded || config.Sync != "/sync" {
		t.Fatalf("config.json = %+v, %v", config, err)
	}
	if w := get(h, config.Models[0].URL); w.Code != 200 || w.Body.Len() != config.Models[0].Bytes {
		t.Errorf("%s = %d, %d bytes, want %d", config.Models[0].URL, w.Code, w.Body.Len(), config.Models[0].Bytes)
	}
	pictures := filepath.Join(dir, "pictures")
	if err := os.MkdirAll(filepath.Join(pictures, "sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	x, err := assets.Gallery()
	if err != nil {
		t.Fatal(err)
	}
	row, err := x.Row(0)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := assets.Picture(row.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.webp", "sub/b.webp"} {
		write(t, filepath.Join(pictures, name), picture)
	}
	if out := ok(t, "push", "gallery", "add", "--device", "cpu", "--to", srv.URL, "--root", pictures, "--note", "two pictures", pictures); !strings.HasPrefix(out, "version 2,") {
		t.Errorf("push gallery add says %q", out)
	}
	if w := get(h, "/gallery/pictures/sub/b.webp"); w.Code != 200 || !bytes.Equal(w.Body.Bytes(), picture) || w.Header().Get("Content-Type") != "image/webp" {
		t.Errorf("the picture = %d, %d bytes", w.Code, w.Body.Len())
	}
	for _, bad := range []string{"/gallery/pictures/c.webp", "/gallery/pictures/..%2f..%2flock", "/models/nonesuch.bundle", "/models/default.index", "/gallery/nonesuch.index", "/sync/pieces/x"} {
		if w := get(h, bad); w.Code != http.StatusNotFound {
			t.Errorf("%s = %d, want 404", bad, w.Code)
		}
	}
	if out := ok(t, "pull", srv.URL, mirror); !strings.HasPrefix(out, "version 2,") {
		t.Errorf("pull says %q", out)
	}
	m, _ := liveBy(t, serving{live: living{data: mirror, upstream: srv.URL, clients: 100, perAddress: 100}})
	if a, b := get(h, "/gallery/default.index"), get(m, "/gallery/default.index"); a.Code != 200 || !bytes.Equal(a.Body.Bytes(), b.Body.Bytes()) {
		t.Errorf("the mirror's index is another: %d, %d", a.Code, b.Code)
	}
	ok(t, "push", "gallery", "remove", "--to", srv.URL, "a.webp")
	ok(t, "push", "gallery", "embeddings", "q8", "--to", srv.URL)
	for end := time.Now().Add(time.Minute); !strings.Contains(get(m, "/healthz").Body.String(), `"seq":4`); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the mirror does not follow")
		}
	}
	for _, w := range []*httptest.ResponseRecorder{get(h, "/gallery/default.index"), get(m, "/gallery/default.index")} {
		x, err := index.Parse("served", w.Body.Bytes())
		if err != nil || x.Header().DType != index.Q8 || x.Len() != 1 {
			t.Errorf("after push gallery embeddings q8 the index is %v, %v", x.Header(), err)
		}
	}
	ok(t, "admin", "pin", "2", "--data", data)
	ok(t, "admin", "rollback", "2", "--data", data)
	if out := ok(t, "admin", "list", "--data", data); strings.Count(out, "\n") != 5 || !strings.Contains(out, "two pictures  pinned") || !strings.Contains(out, "back to version 2  current") {
		t.Errorf("admin list says\n%s", out)
	}
	ok(t, "admin", "gc", "--data", data, "--keep", "1", "--grace", "0s")
	ok(t, "admin", "check", "--data", data)
	for end := time.Now().Add(time.Minute); live.Hub.Current().Seq != 5; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the server does not see what was published beside it")
		}
	}
	if code, _, errs := run(t, "", "push", "bundle", "--to", srv.URL, tiny(t)); code != exitBad || !strings.Contains(errs, "may not publish bundle") {
		t.Errorf("a bundle with a token for others: %d, %q", code, errs)
	}
}

// TestLiveRefuses wants one clear line for what cannot be.
func TestLiveRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "tokens")
	if err := os.WriteFile(file, []byte("a b c\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + l.Addr().String()
	l.Close()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"serve", "--tokens", file}, "--tokens: want --data with it"},
		{[]string{"serve", "--data", dir, "--models", "x"}, "--data: want no --models"},
		{[]string{"serve", "--data", filepath.Join(dir, "d"), "--tokens", file}, "line 1"},
		{[]string{"serve", "--data", "nonesuch://x"}, "--data"},
		{[]string{"serve", "--tls-cert", file}, "want both or none"},
		{[]string{"push", "gallery", "remove", "--to", nobody, "x"}, "connection refused"},
		{[]string{"push", "gallery", "add", "--to", dir}, "or --embedded"},
		{[]string{"push", "gallery", "remove", "--to", filepath.Join(dir, "e"), "x.png"}, "publish a bundle first"},
		{[]string{"push", "gallery", "embeddings", "f32", "--to", filepath.Join(dir, "e")}, "want f16 or q8"},
		{[]string{"push", "heads", "--to", "ftp://x", "y"}, "ftp://x"},
		{[]string{"pull", "nonsense", dir}, "want one such as"},
		{[]string{"pull", "http://user:secret@x", dir}, "no password"},
		{[]string{"admin", "list"}, "want --data"},
		{[]string{"admin", "list", "--data", filepath.Join(dir, "nonesuch")}, "nonesuch"},
		{[]string{"admin", "rollback", "x", "--data", dir}, "want a version's number"},
		{[]string{"admin", "token", "a", "--scopes", "everything", "--tokens", file}, "everything"},
	} {
		code, _, errs := run(t, "", c.args...)
		if code != exitBad || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("fromage %s: %d, %q, want %d and a line with %q", strings.Join(c.args, " "), code, errs, exitBad, c.want)
		}
	}
}
