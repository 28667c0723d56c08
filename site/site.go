// SPDX-License-Identifier: Apache-2.0

// Package site is the page as it is served: its files, and the built program.
//
// What leaves is two folders of files. The package refuses to know how they are served.
package site

import (
	"embed"
	"io/fs"
)

//go:embed *.html *.js *.css *.svg *.webmanifest
var files embed.FS

// dist is filled by make site; its .gitignore keeps it there before.
//
//go:embed all:dist
var dist embed.FS

// Files returns index.html and what it names.
func Files() fs.FS { return files }

// Dist returns fromage.wasm.br, fromage.wasm.gz and wasm_exec.js, or nothing where make site was not run before the build.
func Dist() fs.FS {
	sub, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // the folder's name is a constant
	}
	return sub
}
