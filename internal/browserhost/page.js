// SPDX-License-Identifier: Apache-2.0

// The page: starts the program, in a worker or here, and passes what it says on to the host.

import {run} from "./run.js";

const program = await (await fetch("/program.json")).json();

// Messages go to the host one after the other, so that they stay in order.
let sent = Promise.resolve();
const send = (url, body) => {
  sent = sent.then(() => fetch(url, {method: "POST", body}));
};

function tell(message) {
  if (message.output) {
    send(`/output?fd=${message.fd}`, message.output);
  } else {
    send(`/exit?code=${message.exit}`);
  }
}

const broken = event => {
  tell({fd: 2, output: `browserhost: ${event.message ?? event.reason}\n`});
  tell({exit: 2});
};

// A worker's timer would stand still with the program; the page's does not.
setInterval(() => send("/alive"), 2000);

if (program.page) {
  addEventListener("error", broken);
  addEventListener("unhandledrejection", broken);
  await run(program, tell);
} else {
  const worker = new Worker("/worker.js", {type: "module"});
  worker.onerror = broken;
  worker.onmessage = event => tell(event.data);
  worker.postMessage(program);
}
