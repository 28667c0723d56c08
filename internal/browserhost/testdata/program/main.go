// SPDX-License-Identifier: Apache-2.0

// Command program does in a browser what the tests of browserhost ask of it.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall/js"
	"time"

	"fromage/gpu"
	"fromage/gpu/browser"
)

func main() {
	switch os.Args[1] {
	case "hello":
		dir, err := os.Getwd()
		check(err)
		fmt.Println("arguments", os.Args[2:], "in", filepath.Base(dir), "with", os.Getenv("FROMAGE_TEST"))
		fmt.Fprintln(os.Stderr, "to stderr")
		js.Global().Get("console").Call("warn", "from", "console")
		os.Exit(7)
	case "where":
		fmt.Println("worker", js.Global().Get("document").IsUndefined(), "script", js.Global().Get("fromageGPU").Truthy())
		defer func() { fmt.Println("eval", recover() == nil) }() // under the page's policy it throws
		js.Global().Call("eval", "1")
	case "output":
		for i := range 20000 {
			fmt.Println("line", i)
		}
	case "files":
		files()
	case "panic":
		var m map[string]int
		m["x"] = 1
	case "loop":
		fmt.Println("looping")
		for i := 0; ; i++ {
			if i < 0 {
				i = 0
			}
		}
	case "sleep":
		fmt.Println("sleeping")
		time.Sleep(time.Hour)
	case "lost":
		lost()
	}
}

// lost uses the GPU until it is taken away, and then again.
func lost() {
	dev, err := browser.Open(context.Background(), browser.Options{})
	check(err)
	b, err := dev.NewBuffer("b", 1<<20)
	check(err)
	data := make([]byte, 1<<20)
	check(dev.Read(b, 0, data))
	fmt.Println("ready")
	for err == nil {
		err = dev.Read(b, 0, data)
	}
	want(err, gpu.ErrLost)
	<-dev.Lost()
	want(dev.Wait(), gpu.ErrLost)
	check(dev.Close())
	again, err := browser.Open(context.Background(), browser.Options{})
	for range 240 { // while the browser starts its GPU process anew
		if err == nil {
			break
		}
		time.Sleep(500 * time.Millisecond)
		again, err = browser.Open(context.Background(), browser.Options{})
	}
	check(err)
	b, err = again.NewBuffer("b", 4)
	check(err)
	check(again.Read(b, 0, data[:4]))
	fmt.Println("again on", again.Info().Host)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func want(err, target error) {
	if !errors.Is(err, target) {
		panic(fmt.Sprintf("error %v, want %v", err, target))
	}
}

// files uses the host's files and the file system in memory over them.
func files() {
	main, err := os.ReadFile("main.go")
	check(err)
	if !bytes.Contains(main, []byte("a string that only this file has")) {
		panic("main.go has other contents")
	}
	above, err := os.ReadDir("../../exec")
	check(err)
	fmt.Println("exec has", above)
	_, err = os.ReadFile("none")
	want(err, fs.ErrNotExist)
	_, err = os.ReadFile("../../../../.git/config") // hidden
	want(err, fs.ErrNotExist)

	dir, err := os.MkdirTemp("", "")
	check(err)
	name := filepath.Join(dir, "file")
	check(os.WriteFile(name, main[:100], 0o600))
	f, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND, 0)
	check(err)
	_, err = f.WriteString("tail")
	check(err)
	part := make([]byte, 8)
	_, err = f.ReadAt(part, 96)
	check(err)
	if string(part) != string(main[96:100])+"tail" {
		panic(fmt.Sprintf("read %q", part))
	}
	check(f.Truncate(3))
	check(f.Truncate(5))
	check(f.Sync())
	check(f.Close())
	check(os.Rename(name, name+"2"))
	_, err = os.Stat(name)
	want(err, fs.ErrNotExist)
	data, err := os.ReadFile(name + "2")
	check(err)
	if string(data) != string(main[:3])+"\x00\x00" {
		panic(fmt.Sprintf("after cutting and growing: %q", data))
	}
	_, err = os.OpenFile(name+"2", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	want(err, fs.ErrExist)
	want(os.WriteFile(filepath.Join(dir, "no", "file"), nil, 0o600), fs.ErrNotExist)
	want(os.Mkdir(dir, 0o700), fs.ErrExist)
	if os.Remove(dir) == nil {
		panic("a folder with a file in it was removed")
	}
	check(os.RemoveAll(dir))
	_, err = os.Stat(dir)
	want(err, fs.ErrNotExist)

	// A file of the host's changes in memory only.
	check(os.WriteFile("main.go", []byte("changed"), 0o600))
	data, err = os.ReadFile("main.go")
	check(err)
	check(os.Chdir(".."))
	again, err := os.ReadFile("program/main.go")
	check(err)
	fmt.Println("main.go is", string(data), strings.EqualFold(string(data), string(again)))
}
