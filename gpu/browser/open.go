// SPDX-License-Identifier: Apache-2.0

//go:build js && wasm

package browser

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"syscall/js"

	"fromage/gpu"
)

// What Open's errors match under errors.Is where there is no WebGPU to be had.
var (
	// ErrInsecure: browsers give WebGPU to secure contexts only.
	ErrInsecure = errors.New("WebGPU needs a secure context: open the page by https, or from localhost")
	// ErrNoWebGPU: the browser has none, or not in this worker.
	ErrNoWebGPU = errors.New("this browser has no WebGPU: want Chrome or Edge 113, Safari 26 or Firefox 141, or a later version; " +
		"on Linux, Chrome may need chrome://flags/#enable-unsafe-webgpu")
	// ErrNoAdapter: the browser has WebGPU and offers no device for it, as its driver may be on the browser's list of bad ones.
	ErrNoAdapter = errors.New("the browser has WebGPU but no adapter for it: the graphics driver may be too old or hardware acceleration switched off")
	// ErrNoScript: gpu.js was not loaded before.
	ErrNoScript = errors.New("gpu.js has not been loaded: load it as a module in the page or worker that runs this program")
)

const (
	scriptVersion = 1
	maxBinding    = 2<<30 - 4 // what one binding is asked for at most: byte offsets stay within 31 bits
	maxBindings   = 16        // storage bindings asked for at most
)

// Options say what Open asks of the browser.
type Options struct {
	// LowPower asks for the adapter that uses little power; otherwise Open asks for the fastest.
	LowPower bool
	// Label names the device in the browser's messages.
	Label string
	// Limits caps what is asked of the adapter, field by field; a field of 0 means as much as the adapter offers and fromage can use.
	// No device has less than gpu.DefaultLimits.
	Limits gpu.Limits
	// NoFeatures leaves subgroups and f16 off, so that the portable kernels run.
	NoFeatures bool
	// Choices, where set, is asked what Info.Choices of the device to be are.
	Choices func(gpu.Info) map[string]string
}

// Open makes a device on the adapter that the browser offers. It asks for the limits and features that the adapter lists and, if the browser
// refuses those, for the defaults; Device.Info tells what was given.
func Open(ctx context.Context, o Options) (*Device, error) {
	fail := func(err error) (*Device, error) { return nil, fmt.Errorf("gpu/browser: open: %w", err) }
	global := js.Global()
	script := global.Get("fromageGPU")
	if script.IsUndefined() {
		return fail(ErrNoScript)
	}
	if v := script.Get("version").Int(); v != scriptVersion {
		return fail(fmt.Errorf("gpu.js: want version %d, have %d: %w", scriptVersion, v, ErrNoScript))
	}
	if secure := global.Get("isSecureContext"); secure.Type() == js.TypeBoolean && !secure.Bool() {
		return fail(ErrInsecure)
	}
	root := global.Get("navigator").Get("gpu")
	if !root.Truthy() {
		return fail(ErrNoWebGPU)
	}
	adapter, err := requestAdapter(ctx, root, o)
	if err != nil {
		return fail(err)
	}
	limits, features := wanted(adapter, o), features(adapter, o)
	device, err := requestDevice(ctx, adapter, o, limits, features)
	if err != nil && ctx.Err() == nil {
		// An adapter that has refused once may not be asked again.
		if adapter, err = requestAdapter(ctx, root, o); err != nil {
			return fail(err)
		}
		limits, features = gpu.DefaultLimits, gpu.Features{}
		device, err = requestDevice(ctx, adapter, o, limits, features)
	}
	if err != nil {
		return fail(err)
	}
	info := describe(adapter, limits, features)
	if o.Choices != nil {
		info.Choices = o.Choices(info)
	}
	return newDevice(script.Call("open", device), info), nil
}

func requestAdapter(ctx context.Context, root js.Value, o Options) (js.Value, error) {
	preference := "high-performance"
	if o.LowPower {
		preference = "low-power"
	}
	adapter, err := await(ctx.Done(), root, "requestAdapter", map[string]any{"powerPreference": preference})
	switch {
	case ctx.Err() != nil:
		return js.Value{}, ctx.Err()
	case err != nil:
		return js.Value{}, fmt.Errorf("%w: %w", ErrNoAdapter, err)
	case !adapter.Truthy():
		return js.Value{}, ErrNoAdapter
	}
	return adapter, nil
}

func requestDevice(ctx context.Context, adapter js.Value, o Options, l gpu.Limits, f gpu.Features) (js.Value, error) {
	var required []any
	if f.Subgroups {
		required = append(required, "subgroups")
	}
	if f.F16 {
		required = append(required, "shader-f16")
	}
	offered := adapter.Get("limits")
	device, err := await(ctx.Done(), adapter, "requestDevice", map[string]any{
		"label": o.Label, "requiredFeatures": required,
		"requiredLimits": map[string]any{
			"maxStorageBufferBindingSize":       l.MaxBinding,
			"maxBufferSize":                     max(l.MaxBinding, 256<<20),
			"maxStorageBuffersPerShaderStage":   l.MaxBindings,
			"maxComputeWorkgroupStorageSize":    l.MaxWorkgroupMemory,
			"maxComputeInvocationsPerWorkgroup": l.MaxInvocations,
			"maxComputeWorkgroupSizeX":          min(l.MaxInvocations, number(offered.Get("maxComputeWorkgroupSizeX"))),
			"maxComputeWorkgroupSizeY":          min(l.MaxInvocations, number(offered.Get("maxComputeWorkgroupSizeY"))),
			"maxComputeWorkgroupsPerDimension":  l.MaxGroups,
		},
	})
	if ctx.Err() != nil {
		return js.Value{}, ctx.Err()
	}
	return device, err
}

// wanted is what a device is asked for on this adapter: what it offers up to what fromage can use and o caps, and never less than the defaults.
func wanted(adapter js.Value, o Options) gpu.Limits {
	offered := adapter.Get("limits")
	pick := func(name string, useful, limit, least int) int {
		n := least
		if v := offered.Get(name); v.Type() == js.TypeNumber {
			n = min(v.Int(), useful)
		}
		if limit > 0 {
			n = min(n, limit)
		}
		return max(n, least)
	}
	const any = 1 << 30
	c, least := o.Limits, gpu.DefaultLimits
	room := pick("maxBufferSize", maxBinding, 0, least.MaxBinding)
	return gpu.Limits{
		MaxBinding:         pick("maxStorageBufferBindingSize", room, c.MaxBinding, least.MaxBinding) &^ 3,
		MaxBindings:        pick("maxStorageBuffersPerShaderStage", maxBindings, c.MaxBindings, least.MaxBindings),
		MaxWorkgroupMemory: pick("maxComputeWorkgroupStorageSize", any, c.MaxWorkgroupMemory, least.MaxWorkgroupMemory),
		MaxInvocations:     pick("maxComputeInvocationsPerWorkgroup", any, c.MaxInvocations, least.MaxInvocations),
		MaxGroups:          pick("maxComputeWorkgroupsPerDimension", any, c.MaxGroups, least.MaxGroups),
	}
}

func features(adapter js.Value, o Options) (f gpu.Features) {
	if o.NoFeatures {
		return f
	}
	has := func(name string) bool { return adapter.Get("features").Call("has", name).Bool() }
	f.F16 = has("shader-f16")
	if f.Subgroups = has("subgroups"); f.Subgroups {
		info := infoOf(adapter)
		f.SubgroupMin, f.SubgroupMax = number(info.Get("subgroupMinSize")), number(info.Get("subgroupMaxSize"))
	}
	return f
}

// infoOf is what the browser says of an adapter, an empty object where it is too old to say anything.
func infoOf(adapter js.Value) js.Value {
	if info := adapter.Get("info"); info.Truthy() {
		return info
	}
	return js.Global().Get("Object").New()
}

// software are the names under which adapters compute on a CPU; not every browser marks those as fallbacks.
var software = regexp.MustCompile(`(?i)swiftshader|llvmpipe|lavapipe|softpipe|warp|basic render`)

// describe says of the adapter what the browser tells, which for the sake of privacy is little.
func describe(adapter js.Value, limits gpu.Limits, features gpu.Features) gpu.Info {
	info := infoOf(adapter)
	vendor, architecture := text(info.Get("vendor")), text(info.Get("architecture"))
	name := cmp.Or(text(info.Get("description")), text(info.Get("device")), architecture, vendor, "unnamed WebGPU adapter")
	fallback := info.Get("isFallbackAdapter").Truthy() || adapter.Get("isFallbackAdapter").Truthy()
	return gpu.Info{
		Host: "browser", Adapter: name, Vendor: vendor, Backend: "WebGPU", Driver: text(js.Global().Get("navigator").Get("userAgent")),
		Software: fallback || software.MatchString(name+" "+architecture), Features: features, Limits: limits,
	}
}

// text is a JavaScript string, "" for anything else.
func text(v js.Value) string {
	if v.Type() != js.TypeString {
		return ""
	}
	return v.String()
}

// number is a JavaScript number, 0 for anything else.
func number(v js.Value) int {
	if v.Type() != js.TypeNumber {
		return 0
	}
	return v.Int()
}
