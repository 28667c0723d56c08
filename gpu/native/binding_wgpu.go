// SPDX-License-Identifier: Apache-2.0

//go:build cgo && !js && !wasip1 && !cogentcore

package native

/*
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// From webgpu.h of wgpu-native 29: what the Go binding does not offer. It opens validation scopes only, so running out of memory would end
// the process.
typedef struct { char const *data; size_t length; } fromage_view;
typedef void (*fromage_popped)(uint32_t status, uint32_t type, fromage_view message, void *to, void *unused);
typedef struct { void *next; uint32_t mode; fromage_popped callback; void *to; void *unused; } fromage_pop_info;
typedef struct { uint64_t id; } fromage_future;

extern void wgpuDevicePushErrorScope(void *device, uint32_t filter);
extern fromage_future wgpuDevicePopErrorScope(void *device, fromage_pop_info info);
extern void wgpuDeviceDestroy(void *device);

enum { fromage_filters = 2, fromage_no_error = 1 }; // validation, out of memory; this wgpu-native has no scope for internal errors

typedef struct { char *data; size_t size; uint32_t type; } fromage_error;

static void fromage_note(uint32_t status, uint32_t type, fromage_view message, void *to, void *unused) {
	fromage_error *e = to;
	if (type == fromage_no_error || e->type != 0) return;
	e->type = type;
	size_t n = message.data == NULL ? 0 : message.length == SIZE_MAX ? strlen(message.data) : message.length;
	if (n >= e->size) n = e->size - 1;
	if (n > 0) memcpy(e->data, message.data, n);
	e->data[n] = 0;
}

static void fromage_push(void *device) {
	for (uint32_t filter = 1; filter <= fromage_filters; filter++) wgpuDevicePushErrorScope(device, filter);
}

// fromage_pop closes the scopes and returns the type of the first error among them, 0 for none, with its text.
static uint32_t fromage_pop(void *device, char *text, size_t size) {
	fromage_error e = {text, size, 0};
	fromage_pop_info info = {.callback = fromage_note, .to = &e};
	for (int i = 0; i < fromage_filters; i++) wgpuDevicePopErrorScope(device, info);
	return e.type;
}
*/
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/oliverbestmann/webgpu/wgpu"

	"fromage/gpu"
)

type (
	wAdapter         = wgpu.Adapter
	wAdapterType     = wgpu.AdapterType
	wBindGroup       = wgpu.BindGroup
	wBindGroupEntry  = wgpu.BindGroupEntry
	wBindGroupLayout = wgpu.BindGroupLayout
	wBuffer          = wgpu.Buffer
	wCommandBuffer   = wgpu.CommandBuffer
	wDevice          = wgpu.Device
	wEncoder         = wgpu.CommandEncoder
	wInstance        = wgpu.Instance
	wLimits          = wgpu.Limits
	wPass            = wgpu.ComputePassEncoder
	wPipeline        = wgpu.ComputePipeline
	wQueue           = wgpu.Queue
	wShaderModule    = wgpu.ShaderModule

	wBindGroupDescriptor       = wgpu.BindGroupDescriptor
	wBindGroupLayoutDescriptor = wgpu.BindGroupLayoutDescriptor
	wBindGroupLayoutEntry      = wgpu.BindGroupLayoutEntry
	wBufferBindingLayout       = wgpu.BufferBindingLayout
	wBufferDescriptor          = wgpu.BufferDescriptor
	wBufferUsage               = wgpu.BufferUsage
	wComputePipelineDescriptor = wgpu.ComputePipelineDescriptor
	wPipelineLayoutDescriptor  = wgpu.PipelineLayoutDescriptor
	wProgrammableStage         = wgpu.ProgrammableStageDescriptor
)

const (
	usageStorage = wgpu.BufferUsageStorage | wgpu.BufferUsageCopySrc | wgpu.BufferUsageCopyDst
	usageUniform = wgpu.BufferUsageUniform | wgpu.BufferUsageCopyDst
	usageStaging = wgpu.BufferUsageMapRead | wgpu.BufferUsageCopyDst

	bindUniform   = wgpu.BufferBindingTypeUniform
	bindRead      = wgpu.BufferBindingTypeReadOnlyStorage
	bindReadWrite = wgpu.BufferBindingTypeStorage

	stageCompute = wgpu.ShaderStageCompute
	wholeSize    = wgpu.WholeSize

	adapterDiscrete   = wgpu.AdapterTypeDiscreteGPU
	adapterIntegrated = wgpu.AdapterTypeIntegratedGPU
	adapterCPU        = wgpu.AdapterTypeCPU
)

var (
	createBuffer          = (*wDevice).TryCreateBuffer
	createBindGroup       = (*wDevice).TryCreateBindGroup
	createBindGroupLayout = (*wDevice).TryCreateBindGroupLayout
	createPipelineLayout  = (*wDevice).TryCreatePipelineLayout
	createPipeline        = (*wDevice).TryCreateComputePipeline
	createEncoder         = (*wDevice).TryCreateCommandEncoder
	writeBuffer           = (*wQueue).TryWriteBuffer
	copyBuffer            = (*wEncoder).TryCopyBufferToBuffer
	clearBuffer           = (*wEncoder).TryClearBuffer
	finish                = (*wEncoder).TryFinish
	endPass               = (*wPass).TryEnd
	unmap                 = (*wBuffer).TryUnmap
)

// createInstance asks for the backends that compute well; left out is OpenGL, whose probing writes to standard error.
func createInstance() *wInstance {
	const vulkan, metal, dx12 = 1 << 0, 1 << 2, 1 << 3
	wgpu.SetLogLevel(wgpu.LogLevelOff)
	return wgpu.CreateInstance(&wgpu.InstanceDescriptor{Backends: vulkan | metal | dx12})
}

func enumerate(i *wInstance) []*wAdapter { return i.EnumerateAdapters(nil) }

func createShaderModule(d *wDevice, label, code string) (*wShaderModule, error) {
	return d.TryCreateShaderModule(&wgpu.ShaderModuleDescriptor{Label: label, WGSLSource: &wgpu.ShaderSourceWGSL{Code: code}})
}

// enables is what must stand before a kernel's source: this compiler demands the f16 line and refuses the subgroups line.
func enables(k *gpu.Kernel) string {
	if k.F16 {
		return "enable f16; "
	}
	return ""
}

// describe leaves the subgroup sizes at 0, as this wgpu-native tells none.
func describe(a *wAdapter) description {
	i := a.GetInfo()
	d := description{
		name: i.Device, vendor: vendorName(i.VendorId, i.Vendor), backend: i.BackendType.String(), driver: i.Description,
		kind: i.AdapterType, limits: a.GetLimits(),
	}
	for _, f := range a.GetFeatures() {
		switch f {
		case wgpu.FeatureNameSubgroups, wgpu.NativeFeatureSubgroup:
			d.features.Subgroups = true
		case wgpu.FeatureNameShaderF16:
			d.features.F16 = true
		}
	}
	return d
}

func requestDevice(a *wAdapter, label string, l wLimits, f gpu.Features, lost func(reason string)) (*wDevice, error) {
	l.MaxImmediateSize = 0
	var names []wgpu.FeatureName
	if f.Subgroups {
		names = append(names, wgpu.NativeFeatureSubgroup)
	}
	if f.F16 {
		names = append(names, wgpu.FeatureNameShaderF16)
	}
	return a.RequestDevice(&wgpu.DeviceDescriptor{
		Label: label, RequiredFeatures: names, RequiredLimits: &l,
		DeviceLostCallback: func(reason wgpu.DeviceLostReason, message string) { lost(fmt.Sprintf("%v: %s", reason, message)) },
	})
}

func limitsOf(d *wDevice) wLimits { return d.GetLimits() }

func defaultLimits() wLimits { return wgpu.DefaultLimits() }

// mapRead waits for the device and maps the first size bytes of b.
func mapRead(d *wDevice, b *wBuffer, size int) error {
	status := wgpu.MapAsyncStatus(0)
	if err := b.TryMapAsync(wgpu.MapModeRead, 0, uint64(size), func(s wgpu.MapAsyncStatus) { status = s }); err != nil {
		return err
	}
	d.Poll(true, nil)
	if status != wgpu.MapAsyncStatusSuccess {
		return fmt.Errorf("map: status %v", status)
	}
	return nil
}

func pushScopes(device unsafe.Pointer) { C.fromage_push(device) }

// popScopes closes the scopes of pushScopes and returns their first error, with its text cut to the length of text.
func popScopes(device unsafe.Pointer, text []byte) error {
	const outOfMemory = 3
	kind := C.fromage_pop(device, (*C.char)(unsafe.Pointer(&text[0])), C.size_t(len(text)))
	return scopeError(kind != 0, kind == outOfMemory, text)
}

func destroyDevice(device unsafe.Pointer) { C.wgpuDeviceDestroy(device) }
