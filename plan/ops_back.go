// SPDX-License-Identifier: Apache-2.0

package plan

import "fromage/shaders"

// The operations of training. They are made by Grad and by builders of training programs; a bundle has none of them, so the codec does not know them.

// LinearBack takes a gradient back through the matrix of a Linear: DY (n,F), W stacked (F,K), Add (n,K) → DX (n,K) = DY·W + Add.
type LinearBack struct {
	DY  ID
	W   []ID
	Add ID
	DX  ID
}

// LinearWeightBack adds the gradient of a trained matrix and bias to what DW (F,K) and DB (F) hold, from columns First … of DY (n,·) and X (n,K).
type LinearWeightBack struct {
	DY    ID
	X     ID
	First int
	DW    ID // state
	DB    ID // state, or none
}

// LayerNormBack takes a gradient back through a LayerNorm: X (n,D), DY (n,D), Add (n,D) → DX (n,D).
type LayerNormBack struct {
	X      ID
	Weight ID
	DY     ID
	Add    ID
	Eps    float32
	DX     ID
}

// AttentionBack takes a gradient back through an Attention whose keys and values are columns of the value that has the queries: Q (n,·), KV, Tokens (n,4),
// DY (n,H·D) → DX (n,·) with the gradients of queries from column 0, of keys from KFrom, of values from VFrom. The rows may be some of the tokens
// only: then what other tokens attend to is a constant. Stats (n,H·2) is for its own use.
type AttentionBack struct {
	Q, KV, Tokens, DY ID
	Heads, Dim, K, V  int
	KFrom, VFrom      int
	Scale             float32
	Stats             ID
	DX                ID
}

// ActBack takes a gradient back through an activation function: X (n,F) before it (for ReLU, after it will do), DY (n,F) → DX (n,F).
type ActBack struct {
	X   ID
	DY  ID
	Act Act
	DX  ID
}

// ScatterRows puts rows in their places: X (R,D), Index (R) ascending → Y (n,D), zeros elsewhere.
type ScatterRows struct {
	X     ID
	Index ID
	Y     ID
}

// EmbedBack adds the gradient of rows First … of the tables of an Embed, where DX (n,K) is that of its result, to what DTable (rows,K) holds.
type EmbedBack struct {
	Tokens ID
	DX     ID
	First  int
	Column int
	DTable ID // state
}

// NormalizeBack takes a gradient back through a Normalize: X (n,D), DY (n,D) → DX (n,D).
type NormalizeBack struct {
	X  ID
	DY ID
	DX ID
}

// CrossEntropy is the softmax cross-entropy of logits X·Wᵀ, of which only Chunk rows exist at a time, with its gradients: X (R,E), W stacked (V,E),
// Labels (R) u32, Weights (R), the factor of each row → NLL (R,2) with the unweighted loss and the label's rank; DX (R,E) where it is wanted; and the
// gradient of the last table's rows, added to what DW holds.
type CrossEntropy struct {
	X       ID
	W       []ID
	Labels  ID
	Weights ID
	NLL     ID
	DX      ID
	DW      ID // state, or none
	// For its own use: logits (Chunk,V), and rows (Chunk,E) of X and DX.
	Logits, XRows, DXRows ID
}

// Similarities are exp(Scale)·A·Bᵀ: A (B,S), B (B,S), Scale (1) → Y, B·B values.
type Similarities struct {
	A, B  ID
	Scale ID
	Y     ID
}

// Contrast is the cross-entropy of the diagonal of Logits (B·B) along rows, then along columns → Stats (2B,4): log-sum-exp, loss, rank, 0.
type Contrast struct {
	Logits ID
	Stats  ID
}

// ContrastBack is the gradient of Weight times the mean of Contrast's two losses, each the mean over B, by the rows of Similarities' A, or by those of
// B where Transposed: Other (B,S) is the other of the two → DX (B,S), and, not transposed, DScale (B) whose sum is the gradient of Scale.
type ContrastBack struct {
	Logits, Stats, Other, Scale ID
	Transposed                  bool
	Weight                      float32
	DX                          ID
	DScale                      ID
}

// Narrow makes f16 of X (n,D), two values a word → Y (n,D/2) of u32: what the way back needs of the way forth, in half the memory. D is a multiple of 4.
type Narrow struct{ X, Y ID }

// Widen is the inverse: X (n,D/2) of u32 → Y (n,D).
type Widen struct{ X, Y ID }

// Sum adds the sum of all of X to the one value of Y.
type Sum struct {
	X ID
	Y ID // state
}

func (*LinearBack) name() string       { return "linear_back" }
func (*LinearWeightBack) name() string { return "linear_weight_back" }
func (*LayerNormBack) name() string    { return "layer_norm_back" }
func (*AttentionBack) name() string    { return "attention_back" }
func (*ActBack) name() string          { return "act_back" }
func (*ScatterRows) name() string      { return "scatter_rows" }
func (*EmbedBack) name() string        { return "embed_back" }
func (*NormalizeBack) name() string    { return "normalize_back" }
func (*CrossEntropy) name() string     { return "cross_entropy" }
func (*Similarities) name() string     { return "similarities" }
func (*Contrast) name() string         { return "contrast" }
func (*ContrastBack) name() string     { return "contrast_back" }
func (*Narrow) name() string           { return "narrow" }
func (*Widen) name() string            { return "widen" }
func (*Sum) name() string              { return "sum" }

func (o *LinearBack) reads() []ID       { return append([]ID{o.DY, o.Add}, o.W...) }
func (o *LinearWeightBack) reads() []ID { return []ID{o.DY, o.X} }
func (o *LayerNormBack) reads() []ID    { return []ID{o.X, o.Weight, o.DY, o.Add} }
func (o *AttentionBack) reads() []ID    { return []ID{o.Q, o.KV, o.Tokens, o.DY} }
func (o *ActBack) reads() []ID          { return []ID{o.X, o.DY} }
func (o *ScatterRows) reads() []ID      { return []ID{o.X, o.Index} }
func (o *EmbedBack) reads() []ID        { return []ID{o.Tokens, o.DX} }
func (o *NormalizeBack) reads() []ID    { return []ID{o.X, o.DY} }
func (o *CrossEntropy) reads() []ID     { return append([]ID{o.X, o.Labels, o.Weights}, o.W...) }
func (o *Similarities) reads() []ID     { return []ID{o.A, o.B, o.Scale} }
func (o *Contrast) reads() []ID         { return []ID{o.Logits} }
func (o *ContrastBack) reads() []ID     { return []ID{o.Logits, o.Stats, o.Other, o.Scale} }
func (o *Narrow) reads() []ID           { return []ID{o.X} }
func (o *Widen) reads() []ID            { return []ID{o.X} }
func (o *Sum) reads() []ID              { return []ID{o.X} }

func (o *LinearBack) writes() (makes, changes []ID)       { return []ID{o.DX}, nil }
func (o *LinearWeightBack) writes() (makes, changes []ID) { return nil, []ID{o.DW, o.DB} }
func (o *LayerNormBack) writes() (makes, changes []ID)    { return []ID{o.DX}, nil }
func (o *AttentionBack) writes() (makes, changes []ID)    { return []ID{o.Stats, o.DX}, nil }
func (o *ActBack) writes() (makes, changes []ID)          { return []ID{o.DX}, nil }
func (o *ScatterRows) writes() (makes, changes []ID)      { return []ID{o.Y}, nil }
func (o *EmbedBack) writes() (makes, changes []ID)        { return nil, []ID{o.DTable} }
func (o *NormalizeBack) writes() (makes, changes []ID)    { return []ID{o.DX}, nil }
func (o *CrossEntropy) writes() (makes, changes []ID) {
	return []ID{o.NLL, o.DX, o.Logits, o.XRows, o.DXRows}, []ID{o.DW}
}
func (o *Similarities) writes() (makes, changes []ID) { return []ID{o.Y}, nil }
func (o *Contrast) writes() (makes, changes []ID)     { return []ID{o.Stats}, nil }
func (o *ContrastBack) writes() (makes, changes []ID) { return []ID{o.DX, o.DScale}, nil }
func (o *Narrow) writes() (makes, changes []ID)       { return []ID{o.Y}, nil }
func (o *Widen) writes() (makes, changes []ID)        { return []ID{o.Y}, nil }
func (o *Sum) writes() (makes, changes []ID)          { return nil, []ID{o.Y} }

func (o *LinearBack) check(c *checker) {
	dy, dx := c.at("dy", o.DY), c.at("dx", o.DX)
	c.active("dy", o.DY)
	if f := c.stacked("w", o.W, dx.Cols); f != dy.Cols {
		c.fail("want w of %d rows, have %d", dy.Cols, f)
	}
	for _, id := range o.W {
		c.weight("w", id)
	}
	c.is("dx", o.DX, dy.Rows, dx.Cols)
	c.opt("add", o.Add, dy.Rows, dx.Cols)
}

func (o *LinearWeightBack) check(c *checker) {
	dy, x, dw := c.at("dy", o.DY), c.at("x", o.X), c.at("dw", o.DW)
	c.is("x", o.X, dy.Rows, x.Cols)
	c.is("dw", o.DW, dw.Rows, x.Cols)
	if o.First < 0 || dw.Rows.Of != One || o.First+dw.Rows.N > dy.Cols {
		c.fail("want %d rows of dw from %d on within %d columns of dy", dw.Rows.N, o.First, dy.Cols)
	}
	c.opt("db", o.DB, Dim{One, 1}, dw.Rows.N)
}

func (o *LayerNormBack) check(c *checker) {
	x := c.at("x", o.X)
	c.active("x", o.X)
	c.vector("weight", o.Weight, x.Cols)
	c.is("dy", o.DY, x.Rows, x.Cols)
	c.opt("add", o.Add, x.Rows, x.Cols)
	c.is("dx", o.DX, x.Rows, x.Cols)
}

func (o *AttentionBack) check(c *checker) {
	q := c.at("q", o.Q)
	c.shape("token table", o.Tokens, q.Rows, TokenColumns, true)
	c.at("kv", o.KV)
	c.is("dy", o.DY, q.Rows, o.Heads*o.Dim)
	c.is("stats", o.Stats, q.Rows, 2*o.Heads)
	c.is("dx", o.DX, q.Rows, q.Cols)
	if n := o.Heads * o.Dim; o.KFrom < n || o.VFrom < o.KFrom+n || o.VFrom+n > q.Cols {
		c.fail("want queries, keys and values of %d columns side by side in %d, have keys from %d and values from %d on", n, q.Cols, o.KFrom, o.VFrom)
	}
}

func (o *ActBack) check(c *checker) {
	x := c.at("x", o.X)
	c.is("dy", o.DY, x.Rows, x.Cols)
	c.is("dx", o.DX, x.Rows, x.Cols)
}

func (o *ScatterRows) check(c *checker) {
	x, y := c.at("x", o.X), c.at("a result", o.Y)
	c.shape("index", o.Index, x.Rows, 1, true)
	c.is("a result", o.Y, y.Rows, x.Cols)
}

func (o *EmbedBack) check(c *checker) {
	dx, table := c.at("dx", o.DX), c.at("table", o.DTable)
	c.shape("token table", o.Tokens, dx.Rows, TokenColumns, true)
	c.is("table", o.DTable, Dim{One, table.Rows.N}, dx.Cols)
}

func (o *NormalizeBack) check(c *checker) {
	x := c.at("x", o.X)
	c.is("dy", o.DY, x.Rows, x.Cols)
	c.is("dx", o.DX, x.Rows, x.Cols)
}

func (o *CrossEntropy) check(c *checker) {
	x, chunk := c.at("x", o.X), Dim{Chunk, 1}
	v := c.stacked("w", o.W, x.Cols)
	c.shape("labels", o.Labels, x.Rows, 1, true)
	c.is("weights", o.Weights, x.Rows, 1)
	c.is("nll", o.NLL, x.Rows, 2)
	c.opt("dx", o.DX, x.Rows, x.Cols)
	c.is("logits", o.Logits, chunk, v)
	c.is("rows of x", o.XRows, chunk, x.Cols)
	c.opt("rows of dx", o.DXRows, chunk, x.Cols)
	if (o.DX == 0) != (o.DXRows == 0) {
		c.fail("want rows of dx where dx is wanted")
	}
	if o.DW != 0 && len(o.W) > 0 {
		c.is("dw", o.DW, c.p.Value(o.W[len(o.W)-1]).Rows, x.Cols)
	}
}

func (o *Similarities) check(c *checker) {
	a := c.at("a", o.A)
	c.is("b", o.B, a.Rows, a.Cols)
	c.vector("scale", o.Scale, 1)
	c.is("a result", o.Y, Dim{Pairs, 1}, 1)
}

func (o *Contrast) check(c *checker) {
	c.is("logits", o.Logits, Dim{Pairs, 1}, 1)
	c.is("stats", o.Stats, Dim{Images, 2}, 4)
}

func (o *ContrastBack) check(c *checker) {
	other := c.at("the other side", o.Other)
	c.is("logits", o.Logits, Dim{Pairs, 1}, 1)
	c.is("stats", o.Stats, Dim{Images, 2}, 4)
	c.vector("scale", o.Scale, 1)
	c.is("dx", o.DX, other.Rows, other.Cols)
	c.opt("dscale", o.DScale, Dim{Images, 1}, 1)
}

func (o *Narrow) check(c *checker) { c.halves(o.X, o.Y) }
func (o *Widen) check(c *checker)  { c.halves(o.Y, o.X) }

// halves wants a value (n,D) of f32, and one that holds it as f16.
func (c *checker) halves(wide, half ID) {
	w := c.at("f32", wide)
	if w.Cols%4 != 0 {
		c.fail("want columns in fours, have %d", w.Cols)
	}
	c.is("f32", wide, w.Rows, w.Cols)
	c.shape("f16", half, w.Rows, w.Cols/2, true)
}

func (o *Sum) check(c *checker) {
	c.at("x", o.X)
	c.is("a result", o.Y, Dim{One, 1}, 1)
}

func (o *LinearBack) lower(l *lowering) {
	l.linearBack(l.rows(o.DY), l.cols(o.DX), l.cols(o.DY), o.W, Ref{Value: o.DY}, Ref{Value: o.Add}, Ref{Value: o.DX})
}

// linearBack adds dx (T,K) = dy (T,stride)·w + add, shard after shard.
func (l *lowering) linearBack(T, K, stride int, w []ID, dy, add, dx Ref) {
	first, mode := 0, flag(add.Value)
	for _, id := range w {
		for _, part := range l.shards(id) {
			d := shaders.LinearBack(l.info, part.format, shaders.LinearBackParams{
				T: uint32(T), K: uint32(K), F: uint32(part.rows), F0: uint32(first), Stride: uint32(stride), Add: mode,
			})
			l.step(d, dy, part.values, part.scale, add, dx)
			first, mode, add = first+part.rows, 2, Ref{}
		}
	}
}

func (o *LinearWeightBack) lower(l *lowering) {
	l.linearWeightBack(l.rows(o.X), l.cols(o.X), l.p.Value(o.DW).Rows.N, o.First, l.cols(o.DY), Ref{Value: o.DY}, Ref{Value: o.X}, Ref{Value: o.DW}, Ref{Value: o.DB})
}

func (l *lowering) linearWeightBack(T, K, F, first, stride int, dy, x, dw, db Ref) {
	d := shaders.LinearWeightBack(l.info, shaders.LinearWeightBackParams{
		T: uint32(T), K: uint32(K), F: uint32(F), F0: uint32(first), Stride: uint32(stride), Bias: flag(db.Value),
	})
	l.step(d, dy, x, dw, db)
}

func (o *LayerNormBack) lower(l *lowering) {
	d := shaders.LayerNormBack(l.info, shaders.LayerNormBackParams{T: l.u(o.X), D: uint32(l.cols(o.X)), Eps: o.Eps, Add: flag(o.Add)})
	l.step(d, Ref{Value: o.X}, l.plain(o.Weight), Ref{Value: o.DY}, Ref{Value: o.Add}, Ref{Value: o.DX})
}

func (o *AttentionBack) lower(l *lowering) {
	p := shaders.AttentionBackQueryParams{
		T: l.u(o.Q), Heads: uint32(o.Heads), Dh: uint32(o.Dim), QStride: uint32(l.cols(o.Q)), KVStride: uint32(l.cols(o.KV)),
		KOffset: uint32(o.K), VOffset: uint32(o.V), Scale: o.Scale, DStride: uint32(l.cols(o.DX)),
	}
	kept := l.kept(o.KV, p.Dh, p.QStride, p.KVStride, p.KOffset, p.VOffset)
	q, kv, tokens, dy, stats, dx := Ref{Value: o.Q}, Ref{Value: o.KV}, Ref{Value: o.Tokens}, Ref{Value: o.DY}, Ref{Value: o.Stats}, Ref{Value: o.DX}
	l.step(shaders.AttentionBackQuery(l.info, kept, p), q, kv, tokens, dy, stats, dx)
	r := shaders.AttentionBackRowsParams{
		T: p.T, Heads: p.Heads, Dh: p.Dh, QStride: p.QStride, KVStride: p.KVStride, KOffset: p.KOffset, VOffset: p.VOffset, Scale: p.Scale,
		DStride: p.DStride, DKOffset: uint32(o.KFrom), DVOffset: uint32(o.VFrom),
	}
	l.step(shaders.AttentionBackRows(l.info, kept, r), q, kv, tokens, dy, stats, dx)
}

func (o *ActBack) lower(l *lowering) {
	d := shaders.ActBack(l.info, shaders.ActBackParams{N: l.u(o.X) * uint32(l.cols(o.X)), Act: uint32(o.Act)})
	l.step(d, Ref{Value: o.X}, Ref{Value: o.DY}, Ref{Value: o.DX})
}

func (o *Narrow) lower(l *lowering) {
	d := shaders.Narrow(l.info, shaders.NarrowParams{N: l.u(o.X) * uint32(l.cols(o.X))})
	l.step(d, Ref{Value: o.X}, Ref{Value: o.Y})
}

func (o *Widen) lower(l *lowering) {
	d := shaders.Widen(l.info, shaders.WidenParams{N: l.u(o.Y) * uint32(l.cols(o.Y))})
	l.step(d, Ref{Value: o.X}, Ref{Value: o.Y})
}

func (o *ScatterRows) lower(l *lowering) {
	d := shaders.ScatterRows(l.info, shaders.ScatterRowsParams{T: l.u(o.Y), R: l.u(o.X), D: uint32(l.cols(o.Y))})
	l.step(d, Ref{Value: o.X}, Ref{Value: o.Index}, Ref{Value: o.Y})
}

func (o *EmbedBack) lower(l *lowering) {
	d := shaders.EmbedBack(l.info, shaders.EmbedBackParams{
		T: l.u(o.DX), K: uint32(l.cols(o.DX)), Rows: l.u(o.DTable), First: uint32(o.First), Column: uint32(o.Column),
	})
	l.step(d, Ref{Value: o.Tokens}, Ref{Value: o.DX}, Ref{Value: o.DTable})
}

func (o *NormalizeBack) lower(l *lowering) {
	d := shaders.NormalizeBack(l.info, shaders.NormalizeBackParams{T: l.u(o.X), D: uint32(l.cols(o.X))})
	l.step(d, Ref{Value: o.X}, Ref{Value: o.DY}, Ref{Value: o.DX})
}

func (o *CrossEntropy) lower(l *lowering) {
	R, E, V := l.rows(o.X), l.cols(o.X), l.cols(o.Logits)
	chunk := l.dims[Chunk]
	x, dx := Ref{Value: o.XRows}, Ref{Value: o.DXRows}
	if chunk >= R {
		x, dx = Ref{Value: o.X}, Ref{Value: o.DX}
	}
	logits := Ref{Value: o.Logits}
	for first := 0; first < R; first += chunk {
		n := min(chunk, R-first)
		if chunk < R {
			l.step(shaders.CopyRows(l.info, shaders.CopyRowsParams{N: uint32(n * E), From: uint32(first * E)}), Ref{Value: o.X}, x)
		}
		l.linear(shaders.LinearParams{T: uint32(n), K: uint32(E), Stride: uint32(V)}, o.W, x, Ref{}, Ref{}, logits)
		l.step(shaders.CrossEntropy(l.info, shaders.CrossEntropyParams{R: uint32(n), V: uint32(V), R0: uint32(first)}),
			Ref{Value: o.Labels}, Ref{Value: o.Weights}, logits, Ref{Value: o.NLL})
		if o.DW != 0 {
			F := l.p.Value(o.DW).Rows.N
			l.linearWeightBack(n, E, F, V-F, V, logits, x, Ref{Value: o.DW}, Ref{})
		}
		if o.DX == 0 {
			continue
		}
		l.linearBack(n, E, V, o.W, logits, Ref{}, dx)
		if chunk < R {
			l.step(shaders.CopyRows(l.info, shaders.CopyRowsParams{N: uint32(n * E), To: uint32(first * E)}), dx, Ref{Value: o.DX})
		}
	}
}

func (o *Similarities) lower(l *lowering) {
	d := shaders.Similarities(l.info, shaders.SimilaritiesParams{B: l.u(o.A), S: uint32(l.cols(o.A))})
	l.step(d, Ref{Value: o.A}, Ref{Value: o.B}, l.plain(o.Scale), Ref{Value: o.Y})
}

func (o *Contrast) lower(l *lowering) {
	l.step(shaders.Contrast(l.info, shaders.ContrastParams{B: uint32(l.dims[Images])}), Ref{Value: o.Logits}, Ref{Value: o.Stats})
}

func (o *ContrastBack) lower(l *lowering) {
	p := shaders.ContrastBackParams{B: uint32(l.dims[Images]), S: uint32(l.cols(o.DX)), Weight: o.Weight}
	if o.Transposed {
		p.Transposed = 1
	}
	l.step(shaders.ContrastBack(l.info, p), Ref{Value: o.Logits}, Ref{Value: o.Stats}, Ref{Value: o.Other}, l.plain(o.Scale), Ref{Value: o.DX}, Ref{Value: o.DScale})
}

func (o *Sum) lower(l *lowering) {
	l.step(shaders.Sum(l.info, shaders.SumParams{N: l.u(o.X) * uint32(l.cols(o.X))}), Ref{Value: o.X}, Ref{Value: o.Y})
}
