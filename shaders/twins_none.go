// SPDX-License-Identifier: Apache-2.0

//go:build notwins

package shaders

const withTwins = false
