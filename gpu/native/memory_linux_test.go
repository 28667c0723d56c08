// SPDX-License-Identifier: Apache-2.0

//go:build cgo && !wasip1

package native

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"fromage/gpu"
)

// A device without memory for a buffer says so, and the process and the device live on. The process that is short of memory is a child, whose
// address space is cut: that is lavapipe's memory. (SwiftShader crashes where it has none.)
func TestOutOfMemory(t *testing.T) {
	if os.Getenv("FROMAGE_TEST_CHILD") == "" {
		need(t)
		child := exec.Command(os.Args[0], "-test.run=^TestOutOfMemory$", "-test.v")
		child.Env = append(os.Environ(), "FROMAGE_TEST_CHILD=1")
		out, err := child.CombinedOutput()
		if strings.Contains(string(out), "SKIPPED") {
			if os.Getenv("FROMAGE_REQUIRE_GPU") == "1" {
				t.Fatalf("FROMAGE_REQUIRE_GPU=1:\n%s", out)
			}
			t.Skipf("%s", out)
		}
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("a process short of memory ended with %v:\n%.3000s", err, out)
		}
		return
	}
	d, err := Open(Options{Prefer: Software, Adapter: "llvmpipe"})
	if err != nil {
		t.Skipf("SKIPPED: only lavapipe's memory can be cut: %v", err)
	}
	defer d.Close()
	fields, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(fields))[0])
	if err != nil {
		t.Fatal(err)
	}
	limit := uint64(pages*os.Getpagesize()) + 1<<30
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		t.Fatal(err)
	}
	var made []gpu.Buffer
	for range 64 {
		b, err := d.NewBuffer("weights", 64<<20)
		if err != nil {
			if !errors.Is(err, gpu.ErrMemory) || !strings.Contains(err.Error(), "weights") {
				t.Errorf("NewBuffer of 64 MiB after %d of them = %v, want %v", len(made), err, gpu.ErrMemory)
			}
			break
		}
		made = append(made, b)
	}
	if len(made) < 4 || len(made) == 64 {
		t.Errorf("%d buffers of 64 MiB made in 1 GiB", len(made))
	}
	for _, b := range made {
		if err := d.Free(b); err != nil {
			t.Error(err)
		}
	}
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := d.NewBuffer("small", 4<<20); err != nil {
		t.Errorf("NewBuffer after all was freed: %v", err)
	}
}
