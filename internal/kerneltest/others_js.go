// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"context"
	"errors"
	"os"
	"testing"

	"fromage/gpu"
	"fromage/gpu/browser"
)

// others opens the browser's device.
func others(t testing.TB) []gpu.Device {
	t.Helper()
	dev, err := browser.Open(context.Background(), browser.Options{Label: "kerneltest"})
	if err == nil {
		t.Cleanup(func() { _ = dev.Close() })
		return []gpu.Device{dev}
	}
	if inBrowser := !errors.Is(err, browser.ErrNoScript); inBrowser || os.Getenv("FROMAGE_REQUIRE_BROWSER") == "1" {
		t.Fatal(err)
	}
	t.Logf("NOT TESTED ON A GPU: %v", err)
	return nil
}
