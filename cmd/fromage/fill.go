// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"runtime"

	"fromage/index"
	"fromage/internal/ahead"
	"fromage/runner"
)

// decoded is a picture on its way to the device.
type decoded struct {
	source
	pixels []float32
	err    error
}

// decode reads and decodes pictures on all cores, ahead of whoever takes them, in order. It ends early when ctx does.
func decode(ctx context.Context, r *runner.Runner, work []source) iter.Seq[decoded] {
	return ahead.Map(ctx, work, runtime.GOMAXPROCS(0), embedBatch, func(s source) decoded { return decodeOne(r, s) })
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
