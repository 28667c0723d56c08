// SPDX-License-Identifier: Apache-2.0

//go:build !notwins

package shaders

// withTwins says whether kernels have their twins. Programs that never compute by them are built with the tag notwins: a guest in a sandbox and the
// page, whose size matters.
const withTwins = true
