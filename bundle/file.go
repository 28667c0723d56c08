// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"os"
	"path/filepath"
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

// Create starts a bundle that will be at path. Until Finish it is a temporary file beside it, which Abort removes.
func Create(path string) (*Writer, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.part")
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	w := NewWriter(f)
	w.commit = func() error {
		// A bundle is for everybody who may read the folder; a file system without modes cannot hide it either.
		_ = f.Chmod(0o644)
		if err := f.Sync(); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		return os.Rename(f.Name(), path)
	}
	w.abort = func() {
		f.Close()
		os.Remove(f.Name())
	}
	return w, nil
}
