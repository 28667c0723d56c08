// SPDX-License-Identifier: Apache-2.0

// The page: starts the program, in a worker or here, and passes what it says on to the host.

import {run} from "./run.js";

// What the program says goes to the host in order: one request after the other, each with all the output that has come meanwhile.
const waiting = [];
let sending = false;

function tell(message) {
  const last = waiting.at(-1);
  if (message.output && last?.fd === message.fd) {
    last.parts.push(message.output);
  } else {
    waiting.push({...message, parts: [message.output]});
  }
  if (!sending) {
    send();
  }
}

async function send() {
  sending = true;
  while (waiting.length > 0) {
    const {fd, parts, exit} = waiting.shift();
    if (fd) {
      await fetch(`/output?fd=${fd}`, {method: "POST", body: new Blob(parts)});
    } else {
      await fetch(`/exit?code=${exit}`, {method: "POST"});
    }
  }
  sending = false;
}

const broken = event => {
  tell({fd: 2, output: `browserhost: ${event.message ?? event.reason}\n`});
  tell({exit: 2});
};
addEventListener("error", broken);
addEventListener("unhandledrejection", broken);

// A worker's timer would stand still with the program; the page's does not.
setInterval(() => fetch("/alive", {method: "POST"}), 2000);

const program = await (await fetch("/program.json")).json();
if (program.page) {
  await run(program, tell);
} else {
  const worker = new Worker("/worker.js", {type: "module"});
  worker.onerror = broken;
  worker.onmessage = event => tell(event.data);
  worker.postMessage(program);
}
