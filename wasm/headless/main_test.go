// SPDX-License-Identifier: Apache-2.0

package headless

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"fromage/assets"
	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/internal/wasmbuild"
	"fromage/internal/wazerohost"
	"fromage/runner"
	"fromage/wasm/headless/lines"
)

// The tests have a cache of compiled programs of their own.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "headless_test")
	if err == nil {
		err = os.Setenv("XDG_CACHE_HOME", dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// build builds a program for wasip1.
func build(pkg string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "headless_test")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path, err := wazerohost.Build(context.Background(), dir, pkg, false)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

var program = sync.OnceValues(func() ([]byte, error) {
	return wasmbuild.Build(context.Background(), "wasip1", "fromage/wasm/headless/guest")
})

// instantiate makes a model of the embedded bundle and the guest's program where c does not say otherwise, until the test ends.
func instantiate(t testing.TB, dev gpu.Device, c Config) *Model {
	t.Helper()
	if c.Wasm == nil {
		var err error
		if c.Wasm, err = program(); err != nil {
			t.Fatal(err)
		}
	}
	if c.Files == nil {
		c.Files, c.Model, c.Index = assets.Files(), assets.BundleFile, assets.IndexFile
	}
	ctx := context.Background()
	r := NewRuntime(ctx)
	t.Cleanup(func() {
		if err := r.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	m, err := Instantiate(ctx, r, dev, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return m
}

// devices calls f for the cpu device and every other but the twins, which compute what the cpu device does, slowly.
func devices(t *testing.T, f func(t *testing.T, dev gpu.Device)) {
	for _, dev := range kerneltest.All(t) {
		if dev.Info().Host != "twins" {
			t.Run(dev.Info().Host, func(t *testing.T) { f(t, dev) })
		}
	}
}

func start(t testing.TB, m *Model) *Guest {
	t.Helper()
	g, err := m.Guest(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// say is what a guest answers to a short prompt.
func say(t testing.TB, g *Guest, prompt string) (text string) {
	t.Helper()
	o := runner.DefaultOptions()
	o.NumWords, o.IgnoreEOS = 3, true
	q := lines.Request{Prompt: []lines.Item{{Text: prompt}}, Options: &o}
	if err := g.Ask(t.Context(), q, func(l lines.Line) { text += l.Text }); err != nil {
		t.Fatal(err)
	}
	return text
}
