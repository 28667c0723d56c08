// SPDX-License-Identifier: Apache-2.0

//go:build js && wasm

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"syscall/js"
	"time"

	"fromage/bundle"
	"fromage/gpu"
	"fromage/gpu/browser"
	"fromage/index"
	"fromage/runner"
	"fromage/shaders"
)

// session is a model in this worker.
type session struct {
	host js.Value // fromageHost of site/worker.js

	model    string         // its address
	kv       shaders.Format // of keys and values
	kernels  string         // the table of their fastest forms that the page keeps, or ""
	header   []byte         // of its bundle
	manifest *bundle.Manifest
	storage  string // where its bytes are kept
	dev      *browser.Device
	r        *runner.Runner
	album    *album
	store    *store        // while the model is on its way
	ended    chan struct{} // closed when the rest of the model is there, or is not to come
	failed   error         // why it is not to come
	versions *versions     // what the server publishes; nil where nothing changes
	swapping sync.RWMutex  // held for reading by whatever a new version is to wait for

	pictures      map[int]*runner.Image
	conversations map[int]*conversation
	last          int // number given out last, to a picture or a conversation
}

func newSession(host js.Value) *session {
	return &session{host: host, ended: make(chan struct{}), pictures: map[int]*runner.Image{}, conversations: map[int]*conversation{}}
}

// tell sends an event that nobody asked for.
func (s *session) tell(event map[string]any) { s.host.Call("tell", encode(event)) }

func (s *session) notice(format string, args ...any) {
	s.tell(map[string]any{"type": "notice", "text": fmt.Sprintf(format, args...)})
}

func (s *session) stage(name string, done, total int) {
	s.tell(map[string]any{"type": "progress", "stage": name, "done": done, "total": total})
}

// load makes the pictures' part of a model ready: they can be embedded and compared then. Then rest is to be called. {model, gallery}, addresses; instead of
// a gallery {sync, name}, the address of a server of versions and the model's name there. kernels is what tune gave earlier, kv how keys and values
// are kept.
func (s *session) load(ctx context.Context, c *call) (any, error) {
	if s.model != "" {
		return nil, coded("input", fmt.Errorf("a model is loaded already"))
	}
	s.model, s.kernels = text(c.args.Get("model")), text(c.args.Get("kernels"))
	switch kv := text(c.args.Get("kv")); kv {
	case "", "f32":
	case "f16":
		s.kv = shaders.F16
	default:
		return nil, coded("input", fmt.Errorf("kv: want f32 or f16, have %q", kv))
	}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	store, err := s.openStore(ctx)
	if err != nil {
		return nil, err
	}
	if url := text(c.args.Get("sync")); url != "" {
		s.versions = &versions{s: s, url: url, name: text(c.args.Get("name"))}
	}
	if err := s.loadPictures(ctx, store, text(c.args.Get("gallery"))); err != nil {
		store.close()
		return nil, err
	}
	s.store = store
	s.tell(map[string]any{"type": "ready", "what": "pictures"})
	if s.versions != nil {
		if err := s.versions.moveOwn(ctx); err != nil {
			s.notice("Your own pictures could not be read with the new heads: %v", err)
		}
		go s.versions.follow(context.WithoutCancel(ctx)) // as long as the worker lives
	}
	return s.info(ctx, c)
}

func (s *session) loadPictures(ctx context.Context, store *store, gallery string) (err error) {
	s.header, s.storage = store.header, store.kind
	if s.manifest, err = store.readManifest(); err != nil {
		return coded("damaged", err)
	}
	if err := s.preflight(); err != nil {
		return err
	}
	store.expect(runner.ForPictures(s.manifest))
	fetched := begin(func() (*index.Index, error) {
		if s.versions != nil {
			return s.versions.begin(ctx)
		}
		return s.fetchGallery(ctx, gallery)
	})
	compiled := begin(func() (any, error) { return nil, s.compile() })
	r, err := runner.LoadPictures(ctx, s.dev, s.manifest, store, nil)
	if err != nil {
		return err
	}
	if err := r.SetKV(s.kv); err != nil {
		return coded("input", err)
	}
	if _, err := compiled(); err != nil {
		return err
	}
	x, err := fetched()
	if err != nil {
		return err
	}
	if s.versions != nil && s.versions.now.heads != nil {
		if err := r.SetHeads(s.versions.now.heads); err != nil {
			return err
		}
	}
	if s.album, err = s.openAlbum(ctx, r, x); err != nil {
		return err
	}
	s.r = r
	r.OnLoss(s.reopen)
	return nil
}

// begin starts f; what it returns waits for f's end.
func begin[T any](f func() (T, error)) func() (T, error) {
	var v T
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		v, err = f()
	}()
	return func() (T, error) {
		<-done
		return v, err
	}
}

// rest brings the rest of the model: the language model.
func (s *session) rest(ctx context.Context, _ *call) (any, error) {
	if s.store == nil {
		return nil, coded("input", errors.New("the rest of the model was asked for already"))
	}
	s.failed = s.loadRest(ctx)
	s.store.close()
	s.store = nil
	close(s.ended)
	if s.failed == nil {
		s.tell(map[string]any{"type": "ready", "what": "chat"})
	}
	return nil, s.failed
}

func (s *session) loadRest(ctx context.Context) error {
	compiled := begin(func() (any, error) { return nil, s.compile(1, 8, 32, 128) })
	if err := s.r.LoadRest(ctx, s.store, nil); err != nil {
		return err
	}
	if _, err := compiled(); err != nil && !errors.Is(err, gpu.ErrLost) { // the next device compiles what it runs
		return err
	}
	return s.warm(ctx)
}

// whole waits until the whole model is there.
func (s *session) whole(ctx context.Context) error {
	select {
	case <-s.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	switch {
	case errors.Is(s.failed, context.Canceled):
		return coded("input", errors.New("the language model is not there: loading it was aborted"))
	case s.failed != nil:
		code, message := explain(s.failed)
		return coded(code, fmt.Errorf("the language model is not there: %s", message))
	}
	return nil
}

// open opens the GPU and watches it.
func (s *session) open(ctx context.Context) error {
	dev, err := browser.Open(ctx, browser.Options{Label: "fromage", Choices: s.choices})
	if err != nil {
		return err
	}
	s.dev = dev
	go func() { // until the device is lost or closed
		<-dev.Lost()
		s.tell(map[string]any{"type": "lost", "reason": dev.LostReason()})
	}()
	return nil
}

// A browser whose GPU process has just ended may offer no adapter until it has a new one.
const (
	reopenTries = 5
	reopenPause = time.Second
)

// reopen is the runner's runner.Reopen. Where it fails, the runner's device stays the lost one, and the next call tries again.
func (s *session) reopen(ctx context.Context) (gpu.Device, runner.Source, error) {
	if s.store != nil {
		s.store.lost = true
		s.store.close() // the recovery brings the rest too
	}
	if s.dev != s.r.Device() {
		_ = s.dev.Close() // opened by a recovery that failed later
	}
	err := s.open(ctx)
	for try := 1; try < reopenTries && errors.Is(err, browser.ErrNoAdapter); try++ {
		time.Sleep(reopenPause)
		err = s.open(ctx)
	}
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	if err != nil {
		return nil, nil, coded("lost", fmt.Errorf("the GPU was taken away and does not come back: try again, or reload the page; what was downloaded is kept (%w)", err))
	}
	store, err := s.openStore(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(store.header, s.header) {
		store.close()
		return nil, nil, coded("model", fmt.Errorf("the model at %s was replaced by another: reload the page", s.model))
	}
	store.expect(func(string) bool { return false })
	return s.dev, recovery{store, s}, nil
}

// recovery is a store that says when all is back on the device.
type recovery struct {
	*store
	s *session
}

func (r recovery) Upload(ctx context.Context, dev gpu.Device, targets []runner.Target, done func(int64)) error {
	defer r.close()
	err := r.store.Upload(ctx, dev, targets, done)
	if err == nil {
		r.s.tell(map[string]any{"type": "recovered"})
	}
	return err
}

// preflight refuses a model that is none with pictures, and one that the device cannot hold.
func (s *session) preflight() error {
	if _, ok := s.manifest.Files[bundle.FileTokenizer]; !ok || s.manifest.Settings.SharedDim == 0 {
		return coded("model", fmt.Errorf("%s has no heads: it is a language model alone, not a FROMAGe", s.model))
	}
	if need, most := s.manifest.Needs().Buffer, int64(s.dev.Info().Limits.MaxBinding); need > most {
		return coded("memory", fmt.Errorf("this GPU allows buffers of %d bytes, the model needs one of %d", most, need))
	}
	return nil
}

// compile compiles, at the same time, the kernels that pictures and text in runs of so many tokens need, while weights are on their way.
func (s *session) compile(tokens ...int) error {
	kernels, err := runner.Kernels(s.dev.Info(), s.manifest, s.kv, tokens...)
	if err != nil {
		return err
	}
	errs := make([]error, len(kernels))
	var all sync.WaitGroup
	done := 0
	for i, k := range kernels {
		all.Go(func() {
			_, errs[i] = s.dev.Compile(k)
			done++
			s.stage("compile", done, len(kernels))
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// warm runs a token, so that the first answer does not wait for what a browser does late.
func (s *session) warm(ctx context.Context) error {
	s.stage("warm", 0, 1)
	seq := s.r.NewSequence()
	defer seq.Close()
	if err := seq.Append(runner.Part{Text: "a"}); err != nil {
		return err
	}
	if err := seq.Continue(ctx, 1); err != nil {
		return err
	}
	s.stage("warm", 1, 1)
	return nil
}

// store is site/store.js's Store of the model: the bytes in this browser or at the server. It implements runner.Source.
type store struct {
	v        js.Value
	header   []byte
	kind     string
	manifest *bundle.Manifest
	lost     bool // with the device that it was to fill
}

func (s *session) openStore(ctx context.Context) (*store, error) {
	tell := js.FuncOf(func(_ js.Value, args []js.Value) any {
		s.host.Call("tell", args[0])
		return nil
	})
	v, err := await(ctx, s.host.Call("openStore", s.model, tell))
	if err != nil {
		return nil, err
	}
	header, err := bytesOf(v.Get("header"), 1<<10)
	if err != nil {
		return nil, err
	}
	return &store{v: v, header: header, kind: v.Get("kind").String(), manifest: s.manifest}, nil
}

func (s *store) close() { s.v.Call("close") }

// readManifest checks the bundle's manifest.
func (s *store) readManifest() (*bundle.Manifest, error) {
	manifest, err := bytesOf(s.v.Get("manifest"), bundle.MaxManifest)
	if err != nil {
		return nil, err
	}
	size := int64(s.v.Get("size").Float())
	b, err := bundle.Read(ends{s.header, manifest, size - int64(len(manifest))}, size)
	if err != nil {
		return nil, err
	}
	s.manifest = b.Manifest()
	return s.manifest, nil
}

// ends is a bundle of which only the header and the manifest are there, which is what bundle.Read reads.
type ends struct {
	header, manifest []byte
	at               int64
}

func (e ends) ReadAt(p []byte, offset int64) (int, error) {
	from := e.header
	if offset >= e.at {
		from, offset = e.manifest, offset-e.at
	}
	if offset >= int64(len(from)) {
		return 0, io.EOF
	}
	return copy(p, from[offset:]), nil
}

// chunk is a piece of a blob with its own hash, and where it goes.
type chunk struct {
	Offset int64  `json:"offset"` // from the start of the bundle
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`

	blob string // SHA-256 of the whole
	at   int64  // within the blob
}

// chunksOf lists the chunks of a blob.
func chunksOf(b bundle.Blob) (all []*chunk) {
	for i, at := 0, int64(0); at < b.Size; i, at = i+1, at+bundle.ChunkSize {
		c := &chunk{Offset: b.Offset + at, Size: min(bundle.ChunkSize, b.Size-at), SHA256: b.SHA256, blob: b.SHA256, at: at}
		if len(b.Chunks) > 0 {
			c.SHA256 = b.Chunks[i]
		}
		all = append(all, c)
	}
	return all
}

// File implements runner.Source.
func (s *store) File(name string) ([]byte, error) {
	blob, ok := s.manifest.Files[name]
	if !ok {
		return nil, fmt.Errorf("there is no file %s in the bundle", name)
	}
	v, err := await(context.Background(), s.v.Call("file", encode(chunksOf(blob))))
	if err != nil {
		return nil, err
	}
	return bytesOf(v, int(blob.Size))
}

// expect tells how many bytes are to come before pictures can be used, and before all can be: the weights that first says yes to, and all.
func (s *store) expect(first func(weight string) bool) {
	var early, late []bundle.Blob
	for _, t := range s.manifest.Tensors {
		part := &late
		if first(t.Name) {
			part = &early
		}
		for _, shard := range t.Shards {
			*part = append(*part, shard.Values)
			if shard.Scales != nil {
				*part = append(*part, *shard.Scales)
			}
		}
	}
	pictures := bytesIn(inOrder(early))
	s.v.Call("expect", pictures, pictures+bytesIn(inOrder(late)))
}

// inOrder lists the chunks of blobs, each once, as they lie in the bundle.
func inOrder(blobs []bundle.Blob) (order []*chunk) {
	seen := map[int64]bool{}
	for _, b := range blobs {
		if !seen[b.Offset] {
			seen[b.Offset] = true
			order = append(order, chunksOf(b)...)
		}
	}
	slices.SortFunc(order, func(a, b *chunk) int { return cmp.Compare(a.Offset, b.Offset) })
	return order
}

func bytesIn(order []*chunk) (sum int64) {
	for _, c := range order {
		sum += c.Size
	}
	return sum
}

// Upload implements runner.Source. The bytes stay in JavaScript's memory.
func (s *store) Upload(ctx context.Context, dev gpu.Device, targets []runner.Target, done func(int64)) error {
	buffers := map[string][]gpu.Buffer{} // by the blob's SHA-256
	var blobs []bundle.Blob
	for _, t := range targets {
		buffers[t.Blob.SHA256] = append(buffers[t.Blob.SHA256], t.Buffer)
		blobs = append(blobs, t.Blob)
	}
	order := inOrder(blobs)
	s.v.Call("begin", encode(order))
	for {
		parts, err := await(ctx, s.v.Call("next"))
		if err != nil && s.lost {
			return fmt.Errorf("download for a device that is no more: %w", gpu.ErrLost)
		}
		if err != nil || parts.IsNull() {
			return err
		}
		for i := range parts.Length() {
			c := order[i]
			for _, b := range buffers[c.blob] {
				if err := dev.(*browser.Device).WriteJS(b, int(c.at), parts.Index(i)); err != nil {
					return err
				}
				done(c.Size)
			}
		}
		order = order[parts.Length():]
	}
}

// info says what runs where.
func (s *session) info(context.Context, *call) (any, error) {
	i := s.dev.Info()
	dispatches, err := s.r.Dispatches()
	if err != nil {
		return nil, err
	}
	needs := s.manifest.Needs()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	features := []string{}
	if i.Features.Subgroups {
		features = append(features, "subgroups")
	}
	if i.Features.F16 {
		features = append(features, "shader-f16")
	}
	return map[string]any{
		"adapter": i.Adapter, "vendor": i.Vendor, "software": i.Software, "features": features, "choices": i.Choices, "dtype": s.manifest.DType.String(),
		"modelBytes": needs.Weights, "gpuBytes": needs.Memory(), "dispatchesPerToken": dispatches,
		"heapBytes": memory.Sys, "storage": s.storage, "settings": s.manifest.Settings, "notes": s.manifest.Notes, "gallerySize": s.album.size(), "version": s.seq(), "polling": s.versions != nil && s.versions.polling(),
	}, nil
}

// lose loses the device, for tests.
func (s *session) lose(context.Context, *call) (any, error) {
	s.dev.Lose()
	return nil, nil
}

// fetchGallery fetches the index at url and checks that it is the model's; nil for no url.
func (s *session) fetchGallery(ctx context.Context, url string) (*index.Index, error) {
	if url == "" {
		return nil, nil
	}
	id, err := identity(s.manifest.Settings)
	if err != nil {
		return nil, err
	}
	s.stage("gallery", 0, 1)
	data, err := fetch(ctx, url)
	if err != nil {
		return nil, err
	}
	x, err := index.Parse(url, data)
	if err != nil {
		return nil, coded("damaged", err)
	}
	if err := x.CheckModel(s.manifest.Settings.SharedDim, id); err != nil {
		return nil, coded("model", err)
	}
	if n := x.Notice(); n != "" {
		s.notice("%s", n)
	}
	s.stage("gallery", 1, 1)
	return x, nil
}

// fetch reads a whole file from the server.
func fetch(ctx context.Context, url string) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, coded("network", fmt.Errorf("%s: %w. Check the connection and try again", url, err))
	}
	response, err := await(ctx, js.Global().Call("fetch", url))
	if err != nil {
		return fail(err)
	}
	if !response.Get("ok").Bool() {
		return fail(fmt.Errorf("the server answers with status %d", response.Get("status").Int()))
	}
	buffer, err := await(ctx, response.Call("arrayBuffer"))
	if err != nil {
		return fail(err)
	}
	return bytesOf(js.Global().Get("Uint8Array").New(buffer), 1<<30)
}
