// SPDX-License-Identifier: Apache-2.0

package tune

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"fromage/gpu"
	"fromage/internal/kerneltest"
	"fromage/machine"
	"fromage/shaders"
)

// TestMeasure measures on every device that has a choice, until time is up: what comes out are forms that the device can run, and a device that is
// described with them runs them.
func TestMeasure(t *testing.T) {
	wholeBudget, quickBudget = 4*time.Second, time.Second
	kerneltest.Devices(t, func(t *testing.T, dev gpu.Device) {
		info := dev.Info()
		if info.Backend == "go" {
			if _, err := Measure(context.Background(), dev, Options{Formats: []shaders.Format{shaders.Q8}}); err == nil {
				t.Error("Measure where there is no choice: want an error, have none")
			}
			return
		}
		for _, quick := range []bool{false, true} {
			last := int64(0)
			table, err := Measure(context.Background(), dev, Options{Quick: quick, Formats: []shaders.Format{shaders.Q8}, Progress: func(p machine.Progress) {
				if p.Done != last+1 || p.Done > p.Total {
					t.Errorf("progress from %d to %+v", last, p)
				}
				last = p.Done
			}})
			if err != nil {
				t.Fatal(err)
			}
			if err := table.Fits(info); err != nil || table.Quick != quick || int64(len(table.Results)) != last {
				t.Errorf("Measure = quick %v, %d results after %d classes, %v", table.Quick, len(table.Results), last, err)
			}
			checkTable(t, table, info)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := Measure(ctx, dev, Options{Formats: []shaders.Format{shaders.Q8}}); !errors.Is(err, context.Canceled) {
			t.Errorf("Measure after an interrupt: %v, want %v", err, context.Canceled)
		}
	})
}

func checkTable(t *testing.T, table *Table, info gpu.Info) {
	t.Helper()
	classes := shaders.Classes(info.Software, shaders.Q8)
	for _, r := range table.Results {
		i := slices.IndexFunc(classes, func(c shaders.Class) bool { return c.Name == r.Class })
		if i < 0 {
			t.Errorf("there is no class %s", r.Class)
			continue
		}
		forms := classes[i].Forms(info)
		if r.Rule != forms[0].Kernel.Name || !slices.ContainsFunc(forms, func(d shaders.Dispatch) bool { return d.Kernel.Name == r.Best }) {
			t.Errorf("%+v: want the rule's %s and one of its forms", r, forms[0].Kernel.Name)
		}
		if r.Forms < 1 || !(r.RuleUS > 0 && r.BestUS > 0 && r.BestUS <= r.RuleUS) || (r.Best == r.Rule) != (r.Gain() == 1) {
			t.Errorf("%+v: want times, the best's no longer", r)
		}
		if choice, ok := table.Choices[r.Class]; ok != (r.Best != r.Rule) || ok && choice != r.Best {
			t.Errorf("%+v, and the choice is %q", r, choice)
		}
	}
	if got := len(table.Changed()); got != len(table.Choices) {
		t.Errorf("Changed = %d results of %d choices", got, len(table.Choices))
	}
}

// TestTable: a table is the same after a trip through JSON, fits the device that it was made on, and no other.
func TestTable(t *testing.T) {
	info := gpu.Info{Adapter: "card", Vendor: "maker", Backend: "vulkan", Driver: "1", Features: gpu.Features{Subgroups: true, SubgroupMin: 32, SubgroupMax: 32}}
	table := &Table{
		Adapter: "card", Vendor: "maker", Backend: "vulkan", Driver: "1", Has: info.Features, Kernels: shaders.Hash(),
		Choices: map[string]string{"b": "y", "c": "z"},
		Results: []Result{{"a", "x", 2, "x", 2, 3}, {"b", "x", 4, "y", 3, 3}, {"c", "x", 4, "z", 1, 3}},
	}
	data, err := json.Marshal(table)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse(data)
	if err != nil || !reflect.DeepEqual(back, table) {
		t.Fatalf("Parse = %+v, %v, want %+v", back, err, table)
	}
	if err := back.Fits(info); err != nil {
		t.Errorf("Fits = %v", err)
	}
	if c := back.Changed(); len(c) != 2 || c[0].Class != "c" || c[0].Gain() != 4 || c[1].Class != "b" {
		t.Errorf("Changed = %+v, want c, four times as fast, then b", c)
	}
	for name, change := range map[string]func(*gpu.Info, *Table){
		"adapter": func(i *gpu.Info, _ *Table) { i.Adapter = "other" },
		"driver":  func(i *gpu.Info, _ *Table) { i.Driver = "2" },
		"backend": func(i *gpu.Info, _ *Table) { i.Backend = "metal" },
		"kernels": func(_ *gpu.Info, t *Table) { t.Kernels = strings.Repeat("0", 64) },
		"feature": func(i *gpu.Info, _ *Table) { i.Features.Subgroups = false },
	} {
		i, o := info, *table
		change(&i, &o)
		if err := o.Fits(i); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("Fits with another %s = %v, want an error that names it", name, err)
		}
	}
	for _, text := range []string{"", "null", "[]", "{}", `{"adapter":"a"}`, `{"adapter":"a","kernels":"00"}`, `{"adapter":"a","kernels":7}`, string(data[:len(data)-1]), string(data) + " x"} {
		if got, err := Parse([]byte(text)); err == nil {
			t.Errorf("Parse(%q) = %+v, want an error", text, got)
		}
	}
	if _, err := Parse(make([]byte, maxTable+1)); err == nil {
		t.Error("Parse of too much: want an error, have none")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"adapter":"a","kernels":"` + strings.Repeat("0", 64) + `","choices":{"linear.q8.T1.F2047":"x"},"results":[{"class":"c","rule_us":0}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := Parse(data)
		if err != nil {
			return
		}
		_ = table.Changed()
		info := gpu.Info{Choices: table.Choices, Limits: gpu.DefaultLimits}
		for T := range uint32(3) {
			shaders.Linear(info, shaders.Q8, shaders.LinearParams{T: 1 + 40*T, K: 64, F: 64, Stride: 64})
		}
	})
}
