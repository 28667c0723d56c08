// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"

	"fromage/server/publish"
	"fromage/server/store"
	"fromage/server/version"
	"fromage/server/wire"
)

const (
	maxControl = 64    // answers that wait for the writer
	maxWants   = 16384 // pieces that were asked for and not sent
	readLimit  = 128 << 10
	helloWait  = 10 * time.Second
	upCredit   = 8 << 20 // bytes that a publisher may be ahead
)

// peer is a connection.
type peer struct {
	h       *Hub
	conn    *websocket.Conn
	address string
	name    string // of the client; of the token, once there is one
	scopes  []string
	frames  *rate.Limiter
	upload  *rate.Limiter
	wake    chan struct{} // the writer has something to do
	done    chan struct{} // the writer has ended

	mu      sync.Mutex
	hello   []byte      // the first frame to be sent
	control [][]byte    // then these
	news    bool        // then the current version
	known   wire.Hash   // the version that the client has
	wants   []wire.Item // then pieces
	credit  uint64      // bytes of pieces that may be sent
	closed  bool        // the writer is to end
	code    int         // how
	last    *wire.Error // what it says before
	since   time.Time   // since when credit is waited for

	// The writer's own.
	item   wire.Item // being sent
	data   []byte    // of it; nil while there is none, or credit is waited for
	offset int
	delta  bool
	busy   bool

	// The reader's own.
	piece    []byte // of the publisher, as far as it is here
	pieceOf  wire.Hash
	total    uint64
	uploaded int64
	back     uint64 // bytes taken that no credit was given back for
	asked    map[wire.Hash]bool
}

// serve runs a connection to its end.
func (p *peer) serve(ctx context.Context) {
	defer p.conn.Close()
	log := p.h.c.Log.With("address", p.address)
	err := p.greet()
	if err != nil {
		p.refuse(err)
		log.Info("refused", "error", err)
		return
	}
	if !p.h.join(p) {
		p.refuse(&wire.Error{Code: wire.CodeInternal, Fatal: true, Message: "the server is stopping"})
		return
	}
	log.Info("client", "name", p.name, "scopes", p.scopes)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go p.write(ctx)
	err = p.read(ctx)
	cancel()
	if e := (*wire.Error)(nil); errors.As(err, &e) {
		p.h.metrics.dropped.WithLabelValues("protocol").Inc()
		p.end(websocket.ClosePolicyViolation, e)
	} else {
		p.end(websocket.CloseNormalClosure, nil)
	}
	<-p.done
	p.h.part(p)
	log.Info("client left", "name", p.name, "why", err)
}

// fault is an error that ends the connection.
func fault(code wire.Code, format string, args ...any) *wire.Error {
	text := fmt.Sprintf(format, args...)
	return &wire.Error{Code: code, Fatal: true, Message: text[:min(len(text), wire.MaxText)]}
}

// refuse says why a connection ends that has no writer yet.
func (p *peer) refuse(err error) {
	var e *wire.Error
	if !errors.As(err, &e) {
		return
	}
	p.h.metrics.dropped.WithLabelValues("refused").Inc()
	_ = p.conn.SetWriteDeadline(time.Now().Add(p.h.c.WriteTimeout))
	_ = p.conn.WriteMessage(websocket.BinaryMessage, wire.Append(nil, e))
	_ = p.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.ClosePolicyViolation, ""), time.Now().Add(time.Second))
}

// greet hears the client's hello.
func (p *peer) greet() error {
	p.conn.SetReadLimit(8 << 10)
	_ = p.conn.SetReadDeadline(time.Now().Add(helloWait))
	f, err := p.next()
	if err != nil {
		return err
	}
	hello, ok := f.(*wire.Hello)
	if !ok {
		return fault(wire.CodeProtocol, "want a hello first, have %T", f)
	}
	if hello.Least > wire.Version || hello.Greatest < wire.Version {
		return fault(wire.CodeVersion, "this server speaks version %d, the client %d to %d", wire.Version, hello.Least, hello.Greatest)
	}
	p.name, p.known, p.credit, p.news = hello.Name, hello.Held, hello.Credit, true
	answer := &wire.Hello{Least: wire.Version, Greatest: wire.Version, Name: "fromage"}
	if hello.Token != "" {
		t := p.h.c.Tokens.find(hello.Token)
		if t == nil {
			p.h.c.Audit.Warn("token refused", "address", p.address, "client", hello.Name)
			return fault(wire.CodeDenied, "the token is not one of this server's")
		}
		p.name, p.scopes, answer.Credit = t.Name, t.Scopes, upCredit
		p.asked = map[wire.Hash]bool{}
	}
	if v := p.h.Current(); v != nil {
		answer.Held = v.ID
	}
	p.hello = wire.Append(nil, answer)
	limit := int64(readLimit)
	if p.scopes != nil {
		limit = wire.MaxFrame
	}
	p.conn.SetReadLimit(limit)
	return nil
}

// next reads a frame; one that may be skipped is skipped.
func (p *peer) next() (wire.Frame, error) {
	for {
		kind, r, err := p.conn.NextReader()
		if err != nil {
			return nil, err
		}
		if kind != websocket.BinaryMessage {
			return nil, fault(wire.CodeProtocol, "want binary messages, have text")
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		f, err := wire.Parse(data)
		if err != nil {
			return nil, fault(wire.CodeProtocol, "%v", err)
		}
		if f != nil {
			return f, nil
		}
	}
}

// read hears the client until it leaves or breaks a rule.
func (p *peer) read(ctx context.Context) error {
	alive := func(string) error { return p.conn.SetReadDeadline(time.Now().Add(3 * p.h.c.PingEvery)) }
	p.conn.SetPongHandler(alive)
	for {
		_ = alive("")
		f, err := p.next()
		if err != nil {
			return err
		}
		if _, piece := f.(*wire.Chunk); !piece && !p.frames.Allow() {
			return fault(wire.CodeLimit, "too many frames a second")
		}
		if err := p.handle(ctx, f); err != nil {
			return err
		}
	}
}

func (p *peer) handle(ctx context.Context, f wire.Frame) error {
	switch f := f.(type) {
	case *wire.Want:
		return p.want(f)
	case *wire.Credit:
		p.mu.Lock()
		p.credit = min(p.credit+min(f.Bytes, 1<<40), 1<<40)
		p.since = time.Time{}
		p.mu.Unlock()
		p.signal()
		return nil
	case *wire.Ping:
		if f.Answer {
			return nil
		}
		return p.send(&wire.Ping{Number: f.Number, Answer: true})
	case *wire.Error:
		p.h.c.Log.Info("client says", "address", p.address, "name", p.name, "error", f.Message)
		if f.Fatal {
			return io.EOF
		}
		return nil
	case *wire.Have, *wire.Chunk, *wire.Commit:
		if p.scopes == nil {
			return fault(wire.CodeDenied, "publishing needs a token")
		}
	}
	switch f := f.(type) {
	case *wire.Have:
		return p.have(ctx, f)
	case *wire.Chunk:
		return p.chunk(ctx, f)
	case *wire.Commit:
		return p.commit(ctx, f)
	}
	return fault(wire.CodeProtocol, "a client does not send %T", f)
}

func (p *peer) want(f *wire.Want) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.wants)+len(f.Items) > maxWants {
		return fault(wire.CodeLimit, "want at most %d pieces asked for at once", maxWants)
	}
	p.wants = append(p.wants, f.Items...)
	p.signal()
	return nil
}

// have says which of a publisher's pieces are lacking.
func (p *peer) have(ctx context.Context, f *wire.Have) error {
	w := &wire.Want{}
	now := p.h.current.Load()
	for _, hash := range f.Hashes {
		if !p.h.held(ctx, now, hash) {
			w.Items = append(w.Items, wire.Item{Hash: hash})
			p.asked[hash] = true
		}
	}
	return p.send(w)
}

// chunk takes bytes of a piece that was asked for.
func (p *peer) chunk(ctx context.Context, f *wire.Chunk) error {
	begins := p.piece == nil
	if begins {
		p.pieceOf, p.total = f.Hash, f.Total
	}
	if !p.asked[f.Hash] || f.Hash != p.pieceOf || f.Total != p.total || f.Offset != uint64(len(p.piece)) || f.Base != (wire.Hash{}) || len(f.Data) == 0 {
		return fault(wire.CodeProtocol, "piece %s: want the next bytes of a piece that was asked for, have %d bytes at %d", f.Hash, len(f.Data), f.Offset)
	}
	if p.uploaded += int64(len(f.Data)); p.uploaded > p.h.c.MaxUpload {
		return fault(wire.CodeLimit, "want at most %d bytes over one connection", p.h.c.MaxUpload)
	}
	if err := p.upload.WaitN(ctx, len(f.Data)); err != nil {
		return err
	}
	p.h.metrics.received.Add(float64(len(f.Data)))
	p.piece = append(p.piece, f.Data...)
	if uint64(len(p.piece)) == p.total {
		if err := p.store(ctx); err != nil {
			return err
		}
	}
	if p.back += uint64(len(f.Data)); p.back < upCredit/8 {
		return nil
	}
	n := p.back
	p.back = 0
	return p.send(&wire.Credit{Bytes: n})
}

// store keeps a piece that is whole, if it is what it is called.
func (p *peer) store(ctx context.Context) error {
	data := p.piece
	p.piece = nil
	if version.ID(data) != p.pieceOf {
		return fault(wire.CodeProtocol, "piece %s: want its bytes, have those of %s", p.pieceOf, version.ID(data))
	}
	if _, err := p.h.c.Store.Put(ctx, data); err != nil {
		p.h.metrics.storeErrors.Inc()
		p.h.c.Log.Error("store", "error", err)
		return fault(wire.CodeInternal, "the server could not keep piece %s: %v", p.pieceOf, err)
	}
	delete(p.asked, p.pieceOf)
	return nil
}

func (p *peer) commit(ctx context.Context, f *wire.Commit) error {
	c, err := version.DecodeChange(f.Change)
	if err != nil {
		return p.send(&wire.Error{Code: wire.CodeRefused, Message: brief(err)})
	}
	scope, _ := c.Scope()
	if !slices.Contains(p.scopes, scope) {
		p.h.c.Audit.Warn("publish denied", "by", p.name, "address", p.address, "what", scope, "model", c.Model)
		return p.send(&wire.Error{Code: wire.CodeDenied, Message: fmt.Sprintf("the token %s may not publish %s, only %v", p.name, scope, p.scopes)})
	}
	v, err := p.h.Publish(ctx, c, p.name)
	switch {
	case errors.As(err, new(publish.Refused)):
		return p.send(&wire.Error{Code: wire.CodeRefused, Message: brief(err)})
	case err != nil:
		return p.send(&wire.Error{Code: wire.CodeInternal, Message: brief(err)})
	}
	return p.send(&wire.Committed{Seq: v.Seq, ID: v.ID})
}

func brief(err error) string {
	text := err.Error()
	return text[:min(len(text), wire.MaxText)]
}

// send queues an answer.
func (p *peer) send(f wire.Frame) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.control) >= maxControl {
		return fault(wire.CodeLimit, "want at most %d answers not read", maxControl)
	}
	p.control = append(p.control, wire.Append(nil, f))
	p.signal()
	return nil
}

// tell says that there is a newer version.
func (p *peer) tell() {
	p.mu.Lock()
	p.news = true
	p.mu.Unlock()
	p.signal()
}

// end has the writer end, after what it is sending.
func (p *peer) end(code int, last *wire.Error) {
	p.mu.Lock()
	if !p.closed {
		p.closed, p.code, p.last = true, code, last
	}
	p.mu.Unlock()
	p.signal()
}

func (p *peer) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// write sends what there is to send, and is the only one that does.
func (p *peer) write(ctx context.Context) {
	defer close(p.done)
	defer p.conn.Close() // ends the reader
	ping := time.NewTicker(p.h.c.PingEvery)
	defer ping.Stop()
	for {
		sent, err := p.step(ctx)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, errEnded) {
				p.h.metrics.dropped.WithLabelValues("slow").Inc()
				p.h.c.Log.Info("client dropped", "address", p.address, "name", p.name, "why", err)
			}
			return
		}
		if sent {
			continue
		}
		select {
		case <-p.wake:
		case <-ping.C:
			if err := p.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(p.h.c.WriteTimeout)); err != nil {
				return
			}
		}
	}
}

var errEnded = errors.New("the connection was ended")

// step sends one frame, if there is one that may be sent.
func (p *peer) step(ctx context.Context) (sent bool, err error) {
	p.mu.Lock()
	var out []byte
	var version *state
	switch {
	case p.closed:
		code, last := p.code, p.last
		p.mu.Unlock()
		if last != nil {
			_ = p.message(wire.Append(nil, last))
		}
		_ = p.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(time.Second))
		return false, errEnded
	case p.hello != nil:
		out, p.hello = p.hello, nil
	case len(p.control) > 0:
		out, p.control = p.control[0], p.control[1:]
		if len(p.control) == 0 {
			p.control = nil
		}
	case p.news:
		version, p.news = p.h.current.Load(), false
	}
	p.mu.Unlock()
	switch {
	case out != nil:
		return true, p.message(out)
	case version != nil:
		return true, p.manifest(version)
	}
	return p.sendPiece(ctx)
}

func (p *peer) message(b []byte) error {
	_ = p.conn.SetWriteDeadline(time.Now().Add(p.h.c.WriteTimeout))
	p.h.metrics.sent.Add(float64(len(b)))
	return p.conn.WriteMessage(websocket.BinaryMessage, b)
}

func (p *peer) manifest(s *state) error {
	m, id := s.whole, wire.Hash{}
	if s.Version != nil {
		id = s.ID
	}
	if p.known == id {
		m = s.brief
	}
	p.known = id
	_ = p.conn.SetWriteDeadline(time.Now().Add(p.h.c.WriteTimeout))
	p.h.metrics.sent.Add(float64(m.size))
	return p.conn.WritePreparedMessage(m.PreparedMessage)
}

// sendPiece sends the next bytes of a piece, as far as there is credit.
func (p *peer) sendPiece(ctx context.Context) (sent bool, err error) {
	p.mu.Lock()
	if !p.busy && len(p.wants) > 0 {
		p.item, p.wants, p.busy = p.wants[0], p.wants[1:], true
		if len(p.wants) == 0 {
			p.wants = nil
		}
	}
	credit := p.credit
	if p.busy && credit == 0 {
		if p.since.IsZero() {
			p.since = time.Now()
		}
		late := time.Since(p.since) > p.h.c.Patience
		p.mu.Unlock()
		if !p.delta {
			p.data = nil // it is loaded again when it may go on
		}
		if late {
			return false, fmt.Errorf("no credit for %v", p.h.c.Patience)
		}
		return false, nil
	}
	p.mu.Unlock()
	if !p.busy {
		return false, nil
	}
	if p.data == nil {
		if err := p.load(ctx); err != nil {
			p.busy, p.data, p.offset, p.delta = false, nil, 0, false
			if errors.Is(err, store.ErrMissing) {
				p.h.c.Log.Warn("piece", "error", err)
				return true, p.message(wire.Append(nil, &wire.Missing{Hash: p.item.Hash}))
			}
			return false, err
		}
	}
	n := int(min(uint64(min(len(p.data)-p.offset, wire.MaxPiece)), credit))
	f := &wire.Chunk{Hash: p.item.Hash, Offset: uint64(p.offset), Total: uint64(len(p.data)), Data: p.data[p.offset : p.offset+n]}
	if p.delta {
		f.Base = p.item.Base
	}
	p.mu.Lock()
	p.credit -= uint64(n)
	p.mu.Unlock()
	if p.offset += n; p.offset == len(p.data) {
		p.busy, p.data, p.offset, p.delta = false, nil, 0, false
	}
	return true, p.message(wire.Append(make([]byte, 0, n+128), f))
}

// load reads the piece that is being sent. An offset beyond its end is an error of the client's.
func (p *peer) load(ctx context.Context) error {
	data, err := p.h.c.Store.Get(ctx, p.item.Hash)
	if err != nil {
		return err
	}
	if p.item.Base != (wire.Hash{}) && p.item.Offset == 0 {
		if delta := p.h.deltas.get(ctx, p.h.c.Store, p.item.Base, p.item.Hash, data); delta != nil {
			p.data, p.delta = delta, true
			return nil
		}
	}
	if p.item.Offset > 0 && p.offset == 0 {
		if p.item.Offset >= uint64(len(data)) {
			return fmt.Errorf("piece %s: want an offset below %d, have %d: %w", p.item.Hash, len(data), p.item.Offset, store.ErrMissing)
		}
		p.offset = int(p.item.Offset)
	}
	p.data = data
	return nil
}

// deltas keeps deltas that were computed last: after a publish every client asks for the same.
type deltas struct {
	mu         sync.Mutex
	most, held int
	all        map[[2]wire.Hash]*delta
}

type delta struct {
	once sync.Once
	data []byte // nil where the whole page is not larger, or the base is not there
}

func (d *deltas) get(ctx context.Context, s *store.Store, base, target wire.Hash, page []byte) []byte {
	d.mu.Lock()
	if d.held > d.most {
		d.all, d.held = nil, 0
	}
	if d.all == nil {
		d.all = map[[2]wire.Hash]*delta{}
	}
	key := [2]wire.Hash{base, target}
	x := d.all[key]
	if x == nil {
		x = &delta{}
		d.all[key] = x
		d.held += 128
	}
	d.mu.Unlock()
	x.once.Do(func() {
		from, err := s.Get(ctx, base)
		if err != nil {
			return
		}
		data, err := version.Delta(from, page, version.ValueSize(page))
		if err != nil || len(data) >= len(page) {
			return
		}
		x.data = data
		d.mu.Lock()
		d.held += len(data)
		d.mu.Unlock()
	})
	return x.data
}
