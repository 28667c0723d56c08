// SPDX-License-Identifier: Apache-2.0

// What TestAssets does with the program's own model, whose download is stopped, and broken by the server.

import {Fromage} from "/fromage.js";

const tell = (step, what) => fetch(`/report?step=${encodeURIComponent(step)}`, {method: "POST", body: JSON.stringify(what)});
const load = (on, signal) => Fromage.load({model: "/models/default.bundle", gallery: "/gallery/gallery.index", on, signal});

async function hear(stream) {
  const heard = {text: "", images: [], done: null};
  for await (const item of stream) {
    heard.text += item.text ?? "";
    heard.images.push(...(item.images ?? []));
    heard.done = item.done ?? heard.done;
  }
  return heard;
}

// timed loads the model and has it say something. Times are in ms from the start.
async function timed() {
  const start = performance.now();
  const at = {};
  const f = await load(e => (at[e.stage ?? e.type] = performance.now() - start));
  at.loaded = performance.now() - start;
  const stream = f.generate("a photo of a", {numWords: 32, ignoreEOS: true});
  const first = await stream.next();
  at.firstToken = performance.now() - start;
  const answer = await hear(stream);
  answer.text = first.value.text + answer.text;
  const began = performance.now();
  const hits = await f.retrieve("an emoji of violin", {k: 5});
  at.retrieve = performance.now() - began;
  return {f, what: {at, answer, hits, info: await f.info()}};
}

async function run() {
  const stop = new AbortController();
  let done = 0;
  setTimeout(() => stop.abort(), 600e3); // if what came in is never told: better a failure than a page that waits
  await load(e => {
    done = e.stage === "download" ? e.done : done;
    if (done > 12e6) {
      stop.abort();
    }
  }, stop.signal).then(() => tell("done", "the load was not aborted"), error => tell("aborted", {name: error.name, done: done > 12e6 ? done : 0}));

  let {f, what} = await timed();
  await tell("cold", what);
  f.close();
  ({f, what} = await timed());
  const picture = await (await fetch("/pictures/lossy.webp")).blob();
  const began = performance.now();
  await f.caption(picture);
  what.at.caption = performance.now() - began;
  await tell("warm", what);
  const row = await f.gallery.add(picture);
  const [own] = await f.retrieve([picture], {k: 1});
  await tell("own", {row, own});
  f.close();
}

try {
  await run();
  await tell("done", "");
} catch (error) {
  await tell("done", `${error.name} ${error.code}: ${error.message}\n${error.stack}`);
}
