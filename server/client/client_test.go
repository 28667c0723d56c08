// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"

	"fromage/bundle"
	"fromage/index"
	"fromage/server/client"
	"fromage/server/hub"
	"fromage/server/internal/fixture"
	"fromage/server/store"
	"fromage/server/version"
	"fromage/server/wire"
)

const secret = "the secret"

// rig is a server of a folder, with a token for everything.
type rig struct {
	t     testing.TB
	dir   string
	store *store.Store
	hub   *hub.Hub
	http  *httptest.Server
}

func open(t testing.TB, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func start(t testing.TB, c hub.Config) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	r.store = open(t, r.dir)
	r.serve(c)
	return r
}

func (r *rig) serve(c hub.Config) {
	r.t.Helper()
	c.Store = r.store
	c.Tokens = hub.Tokens{{Name: "tester", Scopes: hub.Scopes, Hash: sha256.Sum256([]byte(secret))}}
	h, err := hub.New(context.Background(), c)
	if err != nil {
		r.t.Fatal(err)
	}
	r.hub, r.http = h, httptest.NewServer(h)
	r.t.Cleanup(r.stop)
}

func (r *rig) stop() {
	if r.hub == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.hub.Close(ctx); err != nil {
		r.t.Error(err)
	}
	r.http.Close()
	r.hub = nil
}

func (r *rig) publisher() *client.Publisher {
	r.t.Helper()
	p, err := client.Open(context.Background(), r.http.URL, secret, "test")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { p.Close() })
	return p
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

var ctx = context.Background()

// begin publishes the tiny model with a gallery of n pictures.
func (r *rig) begin(n int) *client.Publisher {
	r.t.Helper()
	p := r.publisher()
	data := fixture.Bundle(r.t)
	must[client.Published](r.t)(p.Bundle(ctx, "tiny", "Tiny", "first", bytes.NewReader(data), int64(len(data))))
	if n > 0 {
		must[client.Published](r.t)(p.Add(ctx, "tiny", "pictures", fixture.Pictures(0, n, r.dim())))
	}
	return p
}

// dim is the size of the tiny model's features.
func (r *rig) dim() int {
	r.t.Helper()
	data := fixture.Bundle(r.t)
	b := must[*bundle.Bundle](r.t)(bundle.Read(&bundle.Memory{Bytes: data}, int64(len(data))))
	return b.Manifest().Settings.VisionDim
}

// indexOf is the index file of a store's current version.
func indexOf(t testing.TB, s *store.Store) []byte {
	t.Helper()
	v, _, err := s.Current(ctx)
	if err != nil || v == nil {
		t.Fatalf("no version: %v", err)
	}
	x := v.Models[0]
	rows := must[[]version.Row](t)(x.Gallery.ReadRows(func(p version.Page) ([]byte, error) { return s.Get(ctx, p.Hash) }))
	var b bytes.Buffer
	i, err := x.Index(rows)
	if err == nil {
		_, err = i.WriteTo(&b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// same wants two stores to be at the same version, with all of it there and the same index.
func same(t testing.TB, a, b *store.Store) {
	t.Helper()
	va, _, err := a.Current(ctx)
	if err != nil {
		t.Fatal(err)
	}
	vb, _, err := b.Current(ctx)
	if err != nil || vb == nil || va.ID != vb.ID {
		t.Fatalf("the mirror is at another version: %v", err)
	}
	if bad, err := b.Audit(ctx, vb.Manifest); err != nil || len(bad) > 0 {
		t.Fatalf("the mirror lacks %d pieces: %v", len(bad), err)
	}
	if !bytes.Equal(indexOf(t, a), indexOf(t, b)) {
		t.Error("the mirror's index is another")
	}
}

func pull(t testing.TB, url string, s *store.Store) *client.Puller {
	t.Helper()
	p := &client.Puller{Options: client.Options{URL: url, Name: "test"}, Store: s, Failed: func(err error, _ time.Duration) { t.Log(err) }}
	if _, err := p.Once(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

// step is one of the changes that a random history is made of.
func (r *rig) step(p *client.Publisher, rng *rand.Rand, n int) {
	r.t.Helper()
	m := r.hub.Current()
	switch kind := rng.IntN(6); {
	case kind == 0:
		must[client.Published](r.t)(p.Heads(ctx, "tiny", "heads", fixture.Heads(r.t, fixture.Bundle(r.t), uint64(n))))
	case kind == 1:
		must[client.Published](r.t)(p.Add(ctx, "tiny", "more", fixture.Pictures(1000+10*n, 1+rng.IntN(5), r.dim())))
	case kind == 2: // other captions
		some := fixture.Pictures(rng.IntN(20), 3, r.dim())
		for i := range some {
			some[i].Caption = fmt.Sprint("caption ", n)
		}
		must[client.Published](r.t)(p.Add(ctx, "tiny", "captions", some))
	case kind == 3 && m.Models[0].Gallery.Rows > 3:
		rows := must[[]version.Row](r.t)(m.Models[0].Gallery.ReadRows(func(p version.Page) ([]byte, error) { return r.store.Get(ctx, p.Hash) }))
		must[client.Published](r.t)(p.Commit(ctx, &version.Change{Model: "tiny", Remove: []string{rows[rng.IntN(len(rows))].Path}}))
	case kind == 4:
		dtype := []string{"f16", "q8"}[rng.IntN(2)]
		must[client.Published](r.t)(p.Commit(ctx, &version.Change{Model: "tiny", Embeddings: dtype}))
	default:
		must[client.Published](r.t)(p.Commit(ctx, &version.Change{Rollback: 2 + rng.Uint64N(m.Seq-1)}))
	}
}

// TestEmbeddings: a gallery of q8 has half the bytes of one of f16, stays so when heads and pictures come, and is whole at a mirror that had it in f16.
func TestEmbeddings(t *testing.T) {
	r := start(t, hub.Config{})
	p := r.begin(20)
	mirror := open(t, t.TempDir())
	pull(t, r.http.URL, mirror)
	before := r.hub.Current().Models[0].Gallery
	must[client.Published](t)(p.Commit(ctx, &version.Change{Model: "tiny", Embeddings: "q8"}))
	g := r.hub.Current().Models[0].Gallery
	if have, want := before.Pages[0].Size-g.Pages[0].Size, int64(20*g.Dim); have != want || g.Embeddings() != index.Q8 {
		t.Errorf("20 rows of %d values in %v take %d bytes less than in f16, want %d", g.Dim, g.Embeddings(), have, want)
	}
	pull(t, r.http.URL, mirror)
	same(t, r.store, mirror)
	must[client.Published](t)(p.Heads(ctx, "tiny", "", fixture.Heads(t, fixture.Bundle(t), 7)))
	must[client.Published](t)(p.Add(ctx, "tiny", "", fixture.Pictures(20, 5, r.dim())))
	pull(t, r.http.URL, mirror)
	same(t, r.store, mirror)
	x := must[*index.Index](t)(index.Parse("mirror", indexOf(t, mirror)))
	if h := x.Header(); h.DType != index.Q8 || x.Len() != 25 {
		t.Errorf("the mirror's index has %d rows of %v, want 25 of q8", x.Len(), h.DType)
	}
	if _, err := p.Commit(ctx, &version.Change{Model: "tiny", Embeddings: "q4"}); err == nil || !strings.Contains(err.Error(), "want f16 or q8") {
		t.Errorf("embeddings in q4: %v, want them refused", err)
	}
}

// TestAnyPath: mirrors that skipped versions, and mirrors that saw each, are the same as a fresh one.
func TestAnyPath(t *testing.T) {
	r := start(t, hub.Config{})
	p := r.begin(30)
	rng := rand.New(rand.NewPCG(3, 4))
	often, rarely := open(t, t.TempDir()), open(t, t.TempDir())
	for n := range 24 {
		r.step(p, rng, n)
		pull(t, r.http.URL, often)
		if n%7 == 0 {
			pull(t, r.http.URL, rarely)
		}
	}
	pull(t, r.http.URL, rarely)
	fresh := open(t, t.TempDir())
	pull(t, r.http.URL, fresh)
	for _, s := range []*store.Store{often, rarely, fresh} {
		same(t, r.store, s)
	}
}

// TestFollow: a mirror that follows hears of every state it has to, and ends at the last.
func TestFollow(t *testing.T) {
	r := start(t, hub.Config{})
	p := r.begin(3)
	mirror := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(ctx)
	heard := make(chan uint64, 100)
	done := make(chan error)
	go func() {
		f := &client.Puller{Options: client.Options{URL: r.http.URL}, Store: mirror}
		done <- f.Follow(ctx, func(v *store.Version) { heard <- v.Seq })
	}()
	for {
		last := must[client.Published](t)(p.Add(ctx, "tiny", "", fixture.Pictures(100, 1, r.dim())))
		for seq := range heard {
			if seq == last.Seq {
				break
			}
		}
		if last.Seq > 6 {
			break
		}
	}
	same(t, r.store, mirror)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Follow = %v, want to be cancelled", err)
	}
}

// TestDeltaSizes: what a mirror that has the version before fetches is what is new in it.
func TestDeltaSizes(t *testing.T) {
	r := start(t, hub.Config{})
	p := r.begin(0)
	mirror := open(t, t.TempDir())
	first := pull(t, r.http.URL, mirror).Received
	heads := fixture.Heads(t, fixture.Bundle(t), 7)
	raw := 0
	for _, x := range heads {
		raw += 4 * len(x)
	}
	must[client.Published](t)(p.Heads(ctx, "tiny", "", heads))
	line := fixture.NewLine(t, r.http.Listener.Addr().String(), func() (int64, int64) { return -1, -1 })
	pull(t, line.URL(), mirror)
	bytes, _, _ := line.Count()
	t.Logf("bundle: %d bytes; heads of %d bytes: %d over the line, of which about 1,500 are the connection's and the manifest's", first, raw, bytes)
	if most := int64(raw) + 3000; bytes > most {
		t.Errorf("heads of %d bytes took %d over the line, want at most %d", raw, bytes, most)
	}
}

// TestGalleryDelta: what a client of the gallery fetches when pictures are added is their rows.
func TestGalleryDelta(t *testing.T) {
	held := 5000
	if os.Getenv("FROMAGE_SOAK") != "" {
		held = 100_000
	}
	const added = 1000
	r := start(t, hub.Config{})
	p := r.begin(0)
	add := func(first, n int) {
		t.Helper()
		for ; n > 0; first, n = first+20*version.Additions, n-20*version.Additions {
			all := fixture.Pictures(first, min(n, 20*version.Additions), r.dim())
			for i := range all {
				all[i].File = []byte("one file for all") // pictures are not what is measured
			}
			must[client.Published](t)(p.Add(ctx, "tiny", "", all))
		}
	}
	add(0, held)
	before := r.hub.Current()
	add(held, added)
	after := r.hub.Current()
	line := fixture.NewLine(t, r.http.Listener.Addr().String(), func() (int64, int64) { return -1, -1 })
	c := must[*client.Conn](t)(client.Dial(ctx, client.Options{URL: line.URL()}, before.ID))
	defer c.Close()
	must[*wire.Manifest](t)(c.Latest(ctx))
	bases := map[uint64]wire.Hash{}
	for _, page := range before.Models[0].Gallery.Pages {
		bases[page.Number] = page.Hash
	}
	g := after.Models[0].Gallery
	var items []wire.Item
	for _, page := range g.Pages {
		if bases[page.Number] != page.Hash {
			items = append(items, wire.Item{Hash: page.Hash, Base: bases[page.Number]})
		}
	}
	if err := c.Fetch(ctx, items, func(_ wire.Item, data []byte, _ bool) error { return nil }); err != nil {
		t.Fatal(err)
	}
	rows := must[[]version.Row](t)(g.ReadRows(func(p version.Page) ([]byte, error) { return r.store.Get(ctx, p.Hash) }))
	raw := len(version.EncodePage(rows[held:], g.RowBytes()))
	bytes, _, _ := line.Count()
	t.Logf("%d pictures more than %d: %d bytes of rows, of %d values each, the document %d, %d over the line", added, held, raw, g.Dim, len(after.Document), bytes)
	// Rows of a real model are 512 bytes longer than these: what comes on top is held to what it may be for those.
	if most := int64(raw) + int64(raw+added*512)/20; bytes > most {
		t.Errorf("%d bytes went over the line for %d of rows, want at most %d", bytes, raw, most)
	}
}

// TestCuts: a line that breaks anywhere costs at most a piece each time.
func TestCuts(t *testing.T) {
	kills := 25
	if os.Getenv("FROMAGE_SOAK") != "" {
		kills = 200
	}
	r := start(t, hub.Config{MaxPerAddress: 1000})
	r.begin(40)
	whole := pull(t, r.http.URL, open(t, t.TempDir()))
	rng := rand.New(rand.NewPCG(5, 6))
	cuts := 0
	for cuts < kills {
		mirror := open(t, t.TempDir())
		line := fixture.NewLine(t, r.http.Listener.Addr().String(), func() (int64, int64) { return rng.Int64N(whole.Received * 3 / 4), -1 })
		// Each kill is of the client: what is in its memory is gone.
		for {
			p := &client.Puller{Options: client.Options{URL: line.URL()}, Store: mirror}
			ctx, cancel := context.WithCancel(ctx)
			p.Failed = func(error, time.Duration) { cancel() }
			_, err := p.Once(ctx)
			cancel()
			if err == nil {
				break
			}
		}
		same(t, r.store, mirror)
		bytes, n, _ := line.Count()
		v := r.hub.Current()
		piece := int64(0)
		for _, x := range v.Models[0].Bundle.Pieces {
			piece = max(piece, x.Size)
		}
		overhead := int64(n+1) * (int64(len(v.Document)) + 2000)
		// Frames' heads and their websocket's: 2 % is above them for pieces of 3 KB and more; the pictures here have 40 bytes and 120 of head.
		if most := whole.Received + whole.Received/50 + 40*160 + int64(n)*piece + overhead; bytes > most {
			t.Errorf("%d cuts: %d bytes over the line for %d, want at most %d", n, bytes, whole.Received, most)
		}
		cuts += n
	}
	t.Logf("%d cuts", cuts)
}

// TestFlips: a bit that is flipped on the way is noticed wherever it is.
func TestFlips(t *testing.T) {
	flips := 15
	if os.Getenv("FROMAGE_SOAK") != "" {
		flips = 1000
	}
	r := start(t, hub.Config{MaxPerAddress: 1000, PingEvery: time.Second})
	r.begin(40)
	whole := pull(t, r.http.URL, open(t, t.TempDir()))
	rng := rand.New(rand.NewPCG(7, 8))
	flipped := 0
	for flipped < flips {
		mirror := open(t, t.TempDir())
		line := fixture.NewLine(t, r.http.Listener.Addr().String(), func() (int64, int64) { return -1, rng.Int64N(whole.Received * 2) })
		p := &client.Puller{Options: client.Options{URL: line.URL(), Silent: 100 * time.Millisecond}, Store: mirror}
		if _, err := p.Once(ctx); err != nil {
			t.Fatal(err)
		}
		same(t, r.store, mirror)
		_, _, n := line.Count()
		flipped += n
	}
	t.Logf("%d bits flipped", flipped)
}

// TestDamagedStore: bits flipped in a mirror's store are noticed when it is read, and healed by the next pull.
func TestDamagedStore(t *testing.T) {
	flips := 40
	if os.Getenv("FROMAGE_SOAK") != "" {
		flips = 1000
	}
	r := start(t, hub.Config{MaxPerAddress: 1000})
	r.begin(40)
	dir := t.TempDir()
	pull(t, r.http.URL, open(t, dir))
	var files []string
	err := filepath.WalkDir(filepath.Join(dir, "chunks"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(9, 1))
	for range flips {
		name := files[rng.IntN(len(files))]
		data := must[[]byte](t)(os.ReadFile(name))
		good := bytes.Clone(data)
		data[rng.IntN(len(data))] ^= 1 << rng.IntN(8)
		if err := os.WriteFile(name, data, 0o666); err != nil {
			t.Fatal(err)
		}
		var h wire.Hash
		if err := h.UnmarshalText([]byte(filepath.Base(name))); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir)
		if _, err := s.Get(ctx, h); !errors.Is(err, store.ErrMissing) {
			t.Fatalf("Get of a damaged piece = %v, want it to be missing", err)
		}
		pull(t, r.http.URL, s)
		if have := must[[]byte](t)(os.ReadFile(name)); !bytes.Equal(have, good) {
			t.Fatalf("%s was not healed", name)
		}
	}
}

// TestBrokenLine: a line that breaks within every piece gets there in the end, since a piece goes on where it was.
func TestBrokenLine(t *testing.T) {
	r := start(t, hub.Config{})
	r.begin(40)
	mirror := open(t, t.TempDir())
	line := fixture.NewLine(t, r.http.Listener.Addr().String(), func() (int64, int64) { return 150_000, -1 })
	p := &client.Puller{Options: client.Options{URL: line.URL()}, Store: mirror}
	if _, err := p.Once(ctx); err != nil {
		t.Fatal(err)
	}
	if _, cuts, _ := line.Count(); cuts < 3 {
		t.Errorf("the line was cut %d times, want more", cuts)
	}
	same(t, r.store, mirror)
}

// TestServerRestarts: a pull goes on over a server that is stopped in its middle and started again.
func TestServerRestarts(t *testing.T) {
	r := start(t, hub.Config{})
	r.begin(40)
	mirror := open(t, t.TempDir())
	line := fixture.NewLine(t, r.http.Listener.Addr().String(), func() (int64, int64) { return -1, -1 })
	half := make(chan struct{})
	var once sync.Once
	p := &client.Puller{Options: client.Options{URL: line.URL(), Credit: 64 << 10}, Store: mirror, Progress: func(p client.Progress) {
		if p.Done > p.Total/2 {
			once.Do(func() { close(half) })
		}
	}}
	done := make(chan error)
	go func() {
		_, err := p.Once(ctx)
		done <- err
	}()
	<-half
	r.stop()
	r.serve(hub.Config{})
	line.Lead(r.http.Listener.Addr().String())
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	same(t, r.store, mirror)
}

// TestDenied: who may not publish cannot.
func TestDenied(t *testing.T) {
	r := start(t, hub.Config{})
	p := r.begin(1)
	if _, err := client.Open(ctx, r.http.URL, "a guess", "test"); err == nil || !strings.Contains(err.Error(), "not one of this server's") {
		t.Errorf("a wrong token: %v", err)
	}
	reader := must[*client.Publisher](t)(client.Open(ctx, r.http.URL, "", "test"))
	defer reader.Close()
	if _, err := reader.Heads(ctx, "tiny", "", map[string][]float32{"a": {1}}); err == nil || !strings.Contains(err.Error(), "needs a token") {
		t.Errorf("no token: %v", err)
	}
	for _, c := range []struct {
		name   string
		change version.Change
		want   string
	}{
		{"no such model", version.Change{Model: "nonesuch", Remove: []string{"a"}}, "there is no model"},
		{"no such path", version.Change{Model: "tiny", Remove: []string{"a.png"}}, "is not in the gallery"},
		{"piece not sent", version.Change{Model: "tiny", Add: []version.Piece{{Hash: wire.Hash{1}, Size: 1}}}, "was not sent"},
		{"two at once", version.Change{Model: "tiny", Remove: []string{"a"}, Rollback: 1}, "want one of"},
		{"no such version", version.Change{Rollback: 99}, "is not there"},
		{"another parent", version.Change{Rollback: 1, Parent: &wire.Hash{1}}, "want it made from the current version"},
	} {
		if _, err := p.Commit(ctx, &c.change); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
	}
	bad := fixture.Pictures(5, 1, r.dim())
	bad[0].Path = "../../etc/passwd.png"
	if _, err := p.Add(ctx, "tiny", "", bad); err == nil || !strings.Contains(err.Error(), "want a relative path") {
		t.Errorf("a path out of the gallery: %v", err)
	}
	if _, err := p.Add(ctx, "tiny", "", fixture.Pictures(5, 1, r.dim()+1)); err == nil || !strings.Contains(err.Error(), "bytes of values") {
		t.Errorf("features of another size: %v", err)
	}
	short := fixture.Heads(t, fixture.Bundle(t), 1)
	short["visual_fc.bias"] = short["visual_fc.bias"][1:]
	if _, err := p.Heads(ctx, "tiny", "", short); err == nil || !strings.Contains(err.Error(), "visual_fc.bias") {
		t.Errorf("heads that do not fit: %v", err)
	}
	if v := r.hub.Current(); v.Seq != 2 {
		t.Errorf("after refused changes the version is %d, want 2", v.Seq)
	}
}

// TestScopes: a token is good for what it is for.
func TestScopes(t *testing.T) {
	s := store.New(memblob.OpenBucket(nil), "memory")
	defer s.Close()
	h := must[*hub.Hub](t)(hub.New(ctx, hub.Config{Store: s, Tokens: hub.Tokens{{Name: "trainer", Scopes: []string{version.ScopeHeads}, Hash: sha256.Sum256([]byte(secret))}}}))
	srv := httptest.NewServer(h)
	defer srv.Close()
	defer h.Close(ctx)
	p := must[*client.Publisher](t)(client.Open(ctx, srv.URL, secret, "test"))
	defer p.Close()
	data := fixture.Bundle(t)
	if _, err := p.Bundle(ctx, "tiny", "", "", bytes.NewReader(data), int64(len(data))); err == nil || !strings.Contains(err.Error(), "may not publish bundle") {
		t.Errorf("a bundle with a token for heads: %v", err)
	}
}

// TestTwoPublish: changes that are made at the same time, in two processes on one folder, all become versions.
func TestTwoPublish(t *testing.T) {
	r := start(t, hub.Config{})
	r.begin(5)
	var all sync.WaitGroup
	const each = 8
	for k := range 3 {
		all.Go(func() {
			where, token := r.dir, ""
			if k == 0 {
				where, token = r.http.URL, secret
			}
			p, err := client.Open(ctx, where, token, fmt.Sprint("process ", k))
			if err != nil {
				t.Error(err)
				return
			}
			defer p.Close()
			for n := range each {
				if _, err := p.Add(ctx, "tiny", "", fixture.Pictures(1000*(k+1)+n, 1, r.dim())); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	v, _, err := r.store.Current(ctx)
	if err != nil || v.Models[0].Gallery.Rows != 5+3*each || v.Seq != 2+3*each {
		t.Errorf("after %d changes: version %d of %d rows, %v", 3*each, v.Seq, v.Models[0].Gallery.Rows, err)
	}
}
