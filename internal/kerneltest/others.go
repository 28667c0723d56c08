// SPDX-License-Identifier: Apache-2.0

//go:build !js && !wasip1 && !cgo

package kerneltest

import (
	"testing"

	"fromage/gpu"
)

func others(testing.TB) []gpu.Device { return nil }
