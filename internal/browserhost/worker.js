// SPDX-License-Identifier: Apache-2.0

// The worker: runs the program that the page sends, and sends what that says.

import {run} from "./run.js";

addEventListener("unhandledrejection", event => {
  throw event.reason; // an error that the page sees
});
addEventListener("message", event => run(event.data, message => postMessage(message)));
