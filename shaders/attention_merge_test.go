// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestAttentionMerge(t *testing.T) {
	kerneltest.Run(t, []shaders.Case{
		shaders.AttentionMergeCase(shaders.AttentionMergeParams{Heads: 1, Dh: 4, Splits: 2}),
		shaders.AttentionMergeCase(shaders.AttentionMergeParams{Heads: 5, Dh: 64, Splits: 16}),
		shaders.AttentionMergeCase(shaders.AttentionMergeParams{Heads: 3, Dh: 252, Splits: 8}),
	})
}
