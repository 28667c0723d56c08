// SPDX-License-Identifier: Apache-2.0

//go:build cgo && !js && !wasip1 && !cogentcore

package native

// extern void wgpuDeviceDestroy(void *device);
import "C"

import (
	"fmt"

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
	resolveTimes          = (*wEncoder).TryResolveQuerySet
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

func describe(a *wAdapter) description {
	i := a.GetInfo()
	d := description{
		name: i.Device, vendor: vendorName(i.VendorId, i.Vendor), backend: i.BackendType.String(), driver: i.Description,
		kind: i.AdapterType, limits: a.GetLimits(),
	}
	for _, f := range a.GetFeatures() {
		switch f {
		case wgpu.NativeFeatureSubgroup:
			d.features.Subgroups = true
			d.features.SubgroupMin = subgroupSize(d.vendor, d.name)
			d.features.SubgroupMax = d.features.SubgroupMin
		case wgpu.FeatureNameShaderF16:
			d.features.F16 = true
		case wgpu.FeatureNameTimestampQuery:
			d.clock = true
		}
	}
	return d
}

func requestDevice(a *wAdapter, label string, l wLimits, f gpu.Features, clock bool) (*wDevice, error) {
	l.MaxImmediateSize = 0
	var names []wgpu.FeatureName
	if f.Subgroups {
		names = append(names, wgpu.NativeFeatureSubgroup)
	}
	if f.F16 {
		names = append(names, wgpu.FeatureNameShaderF16)
	}
	if clock {
		names = append(names, wgpu.FeatureNameTimestampQuery)
	}
	return a.RequestDevice(&wgpu.DeviceDescriptor{Label: label, RequiredFeatures: names, RequiredLimits: &l})
}

func createTimes(d *wDevice, n int) (*wQuerySet, error) {
	return d.TryCreateQuerySet(&wgpu.QuerySetDescriptor{Label: "times", Type: wgpu.QueryTypeTimestamp, Count: uint32(n)})
}

// timedPass begins a pass whose begin and end are noted in places i and i+1.
func timedPass(e *wEncoder, times *wQuerySet, i int) *wPass {
	return e.BeginComputePass(&wgpu.ComputePassDescriptor{TimestampWrites: &wgpu.PassTimestampWrites{
		QuerySet: times, BeginningOfPassWriteIndex: uint32(i), EndOfPassWriteIndex: uint32(i + 1),
	}})
}

// tick is how many nanoseconds a unit of time stands for.
func tick(q *wQueue) float64 { return float64(q.GetTimestampPeriod()) }

func defaultLimits() wLimits { return wgpu.DefaultLimits() }

// mapRead waits for the device and maps the first size bytes of b.
func mapRead(d *wDevice, b *wBuffer, size int) error {
	var status wgpu.MapAsyncStatus
	if err := b.TryMapAsync(wgpu.MapModeRead, 0, uint64(size), func(s wgpu.MapAsyncStatus) { status = s }); err != nil {
		return err
	}
	d.Poll(true, nil)
	if status != wgpu.MapAsyncStatusSuccess {
		return fmt.Errorf("%s: map status %v", textLost, status)
	}
	return nil
}

// lose makes the driver drop the device, as a reset would; it finds out at the next call.
func (d *Device) lose() { C.wgpuDeviceDestroy(ref(d.device)) }
