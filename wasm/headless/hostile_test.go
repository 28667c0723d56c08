// SPDX-License-Identifier: Apache-2.0

//go:build unix

package headless

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fromage/assets"
	"fromage/gpu"
	"fromage/gpu/host"
	"fromage/wasm/headless/lines"
)

// trap is a folder with traps in it, and the embedded bundle as "model".
type trap struct{ fs.FS }

func (f trap) Open(name string) (fs.File, error) {
	if name == "model" {
		return assets.Files().Open(assets.BundleFile)
	}
	return f.FS.Open(name)
}

func trapped(t *testing.T) fs.FS {
	t.Helper()
	dir := t.TempDir()
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "folder"), 0o777),
		os.Symlink("/etc/passwd", filepath.Join(dir, "link")),
		os.Symlink("/etc/passwd", filepath.Join(dir, "folder", "link")),
		syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o666),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return trap{Folder(root)}
}

// TestHostile lets a guest do its worst, each time beside an honest one that goes on: the host says what came of it, and nothing is left behind.
func TestHostile(t *testing.T) {
	wasm, err := build("fromage/wasm/headless/testdata/hostile")
	if err != nil {
		t.Fatal(err)
	}
	b, err := assets.Bundle()
	if err != nil {
		t.Fatal(err)
	}
	weight := b.Manifest().Tensors[0].Shards[0].Values
	const outside = "want addresses in the guest's memory"
	devices(t, func(t *testing.T, dev gpu.Device) {
		honest := start(t, instantiate(t, dev, Config{}))
		want := say(t, honest, "Once upon a time")
		m := instantiate(t, dev, Config{
			Files: trapped(t), Model: "model", Wasm: wasm, Memory: 96 << 20,
			Limits: host.Limits{Buffers: 500, Bytes: 64 << 20},
		})
		for _, c := range []struct {
			act   string
			time  time.Duration // that the host gives; 0 is enough
			ended string        // a part of why the guest ended; "" where the host only refused
		}{
			{"handles", 0, ""},
			{"sizes", 0, ""},
			{"buffers", 0, ""},
			{"parameters", 0, ""},
			{"kernels", 0, ""},
			{"closed", 0, ""},
			{"lists", 0, ""},
			{fmt.Sprintf("weights: %s %d", weight.SHA256, weight.Size), 0, ""},
			{"files", 0, ""},
			{"stderr", 0, ""},
			{"address", 0, "gpu/host: read: " + outside},
			{"all memory", 0, "gpu/host: write: " + outside},
			{"list outside", 0, "gpu/host: submit: " + outside},
			{"text outside", 0, "gpu/host: info: " + outside},
			{"device", 0, "gpu/host: wait: the guest has no device 99"},
			{"loop", 300 * time.Millisecond, "the request took longer than 300ms"},
			{"sleep", 300 * time.Millisecond, "the request took longer than 300ms"},
			{"storm", 300 * time.Millisecond, "the request took longer than 300ms"},
			{"memory", 0, "it wanted more than 100663296 bytes of memory"},
			{"stack", 0, "has ended"},
			{"exit", 0, "exit code 7"},
			{"panic", 0, "exit code 2: panic: on purpose"},
			{"babble", 0, `it wrote "this is not JSON"`},
			{"flood", 0, "token too long"},
		} {
			name, _, _ := strings.Cut(c.act, ":")
			t.Run(name, func(t *testing.T) {
				g := start(t, m)
				m.config.Time = c.time
				stop := ""
				err := g.Ask(t.Context(), lines.Request{Prompt: []lines.Item{{Text: c.act}}}, func(l lines.Line) {
					if l.Done != nil {
						stop = l.Done.Stop
					}
				})
				switch {
				case c.ended == "" && (err != nil || stop != "refused"):
					t.Errorf("%s = %q, %v, want everything refused", c.act, stop, err)
				case c.ended != "" && (!errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), c.ended) || strings.Contains(err.Error(), "\n")):
					t.Errorf("%s = %q, %v, want the guest ended in a line that has %q", c.act, stop, err, c.ended)
				default:
					t.Log(err)
				}
				if err := g.Close(); err != nil {
					t.Errorf("Close() = %v", err)
				}
				if u := m.Usage(); u != (host.Usage{}) {
					t.Errorf("the guest leaves %+v", u)
				}
				if got := say(t, honest, "Once upon a time"); got != want {
					t.Errorf("the honest guest says %q, want %q", got, want)
				}
			})
		}
	})
}
