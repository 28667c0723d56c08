// SPDX-License-Identifier: Apache-2.0

//go:build unix

package shaders_test

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sort"
	"syscall"
	"testing"
	"time"

	"fromage/gpu"
	"fromage/shaders"
)

//go:embed browser_test.html
var browserPage []byte

// browserKernel is what the page needs to make a pipeline.
type browserKernel struct {
	Name     string
	Source   string
	Bindings []string // GPUBufferBindingLayout.type
	Features []string // GPUFeatureName
}

// refused is a kernel that no browser may take: how often its invocations meet at the barrier depends on a buffer that is written.
var refused = browserKernel{Name: "refused", Bindings: []string{"storage"}, Source: `
@group(0) @binding(1) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(64)
fn main() {
    for (var i = 0u; i < y[0]; i++) {
        workgroupBarrier();
    }
}
`}

// TestBrowser makes a pipeline of every kernel with a browser's own WGSL compiler, which refuses barriers and names that wgpu-native takes.
// Without a browser it is skipped, and fails where FROMAGE_REQUIRE_BROWSER is 1.
func TestBrowser(t *testing.T) {
	path, err := findBrowser()
	if err != nil {
		if os.Getenv("FROMAGE_REQUIRE_BROWSER") == "1" {
			t.Fatal(err)
		}
		t.Skipf("NO BROWSER: no kernel was compiled with a browser's compiler: %v", err)
	}
	kernels := append(browserKernels(), refused)
	results := make(chan []byte, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { w.Write(browserPage) })
	mux.HandleFunc("GET /kernels", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(kernels) })
	mux.HandleFunc("POST /result", func(_ http.ResponseWriter, r *http.Request) {
		var body json.RawMessage
		if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 1<<20)).Decode(&body); err != nil {
			body, _ = json.Marshal(map[string]string{"Error": "the page's answer is broken: " + err.Error()})
		}
		select {
		case results <- body:
		default:
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	startBrowser(t, path, server.URL)
	select {
	case body := <-results:
		checkResult(t, kernels, body)
	case <-time.After(90 * time.Second):
		t.Fatalf("%s has not answered in 90 s", path)
	}
}

func findBrowser() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("neither chromium nor google-chrome is in PATH")
}

// startBrowser opens url in a headless browser that ends, with all its processes, when the test does.
func startBrowser(t *testing.T, path, url string) {
	t.Helper()
	profile, err := os.MkdirTemp("", "fromage-browser-")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, "--headless", "--no-sandbox", "--enable-unsafe-webgpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+profile, url)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed, so always an error
		// The group's other processes may write to the profile for a moment yet.
		for range 20 {
			if os.RemoveAll(profile) == nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Logf("%s is left over", profile)
	})
}

// browserKernels returns every kernel of Cases in every variant that some browser may get.
func browserKernels() []browserKernel {
	byName := map[string]browserKernel{}
	for _, c := range shaders.Cases() {
		for bits := range 16 {
			info := gpu.Info{Host: "browser", Software: bits&1 != 0, Limits: gpu.DefaultLimits}
			info.Features.F16 = bits&2 != 0
			if bits&4 != 0 {
				info.Features.Subgroups, info.Features.SubgroupMin, info.Features.SubgroupMax = true, 32, 32
				if bits&8 != 0 {
					info.Features.SubgroupMin, info.Features.SubgroupMax = 4, 64
				}
			}
			k := c.Dispatch(info).Kernel
			byName[k.Name] = describe(k)
		}
	}
	kernels := make([]browserKernel, 0, len(byName))
	for _, k := range byName {
		kernels = append(kernels, k)
	}
	sort.Slice(kernels, func(i, j int) bool { return kernels[i].Name < kernels[j].Name })
	return kernels
}

func describe(k *gpu.Kernel) browserKernel {
	b := browserKernel{Name: k.Name, Source: k.Source}
	for _, access := range k.Bindings {
		b.Bindings = append(b.Bindings, map[gpu.Access]string{gpu.Read: "read-only-storage", gpu.ReadWrite: "storage"}[access])
	}
	if k.F16 {
		b.Source, b.Features = "enable f16;\n"+b.Source, append(b.Features, "shader-f16")
	}
	if k.Subgroups {
		b.Source, b.Features = "enable subgroups;\n"+b.Source, append(b.Features, "subgroups")
	}
	return b
}

func checkResult(t *testing.T, kernels []browserKernel, body []byte) {
	t.Helper()
	var result struct {
		Error   string              // of the page as a whole
		Adapter string              // for people
		Left    []string            // kernels that need features the adapter lacks
		Errors  map[string][]string // by kernel; none for those that are fine
	}
	if err := json.Unmarshal(body, &result); err != nil {
		t.Fatal(err)
	}
	if result.Error != "" {
		t.Fatal(result.Error)
	}
	for _, k := range kernels {
		errors, ok := result.Errors[k.Name]
		if !ok {
			t.Errorf("%s: the page says nothing about it", k.Name)
		}
		if k.Name == refused.Name {
			if len(errors) == 0 {
				t.Error("the page takes a kernel that it must refuse")
			}
			continue
		}
		for _, e := range errors {
			t.Errorf("%s: %s", k.Name, e)
		}
	}
	t.Logf("%d kernels on %s", len(kernels)-1, result.Adapter)
	if len(result.Left) > 0 {
		t.Logf("NOT COMPILED, for want of features: %v", result.Left)
	}
}
