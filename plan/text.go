// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// WriteText lists the program for people: its values that have names, then one line an operation.
func (p *Program) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "program %s\n", p.Name)
	for _, v := range p.Values {
		if v.Kind != Activation && v.Kind != Weight {
			fmt.Fprintf(&b, "  %-7s %s %s × %d\n", v.Kind, v.Name, v.Rows, v.Cols)
		}
	}
	for i, op := range p.Ops {
		makes, changes := op.writes()
		fmt.Fprintf(&b, "  %3d  %s = %s(%s)%s\n", i, p.labels(append(makes, changes...)), op.name(), p.labels(op.reads()), attributes(op))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *Program) label(id ID) string {
	if v := p.Value(id); v.Name != "" {
		return v.Name
	}
	v := p.Value(id)
	return fmt.Sprintf("%%%d[%s×%d]", id, v.Rows, v.Cols)
}

func (p *Program) labels(ids []ID) string {
	var names []string
	for _, id := range ids {
		if id != 0 {
			names = append(names, p.label(id))
		}
	}
	return strings.Join(names, ", ")
}

// attributes lists what an operation has besides operands: the codec's fields that are not values.
func attributes(op Op) string {
	body, err := json.Marshal(op)
	if err != nil {
		return ""
	}
	var out []string
	for _, field := range strings.Split(strings.Trim(string(body), "{}"), ",") {
		switch name, _, _ := strings.Cut(field, ":"); strings.Trim(name, `"`) {
		case "column", "offset", "eps", "act", "heads", "dim", "k", "v", "scale", "from", "size", "patch":
			out = append(out, strings.ReplaceAll(field, `"`, ""))
		}
	}
	if out == nil {
		return ""
	}
	return " " + strings.Join(out, " ")
}
