// SPDX-License-Identifier: Apache-2.0

// Package remote is the gpu.Device of a program that was compiled for GOOS=wasip1: every call is one call of a function that the host offers, and
// package gpu/host, or any other host that keeps to the table below, computes.
//
// What enters are kernels as text, bytes and command lists; what leaves are bytes and the host's errors under the sentinels of package gpu. The
// package refuses to know what the host computes on, and it keeps nothing but handles.
//
// # The functions of the host
//
// They are imported from module "fromage_gpu". An i32 named …_ptr is an address in the guest's memory and the …_len after it the bytes there; the host
// reads or writes them during the call and keeps none. Sizes and offsets within buffers are i64, in bytes. Numbers in memory are little-endian.
// Handles are positive, belong to the guest that got them, and are never given twice. Each function returns one i32: what the table says, which is
// not negative, or an error.
//
//	open        version i32                                        a device on the host's; version is Version, or the host refuses
//	info        device, text_ptr, text_len                         bytes of the gpu.Info as JSON; as many as fit are written
//	error       text_ptr, text_len                                 bytes of the text of the guest's last error; as many as fit are written
//	new_buffer  device, label_ptr, label_len, size i64             a buffer of zeros
//	shared      device, hash_ptr, size i64                         a buffer with the contents whose 32 bytes of SHA-256 are at hash_ptr,
//	                                                               not to be written to; 0 where the host has none of that size
//	free        device, buffer                                     0
//	write       device, buffer, offset i64, data_ptr, data_len     0
//	read        device, buffer, offset i64, data_ptr, data_len     0; waits for what was submitted
//	compile     device, kernel_ptr, kernel_len                     a pipeline; the kernel is a Kernel as JSON
//	submit      device, words_ptr, words_len, params_ptr, params_len   0; both as in gpu.List
//	wait        device                                             0; all that was submitted is done
//	close       device                                             0; its buffers are free
//
// The errors are −1 for gpu.ErrLost, −2 ErrMemory (a limit of the guest's among the reasons), −3 ErrClosed, −4 ErrInvalid, −5 any other. The host
// ends the guest (a trap) where an address lies outside its memory or a device was never given to it, since no guest does so but by a mistake that
// would go on.
package remote

// Module is the name of the module that the functions are imported from.
const Module = "fromage_gpu"

// Version is the version of the table. A host and a guest with different ones do not work together.
const Version = 1

// Results that are errors.
const (
	CodeLost    = -1 // gpu.ErrLost
	CodeMemory  = -2 // gpu.ErrMemory
	CodeClosed  = -3 // gpu.ErrClosed
	CodeInvalid = -4 // gpu.ErrInvalid
	CodeOther   = -5
)

// Kernel is what of a gpu.Kernel crosses the boundary. A host that computes with twins has them by name.
type Kernel struct {
	Name      string   `json:"name"`
	Source    string   `json:"source"` // WGSL
	Params    int      `json:"params"`
	Bindings  []byte   `json:"bindings"` // gpu.Access of each; base64, as package json has it
	Labels    []string `json:"labels,omitempty"`
	Subgroups bool     `json:"subgroups,omitempty"`
	F16       bool     `json:"f16,omitempty"`
}
