// SPDX-License-Identifier: Apache-2.0

//go:build cgo && !js && !wasip1 && cogentcore

package native

/*
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// The binding's MapAsync hands C the address of a Go variable that the garbage collector may free before the callback comes, so the buffer is
// mapped without it.
typedef void (*fromage_mapped)(uint32_t status, void *to);
extern void wgpuBufferMapAsync(void *buffer, uint32_t mode, size_t offset, size_t size, fromage_mapped callback, void *to);
extern uint32_t wgpuDevicePoll(void *device, uint32_t wait, void const *index);

enum { fromage_map_read = 1, fromage_pending = 100 };

static void fromage_note(uint32_t status, void *to) { *(uint32_t *)to = status; }

// fromage_map maps a buffer for reading and returns the status of the callback, fromage_pending if it did not come: then its memory is
// left to the driver, which may still write there.
static uint32_t fromage_map(void *device, void *buffer, size_t size) {
	uint32_t *to = malloc(sizeof *to);
	*to = fromage_pending;
	wgpuBufferMapAsync(buffer, fromage_map_read, 0, size, fromage_note, to);
	wgpuDevicePoll(device, 1, NULL);
	uint32_t status = *to;
	if (status != fromage_pending) free(to);
	return status;
}
*/
import "C"

import (
	"errors"
	"fmt"

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
	wQuerySet        = wgpu.QuerySet
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
	usageTimes   = wgpu.BufferUsageQueryResolve | wgpu.BufferUsageCopySrc

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
	resolveTimes          = (*wEncoder).ResolveQuerySet
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

func requestDevice(a *wAdapter, label string, l wLimits, _ gpu.Features, _ bool) (*wDevice, error) {
	l.MaxPushConstantSize = 0
	return a.RequestDevice(&wgpu.DeviceDescriptor{Label: label, RequiredLimits: &wgpu.RequiredLimits{Limits: l}})
}

// This binding does not tell how long a unit of time is, so no device of it has a clock, and these are never called.
func createTimes(*wDevice, int) (*wQuerySet, error) { return nil, errors.ErrUnsupported }

func timedPass(e *wEncoder, _ *wQuerySet, _ int) *wPass { return e.BeginComputePass(nil) }

func tick(*wQueue) float64 { return 0 }

func defaultLimits() wLimits { return wgpu.DefaultLimits() }

// mapRead waits for the device and maps the first size bytes of b.
func mapRead(d *wDevice, b *wBuffer, size int) error {
	if status := wgpu.BufferMapAsyncStatus(C.fromage_map(ref(d), ref(b), C.size_t(size))); status != wgpu.BufferMapAsyncStatusSuccess {
		return fmt.Errorf("%s: map status %v", textLost, status)
	}
	return nil
}

// lose only says that the device is lost: this wgpu-native cannot drop one.
func (d *Device) lose() { d.lost = "lost on purpose" }
