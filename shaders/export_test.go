// SPDX-License-Identifier: Apache-2.0

package shaders

// LinearClass is the class of a Linear.
var LinearClass = linearClass
