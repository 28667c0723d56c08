// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"testing"

	"fromage/gpu"
	"fromage/gpu/remote"
)

// others opens the host's device.
func others(t testing.TB) []gpu.Device {
	t.Helper()
	dev, err := remote.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	return []gpu.Device{dev}
}
