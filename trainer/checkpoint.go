// SPDX-License-Identifier: Apache-2.0

package trainer

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"fromage/compiler/safetensors"
	"fromage/gpu"
	"fromage/internal/atomicfile"
	"fromage/machine"
)

// State is all that training changes: parameters and AdamW's moments, by weight, and the number of updates.
type State struct {
	Updates       int
	Weights, M, V map[string][]float32
}

// Snapshot reads the state from the device. Gradients are not part of it: take it right after an Update.
func (t *Trainer) Snapshot() (*State, error) {
	s := &State{t.updates, map[string][]float32{}, map[string][]float32{}, map[string][]float32{}}
	for _, p := range t.params {
		for _, part := range []struct {
			to   map[string][]float32
			from gpu.Buffer
		}{{s.Weights, p.weight}, {s.M, p.m}, {s.V, p.v}} {
			x := make([]float32, p.first+p.n)
			if err := t.m.Dev.Read(part.from, 0, machine.Bytes(x)); err != nil {
				return nil, fmt.Errorf("trainer: read %s: %w", p.name, err)
			}
			part.to[p.name] = x
		}
	}
	return s, nil
}

// Restore puts a state onto the device.
func (t *Trainer) Restore(s *State) error {
	for _, p := range t.params {
		for _, part := range []struct {
			from map[string][]float32
			to   gpu.Buffer
		}{{s.Weights, p.weight}, {s.M, p.m}, {s.V, p.v}} {
			x := part.from[p.name]
			if len(x) != p.first+p.n {
				return fmt.Errorf("trainer: restore %s: want %d values, have %d", p.name, p.first+p.n, len(x))
			}
			if err := t.m.Dev.Write(part.to, 0, machine.Bytes(x)); err != nil {
				return fmt.Errorf("trainer: restore %s: %w", p.name, err)
			}
		}
	}
	t.updates = s.Updates
	return nil
}

// In a checkpoint, a safetensors file, moments have these before the weight's name; the metadata have the number of updates, and a hash of everything else.
const (
	momentM     = "adamw.m."
	momentV     = "adamw.v."
	metaUpdates = "updates"
	metaHash    = "sha256"
)

// Write makes a checkpoint at path, which is there whole or not at all. meta is the caller's.
func (s *State) Write(path string, meta map[string]string) error {
	all := s.tensors()
	meta = maps.Clone(meta)
	if meta == nil {
		meta = map[string]string{}
	}
	meta[metaUpdates] = strconv.Itoa(s.Updates)
	meta[metaHash] = hash(all, meta)
	f, err := atomicfile.Create(path)
	if err != nil {
		return fmt.Errorf("trainer: checkpoint: %w", err)
	}
	var sources []safetensors.Source
	for _, name := range slices.Sorted(maps.Keys(all)) {
		sources = append(sources, safetensors.Source{Name: name, DType: "F32", Shape: []int{len(all[name])}, Data: bytes.NewReader(machine.Bytes(all[name]))})
	}
	if err := safetensors.Write(f, sources, meta); err != nil {
		f.Abort()
		return fmt.Errorf("trainer: checkpoint %s: %w", path, err)
	}
	if err := f.Commit(); err != nil {
		f.Abort()
		return fmt.Errorf("trainer: checkpoint %s: %w", path, err)
	}
	return nil
}

func (s *State) tensors() map[string][]float32 {
	all := maps.Clone(s.Weights)
	for name := range s.Weights {
		all[momentM+name], all[momentV+name] = s.M[name], s.V[name]
	}
	return all
}

// hash is over the metadata but for itself, and over names, lengths and values of the tensors, in order of the names.
func hash(tensors map[string][]float32, meta map[string]string) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(meta)) {
		if name != metaHash {
			fmt.Fprintf(h, "%q=%q\n", name, meta[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		io.WriteString(h, name+"\n")
		binary.Write(h, binary.LittleEndian, uint64(len(tensors[name])))
		h.Write(machine.Bytes(tensors[name]))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// maxTensor bounds what is read of one tensor of a checkpoint.
const maxTensor = 1 << 30

// ReadState reads a checkpoint and checks its hash.
func ReadState(path string) (*State, map[string]string, error) {
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("trainer: checkpoint: %w", err)
	}
	defer f.Close()
	all := map[string][]float32{}
	for _, t := range f.Tensors {
		if t.DType != "F32" || len(t.Shape) != 1 || t.Shape[0] > maxTensor/4 {
			return nil, nil, fmt.Errorf("trainer: checkpoint %s: tensor %s: want a vector of F32, have %s %v", path, t.Name, t.DType, t.Shape)
		}
		x := make([]float32, t.Shape[0])
		if _, err := io.ReadFull(f.Data(t), machine.Bytes(x)); err != nil {
			return nil, nil, fmt.Errorf("trainer: checkpoint %s: tensor %s: %w", path, t.Name, err)
		}
		all[t.Name] = x
	}
	if have := hash(all, f.Metadata); have != f.Metadata[metaHash] {
		return nil, nil, fmt.Errorf("trainer: checkpoint %s: want contents with hash %s, have %s: the file is damaged", path, f.Metadata[metaHash], have)
	}
	s := &State{Weights: map[string][]float32{}, M: map[string][]float32{}, V: map[string][]float32{}}
	if s.Updates, err = strconv.Atoi(f.Metadata[metaUpdates]); err != nil || s.Updates < 0 {
		return nil, nil, fmt.Errorf("trainer: checkpoint %s: updates: want a number, have %q", path, f.Metadata[metaUpdates])
	}
	for name, x := range all {
		m, v := all[momentM+name], all[momentV+name]
		if m == nil || v == nil {
			continue
		}
		if len(m) != len(x) || len(v) != len(x) {
			return nil, nil, fmt.Errorf("trainer: checkpoint %s: tensor %s: want moments of %d values, have %d and %d", path, name, len(x), len(m), len(v))
		}
		s.Weights[name], s.M[name], s.V[name] = x, m, v
	}
	return s, f.Metadata, nil
}
