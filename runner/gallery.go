// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"sync"

	"fromage/gpu"
	"fromage/index"
	"fromage/machine"
	"fromage/shaders"
)

// Gallery is an index's rows on a device, searched there exactly: a matrix–vector product and top-k passes. Rows of f16 stay that, others are f32. It
// implements Searcher; scores carry the factor exp(logit_scale), as the reference's do. One search runs at a time.
type Gallery struct {
	mu     sync.Mutex
	dev    gpu.Device
	scale  float32
	d      int
	format shaders.Format
	width  int      // bytes of a row
	rows   []uint32 // index row of each row on the device: those that were live
	shards []gpu.Buffer
	counts []int // rows of each shard
	query  gpu.Buffer
	none   gpu.Buffer
	scores gpu.Buffer
	passes map[int]*topK
}

// topK is the passes for one k, with the buffers between them.
type topK struct {
	list         gpu.List
	scores, rows [2]gpu.Buffer
	last         int
}

// maxTopK is the most rows that the device's top-k finds; beyond it the scores are read back and sorted here.
const maxTopK = 1024

// NewGallery copies the live rows of x to the runner's device.
func NewGallery(r *Runner, x *index.Index) (*Gallery, error) {
	h := x.Header()
	if h.D != r.Settings().SharedDim {
		return nil, fmt.Errorf("runner: gallery: want embeddings of %d values, the index has %d", r.Settings().SharedDim, h.D)
	}
	g := &Gallery{dev: r.m.Dev, scale: r.scale, d: h.D, format: shaders.F32, passes: map[int]*topK{}}
	if h.DType == index.F16 && shaders.F16.Fits(h.D) {
		g.format = shaders.F16
	}
	g.width = g.format.RowBytes(h.D)
	for i := range x.Rows() {
		if x.Live(i) {
			g.rows = append(g.rows, uint32(i))
		}
	}
	if err := g.fill(x); err != nil {
		g.Close()
		return nil, fmt.Errorf("runner: gallery: %w", err)
	}
	return g, nil
}

// Len returns how many rows the gallery searches.
func (g *Gallery) Len() int { return len(g.rows) }

func (g *Gallery) fill(x *index.Index) (err error) {
	for _, b := range []struct {
		buffer *gpu.Buffer
		label  string
		size   int
	}{{&g.query, "query", 4 * g.d}, {&g.none, "none", 16}, {&g.scores, "scores", 4 * len(g.rows)}} {
		if *b.buffer, err = g.dev.NewBuffer("gallery "+b.label, machine.Padded(b.size)); err != nil {
			return err
		}
	}
	perShard := g.dev.Info().Limits.MaxBinding / g.width
	for first := 0; first < len(g.rows); first += perShard {
		n := min(perShard, len(g.rows)-first)
		b, err := g.dev.NewBuffer(fmt.Sprintf("gallery rows from %d", first), machine.Padded(g.width*n))
		if err != nil {
			return err
		}
		g.shards, g.counts = append(g.shards, b), append(g.counts, n)
		if err := g.upload(x, b, g.rows[first:first+n]); err != nil {
			return err
		}
	}
	return nil
}

// uploadRows is how many rows go to the device at once.
const uploadRows = 4096

func (g *Gallery) upload(x *index.Index, b gpu.Buffer, rows []uint32) error {
	piece := make([]float32, min(uploadRows, len(rows))*g.width/4)
	for at := 0; at < len(rows); at += uploadRows {
		n := min(uploadRows, len(rows)-at)
		if err := g.read(x, rows[at:at+n], piece); err != nil {
			return err
		}
		if err := g.dev.Write(b, at*g.width, machine.Bytes(piece)[:n*g.width]); err != nil {
			return err
		}
	}
	return nil
}

// read reads rows, ascending, as they are on the device; those that follow one another at once.
func (g *Gallery) read(x *index.Index, rows []uint32, piece []float32) (err error) {
	for len(rows) > 0 && err == nil {
		n := 1
		for n < len(rows) && rows[n] == rows[0]+uint32(n) {
			n++
		}
		if g.format == shaders.F16 {
			err = x.Stored(int(rows[0]), n, machine.Bytes(piece))
		} else {
			err = x.Vectors(int(rows[0]), n, piece)
		}
		rows, piece = rows[n:], piece[n*g.width/4:]
	}
	return err
}

// Search returns the k rows with the highest score exp(logit_scale)·⟨row, e⟩ for a normalised e (S), best first, of equal scores the lower row; rows
// in seen have index.SeenPenalty off their score, as in the reference.
func (g *Gallery) Search(e []float32, k int, seen []int) ([]index.Hit, error) {
	if len(e) != g.d {
		return nil, fmt.Errorf("runner: gallery: want a query of %d values, have %d", g.d, len(e))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	// Whatever rows are seen, the k best after their penalty are among the k + len(seen) best before it.
	find := min(len(g.rows), k+len(seen))
	if find <= 0 {
		return nil, nil
	}
	if err := g.dev.Write(g.query, 0, machine.Bytes(e)); err != nil {
		return nil, err
	}
	scores, rows, err := g.best(find)
	if err != nil {
		return nil, fmt.Errorf("runner: gallery: %w", err)
	}
	hits := make([]index.Hit, 0, find)
	for i, s := range scores {
		if rows[i] >= uint32(len(g.rows)) {
			continue // a score that is not a number
		}
		h := index.Hit{Row: int(g.rows[rows[i]]), Score: s * g.scale}
		if slices.Contains(seen, h.Row) {
			h.Score -= index.SeenPenalty
		}
		hits = append(hits, h)
	}
	sort.Slice(hits, func(i, j int) bool { return before(hits[i], hits[j]) })
	return hits[:min(k, len(hits))], nil
}

// before says whether a is the better hit.
func before(a, b index.Hit) bool { return a.Score > b.Score || a.Score == b.Score && a.Row < b.Row }

// best returns the scores and device rows of the k best.
func (g *Gallery) best(k int) (scores []float32, rows []uint32, err error) {
	if k > maxTopK {
		return g.bestHere(k)
	}
	t, err := g.prepare(k)
	if err != nil {
		return nil, nil, err
	}
	if err := g.dev.Submit(&t.list); err != nil {
		return nil, nil, err
	}
	scores, rows = make([]float32, k), make([]uint32, k)
	if err := g.dev.Read(t.scores[t.last], 0, machine.Bytes(scores)); err != nil {
		return nil, nil, err
	}
	return scores, rows, g.dev.Read(t.rows[t.last], 0, machine.Bytes(rows))
}

// bestHere sorts all scores in Go.
func (g *Gallery) bestHere(k int) ([]float32, []uint32, error) {
	var list gpu.List
	if err := g.product(&list); err != nil {
		return nil, nil, err
	}
	if err := g.dev.Submit(&list); err != nil {
		return nil, nil, err
	}
	all := make([]float32, len(g.rows))
	if err := g.dev.Read(g.scores, 0, machine.Bytes(all)); err != nil {
		return nil, nil, err
	}
	order := make([]uint32, 0, len(all))
	for i, s := range all {
		if !math.IsNaN(float64(s)) {
			order = append(order, uint32(i))
		}
	}
	sort.SliceStable(order, func(i, j int) bool { return all[order[i]] > all[order[j]] })
	order = order[:min(k, len(order))]
	scores := make([]float32, len(order))
	for i, o := range order {
		scores[i] = all[o]
	}
	return scores, order, nil
}

// product adds the dispatches that write every row's score.
func (g *Gallery) product(list *gpu.List) error {
	first := 0
	for i, n := range g.counts {
		d := shaders.Linear(g.dev.Info(), g.format, shaders.LinearParams{T: 1, K: uint32(g.d), F: uint32(n), F0: uint32(first), Stride: uint32(len(g.rows))})
		if err := dispatch(g.dev, list, d, g.query, g.shards[i], g.none, g.none, g.none, g.scores); err != nil {
			return err
		}
		first += n
	}
	return nil
}

// dispatch compiles and adds one dispatch.
func dispatch(dev gpu.Device, list *gpu.List, d shaders.Dispatch, buffers ...gpu.Buffer) error {
	p, err := dev.Compile(d.Kernel)
	if err != nil {
		return err
	}
	list.Dispatch(p, d.Groups, d.Params, buffers...)
	return nil
}

// maxPasses is how many k a gallery stays prepared for.
const maxPasses = 32

// prepare makes the command list for the k best.
func (g *Gallery) prepare(k int) (*topK, error) {
	if t, ok := g.passes[k]; ok {
		return t, nil
	}
	t := &topK{}
	passes := shaders.TopKPasses(len(g.rows), k)
	for i := range t.scores {
		for _, b := range []*gpu.Buffer{&t.scores[i], &t.rows[i]} {
			var err error
			if *b, err = g.dev.NewBuffer("gallery top-k", machine.Padded(4*passes[0].Results())); err != nil {
				return nil, err
			}
		}
	}
	if err := g.product(&t.list); err != nil {
		return nil, err
	}
	scores, rows := g.scores, g.none
	for i, p := range passes {
		t.last = i % 2
		if err := dispatch(g.dev, &t.list, shaders.TopK(g.dev.Info(), p), scores, rows, t.scores[t.last], t.rows[t.last]); err != nil {
			return nil, err
		}
		scores, rows = t.scores[t.last], t.rows[t.last]
	}
	if len(g.passes) >= maxPasses {
		g.forget()
	}
	g.passes[k] = t
	return t, nil
}

func (g *Gallery) forget() {
	for _, t := range g.passes {
		for i := range t.scores {
			_ = g.dev.Free(t.scores[i])
			_ = g.dev.Free(t.rows[i])
		}
	}
	clear(g.passes)
}

// Bytes returns how many bytes of embeddings a search goes through.
func (g *Gallery) Bytes() int { return g.width * len(g.rows) }

// Close frees what the gallery has on the device.
func (g *Gallery) Close() {
	g.forget()
	for _, b := range append(g.shards, g.query, g.none, g.scores) {
		if b != 0 {
			_ = g.dev.Free(b)
		}
	}
}
