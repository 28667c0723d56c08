// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"context"
	"path/filepath"
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
	"fromage/verify"
)

// TestGolden holds every device to the numbers of the public PyTorch code.
func TestGolden(t *testing.T) {
	dirs, err := filepath.Glob("../testdata/golden/*/*/expected.safetensors")
	if err != nil || len(dirs) != 8 {
		t.Fatalf("golden folders: want 8, have %v, %v", dirs, err)
	}
	kerneltest.Devices(t, func(t *testing.T, dev gpu.Device) {
		golden(t, dev, dirs)
		if dev.Info().Software {
			t.Run("as hardware", func(t *testing.T) { golden(t, kerneltest.AsHardware(dev), dirs) })
		}
	})
}

func golden(t *testing.T, dev gpu.Device, dirs []string) {
	for _, path := range dirs {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(filepath.Dir(dir))+"/"+filepath.Base(dir), func(t *testing.T) {
			report, err := verify.Run(context.Background(), dev, dir, shaders.F32)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range report.Checks {
				if !c.OK() {
					t.Errorf("%s: %s (max |Δ| %g, tolerance %g)", c.Name, c.Mismatch, c.MaxError, c.Tolerance)
				}
			}
			if len(report.Checks) < 2 {
				t.Errorf("%s: only %d checks", dir, len(report.Checks))
			}
		})
	}
}
