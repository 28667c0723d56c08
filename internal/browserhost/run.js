// SPDX-License-Identifier: Apache-2.0

import {mount} from "./fs.js";

// run runs the program and tells {fd, output} for what it writes and {exit} when it ends.
export async function run(program, tell) {
  for (const level of ["log", "info", "warn", "error"]) {
    console[level] = (...args) => tell({fd: 2, output: `console.${level}: ${args.join(" ")}\n`});
  }
  mount(program, (fd, bytes) => tell({fd, output: bytes}));
  await import("./gpu.js");
  await import("./wasm_exec.js");
  const go = new Go();
  go.argv = program.args;
  go.env = program.env;
  go.exit = code => tell({exit: code});
  const {instance} = await WebAssembly.instantiateStreaming(fetch("/program.wasm"), go.importObject);
  await go.run(instance);
}
