// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"fromage/runner"
)

// Pictures are the files that a data set's rows name: in a folder, in a tar archive, or elsewhere. Read may be called concurrently.
type Pictures struct {
	elsewhere func(name string) ([]byte, error) // of PicturesFrom; nothing else is set then but hash
	hash      func(name string) (sum [32]byte, ok bool)

	path    string           // absolute
	root    *os.Root         // of a folder
	archive *os.File         // of an archive, uncompressed
	entries map[string]entry // of an archive
	version string           // of an archive: size and time
	remove  string           // a temporary file, where it could not be removed while it is open
}

// entry is where a file lies in an archive.
type entry struct{ offset, size int64 }

// MaxPicture is the most bytes of a picture file.
const MaxPicture = 64 << 20

// OpenPictures opens a folder, a tar archive, or a compressed one (.tar.gz, .tgz). An archive is read through once, to list it; a compressed one is
// unpacked to a temporary file, since it cannot be sought in: for large collections take a folder or a plain .tar. progress, if any, counts the
// archive's bytes.
func OpenPictures(ctx context.Context, name string, progress func(runner.Progress)) (*Pictures, error) {
	p, err := openPictures(ctx, name, progress)
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("dataset: pictures: %w", err)
	}
	return p, nil
}

// PicturesFrom are pictures that read returns. hash, if any, tells the SHA-256 of a picture's bytes where that is known without reading it.
func PicturesFrom(read func(name string) ([]byte, error), hash func(name string) ([32]byte, bool)) *Pictures {
	return &Pictures{elsewhere: read, hash: hash}
}

func openPictures(ctx context.Context, name string, progress func(runner.Progress)) (*Pictures, error) {
	p := &Pictures{}
	info, err := os.Stat(name)
	if err != nil {
		return p, err
	}
	if p.path, err = filepath.Abs(name); err != nil {
		return p, err
	}
	if info.IsDir() {
		p.root, err = os.OpenRoot(name)
		return p, err
	}
	if !info.Mode().IsRegular() {
		return p, fmt.Errorf("%s: want a folder or a tar archive, have a pipe or device", name)
	}
	p.version = fmt.Sprintf("%d\x00%d", info.Size(), info.ModTime().UnixNano())
	if p.archive, err = os.Open(name); err != nil {
		return p, err
	}
	magic := make([]byte, 2)
	if n, _ := p.archive.ReadAt(magic, 0); n == 2 && string(magic) == "\x1f\x8b" {
		if err := p.unpack(ctx, info.Size(), progress); err != nil {
			return p, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := p.list(ctx, progress); err != nil {
		return p, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// unpack puts a temporary file with the archive's contents in place of the compressed one.
func (p *Pictures) unpack(ctx context.Context, size int64, progress func(runner.Progress)) error {
	packed := p.archive
	defer packed.Close()
	var err error
	if p.archive, err = os.CreateTemp("", "fromage-pictures-*.tar"); err != nil {
		return err
	}
	if os.Remove(p.archive.Name()) != nil {
		p.remove = p.archive.Name()
	}
	in := &counted{ctx, packed, runner.Progress{Total: size, What: "archive"}, progress}
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	_, err = io.Copy(p.archive, z)
	return err
}

// counted is a file that tells how far it was read, and ends with its context.
type counted struct {
	ctx      context.Context
	f        *os.File
	at       runner.Progress
	progress func(runner.Progress)
}

func (c *counted) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.f.Read(b)
	if c.at.Done += int64(n); c.progress != nil {
		c.progress(c.at)
	}
	return n, err
}

// list notes where the archive's files lie. Of two with one name the later is taken, as tar takes it.
func (p *Pictures) list(ctx context.Context, progress func(runner.Progress)) error {
	size, err := p.archive.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := p.archive.Seek(0, io.SeekStart); err != nil {
		return err
	}
	p.entries = map[string]entry{}
	// The reader takes nothing ahead of what it needs, so that after a header the file stands at the contents.
	for t := tar.NewReader(p.archive); ; {
		h, err := t.Next()
		if err == io.EOF && len(p.entries) == 0 {
			return errors.New("want a tar archive of pictures, have no files in it")
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		at, err := p.archive.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if name := path.Clean(h.Name); h.Typeflag == tar.TypeReg && !sparse(h) && filepath.IsLocal(name) {
			p.entries[name] = entry{at, h.Size}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if progress != nil {
			progress(runner.Progress{Done: at, Total: size, What: "archive"})
		}
	}
}

// sparse says whether a file's contents lie in the archive in pieces.
func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// Read returns a file's bytes, by its path within the folder or archive. No path leads out of a folder, by .. or by links.
func (p *Pictures) Read(name string) ([]byte, error) {
	data, err := p.read(name)
	if err != nil {
		return nil, &PictureError{name, err}
	}
	return data, nil
}

// PictureError says that a picture is missing or cannot be read. Callers leave it out, count it and list it.
type PictureError struct {
	Name string
	Err  error
}

func (e *PictureError) Error() string { return e.Name + ": " + e.reason() }
func (e *PictureError) Unwrap() error { return e.Err }

// reason is the error without the operation and the path that package os puts first.
func (e *PictureError) reason() string {
	var inner *fs.PathError
	if errors.As(e.Err, &inner) {
		return inner.Err.Error()
	}
	return e.Err.Error()
}

func (p *Pictures) read(name string) ([]byte, error) {
	if p.elsewhere != nil {
		return p.elsewhere(name)
	}
	if p.root == nil {
		e, ok := p.entries[path.Clean(name)]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return readAll(io.NewSectionReader(p.archive, e.offset, e.size), e.size)
	}
	info, err := p.stat(name)
	if err != nil {
		return nil, err
	}
	f, err := p.root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, info.Size())
}

// stat is of a regular file within the folder: a pipe would block whoever opens it.
func (p *Pictures) stat(name string) (fs.FileInfo, error) {
	info, err := p.root.Stat(filepath.FromSlash(name))
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("want a picture file, have a folder, pipe or device")
	}
	return info, err
}

func readAll(r io.Reader, size int64) ([]byte, error) {
	if size > MaxPicture {
		return nil, fmt.Errorf("want a picture of at most %d bytes, have %d", MaxPicture, size)
	}
	data, err := io.ReadAll(io.LimitReader(r, MaxPicture))
	if err == nil && int64(len(data)) < size {
		err = io.ErrUnexpectedEOF
	}
	return data, err
}

// Stems lists the files by their names without folder and extension; of several with one name the first by path is taken. Folders that links lead to are
// not looked into.
func (p *Pictures) Stems() (map[string]string, error) {
	var names []string
	for name := range p.entries {
		names = append(names, name)
	}
	if p.root != nil {
		err := fs.WalkDir(p.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				names = append(names, name)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("dataset: pictures: %s: %w", p.path, err)
		}
	}
	slices.Sort(names)
	stems := make(map[string]string, len(names))
	for _, name := range names {
		base := path.Base(name)
		stem := strings.TrimSuffix(base, path.Ext(base))
		if _, taken := stems[stem]; !taken {
			stems[stem] = name
		}
	}
	return stems, nil
}

// identity is a text that stays the same while a file does: where it is, its size and its time. False where there is no such file.
func (p *Pictures) identity(name string) (string, bool) {
	version := p.version
	if p.elsewhere != nil {
		return "", false
	}
	if p.root == nil {
		e, ok := p.entries[path.Clean(name)]
		if !ok {
			return "", false
		}
		version += fmt.Sprintf("\x00%d", e.offset)
	} else {
		info, err := p.stat(name)
		if err != nil {
			return "", false
		}
		version = fmt.Sprintf("%d\x00%d", info.Size(), info.ModTime().UnixNano())
	}
	return p.path + "\x00" + path.Clean(name) + "\x00" + version, true
}

// Close closes what OpenPictures opened.
func (p *Pictures) Close() {
	if p.root != nil {
		p.root.Close()
	}
	if p.archive != nil {
		p.archive.Close()
	}
	if p.remove != "" {
		os.Remove(p.remove)
	}
}
