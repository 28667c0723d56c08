// SPDX-License-Identifier: Apache-2.0

// Package atomicfile makes files that are seen only when they are complete.
//
// What enters is the path of a file; what leaves is a temporary file beside it, which Commit puts in its place and Abort removes. What a killed process
// left is removed when the same file is made again. The package refuses to know what is in a file.
package atomicfile

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// File is a file that is being made. Its own Close is not to be called.
type File struct {
	*os.File
	path string
}

const suffix = ".part"

// Create begins the file that Commit will put at path. What is there has to be a regular file, if anything: a device would be gone afterwards.
func Create(path string) (*File, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: want a file or nothing there, have a folder, device or pipe", path)
	}
	dir, prefix := filepath.Dir(path), "."+filepath.Base(path)+"."
	removeStale(dir, prefix)
	f, err := os.CreateTemp(dir, prefix+"*"+suffix)
	if err != nil {
		return nil, err
	}
	// The lock says that somebody is at work. Where a file system has none, nothing can be told to be stale, and nothing is removed.
	_ = Lock(f)
	return &File{f, path}, nil
}

// removeStale removes the temporary files that nobody holds the lock of.
func removeStale(dir, prefix string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		number, ours := strings.CutPrefix(e.Name(), prefix)
		number, temporary := strings.CutSuffix(number, suffix)
		if !ours || !temporary || strings.Trim(number, "0123456789") != "" || e.Type() != fs.FileMode(0) {
			continue
		}
		removeUnlocked(filepath.Join(dir, e.Name()))
	}
}

func removeUnlocked(path string) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if canLock && Lock(f) == nil {
		os.Remove(path)
	}
}

// Commit puts the file in its place, readable by everybody; its bytes have reached the disk. After an error, Abort it.
func (f *File) Commit() error {
	// A file system without modes cannot hide it either.
	_ = f.Chmod(0o644)
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), f.path)
}

// Abort removes what was written. It is not to be called after a Commit that succeeded.
func (f *File) Abort() {
	f.Close()
	os.Remove(f.Name())
}
