// SPDX-License-Identifier: Apache-2.0

package hub_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"gocloud.dev/blob/memblob"

	"fromage/server/client"
	"fromage/server/hub"
	"fromage/server/internal/fixture"
	"fromage/server/store"
	"fromage/server/version"
	"fromage/server/wire"
)

const secret = "the secret"

var ctx = context.Background()

// serve serves a store in memory.
func serve(t testing.TB, c hub.Config) (*hub.Hub, *httptest.Server) {
	t.Helper()
	if c.Store == nil {
		c.Store = store.New(memblob.OpenBucket(nil), "memory")
	}
	c.Tokens = hub.Tokens{{Name: "tester", Scopes: hub.Scopes, Hash: sha256.Sum256([]byte(secret))}}
	h, err := hub.New(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /sync", h)
	mux.HandleFunc("GET /sync/version", h.ServeVersion)
	mux.HandleFunc("GET /sync/pieces/{hash}", h.ServePiece)
	mux.HandleFunc("GET /healthz", h.ServeHealth)
	mux.Handle("GET /metrics", h.Metrics())
	srv := httptest.NewServer(mux)
	t.Cleanup(func() {
		last, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		if err := h.Close(last); err != nil {
			t.Error(err)
		}
		srv.Close()
		c.Store.Close()
	})
	return h, srv
}

func publishBundle(t testing.TB, url string) *client.Publisher {
	t.Helper()
	p, err := client.Open(ctx, url, secret, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	data := fixture.Bundle(t)
	if _, err := p.Bundle(ctx, "tiny", "Tiny", "", bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	return p
}

// raw is a websocket whose frames a test writes itself.
type raw struct {
	net.Conn
	r *bufio.Reader
}

func dialRaw(t testing.TB, srv *httptest.Server, header string) (*raw, int) {
	t.Helper()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "GET /sync HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n", srv.Listener.Addr(), header)
	r := bufio.NewReader(c)
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &raw{c, r}, response.StatusCode
}

// opcodes and flags of RFC 6455.
const (
	opContinue = 0x0
	opText     = 0x1
	opBinary   = 0x2
	opClose    = 0x8
	opPing     = 0x9
	opPong     = 0xA
	fin        = 0x80
)

// frame writes a frame; head is the first byte.
func (c *raw) frame(head byte, payload []byte, masked bool) {
	b := []byte{head}
	mask := byte(0)
	if masked {
		mask = 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, mask|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
	}
	if masked {
		key := []byte{1, 2, 3, 4}
		b = append(b, key...)
		for i, v := range payload {
			b = append(b, v^key[i%4])
		}
	} else {
		b = append(b, payload...)
	}
	_, _ = c.Write(b) // the server may have hung up, which the test hears of when it reads
}

// next reads a frame of the server's.
func (c *raw) next() (op byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(head[1] & 0x7f)
	if head[1]&0x80 != 0 {
		return 0, nil, errors.New("the server masks")
	}
	switch n {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(c.r, b[:])
		n = int(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, err = io.ReadFull(c.r, b[:])
		n = int(binary.BigEndian.Uint64(b[:]))
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(c.r, payload)
	return head[0] & 0x0f, payload, err
}

func hello() []byte {
	return wire.Append(nil, &wire.Hello{Least: 1, Greatest: 1, Credit: 1 << 20, Name: "raw"})
}

// greeted wants the server's hello and manifest.
func (c *raw) greeted() error {
	for _, want := range []wire.Kind{wire.KindHello, wire.KindManifest} {
		op, b, err := c.next()
		if err != nil {
			return err
		}
		if op != opBinary || len(b) == 0 || wire.Kind(b[0]) != want {
			return fmt.Errorf("want kind %d in a binary message, have opcode %d, %.60q", want, op, b)
		}
	}
	return nil
}

// ends wants the connection to be closed, with one of these codes if the server gives one.
func (c *raw) ends(codes ...int) error {
	for {
		op, b, err := c.next()
		if err != nil {
			return nil // closed without a word
		}
		if op != opClose {
			continue
		}
		if len(b) >= 2 && len(codes) > 0 && !slices.Contains(codes, int(binary.BigEndian.Uint16(b))) {
			return fmt.Errorf("close code %d, want one of %v", binary.BigEndian.Uint16(b), codes)
		}
		return nil
	}
}

// TestRFC6455 goes through the cases of the websocket standard that the Autobahn suite's groups 1 to 7 are about. The suite itself wants a peer that echoes
// whatever it hears, text too, which this end is not. The server speaks first after a hello, so what is accepted shows in its answer.
func TestRFC6455(t *testing.T) {
	_, srv := serve(t, hub.Config{PingEvery: time.Minute})
	big := make([]byte, 200<<10)
	closing := func(code int, reason string) []byte {
		return append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)
	}
	greets := func(c *raw) error { return c.greeted() }
	ends := func(codes ...int) func(*raw) error { return func(c *raw) error { return c.ends(codes...) } }
	for _, c := range []struct {
		name string
		do   func(c *raw)
		want func(c *raw) error
	}{
		{"whole message", func(c *raw) { c.frame(fin|opBinary, hello(), true) }, greets},
		{"message in fragments", func(c *raw) {
			h := hello()
			c.frame(opBinary, h[:3], true)
			c.frame(opContinue, h[3:5], true)
			c.frame(opContinue, nil, true)
			c.frame(fin|opContinue, h[5:], true)
		}, greets},
		{"fragments of one byte", func(c *raw) {
			h := hello()
			c.frame(opBinary, h[:1], true)
			for i := 1; i < len(h)-1; i++ {
				c.frame(opContinue, h[i:i+1], true)
			}
			c.frame(fin|opContinue, h[len(h)-1:], true)
		}, greets},
		{"ping between fragments", func(c *raw) {
			h := hello()
			c.frame(opBinary, h[:3], true)
			c.frame(fin|opPing, []byte("are you there"), true)
			c.frame(fin|opContinue, h[3:], true)
		}, func(c *raw) error {
			op, b, err := c.next()
			if op != opPong || string(b) != "are you there" {
				return fmt.Errorf("want the pong, have opcode %d, %q, %v", op, b, err)
			}
			return c.greeted()
		}},
		{"ping of nothing", func(c *raw) { c.frame(fin|opPing, nil, true) }, func(c *raw) error {
			if op, b, err := c.next(); op != opPong || len(b) != 0 {
				return fmt.Errorf("want an empty pong, have opcode %d, %q, %v", op, b, err)
			}
			return nil
		}},
		{"ping of 125 bytes", func(c *raw) { c.frame(fin|opPing, big[:125], true) }, func(c *raw) error {
			if op, b, err := c.next(); op != opPong || len(b) != 125 {
				return fmt.Errorf("want a pong of 125 bytes, have opcode %d, %d bytes, %v", op, len(b), err)
			}
			return nil
		}},
		{"pong that nobody asked for", func(c *raw) { c.frame(fin|opPong, []byte("x"), true); c.frame(fin|opBinary, hello(), true) }, greets},
		{"ping of 126 bytes", func(c *raw) { c.frame(fin|opPing, big[:126], true) }, ends(1002)},
		{"ping in fragments", func(c *raw) { c.frame(opPing, []byte("x"), true) }, ends(1002)},
		{"frame without a mask", func(c *raw) { c.frame(fin|opBinary, hello(), false) }, ends(1002)},
		{"reserved bit 1", func(c *raw) { c.frame(fin|0x40|opBinary, hello(), true) }, ends(1002)},
		{"reserved bit 2", func(c *raw) { c.frame(fin|0x20|opBinary, hello(), true) }, ends(1002)},
		{"reserved bit 3", func(c *raw) { c.frame(fin|0x10|opBinary, hello(), true) }, ends(1002)},
		{"reserved opcode 3", func(c *raw) { c.frame(fin|0x3, nil, true) }, ends(1002)},
		{"reserved control opcode 11", func(c *raw) { c.frame(fin|0xB, nil, true) }, ends(1002)},
		{"continuation of nothing", func(c *raw) { c.frame(fin|opContinue, hello(), true) }, ends(1002)},
		{"new message within fragments", func(c *raw) { c.frame(opBinary, []byte("x"), true); c.frame(fin|opBinary, hello(), true) }, ends(1002)},
		{"text", func(c *raw) { c.frame(fin|opText, []byte("hello"), true) }, ends(1002, 1003, 1008)},
		{"text of invalid UTF-8", func(c *raw) { c.frame(fin|opText, []byte{0xff, 0xfe}, true) }, ends(1002, 1003, 1007, 1008)},
		{"too long before hello", func(c *raw) { c.frame(fin|opBinary, big[:9<<10], true) }, ends(1009)},
		{"too long in fragments", func(c *raw) {
			c.frame(opBinary, big[:5<<10], true)
			c.frame(fin|opContinue, big[:5<<10], true)
		}, ends(1009)},
		{"too long after hello", func(c *raw) { c.frame(fin|opBinary, hello(), true); c.frame(fin|opBinary, big, true) }, ends(1009)},
		{"length of 2^63", func(c *raw) { _, _ = c.Write([]byte{fin | opBinary, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}) }, ends(1002, 1009)},
		{"length of 2^62", func(c *raw) { _, _ = c.Write([]byte{fin | opBinary, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}) }, ends(1002, 1009)},
		{"close", func(c *raw) { c.frame(fin|opClose, closing(1000, "bye"), true) }, ends(1000)},
		{"close of nothing", func(c *raw) { c.frame(fin|opClose, nil, true) }, ends(1000, 1005)},
		{"close of one byte", func(c *raw) { c.frame(fin|opClose, []byte{3}, true) }, ends(1002)},
		{"close with reason of invalid UTF-8", func(c *raw) { c.frame(fin|opClose, closing(1000, "\xff"), true) }, ends(1002, 1007)},
		{"close with code 999", func(c *raw) { c.frame(fin|opClose, closing(999, ""), true) }, ends(1002)},
		{"close with code 1005", func(c *raw) { c.frame(fin|opClose, closing(1005, ""), true) }, ends(1002)},
		{"close with code 1006", func(c *raw) { c.frame(fin|opClose, closing(1006, ""), true) }, ends(1002)},
		{"close with code 2999", func(c *raw) { c.frame(fin|opClose, closing(2999, ""), true) }, ends(1002)},
		{"close with code 3000", func(c *raw) { c.frame(fin|opClose, closing(3000, ""), true) }, ends(3000)},
		{"frames after close", func(c *raw) {
			c.frame(fin|opClose, closing(1000, ""), true)
			c.frame(fin|opBinary, hello(), true)
		}, ends(1000)},
		{"no hello first", func(c *raw) { c.frame(fin|opBinary, wire.Append(nil, &wire.Ping{}), true) }, ends(1008)},
		{"a frame that is none", func(c *raw) { c.frame(fin|opBinary, []byte("nonsense"), true) }, ends(1008)},
		{"no version in common", func(c *raw) { c.frame(fin|opBinary, wire.Append(nil, &wire.Hello{Least: 2, Greatest: 9}), true) }, ends(1008)},
		{"unknown kind that may be skipped", func(c *raw) { c.frame(fin|opBinary, []byte{250, 0, 1}, true); c.frame(fin|opBinary, hello(), true) }, greets},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, status := dialRaw(t, srv, "")
			if status != http.StatusSwitchingProtocols {
				t.Fatalf("status %d", status)
			}
			c.do(conn)
			if err := c.want(conn); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOrigins(t *testing.T) {
	_, srv := serve(t, hub.Config{Origins: []string{"https://friend.example"}})
	for _, c := range []struct {
		header string
		status int
	}{
		{"", 101}, {"Origin: http://" + srv.Listener.Addr().String() + "\r\n", 101}, {"Origin: https://friend.example\r\n", 101},
		{"Origin: https://evil.example\r\n", 403}, {"Origin: null\r\n", 403}, {"Origin: https://friend.example.evil.example\r\n", 403},
	} {
		if _, status := dialRaw(t, srv, c.header); status != c.status {
			t.Errorf("%q: status %d, want %d", c.header, status, c.status)
		}
	}
}

func TestCaps(t *testing.T) {
	_, srv := serve(t, hub.Config{MaxPerAddress: 3})
	for i := range 4 {
		c, status := dialRaw(t, srv, "")
		want := 101
		if i == 3 {
			want = 503
		}
		if status != want {
			t.Errorf("connection %d: status %d, want %d", i, status, want)
		}
		defer c.Close()
	}
}

// TestRules: frames that break a rule end the connection with an error frame that says which.
func TestRules(t *testing.T) {
	h, srv := serve(t, hub.Config{})
	publishBundle(t, srv.URL)
	piece := h.Current().Models[0].Bundle.Pieces[0].Hash
	for _, c := range []struct {
		name   string
		frames []wire.Frame
		want   string
	}{
		{"chunk without a token", []wire.Frame{&wire.Chunk{Hash: piece, Total: 1, Data: []byte{1}}}, "needs a token"},
		{"have without a token", []wire.Frame{&wire.Have{Hashes: []wire.Hash{piece}}}, "needs a token"},
		{"commit without a token", []wire.Frame{&wire.Commit{Change: []byte("{}")}}, "needs a token"},
		{"a server's frame", []wire.Frame{&wire.Committed{}}, "a client does not send"},
		{"too many wants", slices.Repeat([]wire.Frame{&wire.Want{Items: make([]wire.Item, wire.MaxList)}}, 40), "pieces asked for at once"},
	} {
		ws, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http")+"/sync", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = ws.SetReadDeadline(time.Now().Add(20 * time.Second))
		send := func(f wire.Frame) { _ = ws.WriteMessage(websocket.BinaryMessage, wire.Append(nil, f)) }
		send(&wire.Hello{Least: 1, Greatest: 1, Name: "rules"})
		for _, f := range c.frames {
			send(f)
		}
		said := ""
		for {
			_, b, err := ws.ReadMessage()
			if err != nil {
				break
			}
			if f, err := wire.Parse(b); err == nil {
				if e, ok := f.(*wire.Error); ok && e.Fatal {
					said = e.Message
				}
			}
		}
		ws.Close()
		if !strings.Contains(said, c.want) {
			t.Errorf("%s: the server said %q, want %q", c.name, said, c.want)
		}
	}
}

// TestCredit: no more bytes come than were allowed, and pieces go on where more are.
func TestCredit(t *testing.T) {
	h, srv := serve(t, hub.Config{})
	publishBundle(t, srv.URL)
	piece := h.Current().Models[0].Bundle.Pieces[0]
	ws, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http")+"/sync", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	_ = ws.SetReadDeadline(time.Now().Add(20 * time.Second))
	send := func(f wire.Frame) {
		if err := ws.WriteMessage(websocket.BinaryMessage, wire.Append(nil, f)); err != nil {
			t.Fatal(err)
		}
	}
	send(&wire.Hello{Least: 1, Greatest: 1, Credit: 1000})
	send(&wire.Want{Items: []wire.Item{{Hash: piece.Hash}, {Hash: wire.Hash{1}}}})
	send(&wire.Ping{Number: 7}) // is answered though the piece is stuck
	var data []byte
	given, ponged, missing := uint64(1000), false, false
	give := func(n uint64) {
		given += n
		send(&wire.Credit{Bytes: n})
	}
	for !missing {
		_, b, err := ws.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		f, err := wire.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *wire.Chunk:
			data = append(data, f.Data...)
			if uint64(len(data)) > given {
				t.Fatalf("%d bytes came for a credit of %d", len(data), given)
			}
			if ponged {
				give(uint64(len(f.Data)))
			}
		case *wire.Ping:
			ponged = f.Answer && f.Number == 7
			give(1000)
		case *wire.Missing:
			missing = f.Hash == wire.Hash{1}
		}
	}
	if version.ID(data) != piece.Hash || !ponged {
		t.Errorf("%d bytes of %d came, ping answered: %t", len(data), piece.Size, ponged)
	}
}

// TestHTTP: the same pieces without a websocket.
func TestHTTP(t *testing.T) {
	h, srv := serve(t, hub.Config{})
	publishBundle(t, srv.URL)
	get := func(path, ranged string) (int, string, http.Header) {
		t.Helper()
		r, _ := http.NewRequest("GET", srv.URL+path, nil)
		if ranged != "" {
			r.Header.Set("Range", ranged)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		b, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(b), response.Header
	}
	v := h.Current()
	if status, body, _ := get("/sync/version", ""); status != 200 || version.ID([]byte(body)) != v.ID {
		t.Errorf("/sync/version = %d, %.60q", status, body)
	}
	piece := v.Models[0].Bundle.Pieces[0]
	status, body, header := get("/sync/pieces/"+piece.Hash.String(), "")
	if status != 200 || version.ID([]byte(body)) != piece.Hash || !strings.Contains(header.Get("Cache-Control"), "immutable") {
		t.Errorf("a piece = %d, %d bytes, %v", status, len(body), header)
	}
	if status, part, _ := get("/sync/pieces/"+piece.Hash.String(), "bytes=10-19"); status != 206 || part != body[10:20] {
		t.Errorf("a part of it = %d, %q", status, part)
	}
	for _, bad := range []string{"nonsense", strings.Repeat("0", 64), "..%2f..%2flock", strings.ToUpper(piece.Hash.String())} {
		if status, _, _ := get("/sync/pieces/"+bad, ""); status != 404 {
			t.Errorf("piece %s: status %d, want 404", bad, status)
		}
	}
	if status, body, _ := get("/healthz", ""); status != 200 || !strings.Contains(body, `"seq":1`) {
		t.Errorf("/healthz = %d, %s", status, body)
	}
	if status, body, _ := get("/metrics", ""); status != 200 || !strings.Contains(body, "fromage_sync_version 1") {
		t.Errorf("/metrics = %d, without the version", status)
	}
}

// TestSilentIsDropped: a client that answers no ping is dropped, also while it has asked for pieces.
func TestSilentIsDropped(t *testing.T) {
	_, srv := serve(t, hub.Config{PingEvery: 50 * time.Millisecond})
	c, _ := dialRaw(t, srv, "")
	c.frame(fin|opBinary, hello(), true)
	if err := c.ends(); err != nil {
		t.Error(err)
	}
}

// follower is a client as small as can be: it takes a version's heads.
func follower(o client.Options, ready func(), took func(seq uint64)) error {
	c, err := client.Dial(ctx, o, wire.Hash{})
	if err != nil {
		return err
	}
	defer c.Close()
	for first := true; ; first = false {
		m, err := c.Latest(ctx)
		if err != nil {
			return err
		}
		if first {
			ready()
			continue
		}
		v, err := version.Decode(m.Document)
		if err != nil {
			return err
		}
		var items []wire.Item
		for _, p := range v.Models[0].Heads.Pieces {
			items = append(items, wire.Item{Hash: p.Hash})
		}
		if err := c.Fetch(ctx, items, func(i wire.Item, data []byte, _ bool) error {
			if data == nil {
				return errors.New("missing")
			}
			return nil
		}); err != nil {
			return err
		}
		took(v.Seq)
	}
}

// load has n clients follow, stalled of them besides that ask for pieces and read nothing, and measures how long a publish takes to reach all.
func load(t *testing.T, n, stalled int) (last time.Duration, memory uint64) {
	h, srv := serve(t, hub.Config{MaxPerAddress: 2 * (n + stalled), Patience: time.Minute})
	p := publishBundle(t, srv.URL)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := heap()
	var ready, done sync.WaitGroup
	var failed atomic.Pointer[error]
	for range n {
		ready.Add(1)
		done.Add(1)
		var once sync.Once
		go func() {
			err := follower(client.Options{URL: srv.URL, Name: "follower"}, ready.Done, func(uint64) { once.Do(done.Done) })
			if h.Current() != nil && err != nil && !strings.Contains(err.Error(), "close") {
				failed.Store(&err)
			}
		}()
	}
	piece := h.Current().Models[0].Bundle.Pieces[0].Hash
	for range stalled {
		c, _ := dialRaw(t, srv, "")
		_ = c.SetDeadline(time.Time{})
		c.frame(fin|opBinary, wire.Append(nil, &wire.Hello{Least: 1, Greatest: 1, Credit: 1 << 30, Name: "stalled"}), true)
		for range 50 {
			c.frame(fin|opBinary, wire.Append(nil, &wire.Want{Items: slices.Repeat([]wire.Item{{Hash: piece}}, 50)}), true)
		}
	}
	ready.Wait()
	memory = (heap() - before) / uint64(n+stalled)
	began := time.Now()
	if _, err := p.Heads(ctx, "tiny", "", fixture.Heads(t, fixture.Bundle(t), 1)); err != nil {
		t.Fatal(err)
	}
	done.Wait()
	last = time.Since(began)
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
	return last, memory
}

// TestLoad: one publish reaches every client, and stalled ones among them hold up nobody.
func TestLoad(t *testing.T) {
	n := 100
	if os.Getenv("FROMAGE_SOAK") != "" {
		n = 1000
	}
	for _, stalled := range []int{0, 10} {
		last, memory := load(t, n, stalled)
		t.Logf("%d clients, %d stalled: a publish had reached all after %v; %d KiB a client, both ends of it in this process", n, stalled, last.Round(time.Millisecond), memory>>10)
	}
}

// FuzzServer sends frames to a server: it answers or ends the connection, and lives.
func FuzzServer(f *testing.F) {
	h, srv := serve(f, hub.Config{MaxPerAddress: 100_000})
	publishBundle(f, srv.URL)
	for _, x := range []wire.Frame{&wire.Want{Items: []wire.Item{{Hash: wire.Hash{1}}}}, &wire.Have{}, &wire.Credit{Bytes: 1}, &wire.Commit{Change: []byte(`{"rollback":1}`)},
		&wire.Chunk{Total: 1, Data: []byte{1}}, &wire.Ping{}, &wire.Error{}, &wire.Hello{}} {
		f.Add(wire.Append(nil, x), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, token bool) {
		o := client.Options{URL: srv.URL}
		if token {
			o.Token = secret
		}
		ws, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http")+"/sync", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		_ = ws.SetReadDeadline(time.Now().Add(20 * time.Second))
		for _, m := range [][]byte{wire.Append(nil, &wire.Hello{Least: 1, Greatest: 1, Token: o.Token}), b, wire.Append(nil, &wire.Ping{Number: 99})} {
			if ws.WriteMessage(websocket.BinaryMessage, m) != nil {
				break
			}
		}
		for {
			_, m, err := ws.ReadMessage()
			if err != nil {
				break
			}
			if p, ok := must(wire.Parse(m)).(*wire.Ping); ok && p.Number == 99 {
				break
			}
		}
		if h.Current() == nil {
			t.Error("the version is gone")
		}
	})
}

func must(f wire.Frame, err error) wire.Frame {
	if err != nil {
		panic(err)
	}
	return f
}
