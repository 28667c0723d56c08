// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"fromage/compiler/checkpoint"
	"fromage/index"
	"fromage/runner"
)

func (a *app) indexCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "index",
		Short: "make and keep the indexes of pictures that are retrieved from",
		Long: `Make and keep indexes: files with the embedding of every picture, its path, caption and licence, made with one model and good for it alone.
Pictures come from folders (all PNG, JPEG, WebP, GIF and BMP files in them) or from lists: TSV files with the header caption<TAB>image, whose images
are found from the list's folder. An index is only ever appended to: stop with Ctrl-C, and go on with add, which passes over what is there.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.indexBuildCommand(), a.indexAddCommand(), a.indexRemoveCommand(), a.indexInfoCommand(), a.indexCompactCommand(), a.indexImportCommand())
	return c
}

// listing is where pictures come from, and what is said of them.
type listing struct {
	captions, credits string // files that --captions and --credits name
	root              string // --root
	dtype             string // --dtype
}

func (l *listing) addFlags(c *cobra.Command) {
	c.Flags().StringVar(&l.captions, "captions", "", "a TSV `FILE` (caption, image) with captions for the pictures of folders, by path in the index or in the folder")
	c.Flags().StringVar(&l.credits, "credits", "", "a TSV `FILE` (image, concept, keywords, licence) with licences")
	c.Flags().StringVar(&l.root, "root", "", "the `FOLDER` that paths in the index start from (default: the current one, and a list's own folder for a list)")
}

func (a *app) indexBuildCommand() *cobra.Command {
	var l listing
	output := ""
	c := &cobra.Command{
		Use:   "build -o FILE FOLDER|LIST.tsv…",
		Short: "make an index of folders and lists of pictures",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if output == "" {
				return errors.New("index build: want -o FILE")
			}
			dtype, err := parseDType(l.dtype)
			if err != nil {
				return err
			}
			if _, err := os.Lstat(output); err == nil {
				return fmt.Errorf("index build: %s: is there already (fromage index add goes on with it)", output)
			}
			work, err := l.list(args)
			if err != nil {
				return err
			}
			r, _, err := a.load(c.Context())
			if err != nil {
				return err
			}
			id, err := identity(r.Settings())
			if err != nil {
				return fmt.Errorf("%s: %w", a.modelName(), err)
			}
			x, err := index.Create(output, index.Header{D: r.Settings().SharedDim, DType: dtype, Model: id})
			if err != nil {
				return err
			}
			err = a.fill(c.Context(), r, x, output, work)
			empty := x.Rows() == 0
			if closed := x.Close(); err == nil {
				err = closed
			}
			if err != nil && empty {
				os.Remove(output)
			}
			return err
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "the index, a `FILE` that is not there yet")
	c.Flags().StringVar(&l.dtype, "dtype", "f16", "of the embeddings: f16 or f32")
	l.addFlags(c)
	a.modelFlag(c.Flags())
	return c
}

func parseDType(s string) (index.DType, error) {
	switch s {
	case "f16":
		return index.F16, nil
	case "f32":
		return index.F32, nil
	}
	return 0, fmt.Errorf("--dtype: want f16 or f32, have %q", s)
}

// required adds -i for a command that changes an index, where no embedded one will do.
func (a *app) required(c *cobra.Command) {
	c.Flags().StringVarP(&a.gallery, "index", "i", "", "the index, a `FILE`")
}

func (a *app) needIndex() error {
	if a.gallery == "" {
		return errors.New("want -i FILE, the index")
	}
	return nil
}

func (a *app) indexAddCommand() *cobra.Command {
	var l listing
	c := &cobra.Command{
		Use:   "add -i FILE FOLDER|LIST.tsv…",
		Short: "add pictures that are not in an index yet, by path",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.needIndex(); err != nil {
				return err
			}
			work, err := l.list(args)
			if err != nil {
				return err
			}
			x, err := index.OpenAppend(a.gallery)
			if err != nil {
				return err
			}
			defer x.Close()
			if n := x.Notice(); n != "" {
				fmt.Fprintln(a.stderr, "fromage:", n)
			}
			r, _, err := a.load(c.Context())
			if err != nil {
				return err
			}
			id, err := identity(r.Settings())
			if err == nil {
				err = x.CheckModel(r.Settings().SharedDim, id)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", a.gallery, err)
			}
			return a.fill(c.Context(), r, x, a.gallery, work)
		},
	}
	l.addFlags(c)
	a.required(c)
	a.modelFlag(c.Flags())
	return c
}

func (a *app) indexRemoveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "remove -i FILE PATH…",
		Short: "remove pictures from an index, by the path that it has for them",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, paths []string) error {
			if err := a.needIndex(); err != nil {
				return err
			}
			x, err := index.OpenAppend(a.gallery)
			if err != nil {
				return err
			}
			defer x.Close()
			for _, p := range paths {
				if _, ok, err := x.Find(p); err != nil {
					return err
				} else if !ok {
					return fmt.Errorf("%s: there is no picture %s", a.gallery, p)
				}
			}
			n, err := x.RemovePaths(paths...)
			if err != nil {
				return err
			}
			return a.said(map[string]any{"removed": n, "rows": x.Len()}, "%d removed, %d left\n", n, x.Len())
		},
	}
	a.required(c)
	return c
}

func (a *app) indexInfoCommand() *cobra.Command {
	return &cobra.Command{
		Use: "info FILE", Short: "say what an index holds", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.indexInfo(args[0]) },
	}
}

func (a *app) indexCompactCommand() *cobra.Command {
	return &cobra.Command{
		Use: "compact FILE", Short: "write an index anew without what was removed", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := index.Compact(args[0]); err != nil {
				return err
			}
			return a.indexInfo(args[0])
		},
	}
}

func (a *app) indexImportCommand() *cobra.Command {
	output, dtype := "", "f16"
	c := &cobra.Command{
		Use:   "import -m BUNDLE -o FILE cc3m_embeddings.pkl…",
		Short: "make an index of embeddings as FROMAGe's release has them",
		Long: `Make an index of cc3m_embeddings*.pkl files: paths and embeddings that the released model made. -m is a bundle of that model; that its heads are the
ones that made the embeddings is for you to know. The pickle is read, not run.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, files []string) error {
			if output == "" {
				return errors.New("index import: want -o FILE")
			}
			t, err := parseDType(dtype)
			if err != nil {
				return err
			}
			b, err := a.openBundle()
			if err != nil {
				return err
			}
			id, err := identity(b.Manifest().Settings)
			if err != nil {
				return fmt.Errorf("%s: %w", a.modelName(), err)
			}
			x, err := index.Create(output, index.Header{D: b.Manifest().Settings.SharedDim, DType: t, Model: id})
			if err != nil {
				return err
			}
			defer x.Close()
			for _, name := range files {
				if err := a.importFile(c.Context(), x, name); err != nil {
					return err
				}
			}
			return a.said(map[string]any{"index": output, "rows": x.Len()}, "%s: %d rows\n", output, x.Len())
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "the index, a `FILE` that is not there yet")
	c.Flags().StringVar(&dtype, "dtype", dtype, "of the embeddings: f16 or f32")
	a.modelFlag(c.Flags())
	return c
}

// importRows is how many rows are imported at once.
const importRows = 4096

func (a *app) importFile(ctx context.Context, x *index.Index, name string) error {
	e, err := checkpoint.OpenEmbeddings(name)
	if err != nil {
		return err
	}
	defer e.Close()
	if want := x.Header().D; e.D != want {
		return fmt.Errorf("%s: want embeddings of %d values, as the model makes, have %d", name, want, e.D)
	}
	line := a.startProgress("importing "+name, "rows")
	defer a.endProgress()
	flat := make([]float32, importRows*e.D)
	for first := 0; first < len(e.Paths); first += importRows {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(importRows, len(e.Paths)-first)
		if err := e.ReadRows(first, n, flat[:n*e.D]); err != nil {
			return err
		}
		rows := make([][]float32, n)
		for i := range rows {
			rows[i] = flat[i*e.D : (i+1)*e.D]
		}
		if err := x.ImportPairs(e.Paths[first:first+n], rows); err != nil {
			return fmt.Errorf("%s: rows from %d: %w", name, first, err)
		}
		line.set(int64(first+n), int64(len(e.Paths)))
	}
	return nil
}

// said writes a result as JSON or as text.
func (a *app) said(v any, format string, args ...any) error {
	if a.json {
		return a.writeJSON(v)
	}
	_, err := fmt.Fprintf(a.stdout, format, args...)
	return err
}

// source is a picture to be indexed.
type source struct {
	file string // where to read it
	rel  string // its path from the folder or list that it was found in
	meta index.Meta
}

// list finds the pictures that arguments name.
func (l *listing) list(args []string) ([]source, error) {
	captions, credits, err := l.tables()
	if err != nil {
		return nil, err
	}
	var out []source
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		var some []source
		if info.IsDir() {
			some, err = l.folder(arg)
		} else {
			some, err = l.file(arg)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	for i := range out {
		m := &out[i].meta
		m.Caption = cmp.Or(m.Caption, captions[m.Path], captions[out[i].rel])
		m.Licence = cmp.Or(credits[m.Path].Licence, credits[out[i].rel].Licence)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("there are no pictures in %s", strings.Join(args, " "))
	}
	return out, nil
}

// tables reads --captions and --credits.
func (l *listing) tables() (map[string]string, map[string]index.Credit, error) {
	captions := map[string]string{}
	if l.captions != "" {
		entries, err := readTSV(l.captions)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range entries {
			captions[e.Image] = e.Caption
		}
	}
	if l.credits == "" {
		return captions, nil, nil
	}
	f, err := os.Open(l.credits)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	credits, err := index.ReadCredits(f)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", l.credits, err)
	}
	return captions, credits, nil
}

func readTSV(name string) ([]index.Entry, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := index.ReadTSV(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return entries, nil
}

// folder lists the pictures of a folder. In the index they have the path from --root, or as the folder was given.
func (l *listing) folder(name string) ([]source, error) {
	files, err := index.Walk(os.DirFS(name))
	if err != nil {
		return nil, err
	}
	prefix := filepath.ToSlash(filepath.Clean(name))
	if l.root != "" {
		rel, err := filepath.Rel(l.root, name)
		if err != nil {
			return nil, err
		}
		prefix = filepath.ToSlash(rel)
	}
	var out []source
	for _, f := range files {
		out = append(out, source{filepath.Join(name, filepath.FromSlash(f)), f, index.Meta{Path: path.Join(prefix, f)}})
	}
	return out, nil
}

// file lists the pictures of a TSV. In the index they have the path that the list has.
func (l *listing) file(name string) ([]source, error) {
	entries, err := readTSV(name)
	if err != nil {
		return nil, err
	}
	root := l.root
	if root == "" {
		root = filepath.Dir(name)
	}
	var out []source
	for _, e := range entries {
		file := filepath.FromSlash(e.Image)
		if !filepath.IsAbs(file) {
			file = filepath.Join(root, file)
		}
		out = append(out, source{file, e.Image, index.Meta{Path: e.Image, Caption: e.Caption}})
	}
	return out, nil
}

// decoded is a picture on its way to the device.
type decoded struct {
	source
	pixels []float32
	err    error
}

// decode reads and decodes pictures on all cores, ahead of whoever takes them, in order. The channel ends early when ctx does.
func decode(ctx context.Context, r *runner.Runner, work []source) <-chan decoded {
	ahead := 2*runtime.GOMAXPROCS(0) + embedBatch
	slots := make(chan chan decoded, ahead)
	go func() {
		defer close(slots)
		cores := make(chan struct{}, runtime.GOMAXPROCS(0))
		for _, s := range work {
			slot := make(chan decoded, 1)
			select {
			case slots <- slot:
			case <-ctx.Done():
				return
			}
			cores <- struct{}{}
			go func() {
				slot <- decodeOne(r, s)
				<-cores
			}()
		}
	}()
	out := make(chan decoded)
	go func() {
		defer close(out)
		for slot := range slots {
			select {
			case out <- <-slot:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func decodeOne(r *runner.Runner, s source) decoded {
	d := decoded{source: s}
	data, err := readPicture(s.file)
	if err != nil {
		d.err = err
		return d
	}
	d.meta.Hash = sha256.Sum256(data)
	d.pixels, d.err = process(r.Vision(), s.file, data)
	return d
}

const (
	embedBatch  = 16  // pictures given to the device at once
	appendBatch = 256 // rows appended at once: what a kill, which unlike Ctrl-C cannot be heard, may cost
)

// filling is an index being filled.
type filling struct {
	a     *app
	r     *runner.Runner
	x     *index.Index
	batch []decoded
	rows  []index.Row
	added int
	bad   []string
}

// fill embeds and appends the pictures that the index does not have. What was embedded before Ctrl-C is kept.
func (a *app) fill(ctx context.Context, r *runner.Runner, x *index.Index, name string, work []source) error {
	if r.Vision() == nil {
		return fmt.Errorf("%s: the model cannot read pictures", a.modelName())
	}
	todo, err := missing(x, work)
	if err != nil {
		return err
	}
	f := &filling{a: a, r: r, x: x}
	err = f.run(ctx, todo)
	if flushed := f.flush(); err == nil || flushed != nil {
		err = flushed
	}
	a.endProgress()
	for _, line := range f.bad {
		fmt.Fprintln(a.stderr, "fromage: left out:", line)
	}
	if errors.Is(err, context.Canceled) && x.Rows() > 0 {
		fmt.Fprintf(a.stderr, "fromage: stopped: %s has %d rows; go on with: fromage index add -i %s …\n", name, x.Len(), name)
	}
	if err != nil {
		return err
	}
	return a.said(map[string]any{"index": name, "added": f.added, "there_before": len(work) - len(todo), "unreadable": f.bad, "rows": x.Len()},
		"%s: %d added, %d there before, %d unreadable; %d rows\n", name, f.added, len(work)-len(todo), len(f.bad), x.Len())
}

// missing is the work whose paths are not in x, each path once.
func missing(x *index.Index, work []source) ([]source, error) {
	var todo []source
	seen := map[string]bool{}
	for _, s := range work {
		_, ok, err := x.Find(s.meta.Path)
		if err != nil {
			return nil, err
		}
		if !ok && !seen[s.meta.Path] {
			todo = append(todo, s)
		}
		seen[s.meta.Path] = true
	}
	return todo, nil
}

func (f *filling) run(ctx context.Context, todo []source) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	line := f.a.startProgress("indexing", "pictures")
	done := 0
	for d := range decode(ctx, f.r, todo) {
		done++
		if d.err != nil {
			f.bad = append(f.bad, describeBad(d.err))
		} else {
			f.batch = append(f.batch, d)
		}
		if len(f.batch) == embedBatch {
			if err := f.embed(ctx); err != nil {
				return err
			}
			line.set(int64(done), int64(len(todo)))
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return f.embed(ctx)
}

// describeBad is an error without the repetition of the operation that package os puts first.
func describeBad(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Path + ": " + p.Err.Error()
	}
	return err.Error()
}

// embed turns the batch into rows.
func (f *filling) embed(ctx context.Context) error {
	var all [][]float32
	for _, d := range f.batch {
		all = append(all, d.pixels)
	}
	images, err := f.r.Embed(ctx, all, nil)
	if err != nil {
		return err
	}
	for i, image := range images {
		f.rows = append(f.rows, index.Row{Meta: f.batch[i].meta, Embedding: image.Retrieval})
	}
	f.batch = f.batch[:0]
	if len(f.rows) >= appendBatch {
		return f.flush()
	}
	return nil
}

// flush appends the rows that are ready.
func (f *filling) flush() error {
	if len(f.rows) == 0 {
		return nil
	}
	err := f.x.Append(f.rows)
	if err == nil {
		f.added += len(f.rows)
	}
	f.rows = nil
	return err
}
