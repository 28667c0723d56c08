// SPDX-License-Identifier: Apache-2.0

//go:build js && wasm

// Command browser is fromage.wasm: the runtime in a browser's worker, called by site/worker.js.
//
// In come calls by name with JavaScript objects; out go results, streamed pieces and errors that have a code for programs and a message for people.
// Weights pass from the network or the browser's own files to the GPU in JavaScript's memory, never whole through Go's, which only grows. It refuses to
// know the page: markup, and what is shown, are the page's.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"syscall/js"
)

// call is one call from the page, in its own goroutine.
type call struct {
	args js.Value
	item js.Value // function: hears of a piece of the answer, as JSON
}

// emit sends a piece of the answer.
func (c *call) emit(piece any) { c.item.Invoke(encode(piece)) }

// functions are what can be called. A result is a js.Value, or what becomes JSON; nil for none.
var functions = map[string]func(*session, context.Context, *call) (any, error){
	"load": (*session).load, "rest": (*session).rest, "info": (*session).info, "lose": (*session).lose,
	"converse": (*session).converse, "say": (*session).say, "retry": (*session).retry, "undo": (*session).undo, "reset": (*session).reset,
	"generate": (*session).generate, "retrieve": (*session).retrieve, "caption": (*session).caption, "score": (*session).score, "embed": (*session).embed,
	"similar": (*session).similar, "add": (*session).add, "remove": (*session).remove, "row": (*session).row, "picture": (*session).picture,
	"elsewhere": (*session).elsewhere, "file": (*session).file, "bench": (*session).bench, "tune": (*session).tune,
}

// early are those that do without the language model. The others wait until it is there.
var early = map[string]bool{
	"load": true, "rest": true, "info": true, "lose": true, "converse": true, "undo": true, "reset": true, "embed": true, "similar": true,
	"add": true, "remove": true, "row": true, "picture": true, "elsewhere": true, "file": true,
}

func main() {
	host := js.Global().Get("fromageHost")
	s := newSession(host)
	running := map[int]context.CancelFunc{} // touched by callbacks and by run, all on one thread, without a wait in between
	program := js.Global().Get("Object").New()
	program.Set("call", js.FuncOf(func(_ js.Value, args []js.Value) any {
		id, name := args[0].Int(), args[1].String()
		c, resolve, reject := &call{args[2], args[3]}, args[4], args[5]
		ctx, cancel := context.WithCancel(context.Background())
		running[id] = cancel
		go func() {
			defer cancel()
			result, err := s.run(ctx, name, c)
			delete(running, id)
			if err != nil {
				code, message := explain(err)
				reject.Invoke(code, message)
				return
			}
			resolve.Invoke(result)
		}()
		return nil
	}))
	program.Set("cancel", js.FuncOf(func(_ js.Value, args []js.Value) any {
		if cancel, ok := running[args[0].Int()]; ok {
			cancel()
		}
		return nil
	}))
	host.Call("ready", program)
	select {}
}

func (s *session) run(ctx context.Context, name string, c *call) (any, error) {
	f, ok := functions[name]
	switch {
	case !ok:
		return nil, coded("input", fmt.Errorf("there is no function %s", name))
	case s.r == nil && name != "load":
		return nil, coded("input", fmt.Errorf("%s before a model was loaded", name))
	}
	if !early[name] {
		if err := s.whole(ctx); err != nil {
			return nil, err
		}
	}
	result, err := s.steady(name, func() (any, error) { return f(s, ctx, c) })
	switch result.(type) {
	case nil, js.Value:
		return result, err
	}
	return encode(result), err
}

// encode is v as JSON.
func encode(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // only a mistake in this package makes it fail
	}
	return string(data)
}
