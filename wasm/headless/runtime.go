// SPDX-License-Identifier: Apache-2.0

package headless

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
)

// Runtime is a wazero.Runtime with its cache of compiled programs.
type Runtime struct {
	wazero.Runtime
	cache wazero.CompilationCache
}

// NewRuntime makes the runtime that Instantiate wants: calls end when their context is done, and compiled programs are kept in the user's cache
// directory, so that the next start takes a twentieth of the time. Without such a directory nothing is kept.
func NewRuntime(ctx context.Context) *Runtime {
	r := &Runtime{}
	config := wazero.NewRuntimeConfig().WithCloseOnContextDone(true)
	if dir, err := os.UserCacheDir(); err == nil {
		dir = filepath.Join(dir, "fromage", "wazero")
		prune(dir)
		if r.cache, err = wazero.NewCompilationCacheWithDir(dir); err == nil {
			config = config.WithCompilationCache(r.cache)
		}
	}
	r.Runtime = wazero.NewRuntimeWithConfig(ctx, config)
	return r
}

// Close implements wazero.Runtime.
func (r *Runtime) Close(ctx context.Context) error {
	err := r.Runtime.Close(ctx)
	if r.cache == nil {
		return err
	}
	return errors.Join(err, r.cache.Close(ctx))
}

// keptFor is how long a compiled program is kept; those of earlier versions go with it.
const keptFor = 30 * 24 * time.Hour

// prune removes old files of the cache, as far as it may.
func prune(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil && time.Since(info.ModTime()) > keptFor {
			_ = os.Remove(path)
		}
		return nil
	})
}

// memory is a guest's memory, up to a limit.
type memory struct {
	limit   uint64
	b       []byte
	size    atomic.Uint64
	refused atomic.Bool // the guest wanted more
}

// Allocate implements experimental.MemoryAllocator, for one guest.
func (m *memory) Allocate(_, _ uint64) experimental.LinearMemory { return m }

// Reallocate implements experimental.LinearMemory. Room is made for a quarter more than is asked for, since a guest's memory grows often.
func (m *memory) Reallocate(size uint64) []byte {
	if size > m.limit {
		m.refused.Store(true)
		return nil
	}
	if size > uint64(cap(m.b)) {
		grown := make([]byte, size, min(m.limit, size+size/4))
		copy(grown, m.b)
		m.b = grown
	}
	m.b = m.b[:size]
	m.size.Store(size)
	return m.b
}

// Free implements experimental.LinearMemory.
func (m *memory) Free() { m.b = nil }
