// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"io"

	"fromage/internal/atomicfile"
)

// writeFile makes a file of what write writes, and puts it in its place when it is complete; after an error what was there before is untouched.
func writeFile(name string, write func(io.Writer) error) error {
	f, err := atomicfile.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	if err = write(w); err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Commit()
	}
	if err != nil {
		f.Abort()
	}
	return err
}
