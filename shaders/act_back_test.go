// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestActBack(t *testing.T) {
	var cases []shaders.Case
	for act := range shaders.ActGELU + 1 {
		for _, n := range []uint32{1, 63, 64, 65, 1021} {
			cases = append(cases, shaders.ActBackCase(shaders.ActBackParams{N: n, Act: act}))
		}
	}
	// More workgroups than one dimension may have.
	cases = append(cases, shaders.ActBackCase(shaders.ActBackParams{N: 65537*64 + 1, Act: shaders.ActGELU}))
	kerneltest.Run(t, cases)
}
