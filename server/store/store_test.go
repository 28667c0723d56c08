// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"fromage/server/client"
	"fromage/server/internal/fixture"
	"fromage/server/store"
	"fromage/server/version"
)

var ctx = context.Background()

func open(t testing.TB, where string) *store.Store {
	t.Helper()
	s, err := store.Open(ctx, where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func heads(t testing.TB, s *store.Store, seed uint64) client.Published {
	t.Helper()
	v, err := client.To(s, "test").Heads(ctx, "tiny", "", fixture.Heads(t, fixture.Bundle(t), seed))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func begin(t testing.TB, s *store.Store) {
	t.Helper()
	data := fixture.Bundle(t)
	if _, err := client.To(s, "test").Bundle(ctx, "tiny", "", "", bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

func current(t testing.TB, s *store.Store) *store.Version {
	t.Helper()
	v, _, err := s.Current(ctx)
	if err != nil || v == nil {
		t.Fatalf("no version: %v", err)
	}
	if bad, err := s.Audit(ctx, v.Manifest); err != nil || len(bad) > 0 {
		t.Fatalf("version %d lacks %d pieces, %v", v.Seq, len(bad), err)
	}
	return v
}

// TestSplit: pieces make the file again, and a change costs the pieces around it.
func TestSplit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	a := make([]byte, 6<<20)
	for i := range a {
		a[i] = byte(rng.Uint32())
	}
	b := append(append(bytes.Clone(a[:3<<20]), "some bytes more"...), a[3<<20:]...)
	var have [2]map[string]bool
	for i, data := range [][]byte{a, b} {
		have[i] = map[string]bool{}
		var all []byte
		f, err := store.Split(bytes.NewReader(data), int64(len(data)), func(part []byte) error {
			all = append(all, part...)
			return nil
		})
		if err != nil || !bytes.Equal(all, data) || f.Size != int64(len(data)) {
			t.Fatalf("the pieces of file %d are not the file: %v", i, err)
		}
		for _, p := range f.Pieces {
			have[i][p.Hash.String()] = true
		}
	}
	fresh := 0
	for h := range have[1] {
		if !have[0][h] {
			fresh++
		}
	}
	if len(have[1]) < 10 || fresh > 2 {
		t.Errorf("15 bytes within a file of %d pieces make %d pieces new, want at most 2", len(have[1]), fresh)
	}
}

// TestCollect: old versions go, pinned ones and what somebody may be building on stay.
func TestCollect(t *testing.T) {
	s := open(t, t.TempDir())
	begin(t, s)
	for n := range uint64(6) {
		heads(t, s, n)
	}
	if err := s.Pin(ctx, 3, true); err != nil {
		t.Fatal(err)
	}
	if err := s.Pin(ctx, 99, true); !errors.Is(err, store.ErrMissing) {
		t.Errorf("Pin of a version that is not there = %v", err)
	}
	done, err := s.Collect(ctx, 2, time.Hour)
	if err != nil || done.Versions != 4 || done.Pieces != 0 {
		t.Errorf("Collect within the grace = %+v, %v, want 4 versions dropped and no piece removed", done, err)
	}
	if done, err = s.Collect(ctx, 2, 0); err != nil || done.Pieces < 3 {
		t.Errorf("Collect = %+v, %v, want the heads of three versions removed at least", done, err)
	}
	all, err := s.Versions(ctx)
	if err != nil || len(all) != 3 || all[0].Seq != 3 {
		t.Errorf("%d versions are left, %v, want 3, 6 and 7", len(all), err)
	}
	for _, v := range all {
		if bad, err := s.Audit(ctx, v.Manifest); err != nil || len(bad) > 0 {
			t.Errorf("version %d lacks %d pieces, %v", v.Seq, len(bad), err)
		}
	}
	if _, err := client.To(s, "test").Commit(ctx, &version.Change{Rollback: 3}); err != nil {
		t.Error(err)
	}
	if v := current(t, s); v.Seq != 8 || v.Models[0].Heads.SHA256 != all[0].Models[0].Heads.SHA256 {
		t.Errorf("after the rollback the version is %d with other heads", v.Seq)
	}
}

// TestDamagedLog: an entry that is cut short or damaged is no version, and its number is not used again.
func TestDamagedLog(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	begin(t, s)
	heads(t, s, 1)
	name := filepath.Join(dir, "log", "000000000002")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(data); n += 97 {
		if err := os.WriteFile(name, data[:n], 0o666); err != nil {
			t.Fatal(err)
		}
		if v := current(t, s); v.Seq != 1 {
			t.Fatalf("with %d of %d bytes of version 2 the current one is %d, want 1", n, len(data), v.Seq)
		}
	}
	for n := 0; n < len(data); n += 31 {
		bad := bytes.Clone(data)
		bad[n] ^= 4
		if err := os.WriteFile(name, bad, 0o666); err != nil {
			t.Fatal(err)
		}
		if v := current(t, s); v.Seq != 1 {
			t.Fatalf("with byte %d of version 2 damaged the current one is %d, want 1", n, v.Seq)
		}
	}
	if v := heads(t, s, 2); v.Seq != 3 {
		t.Errorf("after a damaged version 2 the next is %d, want 3", v.Seq)
	}
}

// TestKilledPublisher: a process that is killed anywhere while it publishes has published or has not, and what was there is whole.
func TestKilledPublisher(t *testing.T) {
	if dir := os.Getenv("FROMAGE_TEST_PUBLISH"); dir != "" {
		s := open(t, dir)
		for n := uint64(time.Now().UnixNano()); ; n++ {
			heads(t, s, n)
		}
	}
	kills := 15
	if os.Getenv("FROMAGE_SOAK") != "" {
		kills = 200
	}
	dir := t.TempDir()
	s := open(t, dir)
	begin(t, s)
	rng := rand.New(rand.NewPCG(3, 4))
	last := uint64(1)
	for range kills {
		c := exec.Command(os.Args[0], "-test.run", "^TestKilledPublisher$")
		c.Env = append(os.Environ(), "FROMAGE_TEST_PUBLISH="+dir)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		for begun := current(t, s).Seq; ; time.Sleep(time.Millisecond) {
			if v, _, err := s.Current(ctx); err != nil || v.Seq > begun {
				break // it publishes by now
			}
		}
		time.Sleep(time.Duration(rng.IntN(20_000)) * time.Microsecond)
		_ = c.Process.Kill()
		_ = c.Wait()
		v := current(t, s)
		if v.Seq < last {
			t.Fatalf("the current version went back from %d to %d", last, v.Seq)
		}
		last = v.Seq
	}
	if _, err := s.Collect(ctx, 1, 0); err != nil {
		t.Fatal(err)
	}
	if v := current(t, s); v.Seq != last {
		t.Errorf("after Collect the version is %d, want %d", v.Seq, last)
	}
	heads(t, s, 5)
	t.Logf("%d kills, %d versions", kills, last)
}
