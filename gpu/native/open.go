// SPDX-License-Identifier: Apache-2.0

//go:build cgo && !js && !wasip1

package native

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"fromage/gpu"
)

const (
	maxBinding  = 2<<30 - 4 // what one binding is asked for at most: byte offsets stay within 31 bits
	maxBindings = 16        // storage bindings asked for at most: the length of a bind group's key
)

// description is what a binding tells of an adapter.
type description struct {
	name, vendor, backend, driver string

	kind     wAdapterType
	features gpu.Features
	clock    bool // it times passes
	limits   wLimits
}

// adapters lists what there is, the best first. Drivers are loaded once, and the process keeps them.
var adapters = sync.OnceValues(func() ([]*wAdapter, error) {
	defer privateRuntimeDir()()
	all := enumerate(createInstance())
	if len(all) == 0 {
		return nil, errors.New("gpu/native: no WebGPU adapter: want a Vulkan, Metal or DirectX 12 driver (without a GPU, Mesa's lavapipe is one)")
	}
	slices.SortStableFunc(all, func(a, b *wAdapter) int { return cmp.Compare(rank(describe(a).kind), rank(describe(b).kind)) })
	return all, nil
})

// privateRuntimeDir gives drivers that ask for XDG_RUNTIME_DIR a directory, as they complain on standard error where there is none. The
// function that it returns takes it away again.
func privateRuntimeDir() func() {
	const name = "XDG_RUNTIME_DIR"
	if os.Getenv(name) != "" {
		return func() {}
	}
	dir, err := os.MkdirTemp("", "fromage-")
	if err != nil {
		return func() {}
	}
	os.Setenv(name, dir)
	return func() {
		os.Unsetenv(name)
		os.RemoveAll(dir)
	}
}

func rank(kind wAdapterType) int {
	switch kind {
	case adapterDiscrete:
		return 0
	case adapterIntegrated:
		return 1
	case adapterCPU:
		return 3
	}
	return 2
}

// Adapters describes every adapter, the one that Open prefers first, with the limits and features that Open would ask it for.
func Adapters() ([]gpu.Info, error) {
	all, err := adapters()
	if err != nil {
		return nil, err
	}
	var infos []gpu.Info
	for _, a := range all {
		d := describe(a)
		infos = append(infos, d.info(d.wanted(Options{}), d.features))
	}
	return infos, nil
}

// info is the gpu.Info of a device on this adapter with these limits and features.
func (d description) info(limits gpu.Limits, features gpu.Features) gpu.Info {
	return gpu.Info{
		Host: "native", Adapter: d.name, Vendor: d.vendor, Backend: d.backend, Driver: d.driver,
		Software: d.kind == adapterCPU, Features: features, Limits: limits,
	}
}

var vectorBits = regexp.MustCompile(`^llvmpipe .*\b(\d+) bits`)

// subgroupSize is the number of invocations of every subgroup on an adapter, 0 where it is not always the same: what the bindings do not tell.
func subgroupSize(vendor, name string) int {
	if m := vectorBits.FindStringSubmatch(name); m != nil {
		bits, _ := strconv.Atoi(m[1])
		return bits / 32
	}
	if vendor == "NVIDIA" || vendor == "Apple" {
		return 32
	}
	return 0
}

// vendorName is the name of a PCI vendor, or what the driver says instead.
func vendorName(id uint32, name string) string {
	known := map[uint32]string{
		0x1002: "AMD", 0x1010: "ImgTec", 0x106b: "Apple", 0x10005: "Mesa", 0x10de: "NVIDIA", 0x13b5: "ARM", 0x1414: "Microsoft",
		0x1ae0: "Google", 0x5143: "Qualcomm", 0x8086: "Intel",
	}
	if v, ok := known[id]; ok {
		return v
	}
	return name
}

// wanted is what a device is asked for on this adapter: what it offers up to what fromage can use and o caps, and never less than the defaults.
func (d description) wanted(o Options) gpu.Limits {
	pick := func(offered, useful uint64, limit, least int) int {
		n := int(min(offered, useful))
		if limit > 0 {
			n = min(n, limit)
		}
		return max(n, least)
	}
	const any = 1 << 30
	l, c, least := d.limits, o.Limits, gpu.DefaultLimits
	return gpu.Limits{
		MaxBinding:         pick(min(l.MaxStorageBufferBindingSize, l.MaxBufferSize), maxBinding, c.MaxBinding, least.MaxBinding) &^ 3,
		MaxBindings:        pick(uint64(l.MaxStorageBuffersPerShaderStage), maxBindings, c.MaxBindings, least.MaxBindings),
		MaxWorkgroupMemory: pick(uint64(l.MaxComputeWorkgroupStorageSize), any, c.MaxWorkgroupMemory, least.MaxWorkgroupMemory),
		MaxInvocations:     pick(uint64(l.MaxComputeInvocationsPerWorkgroup), any, c.MaxInvocations, least.MaxInvocations),
		MaxGroups:          pick(uint64(l.MaxComputeWorkgroupsPerDimension), any, c.MaxGroups, least.MaxGroups),
	}
}

// request says the same in WebGPU's words. Every limit left out keeps its default.
func (d description) request(w gpu.Limits) wLimits {
	l := defaultLimits()
	l.MaxStorageBufferBindingSize = uint64(w.MaxBinding)
	l.MaxBufferSize = max(uint64(w.MaxBinding), 256<<20)
	l.MaxStorageBuffersPerShaderStage = uint32(w.MaxBindings)
	l.MaxComputeWorkgroupStorageSize = uint32(w.MaxWorkgroupMemory)
	l.MaxComputeInvocationsPerWorkgroup = uint32(w.MaxInvocations)
	l.MaxComputeWorkgroupSizeX = min(uint32(w.MaxInvocations), d.limits.MaxComputeWorkgroupSizeX)
	l.MaxComputeWorkgroupSizeY = min(uint32(w.MaxInvocations), d.limits.MaxComputeWorkgroupSizeY)
	l.MaxComputeWorkgroupsPerDimension = uint32(w.MaxGroups)
	return l
}

// suits says whether o lets Open take the adapter.
func (d description) suits(o Options) bool {
	if !strings.Contains(strings.ToLower(d.name), strings.ToLower(o.Adapter)) {
		return false
	}
	switch o.Prefer {
	case Hardware:
		return d.kind != adapterCPU
	case Discrete:
		return d.kind == adapterDiscrete
	case Software:
		return d.kind == adapterCPU
	}
	return true
}

// Open makes a device on the best adapter that o allows. It asks for the limits and features that the adapter offers and, if the driver
// refuses those, for the defaults; Device.Info tells what was given.
func Open(o Options) (*Device, error) {
	all, err := adapters()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, a := range all {
		d := describe(a)
		if d.suits(o) {
			return d.open(a, o)
		}
		names = append(names, d.name)
	}
	return nil, fmt.Errorf("gpu/native: open: want %s, have %q", o.wish(), names)
}

// wish is what suits asks for, in words.
func (o Options) wish() string {
	kind := map[Preference]string{Hardware: "a hardware adapter", Discrete: "a discrete adapter", Software: "a software adapter"}[o.Prefer]
	if kind == "" {
		kind = "an adapter"
	}
	if o.Adapter != "" {
		kind += fmt.Sprintf(" with %q in its name", o.Adapter)
	}
	return kind
}

func (d description) open(a *wAdapter, o Options) (*Device, error) {
	limits, features, clock := d.wanted(o), d.features, d.clock
	if o.NoFeatures {
		features, clock = gpu.Features{}, false
	}
	w, err := requestDevice(a, o.Label, d.request(limits), features, clock)
	if err != nil {
		limits, features, clock = gpu.DefaultLimits, gpu.Features{}, false
		w, err = requestDevice(a, o.Label, d.request(limits), features, clock)
	}
	if err != nil {
		return nil, fmt.Errorf("gpu/native: open %s: %w", d.name, err)
	}
	info := d.info(limits, features)
	if o.Choices != nil {
		info.Choices = o.Choices(info)
	}
	return &Device{
		info: info, clocked: clock, handles: gpu.NewHandles(limits), device: w, queue: w.GetQueue(),
		buffers: map[gpu.Buffer]*wBuffer{}, pipelines: map[gpu.Pipeline]*pipeline{},
		groups: map[groupKey]*wBindGroup{}, users: map[gpu.Buffer]map[groupKey]struct{}{},
	}, nil
}

// ref is the C handle inside an object of the binding.
func ref[T any](object *T) unsafe.Pointer {
	return reflect.ValueOf(object).Elem().FieldByName("ref").UnsafePointer()
}
