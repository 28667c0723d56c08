// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/experimental/logging"

	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/internal/kerneltest"
	"fromage/internal/wazerohost"
)

var update = flag.Bool("update", false, "write testdata/calls.txt anew")

// remoteTests builds the tests of gpu/remote as a guest, once.
var remoteTests = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "host_test")
	if err != nil {
		return "", err
	}
	return wazerohost.Build(context.Background(), dir, "fromage/gpu/remote", true)
})

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if path, err := remoteTests(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// run runs tests of gpu/remote as a guest on dev and returns its output; a failure of theirs is one of t.
func run(ctx context.Context, t *testing.T, dev gpu.Device, interpreter bool, pattern string) string {
	t.Helper()
	wasm, err := remoteTests()
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	p := wazerohost.Program{
		Wasm: wasm, Args: []string{"-test.v", "-test.short", "-test.run", pattern}, Dir: root, Root: root,
		Stdout: &out, Stderr: &out, Device: dev, Interpreter: interpreter,
	}
	code, err := p.Run(ctx)
	if code != 0 || err != nil || !strings.Contains(out.String(), "--- PASS") {
		t.Errorf("the guest's tests end with %d, %v:\n%s", code, err, out.String())
	}
	return out.String()
}

// A guest's device passes the suite of every device, whatever computes.
func TestConformance(t *testing.T) {
	kerneltest.Devices(t, func(t *testing.T, dev gpu.Device) {
		if dev.Info().Host == "twins" {
			return // they are the cpu device here: the suite's kernels have nothing faster
		}
		run(t.Context(), t, dev, false, "TestConformance|TestVersion")
	})
	t.Run("interpreter", func(t *testing.T) {
		dev := cpu.New()
		defer dev.Close()
		run(t.Context(), t, dev, true, "TestConformance/(Info|Bounds|Freed|Dispatch|Params|OrderInList|Refused.*|Compile|Closed)$|TestVersion")
	})
}

// named is a device with the same description on every machine.
type named struct{ gpu.Device }

func (n named) Info() gpu.Info {
	info := n.Device.Info()
	info.Adapter = "a device"
	return info
}

// The calls of a guest are those of the table in package remote.
func TestCallLog(t *testing.T) {
	dev := named{cpu.New()}
	defer dev.Close()
	var log strings.Builder
	ctx := experimental.WithFunctionListenerFactory(t.Context(), logging.NewHostLoggingListenerFactory(&log, logging.LogScopeAll))
	run(ctx, t, dev, false, "TestScenario")
	address := regexp.MustCompile(`_ptr=\d+`)
	var calls strings.Builder
	ours := false
	for line := range strings.Lines(log.String()) {
		line = strings.TrimLeft(line, "\t")
		switch {
		case strings.HasPrefix(line, "==> fromage_gpu."):
			ours = true
			calls.WriteString(address.ReplaceAllString(strings.TrimPrefix(line, "==> fromage_gpu."), "_ptr=…"))
		case strings.HasPrefix(line, "<==") && ours:
			ours = false
			calls.WriteString(line)
		}
	}
	const path = "testdata/calls.txt"
	if *update {
		if err := os.WriteFile(path, []byte(calls.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if calls.String() != string(want) {
		t.Errorf("the calls are\n%swant\n%s(go test -update takes them)", calls.String(), want)
	}
}
