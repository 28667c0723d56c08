// SPDX-License-Identifier: Apache-2.0

package wasmbuild

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// program builds a small program.
func program(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	source, out := filepath.Join(dir, "main.go"), filepath.Join(dir, "main.wasm")
	if err := os.WriteFile(source, []byte("package main\n\nimport \"fmt\"\n\nfunc main() {\n\tdefer func() { fmt.Println(recover()) }()\n\tvar m map[string]int\n\tm[\"x\"] = 1\n}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", out, source)
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// begin returns a program's memory before it begins, and what it then says.
func begin(t *testing.T, wasm []byte) (memory []byte, output string) {
	t.Helper()
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer r.Close(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	var out bytes.Buffer
	m, err := r.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithStartFunctions().WithStdout(&out).WithStderr(&out))
	if err != nil {
		t.Fatal(err)
	}
	view, _ := m.Memory().Read(0, m.Memory().Size())
	memory = bytes.Clone(view)
	_, err = m.ExportedFunction("_start").Call(ctx)
	return memory, out.String() + err.Error()
}

func TestShrink(t *testing.T) {
	before := program(t)
	after, err := Shrink(before)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes, before %d", len(after), len(before))
	if len(after) > len(before)*95/100 {
		t.Errorf("Shrink of %d bytes = %d bytes, want a twentieth less", len(before), len(after))
	}
	m1, said1 := begin(t, before)
	m2, said2 := begin(t, after)
	if !bytes.Equal(m1, m2) {
		t.Error("the memories differ")
	}
	const want = "assignment to entry in nil map\nmodule closed with exit_code(0)"
	if said1 != want || said2 != want {
		t.Errorf("the programs say %q and %q, want %q", said1, said2, want)
	}
	if _, err := Shrink(after); err == nil {
		t.Error("Shrink of a program with a start function has no error")
	}
}

func FuzzShrink(f *testing.F) {
	f.Add([]byte(header))
	f.Add([]byte(header + "\x0b\x07\x01\x00\x41\x05\x0b\x01x"))
	f.Add([]byte(header + "\x0b\x0a\x01\x00\x41\xff\xff\xff\xff\x0f\x0b\x01x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if out, err := Shrink(b); err == nil && len(out) > len(b) {
			t.Errorf("Shrink of %d bytes = %d bytes", len(b), len(out))
		}
	})
}
