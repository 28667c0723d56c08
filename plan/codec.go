// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// The codec is JSON: a program is {"name", "values": […], "ops": [{"op": NAME, …}]}, a dim is its text ("T", "16B", "1"), sizes that are unknown,
// operations that do not exist and fields that are not theirs are errors. UnmarshalJSON checks what it read; see Program.Check.

var opTypes = map[string]func() Op{
	"embed":        func() Op { return new(Embed) },
	"layer_norm":   func() Op { return new(LayerNorm) },
	"linear":       func() Op { return new(Linear) },
	"attention":    func() Op { return new(Attention) },
	"store_rows":   func() Op { return new(StoreRows) },
	"gather_rows":  func() Op { return new(GatherRows) },
	"patches":      func() Op { return new(Patches) },
	"vision_embed": func() Op { return new(VisionEmbed) },
	"add":          func() Op { return new(Add) },
	"normalize":    func() Op { return new(Normalize) },
	"nll":          func() Op { return new(NLL) },
}

type programJSON struct {
	Name   string              `json:"name"`
	Values []Value             `json:"values"`
	Ops    []map[string]opJSON `json:"ops"`
}

type opJSON = json.RawMessage

// MarshalJSON implements json.Marshaler.
func (p *Program) MarshalJSON() ([]byte, error) {
	out := programJSON{Name: p.Name, Values: p.Values}
	for _, op := range p.Ops {
		body, err := json.Marshal(op)
		if err != nil {
			return nil, err
		}
		out.Ops = append(out.Ops, map[string]opJSON{op.name(): body})
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *Program) UnmarshalJSON(data []byte) error {
	var in programJSON
	if err := strict(data, &in); err != nil {
		return fmt.Errorf("plan: program: %w", err)
	}
	*p = Program{Name: in.Name, Values: in.Values}
	for i, entry := range in.Ops {
		if len(entry) != 1 {
			return fmt.Errorf("plan: program %s: op %d: want one operation, have %d", in.Name, i, len(entry))
		}
		for name, body := range entry {
			make, ok := opTypes[name]
			if !ok {
				return fmt.Errorf("plan: program %s: op %d: there is no operation %q", in.Name, i, name)
			}
			op := make()
			if err := strict(body, op); err != nil {
				return fmt.Errorf("plan: program %s: op %d (%s): %w", in.Name, i, name, err)
			}
			p.Ops = append(p.Ops, op)
		}
	}
	return p.Check()
}

func strict(data []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// MarshalText implements encoding.TextMarshaler.
func (d Dim) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Dim) UnmarshalText(text []byte) error {
	s := string(text)
	*d = Dim{One, 1}
	for of, name := range sizeNames {
		if Size(of) != One && strings.HasSuffix(s, name) {
			d.Of, s = Size(of), strings.TrimSuffix(s, name)
			break
		}
	}
	if s == "" && d.Of != One {
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n <= 0 {
		return fmt.Errorf("plan: rows: want a positive number, a size (T, R, B, I) or both, have %q", text)
	}
	d.N = n
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Kind) UnmarshalText(text []byte) error {
	for i, name := range kindNames {
		if name == string(text) {
			*k = Kind(i)
			return nil
		}
	}
	return fmt.Errorf("plan: there is no kind of value %q", text)
}
