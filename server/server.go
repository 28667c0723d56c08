// SPDX-License-Identifier: Apache-2.0

// Package server serves the page, its program, models, indexes and pictures over HTTP.
//
// What enters is a folder of site files, files opened for reading in place or a store of versions, and requests that read; what leaves is answers with
// security headers, entity tags, byte ranges and, for the program, the encoding that the browser takes. The package refuses to know what is in the files
// beyond names and hashes: it computes nothing on models or pictures, and it takes nothing from a page. What publishers may change is package hub's.
package server

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
)

// Config is what is served.
type Config struct {
	Site     fs.FS        // site files: index.html and what it names
	Dist     fs.FS        // built files: fromage.wasm.br, fromage.wasm.gz, wasm_exec.js
	GPU      string       // the text of gpu.js
	Models   []Model      // at least one; the first is the one the page begins with
	Pictures Pictures     // what the models' indexes name; nil for none
	Live     *Live        // versions, instead of models and pictures; nil for none
	Version  string       // of the program, told to the page
	Hosts    []string     // names, without port, that requests may be addressed to; empty for any
	Log      *slog.Logger // a line for each request; nil for none
}

// File is a file that is served whole or in ranges.
type File struct {
	io.ReaderAt
	Size int64
	Hash string // changes with the content: its entity tag
}

// Model is a bundle.
type Model struct {
	File
	Name     string // it is /models/NAME.bundle
	Title    string // for people
	DType    string
	Embedded bool  // it is the program's own, whose examples the page knows
	Memory   int64 // bytes that it takes of a GPU
	Buffer   int64 // bytes of its largest buffer there
	Index    *File // the gallery's embeddings by this model; nil for none
}

// Pictures returns a picture file by its path in an index, without .. and the like; any error is answered as not found.
type Pictures func(path string) ([]byte, error)

const (
	program = "fromage.wasm"
	policy  = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; worker-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// types are the files that are served at all, by extension.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".json": "application/json",
	".svg": "image/svg+xml", ".wasm": "application/wasm", ".webmanifest": "application/manifest+json",
}

// static is a small file in memory, in each encoding there is.
type static struct {
	name, mime, tag string
	encoded         map[string][]byte // by content-coding; "" is the file as it is
}

type handler struct {
	config Config
	static map[string]*static // by path
	mux    *http.ServeMux
}

// Handler returns the site. It answers GET and HEAD alone; a request that is addressed to another host than Config.Hosts says is refused, so that a
// foreign page whose name was made to resolve to this machine cannot read from it.
func Handler(c Config) (http.Handler, error) {
	if len(c.Models) == 0 && c.Live == nil {
		return nil, errors.New("server: want at least one model, have none")
	}
	h := &handler{config: c, static: map[string]*static{}, mux: http.NewServeMux()}
	if err := h.readSite(); err != nil {
		return nil, err
	}
	if err := h.readProgram(); err != nil {
		return nil, err
	}
	if c.Live != nil {
		c.Live.routes(h.mux, c.Version)
	} else if err := h.describe(); err != nil {
		return nil, err
	}
	h.addWorker()
	for p, f := range h.static {
		h.mux.HandleFunc("GET "+p, func(w http.ResponseWriter, r *http.Request) { f.serve(w, r) })
	}
	h.mux.Handle("GET /{$}", http.HandlerFunc(h.static["/index.html"].serve))
	for _, m := range c.Models {
		h.mux.HandleFunc("GET "+m.url(), m.serve)
	}
	for _, m := range c.Models {
		if m.Index != nil {
			h.mux.HandleFunc("GET "+m.indexURL(), m.Index.serve)
		}
	}
	if c.Pictures != nil {
		h.mux.HandleFunc("GET /gallery/pictures/{path...}", c.Pictures.serve)
	}
	return h, nil
}

// readSite takes the files of the site into memory.
func (h *handler) readSite() error {
	names, err := fs.ReadDir(h.config.Site, ".")
	if err != nil {
		return fmt.Errorf("server: site: %w", err)
	}
	for _, e := range names {
		if e.IsDir() || types[path.Ext(e.Name())] == "" {
			continue
		}
		data, err := fs.ReadFile(h.config.Site, e.Name())
		if err != nil {
			return fmt.Errorf("server: site: %w", err)
		}
		h.add(e.Name(), map[string][]byte{"": data})
	}
	if h.config.GPU != "" {
		h.add("gpu.js", map[string][]byte{"": []byte(h.config.GPU)})
	}
	if h.static["/index.html"] == nil {
		return errors.New("server: site: want index.html, have none")
	}
	return nil
}

// readProgram takes the built files.
func (h *handler) readProgram() error {
	encoded := map[string][]byte{}
	for coding, ext := range map[string]string{"br": ".br", "gzip": ".gz"} {
		data, err := fs.ReadFile(h.config.Dist, program+ext)
		if err != nil {
			return fmt.Errorf("server: the page's program was not built (make site): %w", err)
		}
		encoded[coding] = data
	}
	h.add(program, encoded)
	script, err := fs.ReadFile(h.config.Dist, "wasm_exec.js")
	if err != nil {
		return fmt.Errorf("server: the page's program was not built (make site): %w", err)
	}
	h.add("wasm_exec.js", map[string][]byte{"": script})
	return nil
}

func (h *handler) add(name string, encoded map[string][]byte) {
	sum := sha256.New()
	for _, coding := range []string{"", "br", "gzip"} {
		sum.Write(encoded[coding])
	}
	h.static["/"+name] = &static{name, types[path.Ext(name)], hex.EncodeToString(sum.Sum(nil)[:16]), encoded}
}

// url is where the model is.
func (m *Model) url() string { return "/models/" + m.Name + ".bundle" }

// indexURL is where its embeddings of the gallery are, "" for none.
func (m *Model) indexURL() string {
	if m.Index == nil {
		return ""
	}
	return "/gallery/" + m.Name + ".index"
}

// siteConfig is config.json.
type siteConfig struct {
	Models   []siteModel `json:"models"`
	Pictures string      `json:"pictures"`       // where the gallery's are; "" for no gallery
	Sync     string      `json:"sync,omitempty"` // where versions come from; "" where nothing changes
	Version  string      `json:"version"`
}

type siteModel struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Title    string `json:"title"`
	Bytes    int64  `json:"bytes"`
	DType    string `json:"dtype"`
	Hash     string `json:"hash"`
	Embedded bool   `json:"embedded"`
	Memory   int64  `json:"memory"`
	Buffer   int64  `json:"buffer"`
	Index    string `json:"index"`
}

// describe makes config.json, which tells the page what there is.
func (h *handler) describe() error {
	var doc siteConfig
	doc.Version = h.config.Version
	seen := map[string]bool{}
	for _, m := range h.config.Models {
		if m.Name == "" || strings.ContainsAny(m.Name, "/\\{} ") || seen[m.Name] {
			return fmt.Errorf("server: model %q: want names that differ, without slashes, braces and spaces", m.Name)
		}
		seen[m.Name] = true
		doc.Models = append(doc.Models, siteModel{m.Name, m.url(), m.Title, m.Size, m.DType, m.Hash, m.Embedded, m.Memory, m.Buffer, m.indexURL()})
	}
	if h.config.Pictures != nil {
		doc.Pictures = "/gallery/pictures/"
	}
	data, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("server: config.json: %w", err)
	}
	h.add("config.json", map[string][]byte{"": data})
	return nil
}

// addWorker puts the names of the site's files and a hash of them all before the service worker's text, with a hash of the gallery and the address of the
// first model's index: when any of them changes, so does the worker, which is how a browser hears of a new version.
func (h *handler) addWorker() {
	sw := h.static["/sw.js"]
	if sw == nil {
		return
	}
	sum := sha256.New()
	var files []string
	for _, p := range slices.Sorted(maps.Keys(h.static)) {
		if p != "/sw.js" && p != "/config.json" {
			files = append(files, p)
			fmt.Fprintln(sum, p, h.static[p].tag)
		}
	}
	list, _ := json.Marshal(files) // of strings: it cannot fail
	gallery := sha256.New()
	for _, m := range h.config.Models {
		if m.Index != nil {
			fmt.Fprintln(gallery, m.Name, m.Index.Hash)
		}
	}
	index := ""
	if len(h.config.Models) > 0 {
		index = h.config.Models[0].indexURL()
	}
	text := fmt.Sprintf("const FILES = %s;\nconst VERSION = \"%x\";\nconst GALLERY = \"%x\";\nconst INDEX = %q;\n",
		list, sum.Sum(nil)[:8], gallery.Sum(nil)[:8], index)
	h.add("sw.js", map[string][]byte{"": append([]byte(text), sw.encoded[""]...)})
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	seen := &observed{ResponseWriter: w, status: http.StatusOK}
	h.answer(seen, r)
	if h.config.Log != nil {
		h.config.Log.Info("request", "method", r.Method, "path", r.URL.Path, "range", r.Header.Get("Range"), "status", seen.status, "bytes", seen.bytes,
			"seconds", time.Since(began).Seconds())
	}
}

func (h *handler) answer(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Security-Policy", policy)
	head.Set("Cross-Origin-Opener-Policy", "same-origin")
	head.Set("Cross-Origin-Embedder-Policy", "require-corp")
	head.Set("Cross-Origin-Resource-Policy", "same-origin")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "no-referrer")
	if !h.allowed(r.Host) {
		http.Error(w, fmt.Sprintf("this server answers to %s, not to %q", strings.Join(h.config.Hosts, ", "), r.Host), http.StatusMisdirectedRequest)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		head.Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	h.mux.ServeHTTP(w, r)
}

func (h *handler) allowed(host string) bool {
	if len(h.config.Hosts) == 0 {
		return true
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return slices.Contains(h.config.Hosts, strings.ToLower(strings.Trim(host, "[]")))
}

// cache lets a file that is asked for by its hash be kept for good, and has any other asked for again, which costs one short answer if it is the same.
func cache(w http.ResponseWriter, r *http.Request, tag string) {
	w.Header().Set("ETag", `"`+tag+`"`)
	if r.URL.Query().Get("v") == tag {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
}

func (f *static) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", f.mime)
	cache(w, r, f.tag)
	if data, ok := f.encoded[""]; ok {
		http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(data))
		return
	}
	w.Header().Set("Vary", "Accept-Encoding")
	coding := ""
	for _, c := range []string{"br", "gzip"} {
		if accepts(r.Header.Get("Accept-Encoding"), c) {
			coding = c
			break
		}
	}
	if coding == "" {
		http.Error(w, f.name+" is sent in br or gzip only", http.StatusNotAcceptable)
		return
	}
	// Ranges would be of the encoded bytes, which no browser asks for: the file is sent whole.
	r.Header.Del("Range")
	w.Header().Set("ETag", `"`+f.tag+"-"+coding+`"`)
	w.Header().Set("Content-Encoding", coding)
	http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.encoded[coding]))
}

// accepts says whether an Accept-Encoding header names a coding without refusing it by q=0.
func accepts(header, coding string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(strings.TrimSpace(name), coding) {
			_, weight, found := strings.Cut(strings.ReplaceAll(q, " ", ""), "q=")
			return !found || strings.Trim(weight, "0.") != ""
		}
	}
	return false
}

func (f *File) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	cache(w, r, f.Hash)
	http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(f, 0, f.Size))
}

// serve serves a picture file. Whatever else is in the folder, hidden files too, is not there for it.
func (p Pictures) serve(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("path")
	mime := pictureType(name)
	if mime == "" || !fs.ValidPath(name) || strings.Contains("/"+name, "/.") {
		http.NotFound(w, r)
		return
	}
	data, err := p(name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	sum := sha256.Sum256(data)
	w.Header().Set("Content-Type", mime)
	cache(w, r, hex.EncodeToString(sum[:16]))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// observed notes what was answered.
type observed struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (o *observed) WriteHeader(status int) {
	o.status = status
	o.ResponseWriter.WriteHeader(status)
}

func (o *observed) Write(p []byte) (int, error) {
	n, err := o.ResponseWriter.Write(p)
	o.bytes += int64(n)
	return n, err
}

func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// Hijack implements http.Hijacker, for websockets.
func (o *observed) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	o.status = http.StatusSwitchingProtocols
	return http.NewResponseController(o.ResponseWriter).Hijack()
}
