// SPDX-License-Identifier: Apache-2.0

package plan

import "fmt"

// Op is one operation of a program. The set is closed: the types in this file.
type Op interface {
	// name is the operation's name in listings and in the codec.
	name() string
	// reads lists the values it needs; 0 entries are absent operands.
	reads() []ID
	// writes lists the values it makes, where 0 entries are results that nobody wants, and the states that it changes in part: rows of a KV cache, sums
	// of gradients.
	writes() (makes, changes []ID)
	// check holds the operands to the shape rule.
	check(c *checker)
	// lower adds the kernel dispatches.
	lower(l *lowering)
}

// Act is the function that Linear applies to its result before the residual.
type Act uint32

// The activation functions, numbered as linear.wgsl does.
const (
	ActNone Act = iota
	ActReLU
	ActQuickGELU
	ActGELU
)

var actNames = [...]string{"", "relu", "quick_gelu", "gelu"}

// ParseAct gives the activation for a config's `activation_function` or `hidden_act`.
func ParseAct(name string) (Act, error) {
	for a, n := range actNames {
		if n == name && n != "" {
			return Act(a), nil
		}
	}
	return 0, fmt.Errorf("plan: activation function: want relu, quick_gelu or gelu, have %q", name)
}

// Embed looks up rows of Tables, stacked, by a column of the token table, and adds Add where given: Tokens (T,4) → Y (T,K).
type Embed struct {
	Tokens ID   `json:"tokens"`
	Tables []ID `json:"tables"`
	Column int  `json:"column"`
	Offset int  `json:"offset,omitempty"` // added to every number
	Add    ID   `json:"add,omitempty"`    // (T,K)
	Y      ID   `json:"y"`
}

// LayerNorm normalises rows: X (n,D), Weight (D), Bias (D) → Y (n,D).
type LayerNorm struct {
	X      ID      `json:"x"`
	Weight ID      `json:"weight"`
	Bias   ID      `json:"bias"`
	Eps    float32 `json:"eps"`
	Y      ID      `json:"y"`
}

// Linear is act(X·Wᵀ + Bias) + Residual: X (n,K), W stacked (F,K), Bias (F), Residual (n,F) → Y (n,F).
type Linear struct {
	X        ID   `json:"x"`
	W        []ID `json:"w"`
	Bias     ID   `json:"bias,omitempty"`
	Residual ID   `json:"residual,omitempty"`
	Act      Act  `json:"act,omitempty"`
	Y        ID   `json:"y"`
}

// Attention is multi-head softmax attention of each token over its rows of KV: Q (T,·) with queries from column 0, KV (·,·) with keys from column K
// and values from column V, H heads of D columns each, Tokens (T,4) → Y (T,H·D).
type Attention struct {
	Q      ID      `json:"q"`
	KV     ID      `json:"kv"`
	Tokens ID      `json:"tokens"`
	Heads  int     `json:"heads"`
	Dim    int     `json:"dim"`
	K      int     `json:"k"`
	V      int     `json:"v"`
	Scale  float32 `json:"scale"`
	Y      ID      `json:"y"`
}

// StoreRows writes columns [From, From+Width) of X (T,·) into the tokens' own rows of the state KV (·,Width).
type StoreRows struct {
	X      ID  `json:"x"`
	Tokens ID  `json:"tokens"`
	From   int `json:"from"`
	KV     ID  `json:"kv"`
}

// GatherRows picks rows: X (n,D), Index (R) → Y (R,D).
type GatherRows struct {
	X     ID `json:"x"`
	Index ID `json:"index"`
	Y     ID `json:"y"`
}

// Patches cuts pictures into squares of Patch pixels: X (B, 3·S·S) → Y (B·G·G, 3·Patch²), G = S/Patch, in the order of a Conv2d weight.
type Patches struct {
	X     ID  `json:"x"`
	Size  int `json:"size"`
	Patch int `json:"patch"`
	Y     ID  `json:"y"`
}

// VisionEmbed puts the class embedding before each picture's patches and adds positions: X (B·(N−1),D), Class (D), Position (N,D) → Y (B·N,D).
type VisionEmbed struct {
	X        ID `json:"x"`
	Class    ID `json:"class"`
	Position ID `json:"position"`
	Y        ID `json:"y"`
}

// Add is elementwise: A, B (n,D) → Y (n,D).
type Add struct {
	A ID `json:"a"`
	B ID `json:"b"`
	Y ID `json:"y"`
}

// Normalize divides rows by their L2 norm: X (n,D) → Y (n,D).
type Normalize struct {
	X ID `json:"x"`
	Y ID `json:"y"`
}

// NLL is the negative log-likelihood of Labels (R) u32 under X (R,V) and how many columns are more likely: → Y (R,2).
type NLL struct {
	X      ID `json:"x"`
	Labels ID `json:"labels"`
	Y      ID `json:"y"`
}

func (*Embed) name() string       { return "embed" }
func (*LayerNorm) name() string   { return "layer_norm" }
func (*Linear) name() string      { return "linear" }
func (*Attention) name() string   { return "attention" }
func (*StoreRows) name() string   { return "store_rows" }
func (*GatherRows) name() string  { return "gather_rows" }
func (*Patches) name() string     { return "patches" }
func (*VisionEmbed) name() string { return "vision_embed" }
func (*Add) name() string         { return "add" }
func (*Normalize) name() string   { return "normalize" }
func (*NLL) name() string         { return "nll" }

func (o *Embed) reads() []ID       { return append([]ID{o.Tokens, o.Add}, o.Tables...) }
func (o *LayerNorm) reads() []ID   { return []ID{o.X, o.Weight, o.Bias} }
func (o *Linear) reads() []ID      { return append([]ID{o.X, o.Bias, o.Residual}, o.W...) }
func (o *Attention) reads() []ID   { return []ID{o.Q, o.KV, o.Tokens} }
func (o *StoreRows) reads() []ID   { return []ID{o.X, o.Tokens} }
func (o *GatherRows) reads() []ID  { return []ID{o.X, o.Index} }
func (o *Patches) reads() []ID     { return []ID{o.X} }
func (o *VisionEmbed) reads() []ID { return []ID{o.X, o.Class, o.Position} }
func (o *Add) reads() []ID         { return []ID{o.A, o.B} }
func (o *Normalize) reads() []ID   { return []ID{o.X} }
func (o *NLL) reads() []ID         { return []ID{o.X, o.Labels} }

func (o *Embed) writes() (makes, changes []ID)       { return []ID{o.Y}, nil }
func (o *LayerNorm) writes() (makes, changes []ID)   { return []ID{o.Y}, nil }
func (o *Linear) writes() (makes, changes []ID)      { return []ID{o.Y}, nil }
func (o *Attention) writes() (makes, changes []ID)   { return []ID{o.Y}, nil }
func (o *StoreRows) writes() (makes, changes []ID)   { return nil, []ID{o.KV} }
func (o *GatherRows) writes() (makes, changes []ID)  { return []ID{o.Y}, nil }
func (o *Patches) writes() (makes, changes []ID)     { return []ID{o.Y}, nil }
func (o *VisionEmbed) writes() (makes, changes []ID) { return []ID{o.Y}, nil }
func (o *Add) writes() (makes, changes []ID)         { return []ID{o.Y}, nil }
func (o *Normalize) writes() (makes, changes []ID)   { return []ID{o.Y}, nil }
func (o *NLL) writes() (makes, changes []ID)         { return []ID{o.Y}, nil }
