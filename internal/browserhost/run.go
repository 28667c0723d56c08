// SPDX-License-Identifier: Apache-2.0

//go:build unix

package browserhost

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"fromage/gpu/browser"
)

//go:embed fs.js page.js run.js worker.js
var scripts embed.FS

const (
	patience  = 5 * time.Minute // how long a page whose program runs in a worker may be silent before it counts as dead
	maxOutput = 64 << 20        // bytes of one message from the page
)

// Program is a Go program built for js/wasm.
type Program struct {
	Wasm string   // the file
	Args []string // after the program's name
	Env  []string // NAME=value; name and arguments together must stay within 8 KiB
	// Dir is the working directory, an absolute path. The program reads the host's files below Root, which holds Dir; what it writes stays in
	// the browser's memory and goes with it.
	Dir, Root      string
	Stdout, Stderr io.Writer
	// Page runs the program in the page itself, where a page that has died is noticed late; otherwise it runs in a worker.
	Page bool
}

// Run runs the program in the browser at path until it exits and returns its exit code. gpu.js is loaded before it. The page forbids eval.
func (p Program) Run(ctx context.Context, path string) (code int, err error) {
	root, err := goroot(ctx)
	if err != nil {
		return 0, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("browserhost: %w", err)
	}
	s := &server{program: p, exit: make(chan int, 1), alive: make(chan struct{}, 1)}
	web := &http.Server{Handler: s.handler(filepath.Join(root, "lib", "wasm", "wasm_exec.js")), ReadHeaderTimeout: patience}
	go func() { _ = web.Serve(listener) }() // ends with Close
	defer web.Close()

	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- Open(ctx, path, "http://"+listener.Addr().String()+"/") }()
	defer func() {
		cancel()
		if e := <-ended; err == nil {
			err = e
		}
	}()
	silence := patience
	if p.Page {
		silence = time.Hour // a program in the page holds up the page's own timer
	}
	for {
		select {
		case code := <-s.exit:
			return code, nil
		case err := <-ended:
			ended <- nil
			return 0, errors.Join(err, ctx.Err())
		case <-s.alive:
		case <-time.After(silence):
			return 0, fmt.Errorf("browserhost: %s: the page has given no sign of life for %v", p.Wasm, silence)
		}
	}
}

// goroot is where the toolchain keeps the wasm_exec.js that fits the programs it builds.
func goroot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("browserhost: go env GOROOT: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// server is what the page talks to.
type server struct {
	program Program
	exit    chan int
	alive   chan struct{}
}

const page = `<!doctype html><title>browserhost</title><link rel="icon" href="data:,"><script type="module" src="/page.js"></script>`

func (s *server) handler(wasmExec string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, page) })
	mux.HandleFunc("GET /{name}", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, scripts, r.PathValue("name")) })
	mux.HandleFunc("GET /gpu.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = io.WriteString(w, browser.Script)
	})
	mux.HandleFunc("GET /wasm_exec.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, wasmExec) })
	mux.HandleFunc("GET /program.wasm", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/wasm")
		http.ServeFile(w, r, s.program.Wasm)
	})
	mux.HandleFunc("GET /program.json", s.describe)
	mux.HandleFunc("GET /file", s.file)
	mux.HandleFunc("POST /output", s.output)
	mux.HandleFunc("POST /alive", func(http.ResponseWriter, *http.Request) { s.touch() })
	mux.HandleFunc("POST /exit", s.ended)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; img-src data:; script-src 'self' 'wasm-unsafe-eval'")
		w.Header().Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

func (s *server) touch() {
	select {
	case s.alive <- struct{}{}:
	default:
	}
}

// entry is a file or, with size −1, a folder, by its path below the root.
type entry struct {
	Path  string `json:"path"`
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"` // in ms since 1970
}

// describe answers with all that the program is told when it starts.
func (s *server) describe(w http.ResponseWriter, _ *http.Request) {
	entries, err := list(s.program.Root)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	env := map[string]string{}
	for _, e := range s.program.Env {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{ // the page reports a broken answer
		"args": append([]string{filepath.Base(s.program.Wasm)}, s.program.Args...), "env": env, "page": s.program.Page,
		"cwd": s.program.Dir, "root": s.program.Root, "files": entries,
	})
}

// list lists what lies below root, but for what is hidden.
func list(root string) (entries []entry, err error) {
	entries = []entry{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		if strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{Path: strings.TrimPrefix(path, root+"/"), Size: info.Size(), Mtime: info.ModTime().UnixMilli()}
		switch {
		case d.IsDir():
			e.Size = -1
		case !info.Mode().IsRegular():
			return nil
		}
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

// file answers with a file below the root.
func (s *server) file(w http.ResponseWriter, r *http.Request) {
	f, err := os.OpenInRoot(s.program.Root, r.FormValue("path"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = io.Copy(w, f) // the page sees a short answer
}

func (s *server) output(w http.ResponseWriter, r *http.Request) {
	s.touch()
	to := s.program.Stdout
	if r.FormValue("fd") == "2" {
		to = s.program.Stderr
	}
	if _, err := io.Copy(to, http.MaxBytesReader(w, r.Body, maxOutput)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (s *server) ended(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(r.FormValue("code"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case s.exit <- code:
	default:
	}
}
