// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"testing"

	"fromage/internal/kerneltest"
	"fromage/shaders"
)

func TestCases(t *testing.T) {
	kerneltest.Run(t, shaders.Cases())
}
