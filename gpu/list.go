// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"fmt"
	"iter"
	"math"
)

// List is a sequence of commands as flat words, so that a device can hand the whole of it to another process, a wasm host or one JavaScript
// function. The zero value is an empty list.
//
// The words of a command, little-endian 32-bit each:
//
//	dispatch  1, pipeline, x, y, z, byte offset of its parameters, n, n buffers
//	copy      2, destination, byte offset, source, byte offset, bytes
//	clear     3, buffer, byte offset, bytes
//
// Parameters lie apart, MaxParams bytes each, so that a device uploads them at once and binds them by offset.
type List struct {
	words  []uint32
	params []byte
}

const (
	opDispatch = 1
	opCopy     = 2
	opClear    = 3
)

// Command is one decoded command of a List: exactly one of Pipeline (a dispatch), Source (a copy) or neither (a clear) is set.
type Command struct {
	// Of a dispatch.
	Pipeline     Pipeline
	Groups       [3]uint32
	ParamsOffset int
	Buffers      []Buffer // valid until the next command is decoded

	// Of a copy (Source set) or a clear (Source and Pipeline zero).
	Target, Source             Buffer
	TargetOffset, SourceOffset int
	Size                       int
}

// Reset empties the list and keeps its memory.
func (l *List) Reset() {
	l.words, l.params = l.words[:0], l.params[:0]
}

// Len returns how many words the list has; 0 means that there is nothing to do.
func (l *List) Len() int { return len(l.words) }

// Dispatch adds a run of p over groups workgroups with the given parameter bytes and the buffers of its bindings in order.
// A dispatch with a zero group count does nothing and is left out.
func (l *List) Dispatch(p Pipeline, groups [3]int, params []byte, buffers ...Buffer) {
	if groups[0] == 0 || groups[1] == 0 || groups[2] == 0 {
		return
	}
	if len(params) > MaxParams {
		panic("gpu: dispatch: more than MaxParams bytes of parameters")
	}
	offset := len(l.params)
	l.params = append(l.params, params...)
	l.params = append(l.params, make([]byte, MaxParams-len(params))...)
	l.words = append(l.words, opDispatch, uint32(p), word(groups[0]), word(groups[1]), word(groups[2]), uint32(offset), uint32(len(buffers)))
	for _, b := range buffers {
		l.words = append(l.words, uint32(b))
	}
}

// Copy adds a copy of size bytes between two different buffers; offsets and size are multiples of 4.
func (l *List) Copy(target Buffer, targetOffset int, source Buffer, sourceOffset, size int) {
	if source == 0 {
		source = math.MaxUint32 // names no buffer either, and does not look like a clear
	}
	if size != 0 {
		l.words = append(l.words, opCopy, uint32(target), word(targetOffset), uint32(source), word(sourceOffset), word(size))
	}
}

// Clear adds a zero fill of size bytes; offset and size are multiples of 4.
func (l *List) Clear(target Buffer, offset, size int) {
	if size != 0 {
		l.words = append(l.words, opClear, uint32(target), word(offset), word(size))
	}
}

// Append adds all commands of another list.
func (l *List) Append(m *List) {
	at, offset := len(l.words), len(l.params)
	l.words, l.params = append(l.words, m.words...), append(l.params, m.params...)
	for w := l.words[at:]; len(w) > 0; {
		n, _ := length(w)
		if w[0] == opDispatch {
			w[5] += uint32(offset)
		}
		w = w[n:]
	}
}

// word is n, or for an n that is negative or too large a number that no device accepts.
func word(n int) uint32 {
	if n < 0 || n > math.MaxUint32 {
		return math.MaxUint32
	}
	return uint32(n)
}

// Words returns the encoded commands. The slice is the list's own.
func (l *List) Words() []uint32 { return l.words }

// Params returns the parameters of all dispatches, MaxParams bytes each. The slice is the list's own.
func (l *List) Params() []byte { return l.params }

// Load makes l the list that words and params encode, copies of both. They may come from anywhere: what Load takes, Commands decodes. Whether handles,
// offsets and sizes are good is for Handles to say.
func (l *List) Load(words []uint32, params []byte) error {
	dispatches := 0
	for i, rest := 0, words; len(rest) > 0; i++ {
		n, ok := length(rest)
		switch {
		case !ok:
			return fmt.Errorf("gpu: list: command %d at word %d: want a dispatch, copy or clear, have %d in the last %d words: %w", i, len(words)-len(rest), rest[0], len(rest), ErrInvalid)
		case rest[0] == opDispatch && (rest[1] == 0 || rest[5] != uint32(dispatches*MaxParams)):
			return fmt.Errorf("gpu: list: command %d: want a pipeline and its parameters at byte %d, have pipeline %d and byte %d: %w", i, dispatches*MaxParams, rest[1], rest[5], ErrInvalid)
		case rest[0] == opCopy && rest[3] == 0:
			return fmt.Errorf("gpu: list: command %d: copy from buffer 0: %w", i, ErrInvalid)
		case rest[0] == opDispatch:
			dispatches++
		}
		rest = rest[n:]
	}
	if len(params) != dispatches*MaxParams {
		return fmt.Errorf("gpu: list: want %d bytes of parameters for %d dispatches, have %d: %w", dispatches*MaxParams, dispatches, len(params), ErrInvalid)
	}
	l.words, l.params = append(l.words[:0], words...), append(l.params[:0], params...)
	return nil
}

// length is how many words the first command of w takes; false where that is more than there are, or it is no command.
func length(w []uint32) (int, bool) {
	n := 0
	switch w[0] {
	case opDispatch:
		if len(w) < 7 || uint64(w[6]) > uint64(len(w)-7) {
			return 0, false
		}
		n = 7 + int(w[6])
	case opCopy:
		n = 6
	case opClear:
		n = 4
	}
	return n, n > 0 && n <= len(w)
}

// Commands decodes the list in order, each with its number. Buffers of a Command are reused by the next.
func (l *List) Commands() iter.Seq2[int, Command] {
	return func(yield func(int, Command) bool) {
		var buffers []Buffer
		for i, w := 0, l.words; len(w) > 0; i++ {
			var c Command
			switch w[0] {
			case opDispatch:
				n := int(w[6])
				buffers = buffers[:0]
				for _, b := range w[7 : 7+n] {
					buffers = append(buffers, Buffer(b))
				}
				c = Command{Pipeline: Pipeline(w[1]), Groups: [3]uint32{w[2], w[3], w[4]}, ParamsOffset: int(w[5]), Buffers: buffers}
				w = w[7+n:]
			case opCopy:
				c = Command{Target: Buffer(w[1]), TargetOffset: int(w[2]), Source: Buffer(w[3]), SourceOffset: int(w[4]), Size: int(w[5])}
				w = w[6:]
			case opClear:
				c = Command{Target: Buffer(w[1]), TargetOffset: int(w[2]), Size: int(w[3])}
				w = w[4:]
			default:
				panic("gpu: list: unknown command")
			}
			if !yield(i, c) {
				return
			}
		}
	}
}

// Dispatches returns how many dispatches the list has.
func (l *List) Dispatches() int {
	return len(l.params) / MaxParams
}
