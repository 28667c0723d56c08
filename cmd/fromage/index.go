// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"fromage/compiler/checkpoint"
	"fromage/index"
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

func (a *app) indexBuildCommand() *cobra.Command {
	var l listing
	output := ""
	c := &cobra.Command{
		Use:   "build -o FILE FOLDER|LIST.tsv…",
		Short: "make an index of folders and lists of pictures",
		Args:  takes(1, many),
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
			r, err := a.load(c.Context())
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
			if empty {
				os.Remove(output)
			}
			if err == nil && empty {
				err = fmt.Errorf("index build: none of %d pictures can be read", len(work))
			}
			return err
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "the index, a `FILE` that is not there yet")
	c.Flags().StringVar(&l.dtype, "dtype", "f16", "of the embeddings: f16, q8 or f32")
	l.addFlags(c)
	a.modelFlag(c.Flags())
	return c
}

func parseDType(s string) (index.DType, error) {
	t, err := index.ParseDType(s)
	if err != nil {
		return 0, fmt.Errorf("--dtype: %w", err)
	}
	return t, nil
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
		Args:  takes(1, many),
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
			r, err := a.load(c.Context())
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
		Args:  takes(1, many),
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
		Use: "info FILE", Short: "say what an index holds", Args: takes(1, 1),
		RunE: func(_ *cobra.Command, args []string) error { return a.indexInfo(args[0]) },
	}
}

func (a *app) indexCompactCommand() *cobra.Command {
	return &cobra.Command{
		Use: "compact FILE", Short: "write an index anew without what was removed", Args: takes(1, 1),
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
		Args: takes(1, many),
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
			for _, name := range files {
				if err = a.importFile(c.Context(), x, name); err != nil {
					break
				}
			}
			if closed := x.Close(); err == nil {
				err = closed
			}
			if err != nil {
				// Unlike a folder's pictures, the rest of the rows could not be added later.
				os.Remove(output)
				return err
			}
			return a.said(map[string]any{"index": output, "rows": x.Len()}, "%s: %d rows\n", output, x.Len())
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "the index, a `FILE` that is not there yet")
	c.Flags().StringVar(&dtype, "dtype", dtype, "of the embeddings: f16, q8 or f32")
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
