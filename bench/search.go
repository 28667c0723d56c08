// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"

	"fromage/index"
	"fromage/runner"
)

// Search is the speed of finding the best rows of a gallery, from the query's numbers to theirs.
type Search struct {
	Rows      int     `json:"rows"`
	D         int     `json:"d"`
	K         int     `json:"k"`
	MS        float64 `json:"ms"`
	GBps      float64 `json:"gb_per_s"` // bytes of the gallery's embeddings on the device, per second
	CopyShare float64 `json:"copy_share"`
}

// searchK is how many rows are searched for.
const searchK = 10

// SearchOf measures searches of a gallery with made-up rows. progress, if any, counts rows.
func SearchOf(ctx context.Context, r *runner.Runner, rows int, c Ceilings, progress func(runner.Progress)) (*Search, error) {
	D := r.Settings().SharedDim
	if D == 0 || rows < searchK {
		return nil, fmt.Errorf("bench: search: want a model that knows pictures and %d rows or more, have embeddings of %d values and %d rows", searchK, D, rows)
	}
	x, err := madeUp(ctx, rows, D, progress)
	if err != nil {
		return nil, err
	}
	g, err := runner.NewGallery(r, x)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	query := make([]float32, D)
	query[0] = 1
	took, err := median(func() error {
		hits, err := g.Search(query, searchK, nil)
		if err == nil && len(hits) != searchK {
			err = fmt.Errorf("bench: search: want %d rows, have %d", searchK, len(hits))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	s := &Search{Rows: rows, D: D, K: searchK, MS: took.Seconds() * 1e3, GBps: over(float64(g.Bytes()), took.Seconds()*1e9)}
	s.CopyShare = over(s.GBps, c.CopyGBps)
	return s, nil
}

// madeUp is an index of small f16 numbers.
func madeUp(ctx context.Context, rows, D int, progress func(runner.Progress)) (*index.Index, error) {
	x, err := index.New(index.Header{D: D, DType: index.F16})
	if err != nil {
		return nil, err
	}
	const most = 1 << 15
	vectors, metas := make([]byte, 2*D*min(rows, most)), make([]index.Meta, min(rows, most))
	for i := range metas {
		metas[i].Path = "made up"
	}
	state := uint32(1)
	for done := 0; done < rows; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := min(most, rows-done)
		for i := 0; i < 2*D*n; i += 2 {
			state = state*1664525 + 1013904223
			vectors[i], vectors[i+1] = byte(state>>24), 0x28|byte(state>>16)&0x83
		}
		if err := x.AppendStored(metas[:n], vectors[:2*D*n]); err != nil {
			return nil, err
		}
		if done += n; progress != nil {
			progress(runner.Progress{Done: int64(done), Total: int64(rows), What: "rows"})
		}
	}
	return x, nil
}
