// SPDX-License-Identifier: Apache-2.0

//go:build unix

package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"fromage/assets"
	"fromage/server/version"
	"fromage/shaders"
)

// middle stands between pages and a program: it counts what comes over websockets, and can stop there, or refuse them.
type middle struct {
	*httptest.Server
	to string // host and port

	mu      sync.Mutex
	sent    int64 // bytes that came over websockets
	most    int64 // after so many nothing more comes; −1 for never
	stopped chan struct{}
	refuse  bool
}

func between(t *testing.T, address string) *middle {
	t.Helper()
	to, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	m := &middle{to: to.Host, most: -1, stopped: make(chan struct{})}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sync" {
			m.websocket(w, r)
		} else {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *middle) websocket(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	refuse := m.refuse
	m.mu.Unlock()
	if refuse {
		http.Error(w, "no websockets here", http.StatusForbidden)
		return
	}
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	far, err := net.Dial("tcp", m.to)
	if err != nil {
		return
	}
	defer far.Close()
	left := make(chan struct{}) // the page is gone
	go func() {
		defer close(left)
		if r.Write(far) == nil {
			_, _ = io.Copy(far, buffered)
		}
		far.Close()
	}()
	buffer := make([]byte, 16<<10)
	for {
		n, err := far.Read(buffer)
		if err != nil {
			return
		}
		n, stop := m.pass(n)
		if _, err := near.Write(buffer[:n]); err != nil {
			return
		}
		if stop {
			<-left
			return
		}
	}
}

// pass says how many of n bytes go on, and whether they are the last.
func (m *middle) pass(n int) (int, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	stop := m.most >= 0 && m.sent+int64(n) >= m.most
	if stop {
		n = int(max(0, m.most-m.sent))
		m.most = -1 // for the next connection
		close(m.stopped)
	}
	m.sent += int64(n)
	return n, stop
}

// stopAfter has the line stop after n more bytes; what it returns is closed when it has.
func (m *middle) stopAfter(n int64) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.most, m.stopped = m.sent+n, make(chan struct{})
	return m.stopped
}

func (m *middle) count() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sent
}

// current is the version that a program serves, and its document.
func (l *live) current(t *testing.T) (*version.Manifest, []byte) {
	t.Helper()
	response, err := http.Get(l.url + "sync/version")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	document, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	v, err := version.Decode(document)
	if err != nil {
		t.Fatal(err)
	}
	return v, document
}

// pieces are those that a page keeps of a version of one model, in the order in which it asks for them.
func pieces(v *version.Manifest) (all []version.Piece) {
	if h := v.Models[0].Heads; h != nil {
		all = append(all, h.Pieces...)
	}
	for _, p := range v.Models[0].Gallery.Pages {
		all = append(all, version.Piece{Hash: p.Hash, Size: p.Size})
	}
	return all
}

const own = "await (await (await navigator.storage.getDirectory()).getDirectoryHandle('fromage')).getDirectoryHandle('own')"

// kept is what the browser's files have of versions: the SHA-256 of each, by name.
func (b *tab) kept(t *testing.T) map[string]string {
	t.Helper()
	return js[map[string]string](t, b, `(async () => {
		const out = {};
		for await (const [name, handle] of `+own+`) {
			if (!/^(piece|sync)-/.test(name)) continue;
			const bytes = await handle.getFile().then((file) => file.arrayBuffer()).catch(() => null);
			if (!bytes) continue; // it was removed just now
			const sum = await crypto.subtle.digest('SHA-256', bytes);
			out[name] = [...new Uint8Array(sum)].map((b) => b.toString(16).padStart(2, '0')).join('');
		}
		return out;
	})()`)
}

// forget removes the files of pieces, and returns how many there were.
func (b *tab) forget(t *testing.T) int {
	t.Helper()
	return js[int](t, b, `(async () => {
		const names = [];
		for await (const [name] of `+own+`) if (name.startsWith('piece-')) names.push(name);
		for (const name of names) await (`+own+`).removeEntry(name).catch(() => {}); // a page may have removed it
		return names.length;
	})()`)
}

// put writes a file.
func (b *tab) put(t *testing.T, name string, data []byte) {
	t.Helper()
	js[bool](t, b, fmt.Sprintf(`(async () => {
		const stream = await (await (%s).getFileHandle(%q, { create: true })).createWritable();
		await stream.write(Uint8Array.from(atob(%q), (c) => c.charCodeAt(0)));
		await stream.close();
		return true;
	})()`, own, name, base64.StdEncoding.EncodeToString(data)))
}

// damage flips a bit of each of those files, and returns how many that were.
func (b *tab) damage(t *testing.T, seed float64) int {
	t.Helper()
	return js[int](t, b, fmt.Sprintf(`(async () => {
		let n = 0;
		const dir = %s;
		for await (const [name, handle] of dir) {
			if (!/^(piece|sync)-/.test(name)) continue;
			const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
			const at = Math.floor(%g * 7919 * ++n) %% bytes.length;
			bytes[at] ^= 1 << (at %% 8);
			const stream = await handle.createWritable();
			await stream.write(bytes);
			await stream.close();
		}
		return n;
	})()`, own, seed))
}

// holds waits until the browser's files are the current version's, byte for byte, and no others.
func (l *live) holds(t *testing.T, b *tab) {
	t.Helper()
	v, document := l.current(t)
	id := version.ID(document)
	sum := sha256.Sum256(append(id[:], document...))
	want := map[string]string{"sync-" + v.Models[0].Name: hex.EncodeToString(sum[:])}
	for _, p := range pieces(v) {
		want["piece-"+p.Hash.String()] = p.Hash.String()
	}
	var have map[string]string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if have = b.kept(t); maps.Equal(have, want) {
			return
		}
	}
	t.Fatalf("the browser keeps %v, want %v", slices.Sorted(maps.Keys(have)), slices.Sorted(maps.Keys(want)))
}

// retrained are random changes of all of the embedded model's heads.
func retrained(t *testing.T, seed uint64) map[string][]float32 {
	t.Helper()
	bundle, err := assets.Bundle()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	heads := map[string][]float32{}
	for i, w := range bundle.Manifest().Model.Weights {
		if !w.Head {
			continue
		}
		x := floatsOf(t, bundle, bundle.Manifest().Tensors[i].Shards[0].Values)[:w.Rows*w.Cols]
		for j := range x {
			x[j] *= float32(1 + 1e-3*rng.NormFloat64())
		}
		heads[w.Name] = x
	}
	return heads
}

// rounds is how often something is done: often where FROMAGE_SOAK is set.
func rounds(some, often int) int {
	if os.Getenv("FROMAGE_SOAK") != "" {
		return often
	}
	return some
}

// TestKilled kills the browser while new heads are on their way to its page, and opens it again: it fetches what it lacks, and has what a page has that was
// never killed. Then bits of what it keeps are flipped: they are noticed and fetched again, or the page says that it cannot go on.
func TestKilled(t *testing.T) {
	path, dir := need(t), t.TempDir()
	p := goLive(t)
	somePictures(t, filepath.Join(dir, "pictures"), 5)
	p.run(t, "push", "gallery", "add", "--to", p.url, "--root", filepath.Join(dir, "pictures"), filepath.Join(dir, "pictures"))
	m := between(t, p.url)
	profile := chromedp.UserDataDir(filepath.Join(dir, "profile"))
	open := func() *tab {
		t.Helper()
		b := show(t, path, m.URL+"/", chromedp.Flag("enable-unsafe-webgpu", true), profile)
		b.do(t, chromedp.Navigate(m.URL+"/"))
		b.until(t, ready)
		return b
	}
	b := open()
	p.holds(t, b)
	rng := rand.New(rand.NewPCG(5, 8))
	for n := range rounds(3, 200) {
		before := m.count()
		stopped := m.stopAfter(rng.Int64N(1_000_000))
		p.heads(t, "", retrained(t, uint64(n)))
		v, document := p.current(t)
		<-stopped
		came := m.count() - before
		b.wait(t, v, came-int64(len(document))-2000)
		b.kill(t)
		b = open()
		b.until(t, fmt.Sprintf("document.getElementById('facts').textContent.includes('Heads and picturesversion %d')", v.Seq))
		p.holds(t, b)
		all := int64(0)
		largest := int64(0)
		for _, piece := range pieces(v) {
			all += piece.Size
			largest = max(largest, piece.Size)
		}
		total := m.count() - before
		t.Logf("killed after %d bytes: %d in all for pieces of %d", came, total, all)
		if most := all + all/50 + largest + 2*int64(len(document)) + 4000; total > most {
			t.Errorf("a page that was killed after %d bytes was sent %d in all for %d, want at most %d", came, total, all, most)
		}
	}
	v, _ := p.current(t)
	flips := 0
	for n := range rounds(3, 150) {
		before := m.count()
		flips += b.damage(t, rng.Float64())
		b.do(t, chromedp.Reload())
		b.until(t, ready)
		b.until(t, fmt.Sprintf("document.getElementById('facts').textContent.includes('Heads and picturesversion %d')", v.Seq))
		p.holds(t, b)
		for _, piece := range pieces(v) {
			before += piece.Size
		}
		if m.count() < before {
			t.Errorf("round %d: %d bytes of damaged pieces did not come again", n, before-m.count())
		}
	}
	b.damage(t, rng.Float64())
	p.stop(t)
	m.Close()
	b.do(t, chromedp.Reload())
	if said := b.problem(t); !strings.Contains(said, "connection") {
		t.Errorf("without a server, with damaged files, the page says %q, want it to ask for a connection", said)
	}
	t.Logf("%d bits flipped in the browser's files", flips)
}

// wait waits until the browser's files have the pieces that have come whole by so many bytes.
func (b *tab) wait(t *testing.T, v *version.Manifest, came int64) {
	t.Helper()
	const frame = 200 // bytes more than the piece has, for each 64 KiB
	for _, p := range pieces(v) {
		if came -= p.Size + frame*(1+p.Size>>16); came < 0 {
			return
		}
		for b.kept(t)["piece-"+p.Hash.String()] != p.Hash.String() {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// kill ends the browser without a word.
func (b *tab) kill(t *testing.T) {
	t.Helper()
	process := chromedp.FromContext(b.ctx).Browser.Process()
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-chromedp.FromContext(b.ctx).Browser.LostConnection
}

// TestNoWebsocket: where a proxy refuses websockets, the page asks for versions, says so, and comes to the same.
func TestNoWebsocket(t *testing.T) {
	path, dir := need(t), t.TempDir()
	p := goLive(t)
	somePictures(t, filepath.Join(dir, "pictures"), 5)
	p.run(t, "push", "gallery", "add", "--to", p.url, "--root", filepath.Join(dir, "pictures"), filepath.Join(dir, "pictures"))
	m := between(t, p.url)
	m.refuse = true
	b := show(t, path, m.URL+"/", chromedp.Flag("enable-unsafe-webgpu", true))
	b.do(t, chromedp.Navigate(m.URL+"/"))
	b.until(t, ready)
	b.until(t, "document.getElementById('facts').textContent.includes('no websocket gets through')")
	p.holds(t, b)
	v := p.heads(t, "by asking", retrained(t, 1))
	b.until(t, fmt.Sprintf("document.body.dataset.version === '%d'", v.Seq))
	p.holds(t, b)
	if n := m.count(); n != 0 {
		t.Errorf("%d bytes came over a websocket that is refused", n)
	}
}

// TestNewBundle: an open page loads a model that takes the place of its own, without being loaded anew, and the conversation goes on.
func TestNewBundle(t *testing.T) {
	path := need(t)
	p := goLive(t)
	args, _ := offer(t, p.exe, shaders.F16, shaders.Q8)
	p.run(t, "push", "bundle", "--to", p.url, "--name", "default", args[1])
	b := show(t, path, p.url, chromedp.Flag("enable-unsafe-webgpu", true))
	b.do(t, chromedp.Navigate(p.url))
	b.until(t, ready)
	js[bool](t, b, "(window.same = true, document.getElementById('set-numWords').value = 4, true)")
	b.say(t, "raw", "a")
	p.run(t, "push", "bundle", "--to", p.url, "--name", "default", args[5])
	b.until(t, weights+" === 'q8' && "+ready)
	if !js[bool](t, b, "window.same === true && document.querySelectorAll('.turn').length === 1") {
		t.Error("the page was loaded anew, or lost its conversation")
	}
	b.say(t, "raw", "b")
	b.until(t, "document.getElementById('facts').textContent.includes('Last answer byversion 3')")
	b.clean(t)
}
