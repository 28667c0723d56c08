// SPDX-License-Identifier: Apache-2.0

package atomicfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// folder is what a folder holds, by name.
func folder(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(data)
	}
	return all
}

func create(t *testing.T, path, text string) *File {
	t.Helper()
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCommitAndAbort(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	for _, text := range []string{"old", "new"} {
		if err := create(t, path, text).Commit(); err != nil {
			t.Fatal(err)
		}
		if got := folder(t, dir); len(got) != 1 || got["a"] != text {
			t.Errorf("after Commit the folder holds %q, want %q alone", got, text)
		}
	}
	create(t, path, "worse").Abort()
	if got := folder(t, dir); len(got) != 1 || got["a"] != "new" {
		t.Errorf("after Abort the folder holds %q, want what was there", got)
	}
}

// TestStale leaves a temporary file as a kill would, and one that is being written.
func TestStale(t *testing.T) {
	if !canLock {
		t.Skip("NO LOCK ON THIS HOST: stale files are not told apart")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	killed := create(t, path, "half")
	killed.Close()
	busy := create(t, path, "busy") // removes what was killed
	others := []string{".a.notes.part", ".a.1.txt", ".b.1.part"}
	for _, name := range others {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := create(t, path, "whole").Commit(); err != nil {
		t.Fatal(err)
	}
	got := folder(t, dir)
	if _, there := got[filepath.Base(killed.Name())]; there {
		t.Error("what a kill left is still there")
	}
	for _, name := range append(others, filepath.Base(busy.Name())) {
		if _, there := got[name]; !there {
			t.Errorf("%s is gone, want only stale files removed", name)
		}
	}
	if err := busy.Commit(); err != nil || folder(t, dir)["a"] != "busy" {
		t.Errorf("Commit beside another = %v, %q, want busy", err, folder(t, dir)["a"])
	}
}

func TestRefuses(t *testing.T) {
	for _, path := range []string{os.DevNull, t.TempDir(), filepath.Join(t.TempDir(), "none", "a")} {
		f, err := Create(path)
		if err == nil {
			f.Abort()
		}
		if err == nil || !strings.Contains(err.Error(), path) && !strings.Contains(err.Error(), filepath.Dir(path)) {
			t.Errorf("Create(%s) = %v, want an error that names it", path, err)
		}
	}
}
