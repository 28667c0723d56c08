// SPDX-License-Identifier: Apache-2.0

package eval

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// journalOf opens a journal of texts and returns what it knows of three examples.
func journalOf(t *testing.T, path string) (j *Journal, results []string, todo []int) {
	t.Helper()
	j, err := OpenJournal(path, "texts", [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	results, todo, err = resume[string](j, 3)
	if err != nil {
		t.Fatal(err)
	}
	return j, results, todo
}

// TestJournal cuts a journal at every byte, as a kill would, and goes on with it.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.jsonl")
	j, _, _ := journalOf(t, path)
	for _, i := range []int{2, 0, 1} {
		if err := j.add(i, "text"+string(rune('0'+i))); err != nil {
			t.Fatal(err)
		}
	}
	j.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) + 1 {
		if err := os.WriteFile(path, whole[:n], 0o666); err != nil {
			t.Fatal(err)
		}
		j, results, todo := journalOf(t, path)
		if lines := max(0, strings.Count(string(whole[:n]), "\n")-1); len(todo) != 3-lines {
			t.Errorf("cut after %d bytes: %v are to do, want %d", n, todo, 3-lines)
		}
		for _, i := range todo {
			if results[i] != "" {
				t.Errorf("cut after %d bytes: example %d is to do, and has %q", n, i, results[i])
			}
			if err := j.add(i, "text"+string(rune('0'+i))); err != nil {
				t.Fatal(err)
			}
		}
		j.Close()
		j, results, todo = journalOf(t, path)
		if want := []string{"text0", "text1", "text2"}; !slices.Equal(results, want) || todo != nil {
			t.Errorf("cut after %d bytes and gone on with: %q, %v to do", n, results, todo)
		}
		j.Close()
	}
	var none *Journal
	if results, todo, err := resume[int](none, 2); err != nil || len(results) != 2 || !slices.Equal(todo, []int{0, 1}) || none.add(0, 1) != nil || none.Close() != nil {
		t.Errorf("without a journal: %v, %v, %v", results, todo, err)
	}
}

func TestJournalErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.jsonl")
	j, _, _ := journalOf(t, path)
	if _, err := OpenJournal(path, "texts", [32]byte{1}); err == nil || !strings.Contains(err.Error(), "another run") {
		t.Errorf("opened twice: %v", err)
	}
	if err := j.add(0, 7); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		key  byte
		want string
	}{{"texts", 2, "another model"}, {"pictures", 1, "is of texts"}} {
		if _, err := OpenJournal(path, c.what, [32]byte{c.key}); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("OpenJournal(%s, %d): %v, want %q and the file", c.what, c.key, err, c.want)
		}
	}
	j, err := OpenJournal(path, "texts", [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := resume[string](j, 1); err == nil || !strings.Contains(err.Error(), "example 0") {
		t.Errorf("a result of another kind: %v", err)
	}
	j.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"caption\timage\n": "line 1: want the header", string(good) + "{}\n": "line 3: want", string(good) + "{\"i\": -1, \"result\": 1}\n": "line 3: want", "{}\n": "line 1: want the header",
	} {
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenJournal(path, "texts", [32]byte{1}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("OpenJournal of %q: %v, want %q", text, err, want)
		}
	}
}
