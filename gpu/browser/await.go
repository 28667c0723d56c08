// SPDX-License-Identifier: Apache-2.0

//go:build js && wasm

package browser

import (
	"errors"
	"fmt"
	"syscall/js"
)

var errStopped = errors.New("stopped waiting")

// call calls a method and makes an error of what it throws.
func call(v js.Value, method string, args ...any) (result js.Value, err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case js.Error:
			err = errors.New(message(r.Value))
		default:
			panic(r)
		}
	}()
	return v.Call(method, args...), nil
}

// await calls a method that returns a promise and waits for that, or until stop is closed.
func await(stop <-chan struct{}, v js.Value, method string, args ...any) (js.Value, error) {
	promise, err := call(v, method, args...)
	if err != nil {
		return js.Value{}, err
	}
	return settle(stop, promise)
}

// settle waits for a promise, or until stop is closed.
func settle(stop <-chan struct{}, promise js.Value) (js.Value, error) {
	type result struct {
		value js.Value
		err   error
	}
	settled := make(chan result, 1)
	var good, bad js.Func
	finish := func(r result) {
		settled <- r
		good.Release()
		bad.Release()
	}
	good = js.FuncOf(func(_ js.Value, args []js.Value) any {
		finish(result{value: args[0]})
		return nil
	})
	bad = js.FuncOf(func(_ js.Value, args []js.Value) any {
		finish(result{err: errors.New(message(args[0]))})
		return nil
	})
	promise.Call("then", good, bad)
	select {
	case r := <-settled:
		return r.value, r.err
	case <-stop:
		return js.Value{}, errStopped
	}
}

// message is what a thrown value says.
func message(v js.Value) string {
	if v.Type() != js.TypeObject {
		return fmt.Sprint(v)
	}
	return text(v.Get("message"))
}
