// SPDX-License-Identifier: Apache-2.0

// Package wire is the sync protocol as data: frames, and their bytes.
//
// What enters is bytes of one websocket message, trusted in nothing; what leaves is a frame, or an error. The package refuses to know sockets, stores
// and what the hashed bytes mean: server, page and Go client share it. PROTOCOL.md in the folder above has a worked exchange.
//
// # A frame
//
// One binary message is one frame: a byte that is its kind, a byte of flags, its body. Flag 1 (must) says what a receiver does that does not know the
// kind: with it the connection ends with an error, without it the frame is skipped. Other flags are zero and ignored. In a body, n is a number as an
// unsigned varint of at most 64 bits, h is a SHA-256 of 32 bytes, s is n and then so many bytes. Nothing follows a body.
//
//	kind  name       body                       sent by   meaning
//	   1  Hello      n n n n s s h              both      first frame of each side: least and greatest protocol version, features, credit in bytes, name,
//	                                                      token (empty from a server), the version held (zero for none)
//	   2  Manifest   n h s                      server    the current version: its number, SHA-256 of its document, the document; empty where the hello
//	                                                      said that it is held
//	   3  Want       n, n × (h h n)             both      pieces asked for: hash, a hash held from which a delta may be sent (or zero), offset to begin at
//	   4  Chunk      h h n n s                  both      bytes of a piece: its hash, the base where they are a delta's, offset, whole size, bytes
//	   5  Missing    h                          both      a piece that was asked for is not there
//	   6  Have       n, n × h                   client    pieces that a publisher can send; answered by one Want, perhaps empty
//	   7  Credit     n                          both      so many more bytes of Chunk may be sent
//	   8  Commit     s                          client    publish: a change as JSON (package version), whose pieces are there
//	   9  Committed  n h                        server    the version that a Commit became
//	  10  Error      n n s                      both      code, 1 where the connection ends with it, what is wrong
//	  11  Ping       n n                        both      a number, 1 where it is an answer; who gets a question answers with the same number
//
// # Order
//
// The client speaks first. A server answers a Hello by a Hello and a Manifest, and sends a Manifest of the newest version whenever there is one, of several in
// short order perhaps only the last. Chunks of one connection come in the order in which they were asked for, each piece from its offset to its end, but
// other kinds may come in between. Bytes of Chunk count against the credit that the other side has given; with none left the sender waits.
//
// A piece is checked against its hash when it is whole; a delta is applied to its base, and the result is checked. A side that gets bytes that
// it did not ask for, or beyond the credit it gave, ends the connection.
package wire

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// Version is the protocol's version.
const Version = 1

// Bounds of what a frame may hold.
const (
	MaxFrame    = 4<<20 + 1<<10 // bytes of a frame
	MaxDocument = 4 << 20       // of a Manifest's or a Commit's document
	MaxPiece    = 64 << 10      // of a Chunk's data
	MaxWhole    = 64 << 20      // of a piece
	MaxList     = 1024          // entries of Want and Have
	MaxText     = 1 << 10       // bytes of a name, a token, a message
)

// Hash is a SHA-256; zero is none.
type Hash [32]byte

// String is the hash in lowercase hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: 64 lowercase digits.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != 64 {
		return fmt.Errorf("wire: hash: want 64 hexadecimal digits, have %d bytes", len(text))
	}
	raw, err := hex.DecodeString(string(text))
	if err != nil || hex.EncodeToString(raw) != string(text) {
		return fmt.Errorf("wire: hash: want 64 lowercase hexadecimal digits, have %q", text)
	}
	*h = Hash(raw)
	return nil
}

// Kind says what a frame is.
type Kind byte

// The kinds of frames.
const (
	KindHello Kind = iota + 1
	KindManifest
	KindWant
	KindChunk
	KindMissing
	KindHave
	KindCredit
	KindCommit
	KindCommitted
	KindError
	KindPing
)

const flagMust = 1

// Frame is one of the types below, as a pointer.
type Frame interface {
	kind() Kind
	body(b []byte) []byte // appended
	read(r *reader)
}

// Hello begins a connection.
type Hello struct {
	Least, Greatest uint64 // protocol versions spoken
	Features        uint64 // none are defined
	Credit          uint64 // bytes of Chunk that the other side may send
	Name            string // for logs
	Token           string // of a publisher
	Held            Hash   // the version held
}

// Manifest is the current version.
type Manifest struct {
	Seq      uint64
	ID       Hash
	Document []byte
}

// Item is a piece that is asked for.
type Item struct {
	Hash   Hash
	Base   Hash // a piece that is held, from which a delta to Hash may be sent; zero for none
	Offset uint64
}

// Want asks for pieces.
type Want struct{ Items []Item }

// Chunk is bytes of a piece, or of the delta from Base to it.
type Chunk struct {
	Hash, Base Hash
	Offset     uint64
	Total      uint64
	Data       []byte
}

// Missing says that a piece is not there.
type Missing struct{ Hash Hash }

// Have offers pieces.
type Have struct{ Hashes []Hash }

// Credit allows more bytes of Chunk.
type Credit struct{ Bytes uint64 }

// Commit asks for a version.
type Commit struct{ Change []byte }

// Committed says which version a Commit became.
type Committed struct {
	Seq uint64
	ID  Hash
}

// Error says what is wrong.
type Error struct {
	Code    Code
	Fatal   bool
	Message string
}

func (e *Error) Error() string { return "sync: " + e.Message }

// Code is a kind of error.
type Code uint64

// The kinds of errors.
const (
	CodeProtocol Code = iota + 1 // a frame that may not be, or not now
	CodeVersion                  // no protocol version in common
	CodeDenied                   // the token does not allow it
	CodeRefused                  // a change that does not fit
	CodeLimit                    // too much, too fast, too many
	CodeInternal                 // the other side's fault: try again later
)

// Ping asks whether the other side lives, or answers.
type Ping struct {
	Number uint64
	Answer bool
}

// UnknownError is a kind of frame that this side does not know and may not skip.
type UnknownError struct{ Kind Kind }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("wire: frame: want a known kind, have %d, which may not be skipped", e.Kind)
}

func make1(k Kind) Frame {
	switch k {
	case KindHello:
		return new(Hello)
	case KindManifest:
		return new(Manifest)
	case KindWant:
		return new(Want)
	case KindChunk:
		return new(Chunk)
	case KindMissing:
		return new(Missing)
	case KindHave:
		return new(Have)
	case KindCredit:
		return new(Credit)
	case KindCommit:
		return new(Commit)
	case KindCommitted:
		return new(Committed)
	case KindError:
		return new(Error)
	case KindPing:
		return new(Ping)
	}
	return nil
}

// Append appends a frame's bytes to b.
func Append(b []byte, f Frame) []byte { return f.body(append(b, byte(f.kind()), flagMust)) }

// Parse reads a frame; it is nil where it is of an unknown kind that may be skipped. The frame keeps b.
func Parse(b []byte) (Frame, error) {
	if len(b) < 2 || len(b) > MaxFrame {
		return nil, fmt.Errorf("wire: frame: want 2 to %d bytes, have %d", MaxFrame, len(b))
	}
	f := make1(Kind(b[0]))
	if f == nil {
		if b[1]&flagMust != 0 {
			return nil, &UnknownError{Kind(b[0])}
		}
		return nil, nil
	}
	r := &reader{b: b[2:]}
	f.read(r)
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("want its end, have %d more bytes", len(r.b))
	}
	if r.err != nil {
		return nil, fmt.Errorf("wire: frame of kind %d: %w", b[0], r.err)
	}
	return f, nil
}

// reader reads a body; after an error it yields zeros.
type reader struct {
	b   []byte
	err error
}

var errShort = errors.New("it is cut short")

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	if n > 1 && r.b[n-1] == 0 {
		r.fail(errors.New("want numbers in their shortest form"))
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bounded(what string, most uint64) uint64 {
	v := r.number()
	if v > most {
		r.fail(fmt.Errorf("%s: want at most %d, have %d", what, most, v))
		return 0
	}
	return v
}

func (r *reader) flag() bool { return r.bounded("flag", 1) == 1 }

func (r *reader) bytes(what string, most uint64) []byte {
	n := r.bounded(what, most)
	if n > uint64(len(r.b)) {
		r.fail(errShort)
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) hash() (h Hash) {
	if len(r.b) < len(h) {
		r.fail(errShort)
		return h
	}
	copy(h[:], r.b)
	r.b = r.b[len(h):]
	return h
}

// count is the length of a list whose entries have at least so many bytes.
func (r *reader) count(each int) int {
	n := r.bounded("list", MaxList)
	if n > uint64(len(r.b)/each) {
		r.fail(errShort)
		return 0
	}
	return int(n)
}

func appendBytes[T ~string | ~[]byte](b []byte, v T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func appendFlag(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func (*Hello) kind() Kind     { return KindHello }
func (*Manifest) kind() Kind  { return KindManifest }
func (*Want) kind() Kind      { return KindWant }
func (*Chunk) kind() Kind     { return KindChunk }
func (*Missing) kind() Kind   { return KindMissing }
func (*Have) kind() Kind      { return KindHave }
func (*Credit) kind() Kind    { return KindCredit }
func (*Commit) kind() Kind    { return KindCommit }
func (*Committed) kind() Kind { return KindCommitted }
func (*Error) kind() Kind     { return KindError }
func (*Ping) kind() Kind      { return KindPing }

func (f *Hello) body(b []byte) []byte {
	for _, n := range []uint64{f.Least, f.Greatest, f.Features, f.Credit} {
		b = binary.AppendUvarint(b, n)
	}
	b = appendBytes(appendBytes(b, f.Name), f.Token)
	return append(b, f.Held[:]...)
}

func (f *Hello) read(r *reader) {
	f.Least, f.Greatest, f.Features, f.Credit = r.number(), r.number(), r.number(), r.number()
	f.Name, f.Token = string(r.bytes("name", MaxText)), string(r.bytes("token", MaxText))
	f.Held = r.hash()
}

func (f *Manifest) body(b []byte) []byte {
	b = append(binary.AppendUvarint(b, f.Seq), f.ID[:]...)
	return appendBytes(b, f.Document)
}

func (f *Manifest) read(r *reader) {
	f.Seq, f.ID, f.Document = r.number(), r.hash(), r.bytes("document", MaxDocument)
}

func (f *Want) body(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(f.Items)))
	for _, i := range f.Items {
		b = append(append(b, i.Hash[:]...), i.Base[:]...)
		b = binary.AppendUvarint(b, i.Offset)
	}
	return b
}

func (f *Want) read(r *reader) {
	for range r.count(65) {
		f.Items = append(f.Items, Item{r.hash(), r.hash(), r.bounded("offset", MaxWhole)})
	}
}

func (f *Chunk) body(b []byte) []byte {
	b = append(append(b, f.Hash[:]...), f.Base[:]...)
	b = binary.AppendUvarint(binary.AppendUvarint(b, f.Offset), f.Total)
	return appendBytes(b, f.Data)
}

func (f *Chunk) read(r *reader) {
	f.Hash, f.Base, f.Offset, f.Total = r.hash(), r.hash(), r.bounded("offset", MaxWhole), r.bounded("size", MaxWhole)
	f.Data = r.bytes("data", MaxPiece)
	if r.err == nil && f.Offset+uint64(len(f.Data)) > f.Total {
		r.fail(fmt.Errorf("want bytes within %d, have %d at %d", f.Total, len(f.Data), f.Offset))
	}
}

func (f *Missing) body(b []byte) []byte { return append(b, f.Hash[:]...) }
func (f *Missing) read(r *reader)       { f.Hash = r.hash() }

func (f *Have) body(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(f.Hashes)))
	for _, h := range f.Hashes {
		b = append(b, h[:]...)
	}
	return b
}

func (f *Have) read(r *reader) {
	for range r.count(32) {
		f.Hashes = append(f.Hashes, r.hash())
	}
}

func (f *Credit) body(b []byte) []byte { return binary.AppendUvarint(b, f.Bytes) }
func (f *Credit) read(r *reader)       { f.Bytes = r.number() }

func (f *Commit) body(b []byte) []byte { return appendBytes(b, f.Change) }
func (f *Commit) read(r *reader)       { f.Change = r.bytes("change", MaxDocument) }

func (f *Committed) body(b []byte) []byte { return append(binary.AppendUvarint(b, f.Seq), f.ID[:]...) }
func (f *Committed) read(r *reader)       { f.Seq, f.ID = r.number(), r.hash() }

func (f *Error) body(b []byte) []byte {
	b = appendFlag(binary.AppendUvarint(b, uint64(f.Code)), f.Fatal)
	return appendBytes(b, f.Message)
}

func (f *Error) read(r *reader) {
	f.Code, f.Fatal, f.Message = Code(r.number()), r.flag(), string(r.bytes("message", MaxText))
}

func (f *Ping) body(b []byte) []byte { return appendFlag(binary.AppendUvarint(b, f.Number), f.Answer) }
func (f *Ping) read(r *reader)       { f.Number, f.Answer = r.number(), r.flag() }
