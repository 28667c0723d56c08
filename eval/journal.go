// SPDX-License-Identifier: Apache-2.0

package eval

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"fromage/internal/atomicfile"
)

// Journal is a file of what an evaluation found for each example, in which it goes on after a kill: a line of JSON that says what it is of, then a line
// for each example that is done, {"i": number, "result": …}. A line that a kill cut is cut off. A nil *Journal keeps nothing.
type Journal struct {
	f    *os.File
	done map[int]json.RawMessage
}

type journalHeader struct {
	Journal string `json:"journal"` // which evaluation
	Key     string `json:"key"`     // hash of model, data and options
}

type journalLine struct {
	I      int             `json:"i"`
	Result json.RawMessage `json:"result"`
}

// OpenJournal opens or begins a journal of an evaluation (what) of the model, data and options that key is a hash of.
func OpenJournal(path, what string, key [32]byte) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("eval: journal: %w", err)
	}
	j := &Journal{f: f, done: map[int]json.RawMessage{}}
	if err := j.begin(journalHeader{what, hex.EncodeToString(key[:])}); err != nil {
		f.Close()
		return nil, fmt.Errorf("eval: journal %s: %w", path, err)
	}
	return j, nil
}

// begin reads what is there, and cuts off a last line without an end.
func (j *Journal) begin(of journalHeader) error {
	if atomicfile.Lock(j.f) != nil {
		return errors.New("another run is writing it")
	}
	data, err := io.ReadAll(j.f)
	if err != nil {
		return err
	}
	header, err := json.Marshal(of)
	if err != nil {
		return err
	}
	if bytes.HasPrefix(header, data) {
		return j.start(0, of)
	}
	whole := bytes.LastIndexByte(data, '\n') + 1
	lines := bytes.Split(data[:max(0, whole-1)], []byte("\n"))
	var have journalHeader
	if err := json.Unmarshal(lines[0], &have); err != nil || have.Journal == "" {
		return errors.New("line 1: want the header of a journal, have another file: choose another place")
	}
	if have != of {
		return fmt.Errorf("is of %s with another model, other data or other options: remove it to begin anew, or choose another place", have.Journal)
	}
	for n, line := range lines[1:] {
		var l journalLine
		if err := json.Unmarshal(line, &l); err != nil || l.I < 0 || l.Result == nil {
			return fmt.Errorf("line %d: want {\"i\", \"result\"}, have %.80q: remove the journal to begin anew", n+2, line)
		}
		j.done[l.I] = l.Result
	}
	return j.start(int64(whole), nil)
}

// start cuts the file off at an offset, and writes a line from there on if there is one.
func (j *Journal) start(at int64, line any) error {
	if err := j.f.Truncate(at); err != nil {
		return err
	}
	if _, err := j.f.Seek(at, io.SeekStart); err != nil || line == nil {
		return err
	}
	return j.write(line)
}

func (j *Journal) write(v any) error {
	line, err := json.Marshal(v)
	if err == nil {
		_, err = j.f.Write(append(line, '\n'))
	}
	return err
}

// add notes that example i is done.
func (j *Journal) add(i int, result any) error {
	if j == nil {
		return nil
	}
	raw, err := json.Marshal(result)
	if err == nil {
		err = j.write(journalLine{i, raw})
	}
	if err != nil {
		return fmt.Errorf("eval: journal: %w", err)
	}
	return nil
}

// Close closes the file.
func (j *Journal) Close() error {
	if j == nil {
		return nil
	}
	return j.f.Close()
}

// resume returns the results of n examples as far as the journal has them, and the numbers of the others.
func resume[T any](j *Journal, n int) (results []T, todo []int, err error) {
	results = make([]T, n)
	for i := range results {
		var raw json.RawMessage
		if j != nil {
			raw = j.done[i]
		}
		if raw == nil {
			todo = append(todo, i)
		} else if err := json.Unmarshal(raw, &results[i]); err != nil {
			return nil, nil, fmt.Errorf("eval: journal: example %d: %w", i, err)
		}
	}
	return results, todo, nil
}
