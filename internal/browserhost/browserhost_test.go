// SPDX-License-Identifier: Apache-2.0

//go:build unix

package browserhost

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// need returns the browser's path; without one it skips, loudly, and fails where FROMAGE_REQUIRE_BROWSER is 1.
func need(t *testing.T) string {
	t.Helper()
	path, err := Find()
	if err == nil {
		return path
	}
	if Required() {
		t.Fatal(err)
	}
	t.Skipf("SKIPPED, NOTHING TESTED: %v", err)
	return ""
}

// program builds the test program.
func program(t *testing.T) Program {
	t.Helper()
	dir, err := filepath.Abs("testdata/program")
	if err != nil {
		t.Fatal(err)
	}
	p := Program{Wasm: filepath.Join(t.TempDir(), "program.wasm"), Dir: dir, Root: filepath.Join(dir, "../../../.."), Env: []string{"FROMAGE_TEST=a=b", "TMPDIR=/tmp"}}
	build := exec.Command("go", "build", "-o", p.Wasm, "./testdata/program")
	build.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return p
}

func TestRun(t *testing.T) {
	path := need(t)
	built := program(t)
	t.Setenv("TMPDIR", t.TempDir())
	main, err := os.ReadFile("testdata/program/main.go")
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for i := range 20000 {
		lines.WriteString("line ")
		lines.WriteString(strconv.Itoa(i))
		lines.WriteString("\n")
	}
	for _, c := range []struct {
		args           string
		page           bool
		code           int
		stdout, stderr string // the one whole, the other a part
	}{
		{"hello a b", false, 7, "arguments [a b] in program with a=b\n", "to stderr\nconsole.warn: from console\n"},
		{"hello a b", true, 7, "arguments [a b] in program with a=b\n", "to stderr\nconsole.warn: from console\n"},
		{"where", false, 0, "worker true script true\neval false\n", ""},
		{"where", true, 0, "worker false script true\neval false\n", ""},
		{"output", false, 0, lines.String(), ""},
		{"files", false, 0, "exec has [- main.go]\nmain.go is changed true\n", ""},
		{"panic", false, 2, "", "assignment to entry in nil map"},
	} {
		t.Run(strings.ReplaceAll(c.args, " ", "_"), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			p := built
			p.Args, p.Page, p.Stdout, p.Stderr = strings.Fields(c.args), c.page, &stdout, &stderr
			code, err := p.Run(t.Context(), path)
			if code != c.code || err != nil || stdout.String() != c.stdout || !strings.Contains(stderr.String(), c.stderr) {
				t.Errorf("Run(%s) = %d, %v, want %d; stdout %q, want %q; stderr %q, want %q", c.args, code, err, c.code,
					short(stdout.String()), short(c.stdout), short(stderr.String()), c.stderr)
			}
		})
	}
	if after, err := os.ReadFile("testdata/program/main.go"); err != nil || !bytes.Equal(after, main) {
		t.Errorf("the program changed a file of the host's: %v", err)
	}
	gone(t)
}

func short(s string) string { return s[:min(len(s), 500)] }

// A program that never waits is stopped from without, and nothing is left of its browser.
func TestRunStops(t *testing.T) {
	path := need(t)
	p := program(t)
	t.Setenv("TMPDIR", t.TempDir())
	for arg, said := range map[string]string{"loop": "looping\n", "sleep": "sleeping\n"} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var out bytes.Buffer
		p.Args, p.Stderr = []string{arg}, &out
		p.Stdout = writerFunc(func(b []byte) (int, error) {
			if bytes.Contains(b, []byte(said)) {
				cancel()
			}
			return out.Write(b)
		})
		if _, err := p.Run(ctx, path); !errors.Is(err, context.Canceled) {
			t.Errorf("Run of a program that hangs in a %s = %v, want %v", arg, err, context.Canceled)
		}
		if out.String() != said {
			t.Errorf("what the program wrote before it hung: %q, want %q", out.String(), said)
		}
	}
	gone(t)
}

func TestOpenFails(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	if err := Open(t.Context(), "/no/such/browser", "about:blank"); err == nil || !strings.Contains(err.Error(), "/no/such/browser") {
		t.Errorf("Open of no browser = %v, want an error that names it", err)
	}
	if err := Open(t.Context(), "true", "about:blank"); err == nil || !strings.Contains(err.Error(), "ended by itself") {
		t.Errorf("Open of a browser that ends = %v, want an error that says so", err)
	}
	gone(t)
}

// A program that loses the GPU to a crash of the browser's GPU process is told so, and gets it again.
func TestGPUProcessDies(t *testing.T) {
	path := need(t)
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED: the browser's processes are found in /proc")
	}
	p := program(t)
	t.Setenv("TMPDIR", t.TempDir())
	var stdout, stderr bytes.Buffer
	p.Args, p.Stderr = []string{"lost"}, &stderr
	killed := 0
	p.Stdout = writerFunc(func(b []byte) (int, error) {
		if bytes.Contains(b, []byte("ready")) {
			for pid, line := range processes(t) {
				if strings.Contains(line, "--type=gpu-process") {
					killed++
					if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
						t.Error(err)
					}
				}
			}
		}
		return stdout.Write(b)
	})
	code, err := p.Run(t.Context(), path)
	if want := "ready\nagain on browser\n"; code != 0 || err != nil || killed != 1 || stdout.String() != want {
		t.Errorf("Run = %d, %v with %d processes killed; stdout %q, want %q; stderr %s", code, err, killed, stdout.String(), want, short(stderr.String()))
	}
	gone(t)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// processes returns the command lines, by process, of the browsers that have their profile in the temporary folder.
func processes(t *testing.T) map[int]string {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Error(err)
	}
	found := map[int]string{}
	for _, name := range names {
		line, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(line, []byte(os.TempDir()+"/browserhost-")) {
			continue // it has gone, or is no browser of this test's
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			t.Error(err)
		}
		found[pid] = string(line)
	}
	return found
}

// gone says that no profile is left in the temporary folder and no process that uses one, once those that were killed are gone.
func gone(t *testing.T) {
	t.Helper()
	for range 40 {
		if len(processes(t)) == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "browserhost-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v %v", left, err)
	}
	for pid, line := range processes(t) {
		t.Errorf("left over: process %d: %q", pid, short(line))
	}
}
