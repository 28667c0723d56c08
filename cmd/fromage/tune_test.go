// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fromage/bench"
	"fromage/gpu"
	"fromage/shaders"
	"fromage/tune"
)

// TestTune: a table in the user's cache counts where it fits, one that FROMAGE_TUNE names has to fit, and off is off.
func TestTune(t *testing.T) {
	all, err := adapters()
	if err != nil {
		if os.Getenv("FROMAGE_REQUIRE_GPU") == "1" {
			t.Fatal(err)
		}
		t.Skipf("NOT TESTED: %v", err)
	}
	info := all[0]
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	choices := map[string]string{"linear.q8.T1.F2047": "linear_row.q8.group.ROWS4.TOKENS1"}
	table := tune.Table{
		Adapter: info.Adapter, Vendor: info.Vendor, Backend: info.Backend, Driver: info.Driver, Has: info.Features, Kernels: shaders.Hash(), Choices: choices,
		Results: []tune.Result{{Class: "linear.q8.T1.F2047", Rule: "a", RuleUS: 3, Best: choices["linear.q8.T1.F2047"], BestUS: 2, Forms: 2}},
	}
	file := func(name string, table tune.Table) string {
		data, err := json.Marshal(table)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		return write(t, name, data)
	}
	other := table
	other.Driver = "another"
	mine, foreign, cached := filepath.Join(t.TempDir(), "mine.json"), filepath.Join(t.TempDir(), "foreign.json"), tableFile(info)
	file(mine, table)
	file(foreign, other)
	broken := write(t, filepath.Join(t.TempDir(), "broken.json"), []byte("{"))
	for _, c := range []struct {
		name   string
		env    string
		cache  func()
		want   map[string]string
		refuse string // what the error names
	}{
		{"no table", "", func() {}, nil, ""},
		{"a broken one in the cache", "", func() { file(cached, tune.Table{}) }, nil, ""},
		{"another driver's in the cache", "", func() { file(cached, other) }, nil, ""},
		{"its own in the cache", "", func() { file(cached, table) }, choices, ""},
		{"off", "off", func() {}, nil, ""},
		{"named", mine, func() { os.Remove(cached) }, choices, ""},
		{"named, another driver's", foreign, func() {}, nil, "another driver"},
		{"named, broken", broken, func() {}, nil, broken},
		{"named, missing", "none.json", func() {}, nil, "none.json"},
	} {
		t.Setenv(tuneVar, c.env)
		c.cache()
		a := &app{device: "gpu", log: discard, stderr: new(bytes.Buffer)}
		if !info.Software && c.env == "" && c.want == nil {
			continue // a GPU would be measured
		}
		dev, err := a.openDevice()
		if c.refuse != "" {
			if err == nil || !strings.Contains(err.Error(), c.refuse) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: openDevice = %v, want an error that names %q", c.name, err, c.refuse)
			}
		} else if err != nil || !maps.Equal(dev.Info().Choices, c.want) {
			t.Errorf("%s: openDevice = %v, want choices %v", c.name, err, c.want)
		} else if d := a.tuned.describe(); c.want != nil && !strings.Contains(d, "1 of 1 classes") || c.env == "off" && !strings.Contains(d, "off") {
			t.Errorf("%s: describe = %q", c.name, d)
		}
		a.close()
	}
	var out bytes.Buffer
	printTuned(&out, &tuned{file: "f", table: &table})
	if !strings.Contains(out.String(), "linear_row.q8.group.ROWS4.TOKENS1") || !strings.Contains(out.String(), "1.50 times as fast as a") {
		t.Errorf("printTuned = %q, want the choice and its gain", out.String())
	}
}

// TestUntuned: only a GPU is measured without being asked, once, and only where there is a place to keep what was measured.
func TestUntuned(t *testing.T) {
	t.Setenv(tuneVar, "")
	card := gpu.Info{Adapter: "card"}
	for _, c := range []struct {
		name string
		t    tuned
		info gpu.Info
		want bool
	}{
		{"a GPU", tuned{file: "f"}, card, true},
		{"one with a table", tuned{file: "f", table: &tune.Table{}}, card, false},
		{"nowhere to keep it", tuned{}, card, false},
		{"off", tuned{file: "f", off: true}, card, false},
		{"software", tuned{file: "f"}, gpu.Info{Software: true}, false},
	} {
		if got := (&app{tuned: c.t}).untuned(c.info); got != c.want {
			t.Errorf("untuned(%s) = %v, want %v", c.name, got, c.want)
		}
	}
	bad(t, "doctor --tune without a choice", []string{"one form"}, "doctor", "--tune")
}

// TestBench measures a small bundle, as JSON and as tables, and compares it with an earlier run.
func TestBench(t *testing.T) {
	model := tiny(t)
	args := []string{"bench", "-m", model, "--tokens", "2", "--rows", "1000"}
	old := filepath.Join(t.TempDir(), "old.json")
	write(t, old, []byte(ok(t, append(args, "--json")...)))
	r, err := readReport(old)
	if err != nil || len(r.Models) != 1 || len(r.Models[0].Programs) != 4 || len(r.Searches) != 1 || r.Device.Host != "cpu" || r.Ceilings.CopyGBps <= 0 {
		t.Fatalf("bench --json = %+v, %v", r, err)
	}
	table := ok(t, append(args, "--compare", old)...)
	for _, want := range []string{"ceilings: copy", "10 of 1000 rows", "vision, 16 pictures", "lm, a token after", "linear_block.f32", "of best", "as fast", ": decode"} {
		if !strings.Contains(table, want) {
			t.Errorf("bench --compare = %q, want %q in it", table, want)
		}
	}
	if strings.Contains(table, "NOT THE SAME") {
		t.Errorf("bench --compare with the same device = %q, want no warning", table)
	}
	r.Device.Adapter = "another card"
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	write(t, old, data)
	var said comparison
	if err := json.Unmarshal([]byte(ok(t, append(args, "--no-kernels", "--compare", old, "--json")...)), &said); err != nil {
		t.Fatal(err)
	}
	if len(said.Changes) < 5 || len(said.Warnings) != 1 || !strings.Contains(said.Warnings[0], "another card") || len(said.Models[0].Programs) != 0 {
		t.Errorf("bench --compare --json = %+v, want changes and one warning", said)
	}
	half := ok(t, append(args, "--kv", "f16")...)
	for _, want := range []string{", kv f16", "attention_software.f16.vec4", "attention_step_software.f16.vec4"} {
		if !strings.Contains(half, want) || strings.Contains(table, want) {
			t.Errorf("bench --kv f16 = %q, want %q in it, and not in what is said without", half, want)
		}
	}
	junk := write(t, filepath.Join(t.TempDir(), "junk.json"), []byte(`{"x":1}`))
	for _, c := range [][]string{{"--compare", junk}, {"--compare", "none.json"}, {"--rows", "3"}, {"--tokens", "0"}, {"--dtype", "q5"}, {"--shape", "7b"}, {"--kv", "q8"}} {
		bad(t, c[0]+" "+c[1], []string{c[0]}, append([]string{"bench", "-m", model}, c...)...)
	}
}

// TestBenchSandbox times a small bundle in the sandbox.
func TestBenchSandbox(t *testing.T) {
	needGuest(t)
	var r bench.Report
	if err := json.Unmarshal([]byte(ok(t, "bench", "-m", tiny(t), "--tokens", "4", "--rows", "0", "--no-kernels", "--sandbox", "--json")), &r); err != nil {
		t.Fatal(err)
	}
	if s := r.Sandbox; s == nil || !(s.Decode > 0 && s.FirstMS > 0 && s.MemoryBytes > 1<<20) || s.Model != r.Models[0].Name {
		t.Errorf("bench --sandbox = %+v, want speeds of %s", s, r.Models[0].Name)
	}
	bad(t, "a sandbox of a made-up model", []string{"--sandbox"}, "bench", "--sandbox", "--shape", "mini")
}
