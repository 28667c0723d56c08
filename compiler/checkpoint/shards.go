// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxIndex bounds an index file, in bytes.
const maxIndex = 64 << 20

// addShards opens the shards that an index names, and checks that they hold
// what it says.
func (c *Checkpoint) addShards(index string) error {
	weightMap, err := readIndex(index)
	if err != nil {
		return fmt.Errorf("%s: %w", index, err)
	}
	kind := strings.TrimSuffix(index, ".index.json") // a name with the shards' suffix
	shards := map[string]bool{}
	for tensor, shard := range weightMap {
		// A path that leads elsewhere would read files that are no part of the model.
		if shard == "" || strings.HasPrefix(shard, ".") || strings.ContainsAny(shard, `/\:`) {
			return fmt.Errorf("%s: tensor %q: want the name of a file beside the index, have %q", index, tensor, shard)
		}
		if filepath.Ext(shard) != filepath.Ext(kind) {
			return fmt.Errorf("%s: tensor %q: want a %s file, have %q", index, tensor, filepath.Ext(kind), shard)
		}
		shards[shard] = true
	}
	dir := filepath.Dir(index)
	for _, shard := range slices.Sorted(maps.Keys(shards)) {
		if err := c.addFile(filepath.Join(dir, shard)); err != nil {
			return fmt.Errorf("%s: shard %s: %w", index, shard, err)
		}
	}
	for _, tensor := range slices.Sorted(maps.Keys(weightMap)) {
		want := filepath.Join(dir, weightMap[tensor])
		t, ok := c.tensors[tensor]
		if !ok {
			return fmt.Errorf("%s: tensor %q is not in %s", index, tensor, want)
		}
		if t.file != want {
			return fmt.Errorf("%s: tensor %q: want it in %s, have it in %s", index, tensor, want, t.file)
		}
	}
	return nil
}

// readIndex gives an index file's weight_map: tensor name to shard.
func readIndex(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxIndex+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxIndex {
		return nil, fmt.Errorf("want at most %d bytes", maxIndex)
	}
	return parseIndex(b)
}

func parseIndex(b []byte) (map[string]string, error) {
	var index struct {
		WeightMap json.RawMessage `json:"weight_map"`
	}
	if err := json.Unmarshal(b, &index); err != nil {
		return nil, err
	}
	// Token by token: a map would silently keep the last of two equal keys.
	d := json.NewDecoder(bytes.NewReader(index.WeightMap))
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') {
		return nil, errors.New("weight_map: want an object")
	}
	weightMap := map[string]string{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("weight_map: %w", err)
		}
		tensor := key.(string) // as the syntax is checked
		if _, ok := weightMap[tensor]; ok {
			return nil, fmt.Errorf("weight_map: tensor %q appears twice", tensor)
		}
		value, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("weight_map: %w", err)
		}
		shard, ok := value.(string)
		if !ok {
			return nil, fmt.Errorf("weight_map: tensor %q: want a file name, have %.40v", tensor, value)
		}
		weightMap[tensor] = shard
	}
	if len(weightMap) == 0 {
		return nil, errors.New("weight_map: names no tensor")
	}
	return weightMap, nil
}
