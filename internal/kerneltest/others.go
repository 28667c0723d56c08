// SPDX-License-Identifier: Apache-2.0

//go:build !js && (!cgo || wasip1)

package kerneltest

import (
	"testing"

	"fromage/gpu"
)

func others(testing.TB) []gpu.Device { return nil }
