// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

var h1, h2 = Hash{1, 2, 3}, Hash{31: 9}

// frames is one of every kind, with values at their edges.
var frames = []Frame{
	&Hello{1, 3, 0, 1 << 40, "page", "secret", h1}, &Hello{}, &Manifest{7, h1, []byte("{}")}, &Manifest{Document: []byte{}},
	&Want{[]Item{{h1, h2, 0}, {h2, Hash{}, MaxWhole}}}, &Want{}, &Chunk{h1, h2, 5, 8, []byte("abc")}, &Chunk{Data: []byte{}}, &Missing{h2},
	&Have{[]Hash{h1, h2}}, &Have{}, &Credit{1<<64 - 1}, &Commit{[]byte("x")}, &Committed{1, h1}, &Error{CodeLimit, true, "too much"}, &Ping{300, true},
}

func TestRoundTrip(t *testing.T) {
	seen := map[Kind]bool{}
	for _, f := range frames {
		b := Append(nil, f)
		have, err := Parse(b)
		if err != nil || !reflect.DeepEqual(have, f) {
			t.Errorf("Parse(Append(%+v)) = %+v, %v", f, have, err)
		}
		seen[f.kind()] = true
		for n := range b {
			if _, err := Parse(b[:n]); err == nil {
				t.Errorf("Parse(%T cut to %d of %d bytes) succeeded", f, n, len(b))
			}
		}
		if _, err := Parse(append(b, 0)); err == nil {
			t.Errorf("Parse(%T and a byte) succeeded", f)
		}
	}
	for k := KindHello; make1(k) != nil; k++ {
		if !seen[k] {
			t.Errorf("kind %d is not tested", k)
		}
	}
}

func TestUnknownKinds(t *testing.T) {
	if f, err := Parse([]byte{200, 0, 1, 2, 3}); f != nil || err != nil {
		t.Errorf("a frame that may be skipped = %v, %v, want nothing", f, err)
	}
	var unknown *UnknownError
	if _, err := Parse([]byte{200, flagMust}); !errors.As(err, &unknown) || unknown.Kind != 200 {
		t.Errorf("a frame that may not be skipped: %v, want an UnknownError", err)
	}
}

func TestRefused(t *testing.T) {
	long := func(f Frame) []byte { return Append(nil, f) }
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, "want 2 to"},
		{"document", long(&Manifest{Document: make([]byte, MaxDocument+1)}), "document: want at most"},
		{"piece", long(&Chunk{Total: MaxWhole, Data: make([]byte, MaxPiece+1)}), "data: want at most"},
		{"size", long(&Chunk{Total: MaxWhole + 1}), "size: want at most"},
		{"beyond the end", long(&Chunk{Offset: 6, Total: 8, Data: []byte("abc")}), "want bytes within 8"},
		{"list", long(&Have{make([]Hash, MaxList+1)}), "list: want at most"},
		{"list of nothing", []byte{byte(KindWant), flagMust, 200, 1}, "cut short"},
		{"length of nothing", []byte{byte(KindCommit), flagMust, 200, 1}, "cut short"},
		{"flag", []byte{byte(KindPing), flagMust, 1, 2}, "flag: want at most 1"},
		{"long number", []byte{byte(KindCredit), flagMust, 0x81, 0}, "shortest form"},
		{"endless number", append([]byte{byte(KindCredit), flagMust}, bytes.Repeat([]byte{0xff}, 11)...), "cut short"},
	} {
		if _, err := Parse(c.b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func TestHashText(t *testing.T) {
	var h Hash
	text, _ := h1.MarshalText()
	if err := h.UnmarshalText(text); err != nil || h != h1 {
		t.Errorf("UnmarshalText(%s) = %v, %v", text, h, err)
	}
	for _, bad := range []string{"", "00", strings.Repeat("0", 63), strings.Repeat("g", 64), strings.Repeat("A", 64), "../../" + strings.Repeat("0", 58)} {
		if err := h.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("UnmarshalText(%q) succeeded", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, frame := range frames {
		f.Add(Append(nil, frame))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := Parse(b)
		if err != nil || frame == nil {
			return
		}
		again := Append(nil, frame)
		if b[1] = flagMust; !bytes.Equal(again, b) {
			t.Errorf("Append(Parse(%x)) = %x", b, again)
		}
	})
}
