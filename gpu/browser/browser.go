// SPDX-License-Identifier: Apache-2.0

// Package browser is the gpu.Device on a browser's WebGPU, for a Go program that runs as WebAssembly in a page or a worker.
//
// What enters are kernels as WGSL text, bytes and command lists; what leaves are bytes and errors that name the kernel or buffer. The package
// refuses to know what a kernel computes. It calls navigator.gpu through syscall/js, with no binding in between, and gpu.js beside it, which the
// page must have loaded as a module before Open; nothing needs eval.
//
// Calls block their goroutine and never the browser's event loop, so they may come from any goroutine but not from within a js.FuncOf callback.
// A browser tells some errors late: what it refuses of a submitted list is the error of a later call, at the latest of the next Read or Wait.
package browser

import _ "embed"

// Script is gpu.js, for servers and tests that serve a page: the module to load in the page or worker that calls Open.
//
//go:embed gpu.js
var Script string
