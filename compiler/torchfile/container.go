// SPDX-License-Identifier: Apache-2.0

package torchfile

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// slice is n bytes of src from off on. Unlike io.SectionReader it can be asked
// where it lies, so that slices of slices do not pile up.
type slice struct {
	src    io.ReaderAt
	off, n int64
}

func newSlice(src io.ReaderAt, off, n int64) slice {
	if s, ok := src.(slice); ok {
		return slice{s.src, s.off + off, n}
	}
	return slice{src, off, n}
}

func (s slice) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= s.n {
		return 0, io.EOF
	}
	if int64(len(p)) <= s.n-off {
		return s.src.ReadAt(p, s.off+off)
	}
	n, err := s.src.ReadAt(p[:s.n-off], s.off+off)
	if err == nil {
		err = io.EOF
	}
	return n, err
}

// zipMagic starts a zip file.
const zipMagic = "PK\x03\x04"

// legacyMagic starts the format that torch used before 1.6, and still uses for
// a storage inside a pickle: a pickle, protocol 2, of one big number.
const legacyMagic = "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

// legacyVersion is the only version of that format there has been.
const legacyVersion = 1001

// load reads a file of any of the three kinds and gives its value. A nested
// file, one that is a bytes value in a pickle, must be a torch file.
func load(src io.ReaderAt, size int64, nested bool) (any, error) {
	start := make([]byte, min(size, int64(len(legacyMagic))))
	if err := readFull(src, start, 0); err != nil {
		return nil, fmt.Errorf("offset 0: %w", err)
	}
	switch {
	case strings.HasPrefix(string(start), zipMagic):
		return loadZip(src, size, nested)
	case string(start) == legacyMagic:
		return loadLegacy(src, size, nested)
	case nested:
		return nil, errors.New("offset 0: neither a zip nor a legacy torch file")
	}
	m := machine{reader: reader{src: src, size: size}}
	v, err := m.run()
	if err == nil && m.at != size {
		err = fmt.Errorf("offset %d: %d bytes follow the pickle", m.at, size-m.at)
	}
	return v, err
}

// zipFile is a torch zip: a folder with data.pkl and one entry a storage.
type zipFile struct {
	src      io.ReaderAt
	size     int64
	folder   string
	entries  map[string]*zip.File
	storages map[string]*storage
}

func loadZip(src io.ReaderAt, size int64, nested bool) (any, error) {
	r, err := zip.NewReader(src, size)
	if err != nil {
		return nil, err
	}
	z := zipFile{src: src, size: size, entries: map[string]*zip.File{}, storages: map[string]*storage{}}
	for _, e := range r.File {
		if z.entries[e.Name] != nil {
			return nil, fmt.Errorf("zip entry %.100q appears twice", e.Name)
		}
		z.entries[e.Name] = e
		if folder, base := path.Split(e.Name); base == "data.pkl" && strings.Count(folder, "/") == 1 {
			if z.folder != "" {
				return nil, fmt.Errorf("zip has two data.pkl: %.100q and %.100q", z.folder+base, e.Name)
			}
			z.folder = folder
		}
	}
	if z.folder == "" {
		return nil, errors.New("zip has no */data.pkl")
	}
	if err := z.checkByteOrder(); err != nil {
		return nil, err
	}
	data, n, err := z.open("data.pkl")
	if err != nil {
		return nil, err
	}
	m := machine{reader: reader{src: data, size: n}, resolve: z.resolve, nested: nested}
	v, err := m.run()
	if err != nil {
		return nil, fmt.Errorf("data.pkl %w", err)
	}
	return v, nil
}

// open gives an entry's bytes where they lie. torch stores entries as they are,
// so a compressed one is no torch file; nothing is ever inflated.
func (z *zipFile) open(name string) (slice, int64, error) {
	e := z.entries[z.folder+name]
	if e == nil {
		return slice{}, 0, fmt.Errorf("zip entry %.100q is missing", z.folder+name)
	}
	const encrypted = 1
	if e.Method != zip.Store || e.Flags&encrypted != 0 {
		return slice{}, 0, fmt.Errorf("zip entry %.100q is compressed or encrypted: want it stored", e.Name)
	}
	off, err := e.DataOffset()
	if err != nil {
		return slice{}, 0, fmt.Errorf("zip entry %.100q: %w", e.Name, err)
	}
	if e.CompressedSize64 != e.UncompressedSize64 || off < 0 || off > z.size || e.UncompressedSize64 > uint64(z.size-off) {
		return slice{}, 0, fmt.Errorf("zip entry %.100q at %d: want %d bytes within the file's %d, have %d",
			e.Name, off, e.CompressedSize64, z.size, e.UncompressedSize64)
	}
	n := int64(e.UncompressedSize64)
	return newSlice(z.src, off, n), n, nil
}

// checkByteOrder reads the entry that newer torch writes; older files lack it
// and are little-endian.
func (z *zipFile) checkByteOrder() error {
	const name, want = "byteorder", "little"
	if z.entries[z.folder+name] == nil {
		return nil
	}
	data, n, err := z.open(name)
	if err != nil {
		return err
	}
	order := make([]byte, min(n, 16))
	if err := readFull(data, order, 0); err != nil {
		return err
	}
	if string(order) != want {
		return fmt.Errorf("byteorder: want %s, have %q", want, order)
	}
	return nil
}

// resolve takes ("storage", type, key, location, elements).
func (z *zipFile) resolve(pid tuple) (*storage, error) {
	e, key, numel, err := storageID(pid)
	if err != nil {
		return nil, err
	}
	if s := z.storages[key]; s != nil {
		return s, s.check(key, e, numel)
	}
	data, n, err := z.open("data/" + key)
	if err != nil {
		return nil, err
	}
	if n%int64(e.size) != 0 || n/int64(e.size) != int64(numel) {
		return nil, fmt.Errorf("storage %.100q: want %d elements of %s, have %d bytes", key, numel, e.dtype, n)
	}
	s := &storage{src: data.src, off: data.off, elem: e, numel: numel}
	z.storages[key] = s
	return s, nil
}

// storageID takes a persistent id apart.
func storageID(pid tuple) (e *elem, key string, numel int, err error) {
	if kind, err := argument[string](pid, 0); err != nil || kind != "storage" {
		return nil, "", 0, errors.New("want a persistent id that starts with \"storage\"")
	}
	g, err := argument[global](pid, 1)
	if err != nil {
		return nil, "", 0, err
	}
	e, ok := storageTypes[g.name]
	if !ok || g.module != "torch" {
		return nil, "", 0, fmt.Errorf("%s is not a storage type", g)
	}
	key, err = argument[string](pid, 2)
	if err != nil {
		return nil, "", 0, err
	}
	n, err := argument[int64](pid, 4)
	if err != nil {
		return nil, "", 0, err
	}
	if n < 0 {
		return nil, "", 0, fmt.Errorf("storage %.100q: %d elements", key, n)
	}
	// The sixth, in the legacy format, places a view within a larger storage.
	if len(pid) > 5 && pid[5] != nil {
		return nil, "", 0, fmt.Errorf("storage %.100q: views of storages are not supported", key)
	}
	return e, key, int(n), nil
}

// check refuses a second use of a storage under another type or size.
func (s *storage) check(key string, e *elem, numel int) error {
	if s.elem != e || s.numel != numel {
		return fmt.Errorf("storage %.100q: want %d elements of %s as before, have %d of %s", key, s.numel, s.elem.dtype, numel, e.dtype)
	}
	return nil
}

// legacyFile is a torch file of the format before 1.6.
type legacyFile struct {
	reader
	nested   bool
	storages map[string]*storage
}

// loadLegacy reads five pickles in a row (magic number, version, the writer's
// system, the value, the storages' keys), then each storage in the order of the
// keys: its element count in 8 bytes and its elements.
func loadLegacy(src io.ReaderAt, size int64, nested bool) (any, error) {
	l := legacyFile{
		reader:   reader{src: src, size: size, at: int64(len(legacyMagic))},
		nested:   nested,
		storages: map[string]*storage{},
	}
	version, err := l.run()
	if err != nil {
		return nil, err
	}
	if version != int64(legacyVersion) {
		return nil, fmt.Errorf("legacy version: want %d, have %v", legacyVersion, describe(version))
	}
	system, err := l.run()
	if err != nil {
		return nil, err
	}
	info, ok := system.(*dict)
	if !ok {
		return nil, fmt.Errorf("legacy system: want a dict, have %s", describe(system))
	}
	if little, _ := info.get("little_endian"); little != true {
		return nil, errors.New("legacy system: want little_endian")
	}
	root, err := l.run()
	if err != nil {
		return nil, err
	}
	keys, err := l.run()
	if err != nil {
		return nil, err
	}
	return root, l.place(keys)
}

// run evaluates the next pickle.
func (l *legacyFile) run() (any, error) {
	m := machine{reader: l.reader, resolve: l.resolve, nested: l.nested}
	v, err := m.run()
	l.reader = m.reader
	return v, err
}

// resolve takes ("storage", type, key, location, elements, None). Where the
// storage lies is known only when all have been named.
func (l *legacyFile) resolve(pid tuple) (*storage, error) {
	e, key, numel, err := storageID(pid)
	if err != nil {
		return nil, err
	}
	if s := l.storages[key]; s != nil {
		return s, s.check(key, e, numel)
	}
	s := &storage{elem: e, numel: numel}
	l.storages[key] = s
	return s, nil
}

// place finds the bytes of every storage behind the pickles.
func (l *legacyFile) place(keys any) error {
	list, ok := keys.(*list)
	if !ok {
		return fmt.Errorf("legacy keys: want a list, have %s", describe(keys))
	}
	for _, k := range list.items {
		key, _ := k.(string)
		s := l.storages[key]
		if s == nil || s.src != nil {
			return fmt.Errorf("legacy keys: %s %.100q names no storage, or one named before", describe(k), key)
		}
		at := l.at
		numel, err := l.uint(8)
		if err != nil {
			return fmt.Errorf("offset %d: storage %.100q: %w", at, key, err)
		}
		if numel != uint64(s.numel) {
			return fmt.Errorf("offset %d: storage %.100q: want %d elements, have %d", at, key, s.numel, numel)
		}
		if int64(s.numel) > (l.size-l.at)/int64(s.elem.size) {
			return fmt.Errorf("offset %d: storage %.100q: want %d elements of %s, have %d bytes", l.at, key, s.numel, s.elem.dtype, l.size-l.at)
		}
		// Not the slice itself: millions of nested files would each keep one.
		data := newSlice(l.src, l.at, 0)
		s.src, s.off = data.src, data.off
		l.at += int64(s.numel) * int64(s.elem.size)
	}
	for key, s := range l.storages {
		if s.src == nil {
			return fmt.Errorf("legacy keys: storage %.100q has no data", key)
		}
	}
	return nil
}
