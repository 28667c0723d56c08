// SPDX-License-Identifier: Apache-2.0

//go:build js && wasm

package browser

import (
	"context"
	"testing"

	"fromage/gpu"
	"fromage/gpu/gputest"
)

func open(t testing.TB, o Options) *Device {
	t.Helper()
	d, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestConformance(t *testing.T) {
	t.Logf("%+v", open(t, Options{}).Info())
	gputest.Conformance(t, func() (gpu.Device, error) { return Open(context.Background(), Options{Label: "conformance"}) })
}
