// SPDX-License-Identifier: Apache-2.0

// Package plan is a model's computation as plain data: values, operations from a closed set, and the kernel steps they come down to.
//
// What enters is builder calls (from package model) or a decoded plan (from a bundle); what leaves is, for given sizes, weight formats and device,
// the list of kernel dispatches with the buffers that each binds. The package refuses to know weights' contents, files, and devices that run.
package plan

import (
	"fmt"
	"slices"
)

// ID names a value within its program; 0 is none.
type ID int

// Size is what the number of rows of a value grows with.
type Size uint8

// The sizes that are known only when a program runs.
const (
	One    Size = iota // a constant
	Tokens             // T: packed tokens of this run
	Rows               // R: token rows that results are wanted of
	Images             // B: pictures of this run
	Prefix             // I: rows of visual embeddings given to this run
	Pairs              // P: B·B, every picture with every caption of a batch in training
	Chunk              // C: rows of logits that exist at a time in training
)

var sizeNames = [...]string{"1", "T", "R", "B", "I", "P", "C"}

// Past is no size of values: at most how many rows of keys and values a token of a run attends to, or somewhat more; 0 where nobody says. It decides
// what is faster, not what is computed.
const Past = Size(len(sizeNames))

// Dims gives the sizes of one run, by Size, and its Past; Dims[One] is 1.
type Dims [Past + 1]int

// Run makes Dims of a language-model run: tokens T, wanted rows R, visual embedding rows I.
func Run(tokens, rows, prefix int) Dims {
	return Dims{One: 1, Tokens: tokens, Rows: rows, Prefix: prefix}
}

// RunImages makes Dims of a vision run over B pictures of N tokens each.
func RunImages(images, tokensPerImage int) Dims {
	return Dims{One: 1, Images: images, Tokens: images * tokensPerImage}
}

// Dim is a number of rows: N times a size.
type Dim struct {
	Of Size
	N  int
}

// In returns the rows that the dim stands for in a run.
func (d Dim) In(dims Dims) int { return d.N * dims[d.Of] }

func (d Dim) String() string {
	switch {
	case d.Of == One:
		return fmt.Sprint(d.N)
	case d.N == 1:
		return sizeNames[d.Of]
	}
	return fmt.Sprint(d.N) + sizeNames[d.Of]
}

// Kind is where a value lives.
type Kind uint8

// The kinds of value.
const (
	Activation Kind = iota // made and used within one run
	Input                  // written by the caller before a run
	Output                 // made by a run, read by the caller after it
	State                  // kept from run to run: the KV cache, by name shared between programs
	Weight                 // from the bundle, by name shared between programs
)

var kindNames = [...]string{"activation", "input", "output", "state", "weight"}

func (k Kind) String() string { return kindNames[k] }

// Value is a two-dimensional array (rows, columns) of f32, or of u32 where U32 is set; a weight's rows are in its storage format.
type Value struct {
	Name string `json:"name,omitempty"` // unique among the program's values that are not activations
	Kind Kind   `json:"kind,omitempty"`
	Rows Dim    `json:"rows"`
	Cols int    `json:"cols"`
	U32  bool   `json:"u32,omitempty"`
}

// Program is one computation: values, and operations in an order in which they can run.
type Program struct {
	Name   string
	Values []Value // Values[id−1]
	Ops    []Op
}

// Value returns the value that id names.
func (p *Program) Value(id ID) *Value { return &p.Values[id-1] }

// Find returns the value with that name, 0 if there is none.
func (p *Program) Find(name string) ID {
	for i, v := range p.Values {
		if v.Name == name && name != "" {
			return ID(i + 1)
		}
	}
	return 0
}

// needs says of every operation whether a wanted value depends on it, through values or states.
func (p *Program) needs(want func(*Value) bool) []bool {
	need, values := make([]bool, len(p.Ops)), make([]bool, len(p.Values)+1)
	for i := range p.Values {
		values[i+1] = want(&p.Values[i])
	}
	for i, op := range slices.Backward(p.Ops) {
		makes, changes := op.writes()
		need[i] = slices.ContainsFunc(append(makes, changes...), func(id ID) bool { return id != 0 && values[id] })
		for _, id := range op.reads() {
			values[id] = values[id] || need[i] && id != 0
		}
	}
	return need
}

// Multiplies says whether a weight is read whole in every run: as the matrix of a linear layer or a vector, not as a table of rows to look up.
func (p *Program) Multiplies(weight ID) bool {
	for _, op := range p.Ops {
		if _, lookup := op.(*Embed); !lookup && slices.Contains(op.reads(), weight) {
			return true
		}
	}
	return false
}

// Source is a run of rows of a checkpoint's tensor, by its Hugging Face name.
type Source struct {
	Tensor string `json:"tensor"`
	First  int    `json:"first,omitempty"`
	Rows   int    `json:"rows"`
}

// WeightSpec says what a weight is and which checkpoint rows it is made of, stacked in order.
type WeightSpec struct {
	Name    string   `json:"name"`
	Rows    int      `json:"rows"`
	Cols    int      `json:"cols"`
	Matrix  bool     `json:"matrix,omitempty"` // may be stored in a smaller format; else f32
	Head    bool     `json:"head,omitempty"`   // one of FROMAGe's trained parameters: always f32, may be replaced while running
	Sources []Source `json:"sources"`
}

// Model is everything that package model builds for a configuration: the weights, once each, and the programs that use them by name.
type Model struct {
	Weights  []WeightSpec
	Programs []*Program
}

// Program returns the program with that name.
func (m *Model) Program(name string) (*Program, error) {
	for _, p := range m.Programs {
		if p.Name == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("plan: the model has no program %q", name)
}

// Weight returns the spec with that name.
func (m *Model) Weight(name string) (*WeightSpec, error) {
	for i := range m.Weights {
		if m.Weights[i].Name == name {
			return &m.Weights[i], nil
		}
	}
	return nil, fmt.Errorf("plan: the model has no weight %q", name)
}

// Columns of the token table, the (T,4) u32 input that every program with attention takes.
const (
	TokenID       = iota // number in the vocabulary; from the vocabulary's size on, a row of the visual embeddings
	TokenPosition        // place in its sequence, from 0
	TokenFirst           // KV row of its sequence's place 0
	TokenCount           // how many KV rows from TokenFirst on it attends to
	TokenColumns
)
