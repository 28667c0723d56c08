// SPDX-License-Identifier: Apache-2.0

package shaders

import "fromage/gpu"

// LinearFormNames returns the class of a Linear and the names of the kernels that may run it.
func LinearFormNames(info gpu.Info, f Format, p LinearParams) (class string, names []string) {
	for _, form := range linearForms(info, f, p) {
		names = append(names, form.name())
	}
	return linearClass(f, p), names
}
