// SPDX-License-Identifier: Apache-2.0

// The worker of fromage.js: runs fromage.wasm and passes calls to it and answers back.
//
// In come {id, call, args} and {cancel: id}; out go {id, result}, {id, error: {code, message}}, {id, item} for each piece of a stream,
// and {event} for what nobody asked for.

import {Store, failure, files} from "./store.js";

const beside = name => new URL(name, import.meta.url).href;

// start resolves to the program's functions: {call, cancel}.
async function start() {
  const compiled = WebAssembly.compileStreaming(fetch(beside("./fromage.wasm"))).catch(error => {
    throw failure("network", `The program fromage.wasm could not be loaded: ${error.message}. Check the connection and reload the page.`);
  });
  const [module] = await Promise.all([compiled, import(beside("./gpu.js")), import(beside("./wasm_exec.js"))]);
  const go = new Go();
  const instance = await WebAssembly.instantiate(module, go.importObject);
  return new Promise((resolve, reject) => {
    globalThis.fromageHost = {
      ready: resolve,
      openStore: (url, tell) => Store.open(url, event => tell(JSON.stringify(event))),
      files,
      tell: event => postMessage({event: JSON.parse(event)}),
    };
    go.run(instance).then(stopped, stopped);
    function stopped(error) {
      reject(error);
      const message = `The program stopped${error ? `: ${error.message}` : ""}. Reload the page; what was downloaded is kept.`;
      for (const id of running) {
        postMessage({id, error: {code: "lost", message}});
      }
      running.clear();
      dead = message;
    }
  });
}

const running = new Set();
let dead = "";
let program = null;

addEventListener("message", async ({data}) => {
  if (data.cancel) {
    (await program)?.cancel(data.cancel);
    return;
  }
  const {id, call, args} = data;
  if (dead) {
    postMessage({id, error: {code: "lost", message: dead}});
    return;
  }
  running.add(id);
  const answer = message => running.delete(id) && postMessage({id, ...message});
  try {
    program ??= start();
    const {call: run} = await program;
    run(
      id, call, args,
      item => postMessage({id, item: JSON.parse(item)}),
      result => answer({result}),
      (code, message) => answer({error: {code, message}}),
    );
  } catch (error) {
    program = null;
    answer({error: {code: error.code ?? "model", message: error.message}});
  }
});
