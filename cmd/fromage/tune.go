// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"fromage/gpu"
	"fromage/internal/atomicfile"
	"fromage/runner"
	"fromage/shaders"
	"fromage/tune"
)

// tuneVar says which forms kernels take: off for what the rules say, or the name of a table; unset for the table of the adapter in the user's cache.
const tuneVar = "FROMAGE_TUNE"

// tuned is what is known of the fastest forms of kernels on the device in use.
type tuned struct {
	file  string // where the table is, or would be; "" where it is nowhere
	table *tune.Table
	err   error // why the table that was asked for is not used
	off   bool  // nobody asks for one
}

// choices tells the forms that were measured to be the fastest on a device. It is asked while one is opened.
func (a *app) choices(info gpu.Info) map[string]string {
	t := &a.tuned
	asked := os.Getenv(tuneVar)
	if t.off || asked == "off" {
		t.off = true
		return nil
	}
	if t.table == nil {
		if t.file = asked; asked == "" {
			t.file = tableFile(info)
		}
		t.table, t.err = readTable(t.file, info)
	}
	if t.err != nil && asked == "" { // none was measured yet, or of other kernels
		a.log.Info("no table of kernels", "why", t.err)
		t.err = nil
	}
	if t.table == nil {
		return nil
	}
	return t.table.Choices
}

// tableFile is where the table of an adapter is kept; "" where the user has no place for such things.
func tableFile(info gpu.Info) string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	id := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%s", info.Adapter, info.Vendor, info.Backend, info.Driver))
	return filepath.Join(dir, "fromage", fmt.Sprintf("kernels-%x.json", id[:8]))
}

// readTable reads a table that fits the device.
func readTable(name string, info gpu.Info) (*tune.Table, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tuneVar, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 2<<20))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tuneVar, err)
	}
	t, err := tune.Parse(data)
	if err == nil {
		err = t.Fits(info)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", tuneVar, name, err)
	}
	return t, nil
}

// untuned says whether a device is a GPU that nothing was measured on yet, and may be.
func (a *app) untuned(info gpu.Info) bool {
	t := &a.tuned
	return !t.off && t.table == nil && t.err == nil && t.file != "" && os.Getenv(tuneVar) == "" && !info.Software
}

// tune measures the forms of kernels on a device and keeps the table.
func (a *app) tune(ctx context.Context, dev gpu.Device, quick bool) error {
	what, formats := "measuring kernels", []shaders.Format{shaders.Q8, shaders.F16, shaders.Q4}
	if quick {
		what += " on this GPU for the first time"
	} else {
		formats = append(formats, shaders.F32)
	}
	line := a.startProgress(what, "classes")
	defer a.endProgress()
	table, err := tune.Measure(ctx, dev, tune.Options{Quick: quick, Formats: formats, Progress: func(p runner.Progress) { line.set(p.Done, p.Total) }})
	if err != nil {
		return err
	}
	a.tuned.table = table
	if a.tuned.file == "" {
		return fmt.Errorf("there is no place to keep what was measured: want HOME or %s set", tuneVar)
	}
	if err := os.MkdirAll(filepath.Dir(a.tuned.file), 0o777); err != nil {
		return err
	}
	f, err := atomicfile.Create(a.tuned.file)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := indented(f, table); err != nil {
		return err
	}
	return f.Commit()
}

// retune measures the forms of kernels on a device in full, whatever was measured before.
func (a *app) retune(ctx context.Context, dev gpu.Device) error {
	a.tuned = tuned{file: os.Getenv(tuneVar)}
	switch a.tuned.file {
	case "off":
		return fmt.Errorf("doctor --tune: %s=off says not to", tuneVar)
	case "":
		a.tuned.file = tableFile(dev.Info())
	}
	return a.tune(ctx, dev, false)
}

// describe says in a line which forms are used.
func (t *tuned) describe() string {
	switch {
	case t.off:
		return "what the rules say (" + tuneVar + "=off)"
	case t.table == nil:
		return "what the rules say; nothing was measured (fromage doctor --tune does)"
	}
	how := "measured"
	if t.table.Quick {
		how = "measured in short (fromage doctor --tune takes its time)"
	}
	return fmt.Sprintf("%s: %d of %d classes other than the rules say, %s", how, len(t.table.Choices), len(t.table.Results), t.file)
}

func printTuned(w io.Writer, t *tuned) {
	fmt.Fprintf(w, "forms of kernels: %s\n", t.describe())
	if t.table == nil {
		return
	}
	for _, r := range t.table.Changed() {
		fmt.Fprintf(w, "  %-24s %-44s %8.1f µs, %.2f times as fast as %s\n", r.Class, r.Best, r.BestUS, r.Gain(), r.Rule)
	}
}
