// SPDX-License-Identifier: Apache-2.0

// Package hub keeps clients at the current version: it speaks the protocol of package wire over websockets, and serves the same pieces over plain HTTP.
//
// What enters is a store and connections, whose every byte is foreign; what leaves is manifests, pieces and deltas, and versions that publishers with a
// token commit. The package refuses to know what models and galleries are.
//
// A connection has two goroutines: its reader, which is the handler's, and its writer. All that waits for the writer is bounded: answers that are due (a
// client that asks faster than it reads is dropped), pieces that were asked for (their names), one piece being sent, and one bit that says that there is
// a newer version. So a slow client costs the others nothing, however slow it is.
package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"

	"fromage/server/publish"
	"fromage/server/store"
	"fromage/server/version"
	"fromage/server/wire"
)

// Protocol is the websocket subprotocol.
const Protocol = "fromage.sync"

// Config says what a hub serves and how much it bears. Zero values have defaults.
type Config struct {
	Store   *store.Store
	Tokens  Tokens       // who may publish; none: nobody
	Origins []string     // origins besides the server's own whose pages may connect, such as https://example.org
	Log     *slog.Logger // connections
	Audit   *slog.Logger // who published what, and who was refused

	MaxClients    int           // connections, 10,000
	MaxPerAddress int           // connections of one address, 256
	Forwarded     bool          // the address is the last of X-Forwarded-For: only behind a proxy that sets it
	UploadRate    int           // bytes a second that a publisher may send, 64 MiB
	MaxUpload     int64         // bytes that a publisher may send over one connection, 64 GiB
	PingEvery     time.Duration // 20 s; a client that does not answer three is dropped
	WriteTimeout  time.Duration // for a frame of at most 4 MiB, 20 s
	Patience      time.Duration // for credit from a client that asked for pieces, 60 s
	Poll          time.Duration // between looks into the store for versions of other processes: a folder 250 ms, a bucket 10 s
}

func (c *Config) defaults() {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	wait := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	def(&c.MaxClients, 10_000)
	def(&c.MaxPerAddress, 256)
	def(&c.UploadRate, 64<<20)
	if c.MaxUpload == 0 {
		c.MaxUpload = 64 << 30
	}
	wait(&c.PingEvery, 20*time.Second)
	wait(&c.WriteTimeout, 20*time.Second)
	wait(&c.Patience, time.Minute)
	if c.Poll == 0 {
		c.Poll = 10 * time.Second
		if c.Store.Local() {
			c.Poll = 250 * time.Millisecond
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Audit == nil {
		c.Audit = c.Log
	}
}

// Hub serves a store.
type Hub struct {
	c        Config
	upgrader websocket.Upgrader
	metrics  *metrics
	deltas   deltas
	announce func(seq uint64) // tells other processes; nil for none

	current atomic.Pointer[state]
	look    chan struct{} // asks for a look into the store
	ended   chan struct{}
	stop    context.CancelFunc

	mu        sync.Mutex
	peers     map[*peer]bool
	addresses map[string]int
	closing   bool

	publishing sync.Mutex // one change at a time is made in this process
}

// state is a version, ready to be sent.
type state struct {
	*store.Version // nil where the store is empty
	whole, brief   message
	once           sync.Once
	pieces         map[wire.Hash]bool // that the version refers to, once asked for
}

// message is a frame that many are sent.
type message struct {
	*websocket.PreparedMessage
	size int
}

// New begins to serve; Close ends it.
func New(ctx context.Context, c Config) (*Hub, error) {
	c.defaults()
	h := &Hub{
		c: c, look: make(chan struct{}, 1), ended: make(chan struct{}), peers: map[*peer]bool{}, addresses: map[string]int{}, metrics: newMetrics(),
		deltas:   deltas{most: 32 << 20},
		upgrader: websocket.Upgrader{Subprotocols: []string{Protocol}, WriteBufferPool: &sync.Pool{}, HandshakeTimeout: 10 * time.Second},
	}
	h.upgrader.CheckOrigin = h.allowed
	if err := h.refresh(ctx); err != nil {
		return nil, err
	}
	ctx, h.stop = context.WithCancel(context.WithoutCancel(ctx))
	go h.watch(ctx)
	return h, nil
}

// Current returns the version that is served, nil where there is none yet.
func (h *Hub) Current() *store.Version { return h.current.Load().Version }

// Look has the store looked into for a newer version soon.
func (h *Hub) Look() {
	select {
	case h.look <- struct{}{}:
	default: // somebody has asked already
	}
}

// watch looks for versions that others published, until ctx ends.
func (h *Hub) watch(ctx context.Context) {
	defer close(h.ended)
	tick := time.NewTicker(h.c.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-h.look:
		}
		if err := h.refresh(ctx); err != nil && ctx.Err() == nil {
			h.metrics.storeErrors.Inc()
			h.c.Log.Error("store", "error", err)
		}
	}
}

// refresh serves the store's current version from now on.
func (h *Hub) refresh(ctx context.Context) error {
	v, _, err := h.c.Store.Current(ctx)
	if err != nil {
		return err
	}
	return h.serve(v)
}

// serve makes a version the current one, unless a newer one is.
func (h *Hub) serve(v *store.Version) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.current.Load()
	if now != nil && (v == nil || now.Version != nil && now.Seq >= v.Seq) {
		return nil
	}
	s := &state{Version: v}
	f := &wire.Manifest{}
	if v != nil {
		f.Seq, f.ID = v.Seq, v.ID
	}
	var err error
	if s.brief, err = prepare(f); err != nil {
		return err
	}
	if v != nil {
		f.Document = v.Document
		h.metrics.version.Set(float64(v.Seq))
		h.c.Log.Info("version", "seq", v.Seq, "id", v.ID.String(), "by", v.By, "note", v.Note)
	}
	if s.whole, err = prepare(f); err != nil {
		return err
	}
	h.current.Store(s)
	for p := range h.peers {
		p.tell()
	}
	return nil
}

func prepare(f wire.Frame) (message, error) {
	b := wire.Append(nil, f)
	m, err := websocket.NewPreparedMessage(websocket.BinaryMessage, b)
	return message{m, len(b)}, err
}

// allowed says whether a page of the request's origin may connect. Programs send none.
func (h *Hub) allowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || slices.Contains(h.c.Origins, origin) {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

// address is what connections are counted by.
func (h *Hub) address(r *http.Request) string {
	if h.c.Forwarded {
		hops := strings.Split(r.Header.Get("X-Forwarded-For"), ",")
		if last := strings.TrimSpace(hops[len(hops)-1]); last != "" {
			return last
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// admit counts a connection, or says why it may not be.
func (h *Hub) admit(address string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, k := range h.addresses {
		n += k
	}
	switch {
	case h.closing:
		return errors.New("the server is stopping")
	case n >= h.c.MaxClients:
		return fmt.Errorf("the server has %d clients, the most it takes", n)
	case h.addresses[address] >= h.c.MaxPerAddress:
		return fmt.Errorf("there are %d clients from %s, the most of one address", h.addresses[address], address)
	}
	h.addresses[address]++
	return nil
}

func (h *Hub) leave(address string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.addresses[address]--; h.addresses[address] == 0 {
		delete(h.addresses, address)
	}
}

// ServeHTTP is the websocket's end.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	address := h.address(r)
	if err := h.admit(address); err != nil {
		h.metrics.dropped.WithLabelValues("full").Inc()
		w.Header().Set("Retry-After", "10")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer h.leave(address)
	conn, err := h.upgrader.Upgrade(w, r, nil)
	if err != nil {
		h.c.Log.Info("no websocket", "address", address, "error", err)
		return
	}
	p := &peer{
		h: h, conn: conn, address: address, wake: make(chan struct{}, 1), done: make(chan struct{}),
		frames: rate.NewLimiter(1000, 4096), upload: rate.NewLimiter(rate.Limit(h.c.UploadRate), max(h.c.UploadRate, wire.MaxPiece)),
	}
	p.serve(r.Context())
}

// join has a peer hear of versions.
func (h *Hub) join(p *peer) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return false
	}
	h.peers[p] = true
	h.metrics.clients.Inc()
	return true
}

func (h *Hub) part(p *peer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.peers[p] {
		delete(h.peers, p)
		h.metrics.clients.Dec()
	}
}

// Close lets every client have the frame that is being sent to it, then ends the connections, and returns when they have ended, or ctx has.
func (h *Hub) Close(ctx context.Context) error {
	h.stop()
	h.mu.Lock()
	h.closing = true
	for p := range h.peers {
		p.end(websocket.CloseGoingAway, nil)
	}
	h.mu.Unlock()
	<-h.ended
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		h.mu.Lock()
		left := len(h.peers)
		h.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("hub: %d clients did not end: %w", left, ctx.Err())
		case <-tick.C:
		}
	}
}

// Publish makes a version of a change and serves it.
func (h *Hub) Publish(ctx context.Context, c *version.Change, by string) (*store.Version, error) {
	h.publishing.Lock()
	defer h.publishing.Unlock()
	v, err := publish.Apply(ctx, h.c.Store, c, by)
	scope, _ := c.Scope()
	if err != nil {
		h.metrics.published.WithLabelValues("refused").Inc()
		h.c.Audit.Warn("publish refused", "by", by, "what", scope, "model", c.Model, "error", err)
		return nil, err
	}
	h.metrics.published.WithLabelValues("ok").Inc()
	h.c.Audit.Info("published", "by", by, "what", scope, "model", c.Model, "note", c.Note, "seq", v.Seq, "id", v.ID.String())
	if err := h.serve(v); err != nil {
		return nil, err
	}
	if h.announce != nil {
		h.announce(v.Seq)
	}
	return v, nil
}

// held says whether a piece need not be sent: the current version has it, or it was sent a short while ago, so that it will not be collected soon.
func (h *Hub) held(ctx context.Context, s *state, hash wire.Hash) bool {
	if !h.c.Store.Has(ctx, hash) {
		return false
	}
	s.once.Do(func() {
		s.pieces = map[wire.Hash]bool{}
		if s.Version == nil {
			return
		}
		err := h.c.Store.Pieces(ctx, s.Manifest, func(p version.Piece) (bool, error) {
			fresh := !s.pieces[p.Hash]
			s.pieces[p.Hash] = true
			return fresh, nil
		})
		if err != nil {
			s.pieces = nil // all is asked for, and heals what is missing
			h.c.Log.Error("store", "error", err)
		}
	})
	return s.pieces[hash] || h.c.Store.Young(ctx, hash, store.Grace/2)
}
