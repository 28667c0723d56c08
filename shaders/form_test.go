// SPDX-License-Identifier: Apache-2.0

package shaders_test

import (
	"fmt"
	"slices"
	"testing"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/shaders"
)

// TestLinearForms runs every form of a Linear that a table may choose, on every device, and compares it with the twin.
func TestLinearForms(t *testing.T) {
	kerneltest.Devices(t, func(t *testing.T, dev gpu.Device) {
		if dev.Info().Backend == "go" {
			return // Go functions are the same for every form
		}
		formats := []shaders.Format{shaders.F32, shaders.F16, shaders.Q8, shaders.Q4}
		if testing.Short() {
			formats = []shaders.Format{shaders.Q8}
		}
		for _, f := range formats {
			for _, T := range []uint32{1, 3, 13, 70} {
				p := shaders.LinearParams{T: T, K: 192, F: 71, F0: 2, Stride: 80, Act: shaders.ActGELU, Bias: 1, Residual: 1}
				info := dev.Info()
				for _, d := range shaders.LinearForms(info, f, p) {
					info.Choices = map[string]string{shaders.LinearClass(f, p): d.Kernel.Name}
					if ran, err := shaders.LinearCase(f, p).Run(dev, info); err != nil || ran != d.Kernel.Name {
						t.Errorf("T=%d: want %s to run, have %s: %v", T, d.Kernel.Name, ran, err)
					}
				}
			}
		}
	})
}

// TestClasses: every form of every class runs what it says, the rule's first, and hosts know all of them by name.
func TestClasses(t *testing.T) {
	formats := []shaders.Format{shaders.F32, shaders.F16, shaders.Q8, shaders.Q4}
	for _, info := range []gpu.Info{
		{Software: true, Limits: gpu.DefaultLimits}, {Limits: gpu.DefaultLimits}, {Features: gpu.Features{Subgroups: true}, Limits: gpu.DefaultLimits},
		{Features: gpu.Features{Subgroups: true, SubgroupMin: 32, SubgroupMax: 32}, Limits: gpu.DefaultLimits},
	} {
		classes := shaders.Classes(info.Software, formats...)
		seen := map[string]bool{}
		for _, c := range classes {
			if seen[c.Name] {
				t.Errorf("there are two classes %s", c.Name)
			}
			seen[c.Name] = true
			forms := c.Forms(info)
			for _, d := range forms {
				if shaders.Named(d.Kernel.Name) == nil {
					t.Errorf("%s: Named does not know %s", c.Name, d.Kernel.Name)
				}
				if len(d.Kernel.Bindings) != len(c.Bytes) {
					t.Errorf("%s: %d buffers for the %d of %s", c.Name, len(c.Bytes), len(d.Kernel.Bindings), d.Kernel.Name)
				}
				for i, words := range d.Kernel.Reach(d.Params) {
					if uint64(c.Bytes[i]) < 4*words || c.Bytes[i] > info.Limits.MaxBinding {
						t.Errorf("%s: binding %d has %d bytes, %s looks at %d", c.Name, i, c.Bytes[i], d.Kernel.Name, 4*words)
					}
				}
			}
			if len(forms) < 2 {
				t.Errorf("%s: %d forms, want something to choose among", c.Name, len(forms))
			}
		}
		if want := 6*3*len(formats) + 2; len(classes) != want {
			t.Errorf("%d classes, want %d", len(classes), want)
		}
	}
}

// TestChoices: a table's word counts where the device can do it, in its class alone; all else is the rule's.
func TestChoices(t *testing.T) {
	gpuInfo := gpu.Info{Features: gpu.Features{Subgroups: true}, Limits: gpu.DefaultLimits}
	plain := gpu.Info{Limits: gpu.DefaultLimits}
	one := shaders.LinearParams{T: 1, K: 64, F: 100, Stride: 100}
	for _, c := range []struct {
		name    string
		info    gpu.Info
		p       shaders.LinearParams
		choices map[string]string
		want    string
	}{
		{"no table", gpuInfo, one, nil, "linear_row.q8.subgroups.ROWS1.TOKENS1"},
		{"another form", gpuInfo, one, map[string]string{"linear.q8.T1.F2047": "linear_row.q8.group.ROWS4.TOKENS1"}, "linear_row.q8.group.ROWS4.TOKENS1"},
		{"another class", gpuInfo, one, map[string]string{"linear.q8.T4.F2047": "linear_row.q8.group.ROWS4.TOKENS1"}, "linear_row.q8.subgroups.ROWS1.TOKENS1"},
		{"what the device cannot", plain, one, map[string]string{"linear.q8.T1.F2047": "linear_row.q8.subgroups.ROWS4.TOKENS1"}, "linear_row.q8.group.ROWS1.TOKENS1"},
		{"another format", gpuInfo, one, map[string]string{"linear.q8.T1.F2047": "linear_row.q4.group.ROWS4.TOKENS1"}, "linear_row.q8.subgroups.ROWS1.TOKENS1"},
		{"another kernel", gpuInfo, one, map[string]string{"linear.q8.T1.F2047": "attention.vec4"}, "linear_row.q8.subgroups.ROWS1.TOKENS1"},
		{"nonsense", gpuInfo, one, map[string]string{"linear.q8.T1.F2047": "", "": "x", "top_k": "linear"}, "linear_row.q8.subgroups.ROWS1.TOKENS1"},
		{"odd rows", gpuInfo, shaders.LinearParams{T: 1, K: 7, F: 100, Stride: 100}, map[string]string{"linear.f32.T1.F2047": "linear_block.f32.TOKENS1"}, "linear.f32"},
	} {
		format := shaders.Q8
		if c.p.K%64 != 0 {
			format = shaders.F32
		}
		c.info.Choices = c.choices
		if got := shaders.Linear(c.info, format, c.p).Kernel.Name; got != c.want {
			t.Errorf("%s: Linear = %s, want %s", c.name, got, c.want)
		}
	}
	a := shaders.AttentionParams{T: 9, Heads: 2, Dh: 8, QStride: 16, KVStride: 32, VOffset: 16}
	plain.Choices = map[string]string{"attention.T+": "attention_software.vec4"}
	if got := shaders.Attention(plain, shaders.F32, a); got.Kernel.Name != "attention_software.vec4" || got.Groups != shaders.Attention(gpu.Info{Software: true}, shaders.F32, a).Groups {
		t.Errorf("Attention = %s in %v, want the software text in its own groups", got.Kernel.Name, got.Groups)
	}
}

// TestAbsurdTable chooses for every class of every kernel the worst that can be thought of; results must be right all the same.
func TestAbsurdTable(t *testing.T) {
	kerneltest.Devices(t, func(t *testing.T, dev gpu.Device) {
		info := dev.Info()
		info.Choices = map[string]string{}
		for _, c := range shaders.Classes(info.Software, shaders.F32, shaders.F16, shaders.Q8, shaders.Q4) {
			forms := c.Forms(info)
			info.Choices[c.Name] = forms[len(forms)-1].Kernel.Name
		}
		chosen := map[string]bool{}
		for _, c := range shaders.Cases() {
			if !slices.Contains([]string{"linear", "attention"}, c.Name) {
				continue
			}
			name, err := c.Run(dev, info)
			if err != nil {
				t.Error(err)
			}
			chosen[fmt.Sprint(c.Name, name)] = true
		}
		if len(chosen) < 6 {
			t.Errorf("%d kernels were run", len(chosen))
		}
	})
}
