// SPDX-License-Identifier: Apache-2.0

// Package store keeps versions and their pieces in a bucket: a folder of this machine, or whatever else gocloud.dev/blob opens.
//
// What enters is pieces and manifests; what leaves is the same bytes, each held to its hash whenever it is read. The package refuses to know what
// changes mean and who may make them.
//
// # Layout
//
//	chunks/ab/abcdef…        a piece, named by its SHA-256
//	log/000000000007         version 7: its document, a newline, the SHA-256 of the document in hex, a newline
//	dropped/000000000003     a version that collect took out of the log, kept for as long as somebody may be building on it
//	pins/000000000002        says that version 2 is to be kept
//	probe                    in a bucket elsewhere: written twice, to see that the second is refused
//	lock                     in a folder: held by the process that publishes
//
// Nothing is ever changed in place. Pieces come first, and have reached the disk; then the log's next entry is made, if nobody else has made it: that is the
// moment of publishing. A process killed before it has published nothing, and its pieces are collected some time. An entry that is cut short or damaged is no
// version, and its number is not used again. So the log's last good entry is the current version for any number of processes on one bucket.
package store

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/gcerrors"

	"fromage/internal/atomicfile"
	"fromage/server/version"
	"fromage/server/wire"
)

// Store is an open bucket. Its methods may be called concurrently.
type Store struct {
	bucket *blob.Bucket
	where  string
	dir    string // of a folder, else ""
	cache  cache

	probing sync.Mutex
	probed  bool // the bucket was seen to keep "only if it is not there"

	mu      sync.Mutex
	fresh   []string           // keys written and perhaps not on the disk yet
	damaged map[wire.Hash]bool // pieces that were found so, and are written anew when somebody has them
}

// Version is an entry of the log.
type Version struct {
	ID       wire.Hash
	Document []byte
	*version.Manifest
}

// ErrMissing is a piece or a version that is not there.
var ErrMissing = errors.New("not in the store")

// ErrConflict is a version that somebody else has published first.
var ErrConflict = errors.New("another version was published first")

const (
	logPrefix     = "log/"
	droppedPrefix = "dropped/"
	pinPrefix     = "pins/"
	chunkPrefix   = "chunks/"
	probeKey      = "probe"
	cacheBytes    = 64 << 20
)

// Open opens a folder, which it makes, or a bucket by its URL (s3://…, mem://).
func Open(ctx context.Context, where string) (*Store, error) {
	s := &Store{where: where, cache: cache{most: cacheBytes}}
	var err error
	if scheme, _, ok := strings.Cut(where, "://"); ok && scheme != "file" {
		s.bucket, err = blob.OpenBucket(ctx, quiet(where))
	} else {
		s.dir = strings.TrimPrefix(where, "file://")
		s.bucket, err = fileblob.OpenBucket(s.dir, &fileblob.Options{CreateDir: true, NoTempDir: true, Metadata: fileblob.MetadataDontWrite})
	}
	if err != nil {
		return nil, fmt.Errorf("store: %s: %w", where, redact(err))
	}
	return s, nil
}

// quiet has S3's client not warn of every answer without a checksum: pieces have their own.
func quiet(where string) string {
	u, err := url.Parse(where)
	if err != nil || u.Scheme != "s3" || u.Query().Has("response_checksum_validation") {
		return where
	}
	q := u.Query()
	q.Set("response_checksum_validation", "when_required")
	u.RawQuery = q.Encode()
	return u.String()
}

// New keeps in a bucket that is open; it is closed by Close.
func New(b *blob.Bucket, name string) *Store {
	return &Store{bucket: b, where: name, cache: cache{most: cacheBytes}}
}

// redact keeps secrets in an address out of messages.
func redact(err error) error {
	if e := (*url.Error)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// Close closes the bucket.
func (s *Store) Close() error { return s.bucket.Close() }

// Local says whether the store is a folder of this machine.
func (s *Store) Local() bool { return s.dir != "" }

func chunkKey(h wire.Hash) string {
	hex := h.String()
	return chunkPrefix + hex[:2] + "/" + hex
}

func seqKey(prefix string, seq uint64) string { return fmt.Sprintf("%s%012d", prefix, seq) }

// Put stores a piece and returns its name. One that is there is written again, so that Collect takes it for young.
func (s *Store) Put(ctx context.Context, data []byte) (wire.Hash, error) {
	h := version.ID(data)
	if err := s.write(ctx, chunkKey(h), data, false); err != nil {
		return h, fmt.Errorf("store: %s: piece %s: %w", s.where, h, err)
	}
	s.mu.Lock()
	delete(s.damaged, h)
	s.mu.Unlock()
	s.cache.put(h, data)
	return h, nil
}

// Has says whether a piece is there and was not found damaged.
func (s *Store) Has(ctx context.Context, h wire.Hash) bool {
	s.mu.Lock()
	bad := s.damaged[h]
	s.mu.Unlock()
	if bad {
		return false
	}
	ok, err := s.bucket.Exists(ctx, chunkKey(h))
	return ok && err == nil
}

// write writes a key as a whole or not at all.
func (s *Store) write(ctx context.Context, key string, data []byte, exclusive bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := s.bucket.NewWriter(ctx, key, &blob.WriterOptions{IfNotExist: exclusive, ContentType: "application/octet-stream", DisableContentTypeDetection: true})
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		cancel() // Close then gives the key up
		return errors.Join(err, ignoreCancelled(w.Close()))
	}
	if err := w.Close(); err != nil {
		return err
	}
	if s.dir != "" {
		s.mu.Lock()
		s.fresh = append(s.fresh, key)
		s.mu.Unlock()
	}
	return nil
}

func ignoreCancelled(err error) error {
	if errors.Is(err, context.Canceled) || gcerrors.Code(err) == gcerrors.Canceled {
		return nil
	}
	return err
}

// Young says whether a piece is there and was written less than age ago.
func (s *Store) Young(ctx context.Context, h wire.Hash, age time.Duration) bool {
	a, err := s.bucket.Attributes(ctx, chunkKey(h))
	return err == nil && time.Since(a.ModTime) < age
}

// Get returns a piece, checked. The bytes are not to be changed. One that is damaged is an error that is ErrMissing too: it is worth no more.
func (s *Store) Get(ctx context.Context, h wire.Hash) ([]byte, error) {
	if data, ok := s.cache.get(h); ok {
		return data, nil
	}
	data, err := s.read(ctx, chunkKey(h), wire.MaxWhole)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, fmt.Errorf("store: %s: piece %s: %w", s.where, h, ErrMissing)
	}
	if err != nil {
		return nil, fmt.Errorf("store: %s: piece %s: %w", s.where, h, err)
	}
	if have := version.ID(data); have != h {
		s.mu.Lock()
		if s.damaged == nil {
			s.damaged = map[wire.Hash]bool{}
		}
		s.damaged[h] = true
		s.mu.Unlock()
		return nil, fmt.Errorf("store: %s: piece %s: have bytes of SHA-256 %s: it is damaged: %w", s.where, h, have, ErrMissing)
	}
	s.cache.put(h, data)
	return data, nil
}

func (s *Store) read(ctx context.Context, key string, most int64) ([]byte, error) {
	r, err := s.bucket.NewReader(ctx, key, nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if r.Size() > most {
		return nil, fmt.Errorf("want at most %d bytes, have %d", most, r.Size())
	}
	return io.ReadAll(io.LimitReader(r, most+1))
}

// File reads a file in pieces: all of it.
func (s *Store) File(ctx context.Context, f *version.File, most int64) ([]byte, error) {
	if f.Size > most {
		return nil, fmt.Errorf("store: file: want at most %d bytes, have %d", most, f.Size)
	}
	data := make([]byte, 0, f.Size)
	for _, p := range f.Pieces {
		part, err := s.Get(ctx, p.Hash)
		if err != nil {
			return nil, err
		}
		if int64(len(part)) != p.Size {
			return nil, fmt.Errorf("store: file: piece %s: want %d bytes, have %d", p.Hash, p.Size, len(part))
		}
		data = append(data, part...)
	}
	return data, nil
}

// Reader is a file in pieces as an io.ReaderAt.
type Reader struct {
	store  *Store
	pieces []version.Piece
	ends   []int64
}

// Reader opens a file.
func (s *Store) Reader(f *version.File) *Reader {
	r := &Reader{store: s, pieces: f.Pieces}
	at := int64(0)
	for _, p := range f.Pieces {
		at += p.Size
		r.ends = append(r.ends, at)
	}
	return r
}

// ReadAt implements io.ReaderAt.
func (r *Reader) ReadAt(b []byte, at int64) (n int, err error) {
	for i, p := range r.pieces {
		if n == len(b) {
			return n, nil
		}
		if at >= r.ends[i] {
			continue
		}
		data, err := r.store.Get(context.Background(), p.Hash)
		if err != nil {
			return n, err
		}
		from := at - (r.ends[i] - p.Size)
		if from > int64(len(data)) {
			return n, io.ErrUnexpectedEOF
		}
		k := copy(b[n:], data[from:])
		n, at = n+k, at+int64(k)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// entry is a key of the log.
type entry struct {
	seq uint64
	at  time.Time
}

// listTries bounds how often a listing begins anew.
const listTries = 100

// list lists what is below a prefix. A folder's listing fails where a file goes while it is listed, as another process's temporary files do: it begins anew.
func (s *Store) list(ctx context.Context, prefix string) (all []*blob.ListObject, err error) {
	for range listTries {
		all = all[:0]
		var o *blob.ListObject
		it := s.bucket.List(&blob.ListOptions{Prefix: prefix})
		for o, err = it.Next(ctx); err == nil; o, err = it.Next(ctx) {
			all = append(all, o)
		}
		if err == io.EOF {
			return all, nil
		}
		if gcerrors.Code(err) != gcerrors.NotFound {
			break
		}
	}
	return nil, fmt.Errorf("store: %s: list: %w", s.where, err)
}

// entries lists the keys below a prefix, oldest version first.
func (s *Store) entries(ctx context.Context, prefix string) (all []entry, err error) {
	objects, err := s.list(ctx, prefix)
	for _, o := range objects {
		if seq, err := strconv.ParseUint(path.Base(o.Key), 10, 64); err == nil && o.Key == seqKey(prefix, seq) {
			all = append(all, entry{seq, o.ModTime})
		}
	}
	return all, err
}

// Get version seq; ErrMissing where it is not there or damaged.
func (s *Store) Version(ctx context.Context, seq uint64) (*Version, error) {
	return s.version(ctx, seqKey(logPrefix, seq), seq)
}

func (s *Store) version(ctx context.Context, key string, seq uint64) (*Version, error) {
	data, err := s.read(ctx, key, wire.MaxDocument+128)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, fmt.Errorf("store: %s: version %d: %w", s.where, seq, ErrMissing)
	}
	if err != nil {
		return nil, fmt.Errorf("store: %s: version %d: %w", s.where, seq, err)
	}
	document, sum, _ := bytes.Cut(data, []byte("\n"))
	id := version.ID(document)
	if string(sum) != id.String()+"\n" {
		return nil, fmt.Errorf("store: %s: version %d: it is damaged: %w", s.where, seq, ErrMissing)
	}
	m, err := version.Decode(document)
	if err != nil || m.Seq != seq {
		return nil, fmt.Errorf("store: %s: version %d: %w (%v)", s.where, seq, ErrMissing, err)
	}
	return &Version{id, document, m}, nil
}

// Versions lists the versions that are there, oldest first.
func (s *Store) Versions(ctx context.Context) ([]*Version, error) {
	list, err := s.entries(ctx, logPrefix)
	if err != nil {
		return nil, err
	}
	var all []*Version
	for _, e := range list {
		v, err := s.Version(ctx, e.seq)
		if errors.Is(err, ErrMissing) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// Current returns the newest version, nil where there is none, and the greatest number that was used.
func (s *Store) Current(ctx context.Context) (*Version, uint64, error) {
	list, err := s.entries(ctx, logPrefix)
	if err != nil || len(list) == 0 {
		return nil, 0, err
	}
	last := list[len(list)-1].seq
	for i := len(list) - 1; i >= 0; i-- {
		v, err := s.Version(ctx, list[i].seq)
		if err == nil {
			return v, last, nil
		}
		if !errors.Is(err, ErrMissing) {
			return nil, 0, err
		}
	}
	return nil, last, nil
}

// Append makes a manifest, whose Seq is greater than any before it, the current version. ErrConflict says that the number is taken.
func (s *Store) Append(ctx context.Context, m *version.Manifest) (*Version, error) {
	document, id, err := m.Encode()
	if err != nil {
		return nil, err
	}
	return s.Mirror(ctx, id, document)
}

// Mirror is Append of another store's document.
func (s *Store) Mirror(ctx context.Context, id wire.Hash, document []byte) (*Version, error) {
	m, err := version.Decode(document)
	if err != nil {
		return nil, err
	}
	if have := version.ID(document); have != id {
		return nil, fmt.Errorf("store: version %d: want SHA-256 %s, have %s", m.Seq, id, have)
	}
	if err := s.probe(ctx); err != nil {
		return nil, err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := s.settle(); err != nil {
		return nil, err
	}
	data := append(append(bytes.Clone(document), '\n'), id.String()+"\n"...)
	if err := s.write(ctx, seqKey(logPrefix, m.Seq), data, true); err != nil {
		if gcerrors.Code(err) == gcerrors.FailedPrecondition {
			err = ErrConflict
		}
		return nil, fmt.Errorf("store: %s: version %d: %w", s.where, m.Seq, err)
	}
	if err := s.settle(); err != nil {
		return nil, err
	}
	return &Version{id, document, m}, nil
}

// probe sees whether a bucket refuses to write over what is there, on which publishing rests. Some servers of S3 take the condition and do not look at it.
func (s *Store) probe(ctx context.Context) error {
	s.probing.Lock()
	defer s.probing.Unlock()
	if s.dir != "" || s.probed {
		return nil
	}
	for range 2 {
		err := s.write(ctx, probeKey, []byte("\n"), true)
		if gcerrors.Code(err) == gcerrors.FailedPrecondition {
			s.probed = true
			return nil
		}
		if err != nil {
			return fmt.Errorf("store: %s: %w", s.where, err)
		}
	}
	return fmt.Errorf("store: %s: want a bucket that refuses to write over what is there when asked (If-None-Match), have one that does not: two who publish at the same time would lose a version", s.where)
}

// lock keeps other processes of this machine from publishing in the same folder: unlike buckets elsewhere, it knows no "if nobody else has made it".
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	if s.dir == "" {
		return func() {}, nil
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	for atomicfile.Lock(f) != nil {
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("store: %s: lock: %w", s.dir, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return func() { f.Close() }, nil
}

// settle waits until what was written has reached the disk.
func (s *Store) settle() error {
	s.mu.Lock()
	keys := s.fresh
	s.fresh = nil
	s.mu.Unlock()
	folders := map[string]bool{}
	for _, key := range keys {
		name := filepath.Join(s.dir, filepath.FromSlash(key))
		if err := sync1(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("store: %w", err)
		}
		folders[filepath.Dir(name)] = true
	}
	for f := range folders {
		_ = sync1(f) // not every system can
	}
	return nil
}

func sync1(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// cache keeps pieces that were read last.
type cache struct {
	mu         sync.Mutex
	most, held int
	order      list.List // of *cached, used last first
	pieces     map[wire.Hash]*list.Element
}

type cached struct {
	hash wire.Hash
	data []byte
}

func (c *cache) get(h wire.Hash) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.pieces[h]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).data, true
}

func (c *cache) put(h wire.Hash, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.pieces[h]; ok || len(data) > c.most/4 {
		return
	}
	if c.pieces == nil {
		c.pieces = map[wire.Hash]*list.Element{}
	}
	c.pieces[h] = c.order.PushFront(&cached{h, data})
	for c.held += len(data); c.held > c.most; {
		last := c.order.Remove(c.order.Back()).(*cached)
		delete(c.pieces, last.hash)
		c.held -= len(last.data)
	}
}
