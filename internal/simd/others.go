// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

package simd

func init() { useGo() }

// levels are the sets of instructions that this machine has.
func levels() []func() { return []func(){useGo} }
