// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fromage/assets"
	"fromage/bundle"
	"fromage/gpu/browser"
	"fromage/index"
	"fromage/server"
	"fromage/site"
)

// serving is what fromage serve was told.
type serving struct {
	listen   string
	models   []string // bundles; none is the embedded one
	gallery  []string // indexes of the same pictures by the models; none is the embedded one
	pictures string   // the folder of the gallery's pictures; "" is the first index's
	noOpen   bool
	live     living
}

func (a *app) serveCommand() *cobra.Command {
	var s serving
	c := &cobra.Command{
		Use:   "serve",
		Short: "serve the page that runs the model in a browser",
		Long: `Serve a page on which people chat and search with pictures. The model runs in their browser, on their GPU, by WebGPU; what they write and
show stays there: this server only sends files. Ctrl-C ends it.

With --data the server holds versions of models, heads and galleries: fromage push publishes, and open pages take every new version without reloading.
Nobody may publish over the network unless --tokens says so. Several servers on one bucket serve the same.

Browsers offer WebGPU to pages of this machine (http://localhost, http://127.0.0.1) and of https:// addresses alone: to serve to others, put a server
that speaks TLS before this one.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.serve(c.Context(), s) },
	}
	flags := c.Flags()
	flags.StringVar(&s.listen, "listen", "127.0.0.1:8080", "the `ADDRESS` to serve at; port 0 is any free one")
	flags.StringSliceVar(&s.models, "models", nil, "models to choose from, `BUNDLE`s that fromage compile made (default: the embedded one)")
	flags.StringSliceVar(&s.gallery, "gallery", nil, "the pictures to retrieve from, an `INDEX` that fromage index made, one for each model (default: the embedded one)")
	flags.StringVar(&s.pictures, "pictures", "", "the `FOLDER` in which the paths of --gallery begin (default: the first index's)")
	flags.BoolVar(&s.noOpen, "no-open", false, "do not open a browser")
	s.live.addFlags(flags)
	return c
}

func (a *app) serve(ctx context.Context, s serving) error {
	config := server.Config{Site: site.Files(), Dist: site.Dist(), GPU: browser.Script, Version: version(), Log: a.log}
	var err error
	if s.live.data != "" {
		config.Live, err = a.serveLive(ctx, s)
	} else if err = s.live.check(); err == nil {
		config.Models, config.Pictures, err = a.served(s)
	}
	if err != nil {
		return err
	}
	l, err := server.Listen(ctx, s.listen)
	if err != nil {
		return err
	}
	defer l.Close()
	config.Hosts = server.LoopbackHosts(l.Addr())
	url := pageURL(l.Addr())
	if l, url, err = s.live.secure(l, url); err != nil {
		return err
	}
	if config.Live != nil {
		config.Live.Metrics = config.Hosts != nil || s.live.metrics
	}
	h, err := server.Handler(config)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s\n", url)
	fmt.Fprintln(a.stderr, "fromage: serving; Ctrl-C ends it")
	if !s.noOpen {
		if err := openBrowser(url); err != nil {
			a.log.Info("no browser opened", "why", err)
		}
	}
	err = server.Serve(ctx, l, h)
	if err == nil && ctx.Err() != nil {
		fmt.Fprintln(a.stderr, "fromage: stopped")
	}
	return err
}

// pageURL is the address to type; for a listener on all addresses it is this machine's own.
func pageURL(address net.Addr) string {
	host, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return "http://" + address.String() + "/"
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port) + "/"
}

// openBrowser shows a page on a machine with a desktop.
func openBrowser(url string) error {
	name, args := "xdg-open", []string{url}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", url}
	default:
		if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
			return errors.New("there is no desktop")
		}
	}
	cmd := exec.Command(name, args...)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // it may live as long as the browser does; whether it succeeds changes nothing here
	return nil
}

// served opens the models and the gallery.
func (a *app) served(s serving) (models []server.Model, pictures server.Pictures, err error) {
	pictures, indexes, err := a.servedGallery(s)
	if err != nil {
		return nil, nil, err
	}
	if len(s.models) == 0 {
		r, size, err := assets.Open(assets.BundleFile)
		if err != nil {
			return nil, nil, err
		}
		m, err := servedModel("default", r, size, indexes)
		if err != nil {
			return nil, nil, err
		}
		m.Title, m.Embedded = "Demonstration model", true
		models = append(models, m)
	}
	for _, path := range s.models {
		r, size, err := a.openFile(path)
		if err != nil {
			return nil, nil, err
		}
		name := strings.TrimSuffix(filepath.Base(path), ".bundle")
		m, err := servedModel(unsafeInURL.ReplaceAllString(name, "-"), r, size, indexes)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		models = append(models, m)
	}
	for _, x := range indexes {
		if !slices.ContainsFunc(models, func(m server.Model) bool { return m.Index == &x.file }) {
			return nil, nil, fmt.Errorf("%s: want an index of one of the models, have another model's: fromage index build makes one", x.path)
		}
	}
	return models, pictures, nil
}

// unsafeInURL is what a model's address does not have.
var unsafeInURL = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// servedModel checks that a bundle is whole but for its weights, which the page checks, and finds its index, if there is one.
func servedModel(name string, r io.ReaderAt, size int64, indexes []*servedIndex) (server.Model, error) {
	b, err := bundle.Read(r, size)
	if err != nil {
		return server.Model{}, err
	}
	// The header has the SHA-256 of the manifest, which has those of all blobs: it tells bundles apart by every byte.
	head := make([]byte, 64)
	if _, err := r.ReadAt(head, 0); err != nil {
		return server.Model{}, err
	}
	m := b.Manifest()
	id, err := identity(m.Settings)
	if err != nil {
		return server.Model{}, err
	}
	f := server.File{ReaderAt: r, Size: size, Hash: hex.EncodeToString(head[32:])}
	needs := m.Needs()
	served := server.Model{File: f, Name: name, Title: m.Name, DType: m.DType.String(), Memory: needs.Memory(), Buffer: needs.Buffer}
	for _, x := range indexes {
		if x.CheckModel(m.Settings.SharedDim, id) == nil {
			served.Index = &x.file
		}
	}
	return served, nil
}

// openFile opens a file until the program ends.
func (a *app) openFile(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	a.atEnd(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: want a file", path)
	}
	return f, info.Size(), nil
}

// servedIndex is an index and its file as it is served.
type servedIndex struct {
	*index.Index
	path string
	file server.File
}

// servedGallery opens the indexes and what their pictures are read from. Models of one's own without a gallery of their own get none.
func (a *app) servedGallery(s serving) (server.Pictures, []*servedIndex, error) {
	if len(s.gallery) == 0 {
		return servedEmbedded(s)
	}
	var indexes []*servedIndex
	for _, path := range s.gallery {
		x, err := index.Open(path)
		if err != nil {
			return nil, nil, err
		}
		a.atEnd(func() { x.Close() })
		r, size, err := a.openFile(path)
		if err != nil {
			return nil, nil, err
		}
		f, err := indexFile(r, size)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		indexes = append(indexes, &servedIndex{x, path, f})
	}
	folder := s.pictures
	if folder == "" {
		folder = filepath.Dir(s.gallery[0])
	}
	// A root does not follow links out of itself.
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, nil, fmt.Errorf("--pictures: %w", err)
	}
	a.atEnd(func() { root.Close() })
	return func(path string) ([]byte, error) { return pictureIn(root, path) }, indexes, nil
}

func servedEmbedded(s serving) (server.Pictures, []*servedIndex, error) {
	if s.pictures != "" {
		return nil, nil, errors.New("--pictures: want --gallery with it")
	}
	if len(s.models) > 0 {
		return nil, nil, nil
	}
	x, err := assets.Gallery()
	if err != nil {
		return nil, nil, err
	}
	r, size, err := assets.Open(assets.IndexFile)
	if err != nil {
		return nil, nil, err
	}
	f, err := indexFile(r, size)
	return assets.Picture, []*servedIndex{{x, assets.IndexFile, f}}, err
}

func pictureIn(root *os.Root, path string) ([]byte, error) {
	f, err := root.Open(filepath.FromSlash(path))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxPicture {
		return nil, fmt.Errorf("%s: want a picture file of at most %d bytes", path, maxPicture)
	}
	return io.ReadAll(io.LimitReader(f, maxPicture))
}

func indexFile(r io.ReaderAt, size int64) (server.File, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(r, 0, size)); err != nil {
		return server.File{}, err
	}
	return server.File{ReaderAt: r, Size: size, Hash: hex.EncodeToString(sum.Sum(nil)[:16])}, nil
}
