// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"os"

	"fromage/internal/atomicfile"
)

// Open opens the bundle at path and checks it as Read does. The caller closes it.
func Open(path string) (*Bundle, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("bundle: %w", err)
	}
	b, err := read(f, info.Size(), path)
	if err != nil {
		f.Close()
		return nil, err
	}
	b.closer = f
	return b, nil
}

// Create starts a bundle that will be at path. Until Finish it is a temporary file beside it, which Abort removes, or the next Create after a kill.
func Create(path string) (*Writer, error) {
	f, err := atomicfile.Create(path)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	w := NewWriter(f)
	w.commit, w.abort = f.Commit, f.Abort
	return w, nil
}
