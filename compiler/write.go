// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"fromage/bundle"
)

// pieceValues is how many values are read and encoded at a time, unless one row is more: 8 MB of f32.
const pieceValues = 2 << 20

// writer carries a layout out.
type writer struct {
	ctx      context.Context
	to       *bundle.Writer
	total    int64
	done     int64
	start    time.Time
	progress func(Progress)
	moments  map[string]*Moments
}

func (in *inventory) write(ctx context.Context, to *bundle.Writer, l *layout, o Options) error {
	w := &writer{ctx: ctx, to: to, total: l.total, start: time.Now(), progress: o.Progress, moments: o.Moments}
	m := bundle.Manifest{
		Name: in.name, DType: o.DType, Settings: l.settings, Model: *in.model,
		Files: map[string]bundle.Blob{}, Sources: in.sources, Notes: o.Notes,
	}
	if l.tied != nil {
		if err := w.compare(l.tied[0], l.tied[1]); err != nil {
			return fmt.Errorf("compiler: %w", err)
		}
	}
	for i := range l.weights {
		t, err := w.weight(&l.weights[i])
		if err != nil {
			return fmt.Errorf("compiler: weight %s: %w", l.weights[i].name, err)
		}
		m.Tensors = append(m.Tensors, t)
	}
	for _, name := range slices.Sorted(maps.Keys(in.files)) {
		blob, err := to.Blob(func(f io.Writer) error { _, err := f.Write(in.files[name]); return err })
		if err != nil {
			return fmt.Errorf("compiler: file %s: %w", name, err)
		}
		m.Files[name] = blob
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("compiler: %w", err)
	}
	if err := to.Finish(m); err != nil {
		return fmt.Errorf("compiler: %w", err)
	}
	return nil
}

func (w *writer) weight(x *weight) (bundle.Tensor, error) {
	t := bundle.Tensor{Name: x.name, Format: x.format}
	if m := w.moments[x.name]; m != nil && x.format.ScaleBytes(x.cols) > 0 {
		if m.K != x.cols {
			return t, fmt.Errorf("want moments of %d columns, have %d", x.cols, m.K)
		}
		var err error
		if x.rounding, err = m.rounding(); err != nil {
			return t, err
		}
		defer func() { x.rounding = nil }()
	}
	first := 0
	for _, rows := range x.shards {
		s := bundle.Shard{Rows: rows}
		scales := make([]byte, pad16(rows*x.format.ScaleBytes(x.cols)))
		var err error
		s.Values, err = w.to.Blob(func(f io.Writer) error { return w.values(f, x, first, rows, scales) })
		if err != nil {
			return t, err
		}
		if len(scales) > 0 {
			blob, err := w.to.Blob(func(f io.Writer) error { _, err := f.Write(scales); return err })
			if err != nil {
				return t, err
			}
			s.Scales = &blob
			w.add(x.name, len(scales))
		}
		t.Shards = append(t.Shards, s)
		first += rows
	}
	return t, nil
}

func (w *writer) add(name string, n int) {
	w.done += int64(n)
	if w.progress != nil {
		w.progress(Progress{Tensor: name, Done: w.done, Total: w.total, Elapsed: time.Since(w.start)})
	}
}

// values writes rows [first, first+rows) of x to f, piece by piece, and fills in their scales. While a piece is written the next is encoded.
func (w *writer) values(f io.Writer, x *weight, first, rows int, scales []byte) error {
	rowBytes, scaleBytes := x.format.RowBytes(x.cols), x.format.ScaleBytes(x.cols)
	step := min(rows, max(1, pieceValues/x.cols))
	row := make([]float32, step*x.cols)
	// One is being written while the other is filled; the last also takes the padding.
	var out [2][]byte
	for i := range out {
		out[i] = make([]byte, 0, step*rowBytes+16)
	}
	writing := make(chan error, 1)
	writing <- nil
	for i, at := 0, 0; at < rows; i, at = i+1, at+step {
		n := min(step, rows-at)
		b := out[i%2][:n*rowBytes]
		err := w.ctx.Err()
		if err == nil {
			err = x.encode(first+at, row[:n*x.cols], b, scales[at*scaleBytes:(at+n)*scaleBytes])
		}
		if err = errors.Join(<-writing, err); err != nil {
			return err
		}
		if at+n == rows {
			b = append(b, make([]byte, pad16(rows*rowBytes)-int64(rows*rowBytes))...)
		}
		w.add(x.name, len(b))
		go func() { _, err := f.Write(b); writing <- err }()
	}
	return <-writing
}

// encode reads the rows of x from first on into row (n,cols), which it may change, and stores them in values and scales, the rows shared out among the
// cores.
func (x *weight) encode(first int, row []float32, values, scales []byte) error {
	n := len(row) / x.cols
	rowBytes, scaleBytes := x.format.RowBytes(x.cols), x.format.ScaleBytes(x.cols)
	workers := min(runtime.GOMAXPROCS(0), n)
	errs := make([]error, workers)
	var done sync.WaitGroup
	for i := range workers {
		from, to := n*i/workers, n*(i+1)/workers
		done.Go(func() {
			part := row[from*x.cols : to*x.cols]
			if errs[i] = x.read((first+from)*x.cols, part); errs[i] != nil {
				return
			}
			if x.rounding != nil {
				x.rounding.encode(x.format, part, values[from*rowBytes:to*rowBytes], scales[from*scaleBytes:to*scaleBytes])
				return
			}
			for r := from; r < to; r++ {
				x.format.EncodeRow(row[r*x.cols:(r+1)*x.cols], values[r*rowBytes:(r+1)*rowBytes], scales[r*scaleBytes:(r+1)*scaleBytes])
			}
		})
	}
	done.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// read fills dst with the values of x from number at on, in row-major order, and checks that the format can store them. Both ends are those of rows.
func (x *weight) read(at int, dst []float32) error {
	for _, s := range x.sources {
		size := s.rows * s.width
		if at >= size {
			at -= size
			continue
		}
		n := min(len(dst), size-at)
		first := s.first + at/s.width
		if err := s.tensor.read(first, n/s.width, dst[:n]); err != nil {
			return err
		}
		for r := range n / s.width {
			if err := x.format.Check(dst[r*s.width : (r+1)*s.width]); err != nil {
				return fmt.Errorf("%s: tensor %s: row %d: %w", s.tensor.file, s.tensor.name, first+r, err)
			}
		}
		at, dst = 0, dst[n:]
		if len(dst) == 0 {
			break
		}
	}
	return nil
}

// compare wants b, which a checkpoint stores although it is tied to a, to hold the same values.
func (w *writer) compare(a, b tensor) error {
	rows, width := a.rows()
	step := max(1, pieceValues/width)
	x, y := make([]float32, min(step, rows)*width), make([]float32, min(step, rows)*width)
	for first := 0; first < rows; first += step {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		n := min(step, rows-first)
		if err := errors.Join(a.read(first, n, x[:n*width]), b.read(first, n, y[:n*width])); err != nil {
			return err
		}
		for i, v := range x[:n*width] {
			if v != y[i] && (v == v || y[i] == y[i]) {
				return fmt.Errorf("%s: tensor %s: row %d, column %d: want %g as in %s, with which it is tied, have %g", b.file, b.name, first+i/width, i%width, v, a.name, y[i])
			}
		}
	}
	return nil
}
