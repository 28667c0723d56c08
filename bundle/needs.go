// SPDX-License-Identifier: Apache-2.0

package bundle

// Needs is what a device must have for a model, in bytes.
type Needs struct {
	Weights int64 // of all tensors
	Cache   int64 // keys and values of one conversation, as long as it can get
	Buffer  int64 // the largest single buffer: a shard's, or a token's logits
}

// Memory is what the model takes of a device with one long conversation. What a run computes comes on top: little beside the weights.
func (n Needs) Memory() int64 { return n.Weights + n.Cache }

// Needs computes what a device must have.
func (m *Manifest) Needs() Needs {
	s := m.Settings
	n := Needs{Cache: 2 * 4 * int64(s.HiddenDim) * int64(s.Layers) * int64(s.MaxPositions), Buffer: 4 * int64(s.Vocabulary)}
	for _, t := range m.Tensors {
		for _, shard := range t.Shards {
			for _, b := range []*Blob{&shard.Values, shard.Scales} {
				if b != nil {
					n.Weights += b.Size
					n.Buffer = max(n.Buffer, b.Size)
				}
			}
		}
	}
	return n
}
