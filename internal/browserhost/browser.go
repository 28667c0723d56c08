// SPDX-License-Identifier: Apache-2.0

//go:build unix

// Package browserhost runs things in a headless Chromium for tests: a page that a test serves, or a Go program built for js/wasm with its
// arguments, files, output and exit code, so that `go test -exec` runs a package's tests in a browser.
//
// What enters is a page's address or a program; what leaves is the program's output and exit code. The package refuses to know what is tested.
// It leaves no process and no folder behind.
package browserhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Require names the environment variable that makes a missing browser a failure where it is set to 1.
const Require = "FROMAGE_REQUIRE_BROWSER"

// Required says whether a missing browser is a failure and not a loud skip.
func Required() bool { return os.Getenv(Require) == "1" }

// Find returns the path of a Chromium or Chrome.
func Find() (string, error) {
	names := []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("browserhost: want one of %v in PATH, have none", names)
}

// flags let a machine without a GPU have WebGPU, by SwiftShader, and keep the browser from calling home.
var flags = []string{
	"--headless", "--no-sandbox", "--enable-unsafe-webgpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
	"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe",
}

// Open shows the page at url in the browser at path, with an empty profile, and returns when ctx is done or the browser ends by itself, which is
// an error. No process of the browser is left then.
func Open(ctx context.Context, path, url string) error {
	profile, err := os.MkdirTemp("", "browserhost-")
	if err != nil {
		return fmt.Errorf("browserhost: %w", err)
	}
	defer removeAll(profile)
	cmd := exec.Command(path, append(flags, "--user-data-dir="+profile, url)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	closePipe, err := start(cmd)
	if err != nil {
		return fmt.Errorf("browserhost: start %s: %w", path, err)
	}
	defer closePipe()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
		err = fmt.Errorf("browserhost: %s ended by itself: %v", path, err)
	case <-ctx.Done():
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // fails where the group has gone by itself
	if err == nil {
		<-ended
	}
	return err
}

// start starts a browser that takes commands on descriptor 3 and gets none: it ends when that closes, thus also when this process is killed.
func start(cmd *exec.Cmd) (closePipe func() error, err error) {
	commands, keep, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer commands.Close()
	answers, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, errors.Join(err, keep.Close())
	}
	defer answers.Close()
	cmd.ExtraFiles = []*os.File{commands, answers} // descriptors 3 and 4
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, keep.Close())
	}
	return keep.Close, nil
}

// removeAll removes the profile, to which processes that are being killed may still write.
func removeAll(dir string) {
	for range 50 {
		if os.RemoveAll(dir) == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
