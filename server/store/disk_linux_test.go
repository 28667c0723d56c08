// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"fromage/server/client"
	"fromage/server/internal/fixture"
	"fromage/server/store"
)

// TestDiskFull: where the disk is full nothing is published, nothing is lost, and it goes on when there is room.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		if os.Getenv("FROMAGE_REQUIRE_MOUNT") == "1" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED, NOTHING TESTED: a small disk needs the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := store.Open(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	begin(t, s)
	full := filepath.Join(dir, "ballast")
	for room := range 12 {
		before := current(t, s)
		ballast(t, full, room*4096)
		_, err := client.To(s, "test").Heads(ctx, "tiny", "", fixture.Heads(t, fixture.Bundle(t), uint64(100+room)))
		after := current(t, s)
		if (err == nil) != (after.Seq == before.Seq+1) {
			t.Fatalf("with %d bytes of room: %v, and version %d after %d", room*4096, err, after.Seq, before.Seq)
		}
		if room == 0 && !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("on a full disk: %v, want that there is no space", err)
		}
		if err := os.Remove(full); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Collect(ctx, 1, 0); err != nil {
			t.Fatal(err)
		}
	}
	heads(t, s, 1)
}

// ballast fills a disk but for some bytes.
func ballast(t *testing.T, name string, room int) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var size int64
	for page := make([]byte, 4096); ; size += 4096 {
		if _, err := f.Write(page); err != nil {
			break
		}
	}
	if err := f.Truncate(max(0, size-int64(room))); err != nil {
		t.Fatal(err)
	}
}
