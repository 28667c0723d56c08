// SPDX-License-Identifier: Apache-2.0

package shaders

var (
	LinearClass = linearClass // the class of a Linear
	Repeated    = repeated    // writes repetitions out
)
