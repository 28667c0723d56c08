// SPDX-License-Identifier: Apache-2.0

//go:build cgo && !js && !wasip1

package kerneltest

import (
	"os"
	"testing"

	"fromage/gpu"
	"fromage/gpu/native"
)

// others opens the native device.
func others(t testing.TB) []gpu.Device {
	t.Helper()
	dev, err := native.Open(native.Options{Label: "kerneltest"})
	if err == nil {
		t.Cleanup(func() { _ = dev.Close() })
		return []gpu.Device{dev}
	}
	if os.Getenv("FROMAGE_REQUIRE_GPU") == "1" {
		t.Fatalf("FROMAGE_REQUIRE_GPU=1: %v", err)
	}
	t.Logf("NOT TESTED ON A GPU: %v", err)
	return nil
}
