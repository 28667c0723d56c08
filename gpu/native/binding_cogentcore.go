// SPDX-License-Identifier: Apache-2.0

//go:build cgo && !js && !wasip1 && cogentcore

package native

/*
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// From webgpu.h of this wgpu-native: what the Go binding does not offer. It opens validation scopes only, so running out of memory would end
// the process, and its MapAsync hands C the address of a Go variable that the garbage collector may free before the callback comes.
typedef void (*fromage_popped)(uint32_t type, char const *message, void *to);
typedef void (*fromage_mapped)(uint32_t status, void *to);

extern void wgpuDevicePushErrorScope(void *device, uint32_t filter);
extern void wgpuDevicePopErrorScope(void *device, fromage_popped callback, void *to);
extern void wgpuDeviceDestroy(void *device);
extern uint32_t wgpuDevicePoll(void *device, uint32_t wait, void const *index);
extern void wgpuBufferMapAsync(void *buffer, uint32_t mode, size_t offset, size_t size, fromage_mapped callback, void *to);

enum { fromage_filters = 2, fromage_pending = 100, fromage_map_read = 1 };

typedef struct { char *data; size_t size; uint32_t type; } fromage_error;

static void fromage_note(uint32_t type, char const *message, void *to) {
	fromage_error *e = to;
	if (type == 0 || e->type != 0) return;
	e->type = type;
	size_t n = message == NULL ? 0 : strlen(message);
	if (n >= e->size) n = e->size - 1;
	if (n > 0) memcpy(e->data, message, n);
	e->data[n] = 0;
}

static void fromage_push(void *device) {
	for (uint32_t filter = 0; filter < fromage_filters; filter++) wgpuDevicePushErrorScope(device, filter);
}

// fromage_pop closes the scopes and returns the type of the first error among them, 0 for none, with its text.
static uint32_t fromage_pop(void *device, char *text, size_t size) {
	fromage_error e = {text, size, 0};
	for (int i = 0; i < fromage_filters; i++) wgpuDevicePopErrorScope(device, fromage_note, &e);
	return e.type;
}

static void fromage_note_status(uint32_t status, void *to) { *(uint32_t *)to = status; }

// fromage_map maps a buffer for reading and returns the status of the callback, fromage_pending if it did not come: then its memory is
// left to the driver, which may still write there.
static uint32_t fromage_map(void *device, void *buffer, size_t size) {
	uint32_t *to = malloc(sizeof *to);
	*to = fromage_pending;
	wgpuBufferMapAsync(buffer, fromage_map_read, 0, size, fromage_note_status, to);
	wgpuDevicePoll(device, 1, NULL);
	uint32_t status = *to;
	if (status != fromage_pending) free(to);
	return status;
}
*/
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/cogentcore/webgpu/wgpu"

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
	createBuffer          = (*wDevice).CreateBuffer
	createBindGroup       = (*wDevice).CreateBindGroup
	createBindGroupLayout = (*wDevice).CreateBindGroupLayout
	createPipelineLayout  = (*wDevice).CreatePipelineLayout
	createPipeline        = (*wDevice).CreateComputePipeline
	createEncoder         = (*wDevice).CreateCommandEncoder
	writeBuffer           = (*wQueue).WriteBuffer
	copyBuffer            = (*wEncoder).CopyBufferToBuffer
	clearBuffer           = (*wEncoder).ClearBuffer
	finish                = (*wEncoder).Finish
	endPass               = (*wPass).End
	unmap                 = (*wBuffer).Unmap
)

// createInstance takes no descriptor: the binding leaves fields of it uninitialised.
func createInstance() *wInstance {
	wgpu.SetLogLevel(wgpu.LogLevelOff)
	return wgpu.CreateInstance(nil)
}

func enumerate(i *wInstance) []*wAdapter {
	const vulkan, metal, dx12 = 1 << 0, 1 << 2, 1 << 3
	return i.EnumerateAdapters(&wgpu.InstanceEnumerateAdapterOptons{Backends: vulkan | metal | dx12})
}

func createShaderModule(d *wDevice, label, code string) (*wShaderModule, error) {
	return d.CreateShaderModule(&wgpu.ShaderModuleDescriptor{Label: label, WGSLDescriptor: &wgpu.ShaderModuleWGSLDescriptor{Code: code}})
}

// enables is what must stand before a kernel's source: nothing, as this compiler knows no extension.
func enables(*gpu.Kernel) string { return "" }

// describe takes the adapter's name from where this wgpu-native has it; it tells no driver.
func describe(a *wAdapter) description {
	i := a.GetInfo()
	return description{
		name: i.DriverDescription, vendor: vendorName(i.VendorId, i.VendorName), backend: i.BackendType.String(), kind: i.AdapterType,
		limits: a.GetLimits().Limits,
	}
}

// requestDevice never calls lost: the binding's callback for it panics.
func requestDevice(a *wAdapter, label string, l wLimits, _ gpu.Features, lost func(reason string)) (*wDevice, error) {
	l.MaxPushConstantSize = 0
	return a.RequestDevice(&wgpu.DeviceDescriptor{Label: label, RequiredLimits: &wgpu.RequiredLimits{Limits: l}})
}

func limitsOf(d *wDevice) wLimits { return d.GetLimits().Limits }

func defaultLimits() wLimits { return wgpu.DefaultLimits() }

// mapRead waits for the device and maps the first size bytes of b.
func mapRead(d *wDevice, b *wBuffer, size int) error {
	if status := wgpu.BufferMapAsyncStatus(C.fromage_map(ref(d), ref(b), C.size_t(size))); status != wgpu.BufferMapAsyncStatusSuccess {
		return fmt.Errorf("map: status %v", status)
	}
	return nil
}

func pushScopes(device unsafe.Pointer) { C.fromage_push(device) }

// popScopes closes the scopes of pushScopes and returns their first error, with its text cut to the length of text.
func popScopes(device unsafe.Pointer, text []byte) error {
	const outOfMemory = 2
	kind := C.fromage_pop(device, (*C.char)(unsafe.Pointer(&text[0])), C.size_t(len(text)))
	return scopeError(kind != 0, kind == outOfMemory, text)
}

func destroyDevice(device unsafe.Pointer) { C.wgpuDeviceDestroy(device) }
