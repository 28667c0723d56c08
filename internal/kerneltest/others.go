// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"testing"

	"fromage/gpu"
)

func others(*testing.T, func(*testing.T, gpu.Device)) {}
