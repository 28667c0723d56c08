// SPDX-License-Identifier: Apache-2.0

//go:build wasip1

package remote

import (
	"errors"
	"testing"

	"fromage/gpu"
	"fromage/gpu/gputest"
)

func TestConformance(t *testing.T) {
	gputest.Conformance(t, func() (gpu.Device, error) { return Open() })
}

// A host refuses another version, and says so.
func TestVersion(t *testing.T) {
	_, err := call(func() int32 { return hostOpen(Version + 1) })
	if !errors.Is(err, gpu.ErrInvalid) || err.Error() != "gpu/host: open: want a guest of version 1, have one of 2: invalid use" {
		t.Errorf("open of another version = %v", err)
	}
}

// TestScenario makes each call once, and fails some, for the log in gpu/host/testdata/calls.txt.
func TestScenario(t *testing.T) {
	d, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	x, err := d.NewBuffer("x", 16)
	if err != nil {
		t.Fatal(err)
	}
	y, err := d.NewBuffer("y", 16)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := d.Shared("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", 16); b != 0 || err != nil {
		t.Errorf("Shared of unknown contents = %d, %v, want 0 and no error", b, err)
	}
	in, out := []byte{1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0}, make([]byte, 8)
	if err := d.Write(x, 0, in); err != nil {
		t.Fatal(err)
	}
	p, err := d.Compile(gputest.Named("gputest.scale"))
	if err != nil {
		t.Fatal(err)
	}
	var l gpu.List
	l.Dispatch(p, [3]int{1, 1, 1}, []byte{4, 0, 0, 0, 10, 0, 0, 0, 1}, x, y)
	l.Copy(x, 0, y, 8, 4)
	l.Clear(y, 8, 4)
	if err := d.Submit(&l); err != nil {
		t.Fatal(err)
	}
	if err := d.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := d.Read(y, 4, out); err != nil {
		t.Fatal(err)
	}
	if want := []byte{21, 0, 0, 0, 0, 0, 0, 0}; string(out) != string(want) {
		t.Errorf("Read = %v, want %v", out, want)
	}
	if err := d.Read(y, 12, out); !errors.Is(err, gpu.ErrInvalid) {
		t.Errorf("Read past the end = %v, want %v", err, gpu.ErrInvalid)
	}
	if err := d.Free(x); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Wait(); !errors.Is(err, gpu.ErrClosed) {
		t.Errorf("Wait after Close = %v, want %v", err, gpu.ErrClosed)
	}
}
