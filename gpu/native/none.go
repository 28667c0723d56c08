// SPDX-License-Identifier: Apache-2.0

//go:build !cgo || js || wasip1

package native

import (
	"errors"

	"fromage/gpu"
)

// Device exists in this build for its name only: Open makes none.
type Device struct{ gpu.Device }

var errNone = errors.New("gpu/native: this build has no native WebGPU (it needs cgo)")

// Open fails in this build.
func Open(Options) (*Device, error) { return nil, errNone }

// Adapters fails in this build.
func Adapters() ([]gpu.Info, error) { return nil, errNone }
