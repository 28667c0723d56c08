// SPDX-License-Identifier: Apache-2.0

package eval

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzReadVIST: whatever a file holds, stories have as many captions as pictures, and no picture is listed twice.
func FuzzReadVIST(f *testing.F) {
	f.Add([]byte(`{"images": [{"id": "1", "url_o": "x"}, {"id": "1"}], "annotations": [[{"story_id": "a", "text": "b", "photo_flickr_id": "1"}]]}`), 0)
	f.Add([]byte(`{"annotations": [[{"story_id": "a", "photo_flickr_id": "1"}], []]}`), 1)
	file := filepath.Join(f.TempDir(), "sis.json")
	f.Fuzz(func(t *testing.T, data []byte, limit int) {
		if err := os.WriteFile(file, data, 0o666); err != nil {
			t.Fatal(err)
		}
		v, err := ReadVIST(file, limit)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, id := range v.Images {
			if seen[id] {
				t.Errorf("picture %q is listed twice", id)
			}
			seen[id] = true
		}
		for _, s := range v.Stories {
			if len(s.Images) == 0 || len(s.Images) != len(s.Captions) {
				t.Errorf("story %q has %d pictures and %d captions", s.ID, len(s.Images), len(s.Captions))
			}
		}
	})
}

// FuzzReadVisDial: whatever files hold, every round has its right answer among its options, and a relevance for each where there are annotations.
func FuzzReadVisDial(f *testing.F) {
	f.Add([]byte(`{"split": "v", "data": {"questions": ["q"], "answers": ["a", "b"], "dialogs": [{"image_id": 1, "dialog": [{"question": 0, "answer": 1, "answer_options": [0, 1], "gt_index": 1}]}]}}`),
		[]byte(`[{"image_id": 1, "round_id": 1, "gt_relevance": [0, 1]}]`), 0)
	f.Add([]byte(`{"data": {"dialogs": [{"dialog": [{"gt_index": -1}]}]}}`), []byte(`[]`), 1)
	dir := f.TempDir()
	file, dense := filepath.Join(dir, "dialogs.json"), filepath.Join(dir, "dense.json")
	f.Fuzz(func(t *testing.T, dialogs, annotations []byte, limit int) {
		for name, data := range map[string][]byte{file: dialogs, dense: annotations} {
			if err := os.WriteFile(name, data, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		d, err := ReadVisDial(file, dense, limit)
		if err != nil {
			return
		}
		for _, x := range d.Dialogs {
			for _, r := range x.Rounds {
				_ = r.Options[r.Truth]
			}
			if n := len(x.Rounds[x.Annotated-1].Options); n != len(x.Relevance) {
				t.Errorf("dialogue %s: %d options, %d relevances", x.Image, n, len(x.Relevance))
			}
		}
	})
}

// FuzzJournal: a file is refused or gone on with, and what is added is there when it is opened again.
func FuzzJournal(f *testing.F) {
	header := `{"journal":"texts","key":"0100000000000000000000000000000000000000000000000000000000000000"}` + "\n"
	f.Add([]byte(header + `{"i":3,"result":"x"}` + "\n" + `{"i":`))
	f.Add([]byte(header[:20]))
	f.Add([]byte("\n\n"))
	file := filepath.Join(f.TempDir(), "journal.jsonl")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(file, data, 0o666); err != nil {
			t.Fatal(err)
		}
		j, err := OpenJournal(file, "texts", [32]byte{1})
		if err != nil {
			return
		}
		if err := j.add(1, "added"); err != nil {
			t.Fatal(err)
		}
		j.Close()
		again, err := OpenJournal(file, "texts", [32]byte{1})
		if err != nil {
			t.Fatalf("after %q and a line more: %v", data, err)
		}
		defer again.Close()
		if got := string(again.done[1]); got != `"added"` {
			t.Errorf("after %q: the added result is %q", data, got)
		}
	})
}
