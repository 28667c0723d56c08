// SPDX-License-Identifier: Apache-2.0

//go:build unix

package shaders_test

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"sort"
	"testing"
	"time"

	"fromage/gpu"
	"fromage/internal/browserhost"
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
	path, err := browserhost.Find()
	if err != nil {
		if browserhost.Required() {
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
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	ended := make(chan error, 1)
	go func() {
		defer close(ended)
		ended <- browserhost.Open(ctx, path, server.URL)
	}()
	defer func() {
		cancel()
		for range ended { // until the browser is gone
		}
	}()
	select {
	case body := <-results:
		checkResult(t, kernels, body)
	case err := <-ended:
		t.Fatalf("the page has not answered: %v", errors.Join(err, ctx.Err()))
	}
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
