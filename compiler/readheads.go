// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"fmt"

	"fromage/compiler/checkpoint"
	"fromage/model"
)

// ReadHeads reads the trained parameters of a file, by the names that a bundle's weights have, but for the rows of `<|image|>` and [RET], which keep those
// that the reference's checkpoint gives them where they stand alone. Tensors that are none are passed over.
func ReadHeads(path string) (map[string][]float32, error) {
	ck, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	defer ck.Close()
	heads := map[string][]float32{}
	for _, name := range ck.Names() {
		t, _ := ck.Tensor(name)
		short := headName(name)
		if name == model.AddedTokens {
			short = name
		}
		if short == "" {
			continue
		}
		x := make([]float32, t.Rows()*t.RowLen())
		if err := t.ReadRows(0, t.Rows(), x); err != nil {
			return nil, err
		}
		heads[short] = x
	}
	if len(heads) == 0 {
		return nil, fmt.Errorf("%s: want trained parameters such as visual_fc.weight, have none", path)
	}
	return heads, nil
}
