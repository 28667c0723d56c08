// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestAdd(t *testing.T) {
	var cases []shaders.Case
	for _, N := range []uint32{1, 13, 63, 64, 65, 4099} {
		cases = append(cases, shaders.AddCase(shaders.AddParams{N: N}))
	}
	// More workgroups than one dimension of a grid may have.
	kerneltest.Run(t, append(cases, shaders.AddCase(shaders.AddParams{N: 64*32768 + 65})))
}

func TestAddTwin(t *testing.T) {
	twin(t, shaders.Add(gpu.Info{}, shaders.AddParams{N: 2}), 2, []float32{11, 22, 9}, words(1, 2, 3), words(10, 20, 30), words(9, 9, 9))
}
