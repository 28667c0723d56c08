// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fromage/assets"
	"fromage/bundle"
	"fromage/compiler"
	"fromage/index"
	"fromage/internal/ahead"
	"fromage/runner"
	"fromage/server/client"
	"fromage/server/store"
	versions "fromage/server/version"
)

// pushing is where something is published.
type pushing struct{ to, token, model, note string }

// tokenVariable is where a token is, so that it stands in no list of processes.
const tokenVariable = "FROMAGE_TOKEN"

func (p *pushing) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&p.to, "to", "http://127.0.0.1:8080", "where: the `URL` of a fromage serve --data, or its folder or bucket")
	flags.StringVar(&p.token, "token-file", "", "a `FILE` with the token for a server (default: the variable "+tokenVariable+")")
	flags.StringVar(&p.model, "name", "", "the model's `NAME` there (default: the only one)")
	flags.StringVar(&p.note, "note", "", "what is new, for people: open pages show it")
}

// open connects.
func (p *pushing) open(ctx context.Context) (*client.Publisher, error) {
	token := os.Getenv(tokenVariable)
	if p.token != "" {
		data, err := os.ReadFile(p.token)
		if err != nil {
			return nil, fmt.Errorf("--token-file: %w", err)
		}
		token = strings.TrimSpace(string(data))
	}
	name := "fromage push"
	if user := os.Getenv("USER"); user != "" {
		name += " by " + user
	}
	return client.Open(ctx, p.to, token, name)
}

// name finds out the model's.
func (p *pushing) name(m *versions.Manifest) (string, error) {
	if p.model != "" {
		return p.model, nil
	}
	name, err := client.Only(m)
	if err != nil {
		return "", fmt.Errorf("%s: %w (--name)", p.to, err)
	}
	return name, nil
}

func (a *app) pushCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "push", Short: "publish heads, pictures or a model to a fromage serve --data",
		Long: `Publish a version: heads from training, pictures added or removed, a bundle. Open pages take it without reloading.
A server wants a token (the variable ` + tokenVariable + `); a folder or bucket given by --to is written directly.`,
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	gallery := &cobra.Command{
		Use: "gallery", Short: "publish pictures", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	gallery.AddCommand(a.pushAddCommand(), a.pushRemoveCommand(), a.pushEmbeddingsCommand())
	c.AddCommand(a.pushBundleCommand(), a.pushHeadsCommand(), gallery)
	return c
}

func (a *app) pushBundleCommand() *cobra.Command {
	var p pushing
	title := ""
	c := &cobra.Command{
		Use: "bundle FILE", Short: "publish a bundle under --name (default: the file's), as a new model or in place of the one there", Args: takes(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			f, size, err := a.openFile(args[0])
			if err != nil {
				return err
			}
			if _, err := bundle.Read(f, size); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			name := p.model
			if name == "" {
				name = unsafeInURL.ReplaceAllString(strings.TrimSuffix(filepath.Base(args[0]), ".bundle"), "-")
			}
			to, err := p.open(c.Context())
			if err != nil {
				return err
			}
			defer to.Close()
			line := a.startProgress("sending "+args[0], "B")
			to.Progress = func(sent int64) { line.set(sent, size) }
			return a.published(to.Bundle(c.Context(), name, title, p.note, f, size))
		},
	}
	p.addFlags(c.Flags())
	c.Flags().StringVar(&title, "title", "", "the model's name for people (default: the bundle's)")
	return c
}

// published says what became of a change.
func (a *app) published(v client.Published, err error) error {
	a.endProgress()
	if err != nil {
		return err
	}
	return a.said(v, "version %d, %s, %d bytes sent\n", v.Seq, v.ID, v.Sent)
}

func (a *app) pushHeadsCommand() *cobra.Command {
	var p pushing
	c := &cobra.Command{
		Use: "heads FILE", Short: "publish trained parameters (safetensors or a PyTorch file) in place of the model's; the gallery is embedded anew with them", Args: takes(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			to, err := p.open(c.Context())
			if err != nil {
				return err
			}
			defer to.Close()
			m, err := to.Current(c.Context())
			if err != nil {
				return err
			}
			name, err := p.name(m)
			if err != nil {
				return err
			}
			heads, err := compiler.ReadHeads(args[0])
			if err != nil {
				return err
			}
			return a.published(to.Heads(c.Context(), name, p.note, heads))
		},
	}
	p.addFlags(c.Flags())
	return c
}

func (a *app) pushRemoveCommand() *cobra.Command {
	return a.pushChangeCommand("remove PATH…", "remove pictures from the gallery, by their paths there", many, func(c *versions.Change, paths []string) error {
		c.Remove = paths
		return nil
	})
}

func (a *app) pushEmbeddingsCommand() *cobra.Command {
	return a.pushChangeCommand("embeddings f16|q8", "store the gallery's embeddings in f16, or in q8, which takes half the bytes, from now on", 1,
		func(c *versions.Change, args []string) error {
			c.Embeddings = args[0]
			_, err := versions.ParseEmbeddings(args[0])
			return err
		})
}

// pushChangeCommand publishes a change that needs no pieces: what fill makes of one to most arguments.
func (a *app) pushChangeCommand(use, short string, most int, fill func(c *versions.Change, args []string) error) *cobra.Command {
	var p pushing
	c := &cobra.Command{
		Use: use, Short: short, Args: takes(1, most),
		RunE: func(c *cobra.Command, args []string) error {
			change := &versions.Change{Note: p.note}
			if err := fill(change, args); err != nil {
				return err
			}
			to, err := p.open(c.Context())
			if err != nil {
				return err
			}
			defer to.Close()
			m, err := to.Current(c.Context())
			if err != nil {
				return err
			}
			if change.Model, err = p.name(m); err != nil {
				return err
			}
			return a.published(to.Commit(c.Context(), change))
		},
	}
	p.addFlags(c.Flags())
	return c
}

func (a *app) pushAddCommand() *cobra.Command {
	var p pushing
	var l listing
	embedded := false
	c := &cobra.Command{
		Use: "add FOLDER|LIST.tsv…", Short: "add pictures to the gallery, in place of those with the same paths",
		Long: `Add pictures to the gallery. They are read here, once, by the model's vision tower; the server keeps what it saw, so that new heads need no picture again.
Their paths in the gallery begin at --root. Without -m the model is fetched from where the pictures go.`,
		Args: takes(0, many),
		RunE: func(c *cobra.Command, args []string) error {
			if embedded == (len(args) > 0) {
				return errors.New("push gallery add: want folders or lists of pictures, or --embedded")
			}
			var work []source
			var err error
			if embedded {
				work, err = embeddedSources()
			} else {
				work, err = l.list(args)
			}
			if err != nil {
				return err
			}
			return a.pushPictures(c.Context(), p, work)
		},
	}
	p.addFlags(c.Flags())
	l.addFlags(c)
	c.Flags().BoolVar(&embedded, "embedded", false, "the program's own pictures")
	c.Flags().StringVarP(&a.model, "model", "m", "", "the `BUNDLE` whose vision tower reads them: the one that was published")
	return c
}

// embeddedSources lists the embedded gallery's pictures.
func embeddedSources() ([]source, error) {
	x, err := assets.Gallery()
	if err != nil {
		return nil, err
	}
	var all []source
	for i := range x.Rows() {
		m, err := x.Row(i)
		if err != nil {
			return nil, err
		}
		all = append(all, source{file: galleryPrefix + m.Path, rel: m.Path, meta: m})
	}
	return all, nil
}

func (a *app) pushPictures(ctx context.Context, p pushing, work []source) error {
	to, err := p.open(ctx)
	if err != nil {
		return err
	}
	m, err := to.Current(ctx)
	if err != nil {
		to.Close()
		return err
	}
	name, err := p.name(m)
	if err == nil && m.Model(name) == nil {
		err = fmt.Errorf("%s: there is no model %s", p.to, name)
	}
	if err != nil {
		to.Close()
		return err
	}
	b, err := a.publishedBundle(ctx, to, m.Model(name))
	to.Close() // reading pictures takes a while
	if err != nil {
		return err
	}
	r, err := a.loadBundle(ctx, b)
	if err != nil {
		return err
	}
	pictures, bad, err := a.readPictures(ctx, r, work)
	if err != nil {
		return err
	}
	for _, line := range bad {
		fmt.Fprintln(a.stderr, "fromage: left out:", line)
	}
	if len(pictures) == 0 {
		return fmt.Errorf("none of %d pictures can be read", len(work))
	}
	if to, err = p.open(ctx); err != nil {
		return err
	}
	defer to.Close()
	return a.published(to.Add(ctx, name, p.note, pictures))
}

// publishedBundle is the model's bundle as it was published: of -m, the program's own, or fetched.
func (a *app) publishedBundle(ctx context.Context, to *client.Publisher, x *versions.Model) (*bundle.Bundle, error) {
	header, err := embeddedHeader()
	if err != nil {
		return nil, err
	}
	if a.model == "" && !bytes.Equal(header[32:], x.Bundle.SHA256[:]) {
		return a.fetchBundle(ctx, to, x)
	}
	b, err := a.openBundle()
	if err != nil {
		return nil, err
	}
	if a.model != "" {
		f, err := os.Open(a.model)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if _, err := io.ReadFull(f, header); err != nil || !bytes.Equal(header[32:], x.Bundle.SHA256[:]) {
			return nil, fmt.Errorf("%s: want the bundle that was published as %s, have another", a.model, x.Name)
		}
	}
	return b, nil
}

func (a *app) fetchBundle(ctx context.Context, to *client.Publisher, x *versions.Model) (*bundle.Bundle, error) {
	line := a.startProgress("fetching "+x.Name, "B")
	defer a.endProgress()
	m := &bundle.Memory{}
	for _, piece := range x.Bundle.Pieces {
		data, err := to.Piece(ctx, piece.Hash)
		if err != nil {
			return nil, err
		}
		m.Bytes = append(m.Bytes, data...)
		line.set(int64(len(m.Bytes)), x.Bundle.Size)
	}
	return bundle.Read(m, int64(len(m.Bytes)))
}

// readPictures runs pictures through the vision tower. What cannot be read is left out and named.
func (a *app) readPictures(ctx context.Context, r *runner.Runner, work []source) (all []client.Picture, bad []string, err error) {
	if r.Vision() == nil {
		return nil, nil, errors.New("the model cannot read pictures")
	}
	line := a.startProgress("reading pictures", "")
	defer a.endProgress()
	var batch []decoded
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		var pixels [][]float32
		for _, d := range batch {
			pixels = append(pixels, d.pixels)
		}
		features, _, err := r.Pooled(pixels)
		if err != nil {
			return err
		}
		for i, d := range batch {
			data, err := readPicture(d.file)
			if err != nil {
				return err
			}
			all = append(all, client.Picture{Meta: index.Meta{Path: filepath.ToSlash(d.meta.Path), Caption: d.meta.Caption, Licence: d.meta.Licence}, Features: features[i], File: data})
		}
		batch = batch[:0]
		return nil
	}
	done := 0
	for d := range ahead.Map(ctx, work, runtime.GOMAXPROCS(0), embedBatch, func(s source) decoded { return decodeOne(r, s) }) {
		done++
		if d.err != nil {
			if !errors.As(d.err, new(pictureError)) && !errors.Is(d.err, os.ErrNotExist) {
				return nil, nil, d.err
			}
			bad = append(bad, fmt.Sprintf("%s: %v", d.file, d.err))
			continue
		}
		if batch = append(batch, d); len(batch) == embedBatch {
			if err := flush(); err != nil {
				return nil, nil, err
			}
		}
		line.set(int64(done), int64(len(work)))
	}
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	return all, bad, flush()
}

func (a *app) pullCommand() *cobra.Command {
	follow := false
	c := &cobra.Command{
		Use: "pull URL FOLDER", Short: "mirror a fromage serve --data into a folder, which fromage serve --data can serve",
		Long: `Fetch what the current version has and the folder lacks. A pull that is stopped, however, goes on where it was; every piece is held to its hash.`,
		Args: takes(2, 2),
		RunE: func(c *cobra.Command, args []string) error { return a.pull(c.Context(), args[0], args[1], follow) },
	}
	c.Flags().BoolVar(&follow, "follow", false, "go on with every new version, until Ctrl-C")
	return c
}

func (a *app) pull(ctx context.Context, url, folder string, follow bool) error {
	st, err := store.Open(ctx, folder)
	if err != nil {
		return err
	}
	defer st.Close()
	p := &client.Puller{Options: client.Options{URL: url, Name: "fromage pull"}, Store: st}
	line := a.startProgress("fetching", "B")
	p.Progress = func(now client.Progress) { line.set(now.Done, now.Total) }
	p.Failed = func(err error, wait time.Duration) {
		fmt.Fprintf(a.stderr, "fromage: %v; again in %v\n", err, wait.Round(100*time.Millisecond))
	}
	say := func(v *store.Version) error {
		received := p.Received
		p.Received = 0
		return a.said(map[string]any{"seq": v.Seq, "id": v.ID, "note": v.Note, "received": received}, "version %d, %s, %d bytes received\n", v.Seq, v.ID, received)
	}
	if follow {
		var failed error
		err := p.Follow(ctx, func(v *store.Version) { failed = errors.Join(failed, say(v)) })
		return errors.Join(failed, err)
	}
	v, err := p.Once(ctx)
	a.endProgress()
	if err != nil {
		return err
	}
	if v == nil {
		return no{fmt.Errorf("%s: nothing was published there yet", url)}
	}
	return say(v)
}
