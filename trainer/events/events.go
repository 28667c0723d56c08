// SPDX-License-Identifier: Apache-2.0

// Package events writes numbers over training steps to files that TensorBoard reads.
//
// What enters is a folder, and then a step with its named numbers, as often as there are any; what leaves is one file a start of the program, in
// TensorFlow's record format, to which each call appends one whole record. A killed program may leave a record torn at the end, which readers pass
// over; a resumed one begins a file of its own. The package refuses to know what the numbers mean, and reads nothing.
package events

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Scalar is one named number, such as "train/loss".
type Scalar struct {
	Tag   string
	Value float64
}

// Writer appends to one file. It is for one goroutine.
type Writer struct {
	file *os.File
	size int64 // of the whole records
}

// Create begins a file of its own in dir, named after the time as TensorBoard expects. first is the first step that will be written: readers forget
// what earlier files say from that step on, which a run resumed from an older checkpoint does anew.
func Create(dir string, at time.Time, first int) (*Writer, error) {
	file, err := create(dir, at)
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	w := &Writer{file: file}
	err = w.append(protowire.AppendString(protowire.AppendTag(event(at, 0), eventFileVersion, protowire.BytesType), "brain.Event:2"))
	if err == nil && first > 0 {
		started := protowire.AppendVarint(protowire.AppendTag(nil, sessionStatus, protowire.VarintType), sessionStart)
		err = w.append(protowire.AppendBytes(protowire.AppendTag(event(at, first), eventSession, protowire.BytesType), started))
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return w, nil
}

// create makes a file that is not there yet; several starts may fall within a second.
func create(dir string, at time.Time) (*os.File, error) {
	for n := 0; ; n++ {
		name := fmt.Sprintf("events.out.tfevents.%010d.fromage.%d", at.Unix(), n)
		file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if !errors.Is(err, fs.ErrExist) {
			return file, err
		}
	}
}

// Write appends the numbers of a step, as seen at a time.
func (w *Writer) Write(at time.Time, step int, scalars ...Scalar) error {
	var summary []byte
	for _, s := range scalars {
		if !utf8.ValidString(s.Tag) {
			return fmt.Errorf("events: tag %.100q: want UTF-8", s.Tag)
		}
		value := protowire.AppendString(protowire.AppendTag(nil, valueTag, protowire.BytesType), s.Tag)
		value = protowire.AppendFixed32(protowire.AppendTag(value, valueSimple, protowire.Fixed32Type), math.Float32bits(float32(s.Value)))
		summary = protowire.AppendBytes(protowire.AppendTag(summary, summaryValue, protowire.BytesType), value)
	}
	return w.append(protowire.AppendBytes(protowire.AppendTag(event(at, step), eventSummary, protowire.BytesType), summary))
}

// Close closes the file; its bytes have reached the disk.
func (w *Writer) Close() error {
	if err := errors.Join(w.file.Sync(), w.file.Close()); err != nil {
		return fmt.Errorf("events: %w", err)
	}
	return nil
}

// Field numbers of TensorFlow's event.proto and summary.proto.
const (
	eventWallTime    = 1
	eventStep        = 2
	eventFileVersion = 3
	eventSummary     = 5
	eventSession     = 7
	summaryValue     = 1
	valueTag         = 1
	valueSimple      = 2
	sessionStatus    = 1

	sessionStart = 1 // of SessionLog.SessionStatus
)

// event begins an Event.
func event(at time.Time, step int) []byte {
	b := protowire.AppendTag(nil, eventWallTime, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, math.Float64bits(float64(at.UnixMicro())/1e6))
	if step == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, eventStep, protowire.VarintType), uint64(step))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// masked is the checksum of TensorFlow's records: CRC-32C, turned and moved so that checksums of checksums are sound.
func masked(data []byte) uint32 {
	crc := crc32.Checksum(data, castagnoli)
	return (crc>>15 | crc<<17) + 0xa282ead8
}

// append writes one record: the data's length, its checksum, data, its checksum.
func (w *Writer) append(data []byte) error {
	record := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	record = binary.LittleEndian.AppendUint32(record, masked(record))
	record = append(record, data...)
	record = binary.LittleEndian.AppendUint32(record, masked(data))
	// At the end of the last whole record: what a full disk took of another is written over.
	if _, err := w.file.WriteAt(record, w.size); err != nil {
		return fmt.Errorf("events: %w", err)
	}
	w.size += int64(len(record))
	return nil
}
