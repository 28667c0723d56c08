// SPDX-License-Identifier: Apache-2.0

//go:build js && wasm

package main

import (
	"context"
	"errors"
	"fmt"
	"syscall/js"

	"fromage/gpu"
	"fromage/gpu/browser"
)

// codedError is an error with a code of FromageError in site/fromage.js.
type codedError struct {
	code string
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func coded(code string, err error) error { return &codedError{code, err} }

// explain gives an error its code, and its message what to do.
func explain(err error) (code, message string) {
	if errors.Is(err, context.Canceled) {
		return "aborted", "the call was aborted"
	}
	if e := (*codedError)(nil); errors.As(err, &e) {
		return e.code, e.Error()
	}
	for _, c := range []struct {
		is            error
		code, message string
	}{
		{browser.ErrInsecure, "insecure", ""}, {browser.ErrNoWebGPU, "no-webgpu", ""}, {browser.ErrNoAdapter, "no-adapter", ""},
		{gpu.ErrMemory, "memory", "the GPU has not enough free memory: close other tabs and programs that use it, or load a smaller model"},
		{gpu.ErrLost, "lost", "the GPU was taken away and did not come back: reload the page; what was downloaded is kept"},
	} {
		switch {
		case !errors.Is(err, c.is):
		case c.message == "":
			return c.code, c.is.Error()
		default:
			return c.code, fmt.Sprintf("%s (%v)", c.message, err)
		}
	}
	return "model", err.Error()
}

// await waits for a promise, or until ctx is done. What it rejects with keeps its code.
func await(ctx context.Context, promise js.Value) (js.Value, error) {
	type result struct {
		value js.Value
		err   error
	}
	settled := make(chan result, 1)
	var good, bad js.Func
	finish := func(r result) any {
		settled <- r
		good.Release()
		bad.Release()
		return nil
	}
	good = js.FuncOf(func(_ js.Value, args []js.Value) any { return finish(result{value: args[0]}) })
	bad = js.FuncOf(func(_ js.Value, args []js.Value) any { return finish(result{err: hostError(args[0])}) })
	promise.Call("then", good, bad)
	select {
	case r := <-settled:
		return r.value, r.err
	case <-ctx.Done():
		return js.Value{}, ctx.Err()
	}
}

// hostError is what JavaScript threw.
func hostError(v js.Value) error {
	if v.Type() != js.TypeObject {
		return fmt.Errorf("%v", v)
	}
	err := errors.New(v.Get("message").String())
	if code := v.Get("code"); code.Type() == js.TypeString {
		return coded(code.String(), err)
	}
	return err
}

// bytesOf copies a Uint8Array of at most limit bytes.
func bytesOf(v js.Value, limit int) ([]byte, error) {
	if !v.InstanceOf(js.Global().Get("Uint8Array")) {
		return nil, coded("input", fmt.Errorf("want a Uint8Array, have %v", v.Type()))
	}
	if n := v.Length(); n > limit {
		return nil, fmt.Errorf("want at most %d bytes, have %d", limit, n)
	}
	data := make([]byte, v.Length())
	js.CopyBytesToGo(data, v)
	return data, nil
}

// arrayOf copies bytes to a new Uint8Array.
func arrayOf(data []byte) js.Value {
	v := js.Global().Get("Uint8Array").New(len(data))
	js.CopyBytesToJS(v, data)
	return v
}

// text is a JavaScript string, "" for anything else.
func text(v js.Value) string {
	if v.Type() != js.TypeString {
		return ""
	}
	return v.String()
}

// number is a JavaScript number, −1 for anything else.
func number(v js.Value) int {
	if v.Type() != js.TypeNumber {
		return -1
	}
	return v.Int()
}
