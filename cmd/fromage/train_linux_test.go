// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"fromage/trainer"
)

// mount makes a file system of its own for the test.
func mount(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		if os.Getenv("FROMAGE_REQUIRE_MOUNT") == "1" {
			t.Fatal(err)
		}
		t.Skipf("NOT TESTED ON A FULL DISK: mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestTrainFullDisk: a disk that fills up leaves the last checkpoint whole, and the run goes on from there when there is room.
func TestTrainFullDisk(t *testing.T) {
	tsv, whole := captioned(t, 5), filepath.Join(t.TempDir(), "whole")
	ok(t, frozen(tsv, whole)...)
	sizes := map[string]int64{}
	for _, name := range []string{baseFile, trainer.CheckpointFile} {
		info, err := os.Stat(filepath.Join(whole, name))
		if err != nil {
			t.Fatal(err)
		}
		sizes[name] = info.Size()
	}

	disk := mount(t, "size=2m")
	dir := filepath.Join(disk, "run")
	// There is room for the model and the first checkpoint, but not for another one beside it.
	ballast := 2<<20 - sizes[baseFile] - sizes[trainer.CheckpointFile]*3/2
	if ballast <= 0 {
		t.Fatalf("the disk is too small for %v", sizes)
	}
	write(t, filepath.Join(disk, "ballast"), make([]byte, ballast))
	bad(t, "full", []string{"no space left", "checkpoint", "train --resume " + dir}, frozen(tsv, dir)...)
	if _, meta, err := trainer.ReadState(filepath.Join(dir, trainer.CheckpointFile)); err != nil || meta["step"] != "0" {
		t.Errorf("the checkpoint is of step %s, %v, want 0", meta["step"], err)
	}
	bad(t, "still full", []string{"no space left", "train --resume " + dir}, "train", "--resume", dir)
	if err := os.Remove(filepath.Join(disk, "ballast")); err != nil {
		t.Fatal(err)
	}
	ok(t, "train", "--resume", dir)
	if got, want := read(t, filepath.Join(dir, trainer.CheckpointFile)), read(t, filepath.Join(whole, trainer.CheckpointFile)); string(got) != string(want) {
		t.Error("the run ends with other parameters than one that was left alone")
	}

	full := mount(t, "size=64k")
	bad(t, "full from the start", []string{"no space left"}, frozen(tsv, filepath.Join(full, "run"))...)
	if left := names(t, full); left != nil {
		t.Errorf("a run that had no room to begin leaves %v", left)
	}
	locked := mount(t, "size=64k,ro")
	bad(t, "read-only", []string{"read-only"}, frozen(tsv, filepath.Join(locked, "run"))...)
}
